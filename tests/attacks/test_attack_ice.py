"""Attacks on ICE: I1, C1, V1, A1. See docs/security.md."""

from __future__ import annotations

import asyncio
import binascii
import random
import time
from collections import Counter

import pytest
from support.virtual_nat import IcePeer, meet_sessions

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket, NoPathError, P2PError, RefusedError
from p2pnode.nat import IceCandidate, IceEndpoint, IceParameters
from p2pnode.nat.budget import AddressBudget, Pace
from p2pnode.nat.candidates import may_check
from p2pnode.nat.stun import binding_request
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

REQUEST, USERNAME = b"\0\1", b"\0\6"
VICTIM = Address("203.0.113.200", 53)
REMOTE = IceParameters("abcd", "p" * 22, ())


def parameters(*addresses: Address) -> IceParameters:
    return IceParameters("abcd", "p" * 22, tuple(IceCandidate(each, "srflx") for each in addresses))


def captured_check(peer: IcePeer, to: Address) -> bytes:
    """The first check that a peer sent to an address."""
    return next(data for _, data, where in peer.sent if where == to and (data[:2], data[20:22]) == (REQUEST, USERNAME))


def with_fingerprint(data: bytes) -> bytes:
    """Make the last attribute right again."""
    return data[:-4] + (binascii.crc32(data[:-8]) ^ 0x5354554E).to_bytes(4, "big")


def test_c1_a_victim_draws_at_most_ten_packets_whatever_the_offers_say() -> None:
    """C1: 30 offers name the same silent address, ICE and QUIC go there: 10 packets in the 12 s of an attempt."""

    async def main(world: VirtualWorld) -> None:
        peer = await IcePeer.open(world.host("198.51.100.7"))
        tasks = []
        for _ in range(30):
            session = peer.ice.session(controlling=False, candidates=await peer.candidates())
            tasks.append(asyncio.ensure_future(session.connect(parameters(VICTIM))))
            dial = peer.quic.connect(peer.quic.key.peer_id, VICTIM, timeout=12, early=True, spend=session.spend)
            tasks.append(asyncio.ensure_future(dial))
            await asyncio.sleep(0.01)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, P2PError) for each in results)
        first = peer.sent[0][0]
        sent = [(at - first, len(data)) for at, data, to in peer.sent if to == VICTIM]
        print(f"C1: {len(sent)} packets, {sum(size for _, size in sent)} bytes to the victim")
        assert len([at for at, _ in sent if at < 12]) <= 10
        assert len(sent) <= 20  # the last attempts reach into the next window
        assert peer.ice.statistics().sessions == 0

    run_virtual(main)


def test_c1_one_session_sends_six_checks_to_each_of_ten_silent_addresses() -> None:
    """C1: and no more than 10 candidates are ever taken."""

    async def main(world: VirtualWorld) -> None:
        peer = await IcePeer.open(world.host("198.51.100.7"))
        session = peer.ice.session(controlling=False, candidates=[])
        victims = [VICTIM._replace(port=1000 + number) for number in range(10)]
        with pytest.raises(NoPathError):
            await session.connect(parameters(*victims))
        counts = Counter(to for _, _, to in peer.sent)
        assert set(counts) == set(victims)
        assert max(counts.values()) <= 6
        assert max(len(data) for _, data, _ in peer.sent) <= 120

    run_virtual(main)
    with pytest.raises(ValueError, match="cannot be sent"):
        parameters(*(VICTIM._replace(port=port) for port in range(1, 12))).encode()


def test_c1_candidates_of_impossible_scopes_get_nothing() -> None:
    """C1: multicast, broadcast, reserved, unspecified, loopback and link-local IPv6 addresses are left out."""
    texts = ("224.0.0.251", "255.255.255.255", "0.0.0.0", "127.0.0.1", "240.0.0.1", "ff02::fb", "::1", "fe80::1")

    async def main(world: VirtualWorld) -> None:
        peer = await IcePeer.open(world.host("198.51.100.7"))
        session = peer.ice.session(controlling=True, candidates=await peer.candidates())
        with pytest.raises(NoPathError):
            await session.connect(parameters(*(Address(text, 5353) for text in texts)), timeout=2)
        assert peer.sent == []

    run_virtual(main)
    assert may_check(Address("127.0.0.1", 9), own_loopback=True, allow_documentation=False)
    assert not may_check(Address("203.0.113.1", 9), own_loopback=True, allow_documentation=False)
    assert not may_check(Address("198.51.100.1", 0), own_loopback=True, allow_documentation=True)


def test_c1_checks_from_forged_addresses_teach_at_most_five() -> None:
    """C1/A1: a hostile peer forges 1,000 sources for a valid check: 5 learnt, 8 checks each, answers not larger."""

    async def main(world: VirtualWorld) -> None:
        alice, mallory = [await IcePeer.open(world.host(f"198.51.100.{number}")) for number in (7, 8)]
        one = alice.ice.session(controlling=True, candidates=await alice.candidates())
        two = mallory.ice.session(controlling=False, candidates=[])
        attempt = asyncio.ensure_future(two.connect(one.local, timeout=1))
        await asyncio.sleep(0.1)
        check = captured_check(mallory, alice.host)
        attempt.cancel()
        mallory.close()
        attempt = asyncio.ensure_future(one.connect(two.local, timeout=12))
        before = len(alice.sent)
        forged = [Address(f"203.0.{number // 250 + 1}.{number % 250 + 1}", 4000) for number in range(1000)]
        for source in forged:
            assert alice.ice.datagram_received(check, source)
            await asyncio.sleep(0.002)
        with pytest.raises(NoPathError):
            await attempt
        answers = [data for _, data, _ in alice.sent[before:] if data[:2] == b"\x01\x01"]
        checks = Counter(to for _, data, to in alice.sent[before:] if data[:2] == b"\x00\x01" and to in forged)
        print(
            f"C1: {len(answers)} answers, checks to {len(checks)} forged addresses, at most {max(checks.values())} each"
        )
        assert len(answers) <= 50 + 50 * 2 + 1  # the pace for unknown sources
        assert all(len(data) <= len(check) for data in answers)
        assert len(checks) <= 5
        assert max(checks.values()) <= 8

    run_virtual(main)


def test_c1_all_sessions_together_keep_the_pace() -> None:
    """C1: 64 sessions with 10 candidates each begin at once: 100 checks, then 200 a second; a 65th is refused."""

    async def main(world: VirtualWorld) -> None:
        peer = await IcePeer.open(world.host("198.51.100.7"))
        sessions = [peer.ice.session(controlling=False, candidates=[]) for _ in range(64)]
        with pytest.raises(RefusedError):
            peer.ice.session(controlling=False, candidates=[])
        tasks = [
            asyncio.ensure_future(
                each.connect(parameters(*(Address(f"203.0.113.{n + 1}", 100 + port) for port in range(10))), timeout=8)
            )
            for n, each in enumerate(sessions)
        ]
        await asyncio.sleep(1)
        assert len(peer.sent) <= 100 + 200
        await asyncio.sleep(1)
        assert len(peer.sent) <= 100 + 400
        peer.ice.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    run_virtual(main)


def test_c1_budget_forgets_nothing_that_matters_and_stays_small() -> None:
    """C1: 10 per window; an answer lifts the limit for a minute; 10^4 addresses keep 2,048 entries."""
    budget = AddressBudget()
    assert [budget.spend(VICTIM, 1.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not budget.spend(VICTIM, 12.9)
    assert budget.spend(VICTIM, 13.1)
    budget.answered(VICTIM, 14.0)
    assert all(budget.spend(VICTIM, 15.0) for _ in range(100))
    assert budget.is_answered(VICTIM, 73.0)
    assert not budget.is_answered(VICTIM, 75.0)
    for number in range(10_000):
        budget.spend(Address(f"10.0.{number // 250}.{number % 250}", 1), 80.0)
    assert len(budget) == 2048
    pace = Pace(10, 2)
    assert [pace.allow(0.0) for _ in range(3)] == [True, True, False]
    assert pace.allow(0.1)


@pytest.mark.slow
def test_i1_strangers_checks_are_dropped_before_work_and_sessions_go_on() -> None:
    """I1: 10^5 checks in a second (unknown names, wrong integrity, plain garbage) while two peers meet: they do."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = [await IcePeer.open(world.host(f"198.51.100.{number}")) for number in (7, 8)]
        one = alice.ice.session(controlling=True, candidates=await alice.candidates())
        two = bob.ice.session(controlling=False, candidates=await bob.candidates())
        probe = bob.ice.session(controlling=False, candidates=[])
        probing = asyncio.ensure_future(probe.connect(one.local, timeout=1))
        await asyncio.sleep(0.1)
        valid = captured_check(bob, alice.host)
        probing.cancel()
        rng = random.Random(1)
        flood = {
            "unknown name": valid[:24] + b"12345678" + valid[32:],
            "wrong integrity": with_fingerprint(valid[:-28] + bytes(20) + valid[-8:]),
            "wrong fingerprint": valid[:-4] + bytes(4),
            "cut": valid[:40],
            "garbage": valid[:20] + b"\0\6\0\x0d" + rng.randbytes(200),
        }
        source = Address("203.0.113.66", 6666)
        spent: Counter[str] = Counter()

        async def send_flood() -> None:
            for _ in range(1000):
                for name, data in flood.items():
                    began = time.process_time()
                    for _ in range(20):
                        alice.ice.datagram_received(data, source)
                    spent[name] += time.process_time() - began
                await asyncio.sleep(0.001)

        flooding = asyncio.ensure_future(send_flood())
        meeting = await meet_sessions(one, two)
        assert meeting.errors == []
        assert meeting.seconds < 0.2
        await flooding
        assert not one.closed
        dropped = alice.ice.statistics().dropped
        shares = ", ".join(f"{name} {seconds / 20_000 * 1e6:.1f} us" for name, seconds in spent.items())
        print(f"I1: CPU share {sum(spent.values()):.2f} of one core at 10^5 checks/s; each: {shares}; {dict(dropped)}")
        assert dropped["bad_integrity"] >= 10
        assert dropped["unknown_username"] + dropped["too_many_checks"] >= 99_000
        assert alice.ice.statistics().answers_sent <= 20

    run_virtual(main)


def test_i1_answers_from_others_are_ignored() -> None:
    """I1: an answer with the right transaction id from another address, or without integrity, changes nothing."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = [await IcePeer.open(world.host(f"198.51.100.{number}")) for number in (7, 8)]
        one = alice.ice.session(controlling=True, candidates=await alice.candidates())
        two = bob.ice.session(controlling=False, candidates=await bob.candidates())
        bob.mux.on("stun", lambda _data, _source: None)
        attempt = asyncio.ensure_future(one.connect(two.local, timeout=3))
        await asyncio.sleep(0.05)
        check = captured_check(alice, bob.host)
        for _ in range(3):
            bob.ice.datagram_received(check, alice.host)
        answer = next(data for _, data, _ in bob.sent if data[:2] == b"\x01\x01")
        from p2pnode.nat.stun import binding_response

        for data, source in (
            (answer, Address("203.0.113.66", 6)),
            (binding_response(check[8:20], alice.host), bob.host),
            (b"\x01\x11" + answer[2:], bob.host),
            (answer[:-4] + bytes(4), bob.host),
            (answer[:30], bob.host),
        ):
            alice.ice.datagram_received(data, source)
            await asyncio.sleep(0)
            assert one.report()[0].state != "answered"
        alice.ice.datagram_received(answer, bob.host)
        assert await attempt == bob.host
        assert set(alice.ice.statistics().dropped) == {
            "other_address", "bad_integrity", "bad_fingerprint", "malformed"
        }  # fmt: skip

    run_virtual(main)


def test_r1_replayed_check_from_elsewhere_wins_nothing() -> None:
    """R1: who copies a check and sends it from 100 addresses of his becomes a candidate at most, never the path."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = [await IcePeer.open(world.host(f"198.51.100.{number}")) for number in (7, 8)]
        one = alice.ice.session(controlling=True, candidates=await alice.candidates())
        two = bob.ice.session(controlling=False, candidates=await bob.candidates())
        attempt = asyncio.ensure_future(two.connect(one.local))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        check = captured_check(bob, alice.host)
        for number in range(100):
            alice.ice.datagram_received(check, Address(f"203.0.113.{number + 1}", 6))
        assert await one.connect(two.local) == bob.host
        assert await attempt == alice.host

    run_virtual(main)


def test_v1_changed_checks_never_raise_and_change_nothing() -> None:
    """V1: each byte of a check and of an answer replaced, each prefix, random bytes: dropped and counted."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = [await IcePeer.open(world.host(f"198.51.100.{number}")) for number in (7, 8)]
        one = alice.ice.session(controlling=True, candidates=await alice.candidates())
        two = bob.ice.session(controlling=False, candidates=await bob.candidates())
        meeting = await meet_sessions(one, two)
        assert meeting.errors == []
        check, rng = captured_check(bob, alice.host), random.Random(4)
        answer = next(data for _, data, _ in bob.sent if data[:2] == b"\x01\x01")
        received, sent = alice.ice.statistics().checks_received, bob.ice.statistics().checks_sent
        for valid in (check, answer):
            inputs = [valid[:length] for length in range(len(valid))]
            inputs += [
                valid[:at] + bytes([valid[at] ^ change]) + valid[at + 1 :]
                for at in range(len(valid))
                for change in (1, 255)
            ]
            inputs += [valid[:20] + rng.randbytes(rng.randrange(100)) for _ in range(200)]
            for number, data in enumerate(inputs):
                alice.ice.datagram_received(data, bob.host)
                if number % 20 == 0:
                    await asyncio.sleep(0.2)
        assert alice.ice.statistics().checks_received - received <= bob.ice.statistics().checks_sent - sent
        await asyncio.sleep(10)
        assert not one.closed
        assert not two.closed

    run_virtual(main)


def test_v1_parameters_are_parameters_or_bad_packet() -> None:
    """V1: each prefix, each byte replaced, grown, nested, and random bytes: parameters or BadPacket, nothing else."""
    addresses = (Address("198.51.100.7", 4747), Address("2001:db8::1", 9), Address("10.0.0.1", 65535))
    valid = parameters(*addresses).encode()
    assert IceParameters.decode_untrusted(valid) == parameters(*addresses)
    rng = random.Random(7)
    inputs = [valid[:length] for length in range(len(valid))]
    inputs += [valid + rng.randbytes(n) for n in (1, 4, 400)]
    inputs += [
        valid[:at] + bytes([value]) + valid[at + 1 :]
        for at in range(len(valid))
        for value in (0, 0xFF, valid[at] ^ 1, valid[at] ^ 0x80)
    ]
    inputs += [rng.randbytes(rng.randrange(200)) for _ in range(300)] + [b"\x91" * 300]
    refused = 0
    for data in inputs:
        try:
            IceParameters.decode_untrusted(data)
        except BadPacket:
            refused += 1
    print(f"ICE parameters: {len(inputs)} inputs, {refused} refused")
    for bad in (
        IceParameters("abc", "p" * 22, ()),
        IceParameters("ab d", "p" * 22, ()),
        IceParameters("abcd\n", "p" * 22, ()),
        IceParameters("abcd", "p" * 21, ()),
        parameters(VICTIM, VICTIM),
        parameters(VICTIM._replace(port=0)),
    ):
        with pytest.raises(ValueError, match="cannot be sent"):
            bad.encode()


def test_i1_plain_stun_is_left_to_others() -> None:
    """I1: binding requests without a username and answers to nobody's transaction are not ICE's."""

    async def main(world: VirtualWorld) -> None:
        sent: list[bytes] = []
        network = world.host("198.51.100.7")
        endpoint = IceEndpoint(network=network, send=lambda data, _to: sent.append(data))
        request = binding_request(bytes(12))
        assert not endpoint.datagram_received(request, VICTIM)
        assert not endpoint.datagram_received(b"\x01\x01" + request[2:], VICTIM)
        assert not endpoint.datagram_received(b"\x00\x11" + request[2:], VICTIM)
        assert not endpoint.datagram_received(b"", VICTIM)
        assert sent == []

    run_virtual(main)
