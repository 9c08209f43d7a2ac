"""Attacks through probes (security.md C1, A1): frames that somebody else gets, sockets that others open."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.dht_attacks import ELSEWHERE, captured, signed
from support.dht_pair import Peer, World

from p2pnode.core.address import Address
from p2pnode.dht import DhtSettings
from p2pnode.dht.messages import Answer, Error, ErrorCode, Probe, Probed, Request, encode
from p2pnode.dht.probes import MAX_FRESH

CLIENT = DhtSettings(serve=frozenset())


def probe(number: int = 0, *, fresh: bool = False, port: int = 5000) -> Probe:
    return Probe(port, fresh, number.to_bytes(16, "big"))


def answer_of(world: World, asker: Peer, answerer: Peer, request: Request) -> Answer | None:
    outcomes = asker.ask(answerer, request)
    world.run()
    return outcomes[0].answer if outcomes else None


def shell(peer: Peer) -> list[tuple[bytes, Address]]:
    """Let fresh ports open at once, and never close."""
    frames: list[tuple[bytes, Address]] = []

    def open_fresh(frame: bytes, to: Address, opened: Callable[[int], None]) -> None:
        peer.engine.probes.fresh += 1
        frames.append((frame, to))
        opened(61_000)

    peer.engine.probes.open_fresh = open_fresh
    return frames


def test_c1_a_probe_goes_to_the_askers_own_address_only() -> None:
    """17 bytes for a request of 80, to another port of the IP that it came from, never below 1024."""
    world = World()
    helper, asker = world.peer("5.0.0.1"), world.peer("5.9.0.1", CLIENT)
    frames = shell(helper)
    world.introduce(asker, helper)
    asked = captured(world, asker, helper, probe())
    helper.receive(asked, asker.address)
    sent = [(data, to) for data, _, to in world.wire]
    assert sent[0] == (b"\x0a" + bytes(16), Address("5.9.0.1", 5000))
    assert {to.ip for _, to in sent} == {"5.9.0.1"}
    total = sum(len(data) for data, _ in sent)
    print(f"C1: a probe of {len(asked)} bytes gives {total}, {len(sent[0][0])} of them to the other port")
    assert total <= len(asked) + 17
    world.run()
    assert answer_of(world, asker, helper, probe(1, fresh=True)) == Probed(asker.address.pack(), 61_000)
    assert frames == [(b"\x0a" + bytes(15) + b"\x01", Address("5.9.0.1", 5000))]
    for port in (0, 53, 1023, 65_536):
        before = helper.drops.get("malformed", 0)
        assert answer_of(world, asker, helper, probe(port=port)) is None
        assert helper.drops["malformed"] > before


def test_c1_probes_are_limited_per_prefix_and_in_all() -> None:
    """2,000 wishes of one /24 in ten seconds: 45 frames; of a hundred blocks: 64 fresh ports at once."""
    world = World()
    helper = world.peer("5.0.0.1")
    frames = shell(helper)
    asker = world.peer("5.9.0.1", CLIENT)
    world.introduce(asker, helper)
    for i in range(2_000):
        world.now += 0.005
        asker.ask(helper, probe(i))
        world.run()
    done = helper.engine.counters.datagrams_out[0x0A]
    print(f"C1: {done} frames for one /24 in 10 s")
    assert 40 <= done <= 46
    assert not frames
    opened = refused = 0
    for block in range(100):
        other = world.peer(f"5.{10 + block}.0.1", CLIENT)
        world.introduce(other, helper)
        world.wire.clear()
        answer = answer_of(world, other, helper, probe(block, fresh=True))
        opened += isinstance(answer, Probed)
        refused += isinstance(answer, Error) and answer.code == ErrorCode.BUSY
        world.now += 0.2
    print(f"C1: {opened} of 100 blocks got a fresh port, {refused} were refused")
    assert (opened, refused) == (MAX_FRESH, 100 - MAX_FRESH)


@pytest.mark.parametrize("fresh", [False, True])
def test_a1_a_probe_needs_keys_and_a_proven_address(fresh: bool) -> None:
    """In a signed frame it is dropped; sealed from an unproven address it sends nothing but a refusal, not longer."""
    world = World()
    helper, attacker = world.peer("5.0.0.1"), world.peer("5.66.0.1", CLIENT)
    frames = shell(helper)
    helper.receive(signed(attacker, helper.key.node_id, encode(probe(fresh=fresh))), ELSEWHERE)
    assert helper.drops == {"sealed_only": 1}
    world.introduce(attacker, helper)
    frame = captured(world, attacker, helper, probe(fresh=fresh))
    helper.receive(frame, ELSEWHERE)
    out = [(len(data), to) for data, _, to in world.wire]
    print(f"A1: a probe from a forged source: in {len(frame)}, out {out[0][0]}")
    assert [to for _, to in out] == [ELSEWHERE]
    assert out[0][0] <= len(frame)
    assert not frames


def test_c1_who_serves_nobody_probes_nobody() -> None:
    """A client, and a node without a shell, refuse."""
    world = World()
    client, asker = world.peer("5.0.0.1", CLIENT), world.peer("5.9.0.1", CLIENT)
    shell(client)
    world.introduce(asker, client)
    answer = answer_of(world, asker, client, probe())
    assert isinstance(answer, Error)
    assert answer.code == ErrorCode.NOT_SERVING
