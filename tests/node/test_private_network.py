"""Separate networks, by id and by secret. Members find each other; nobody else joins, reads, injects or gains anything
by replaying; a wrong id or secret is one clear error. Whole nodes in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.virtual_nodes import make_node, network_of

from p2pnode import Address, Node, P2PError, P2PTimeoutError, WrongNetworkError
from p2pnode.core.network_id import network_tag, private_network_key
from p2pnode.core.sealed_network import OPEN_KIND, SEAL_OVERHEAD, SealedNetwork
from p2pnode.other_network import ANSWER_BYTES, ANSWERS_AT_ONCE, QUESTION_BYTES
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual

RIGHT, WRONG = "correct horse battery", "correct horse batterz"
Datagram = tuple[bytes, Address, Address]


def listen_on_the_wire(world: VirtualWorld) -> list[Datagram]:
    """Return a list that fills with all datagrams between hosts, as an observer of the whole network sees them."""
    seen: list[Datagram] = []

    def loss(source: Address, to: Address, data: bytes) -> float:
        seen.append((data, source, to))
        return 0.0

    world.loss = loss
    return seen


async def started(network: VirtualNetwork, number: int, **settings: Any) -> Node:
    node = make_node(network, number, **settings)
    await network.run(node.start())
    return node


async def stopped(*nodes: Node) -> None:
    for node in nodes:
        await network_of(node).run(node.stop())


def test_members_of_a_private_network_find_and_reach_each_other() -> None:
    """With the right secret all works as in a public network: join, find, connect, a byte each way."""

    async def main(world: VirtualWorld) -> None:
        boot = await started(world.host("10.0.0.1"), 1, network_secret=RIGHT)
        alice = await started(world.host("10.0.0.2"), 2, network_secret=RIGHT, through=[boot])
        bob = await started(world.host("10.0.0.3"), 3, network_secret=RIGHT, through=[boot])
        assert (await alice.find(bob.peer_id)).online
        session = await alice.connect(bob.peer_id)
        assert await session.ping() > 0
        assert (await alice.hello("10.0.0.1", 4747)).peer_id == boot.peer_id
        assert [node.membership.foreign for node in (boot, alice, bob)] == [0, 0, 0]
        await stopped(alice, bob, boot)

    run_virtual(main)


def test_an_observer_reads_neither_keys_nor_ids_nor_the_tag() -> None:
    """Everything between members is sealed: first byte 0x0F, at most 1,229 bytes, and no key, name or tag in it."""

    async def main(world: VirtualWorld) -> None:
        seen = listen_on_the_wire(world)
        boot = await started(world.host("10.0.0.1"), 1, network_secret=RIGHT)
        alice = await started(world.host("10.0.0.2"), 2, network_secret=RIGHT, through=[boot])
        await (await alice.connect(boot.peer_id)).ping()
        await stopped(alice, boot)
        secrets = [boot.tag, alice.tag.hex().encode(), b"node1", b"node2", b"p2pnode"]
        for node in (boot, alice):
            secrets += [node.peer_id.raw, node.peer_id.node_id, str(node.peer_id).encode()]
        for data, _, _ in seen:
            assert data[0] == 0x0F
            assert len(data) <= 1_200 + SEAL_OVERHEAD
            assert not any(bytes(secret) in data for secret in secrets)
        longest = max(len(data) for data, _, _ in seen)
        print(f"{len(seen)} datagrams seen, the longest {longest} bytes, none says who speaks")

    run_virtual(main)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"network_secret": RIGHT}, {"network_secret": WRONG}),
        ({"network_secret": RIGHT}, {}),
        ({}, {"network_secret": RIGHT}),
        ({"network_secret": RIGHT}, {"network_secret": RIGHT, "network_id": "other"}),
        ({"network_id": "one"}, {"network_id": "two"}),
    ],
)
def test_another_network_is_one_clear_error_at_the_same_address(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """`join --bootstrap`, `ping HOST PORT` and `connect ID@HOST:PORT`: wrong_network, within two seconds; nobody of
    either network enters the other's tables."""

    async def main(world: VirtualWorld) -> None:
        boot = await started(world.host("10.0.0.1"), 1, **theirs)
        with pytest.raises(WrongNetworkError, match=r"10\.0\.0\.1:4747 belongs to another network"):
            await started(world.host("10.0.0.2"), 2, through=[boot], **ours)
        alone = await started(world.host("10.0.0.3"), 3, **ours)
        for attempt in (
            lambda: alone.hello("10.0.0.1", 4747),
            lambda: alone.join_through("10.0.0.1", 4747),
            lambda: alone.connect(boot.peer_id, addresses=boot.addresses()),
        ):
            before = world.loop.time()
            with pytest.raises(WrongNetworkError) as caught:
                await attempt()
            assert caught.value.code == "wrong_network"
            assert world.loop.time() - before < 2.0
        for node in (alone, boot):
            assert node.dht.realms() == frozenset()
            assert node.sessions() == []
        await stopped(alone, boot)

    run_virtual(main)


def test_two_networks_on_one_lan_and_through_one_address_never_mix() -> None:
    """Three nodes each of two secrets and a public network, LAN discovery on, all told the same bootstrap address that
    belongs to one of them: after ten minutes each knows its own network's nodes, and no other."""

    async def main(world: VirtualWorld) -> None:
        door = await started(world.host("10.0.0.1"), 0, network_secret=RIGHT, lan=True)
        groups: dict[str, list[Node]] = {RIGHT: [door], WRONG: [], "": []}
        for number in range(1, 9):
            secret = list(groups)[number % 3]
            node = await started(world.host(f"10.0.0.{number + 1}"), number, network_secret=secret, lan=True)
            groups[secret].append(node)
        for node in (*groups[WRONG], *groups[""]):
            with pytest.raises(P2PError):
                await node.join_through("10.0.0.1", 4747)
        await asyncio.sleep(600)
        for members in groups.values():
            ids = {node.peer_id for node in members}
            for node in members:
                known = {contact.peer_id for contact in node.dht.known_contacts()}
                assert known == ids - {node.peer_id}
                assert set(node.lan_peers()) == ids - {node.peer_id}
        stranger, member = groups[WRONG][0], groups[RIGHT][1]
        with pytest.raises(P2PError):
            await stranger.find(member.peer_id, timeout=5)
        await stopped(*(node for members in groups.values() for node in members))

    run_virtual(main)


def test_replaying_a_captured_join_gains_nothing() -> None:
    """Every datagram of a member's join and connect, sent again from another address to each node, its sender too, at
    once and half an hour later: the replayer enters no table, opens no session, and can read no answer."""

    async def main(world: VirtualWorld) -> None:
        seen = listen_on_the_wire(world)
        boot = await started(world.host("10.0.0.1"), 1, network_secret=RIGHT)
        alice = await started(world.host("10.0.0.2"), 2, network_secret=RIGHT, through=[boot])
        session = await alice.connect(boot.peer_id)
        await session.ping()
        captured = list(seen)
        got: list[bytes] = []
        thief = world.host("10.0.0.66")
        socket = await thief.open_udp(Address("10.0.0.66", 4747), lambda data, _source: got.append(data))
        for pause in (0.0, 1800.0):
            await asyncio.sleep(pause)
            for node in (boot, alice):
                for data, _, _ in captured:
                    socket.send(data, node.addresses()[0])
            await asyncio.sleep(30)
        for node, other in ((boot, alice), (alice, boot)):
            assert {c.peer_id for c in node.dht.known_contacts()} == {other.peer_id}
            assert all(c.address.ip != "10.0.0.66" for c in node.dht.known_contacts())
            assert all(s.remote.ip != "10.0.0.66" for s in node.sessions())
        assert all(data[0] == 0x0F and boot.peer_id.raw not in data for data in got)
        sent, back = 4 * sum(len(d) for d, _, _ in captured), sum(len(d) for d in got)
        print(f"{4 * len(captured)} datagrams replayed, {sent} bytes; {len(got)} unreadable answers, {back} bytes")
        assert back <= sent
        await stopped(alice, boot)

    run_virtual(main)


def test_knowing_the_tag_and_the_id_is_not_enough() -> None:
    """A stranger with the members' very tag, but without the key, gets no answer whatever he says in the clear."""

    async def main(world: VirtualWorld) -> None:
        boot = await started(world.host("10.0.0.1"), 1, network_secret=RIGHT)
        thief = make_node(world.host("10.0.0.66"), 66)
        thief.tag = thief.dht.network_tag = thief.dht._engine.tag = boot.tag
        await thief.start()
        seen = listen_on_the_wire(world)
        with pytest.raises(P2PTimeoutError):
            await thief.dht.hello(boot.addresses()[0])
        assert seen
        assert all(source.ip == "10.0.0.66" for _, source, _ in seen)
        assert boot.membership.foreign >= len(seen)
        await stopped(boot)
        await thief.stop()

    run_virtual(main)


def test_private_nodes_on_the_internet_answer_only_who_knows_their_id() -> None:
    """Who tries addresses finds no private node; who has its ID@HOST:PORT but a wrong secret is told so."""

    async def main(world: VirtualWorld) -> None:
        boot = await started(world.host("5.0.0.1"), 1, network_secret=RIGHT, role="bootstrap")
        scanner = await started(world.host("5.0.1.1"), 2, role="bootstrap")
        seen = listen_on_the_wire(world)
        with pytest.raises(P2PTimeoutError):
            await scanner.hello("5.0.0.1", 4747)
        assert all(source.ip != "5.0.0.1" for _, source, _ in seen)
        with pytest.raises(WrongNetworkError):
            await scanner.connect(boot.peer_id, addresses=boot.addresses())
        with pytest.raises(WrongNetworkError):
            await started(world.host("5.0.2.1"), 3, network_secret=WRONG, through=[boot])
        await stopped(scanner, boot)

    run_virtual(main)


def test_questions_cost_the_asked_less_than_the_asker_and_are_bounded() -> None:
    """19 bytes for 50, at most 40 at once and 20 a second; nonsense gets nothing; forged answers change nothing."""

    async def main(world: VirtualWorld) -> None:
        boot = await started(world.host("10.0.0.1"), 1, network_secret=RIGHT)
        got: list[bytes] = []
        host = world.host("10.0.0.66")
        socket = await host.open_udp(Address("10.0.0.66", 4747), lambda data, _source: got.append(data))
        to = boot.addresses()[0]
        for number in range(1_000):
            question = bytes([OPEN_KIND, 1]) + number.to_bytes(16, "big") + bytes(32)
            assert len(question) == QUESTION_BYTES
            socket.send(question, to)
        await asyncio.sleep(0.3)
        assert ANSWERS_AT_ONCE <= len(got) <= ANSWERS_AT_ONCE + 10
        assert {len(data) for data in got} == {ANSWER_BYTES}
        await asyncio.sleep(60)
        got.clear()
        for nonsense in (bytes([OPEN_KIND]), bytes([OPEN_KIND, 1]) * 24, bytes([OPEN_KIND, 3]) + bytes(48), b"\x0f"):
            socket.send(nonsense, to)
        socket.send(bytes([OPEN_KIND, 2]) + bytes(17), to)
        await asyncio.sleep(1)
        assert got == []
        assert (boot.questions.unknown, boot.membership.foreign) == (3, 1)
        await stopped(boot)

    run_virtual(main)


def test_the_open_door_is_not_asked_when_the_node_answers() -> None:
    """Within one network no question is ever sent."""

    async def main(world: VirtualWorld) -> None:
        seen = listen_on_the_wire(world)
        boot = await started(world.host("10.0.0.1"), 1)
        alice = await started(world.host("10.0.0.2"), 2, through=[boot])
        await alice.hello("10.0.0.1", 4747)
        await alice.connect(boot.peer_id, addresses=boot.addresses())
        assert not [data for data, _, _ in seen if data[0] == OPEN_KIND]
        await stopped(alice, boot)

    run_virtual(main)


def test_keys_and_tags_are_those_of_the_page() -> None:
    """Id and secret both count, normalised; the public tag is what it was; the private vector of docs/protocol."""
    key = private_network_key("public", RIGHT)
    assert key == private_network_key("public", RIGHT) != private_network_key("other", RIGHT)
    assert key != private_network_key("public", WRONG)
    assert private_network_key("public", "gr\u00fc\u00dfe an alle") == private_network_key(
        "public", "gru\u0308\u00dfe an alle"
    )
    assert private_network_key("public", "") == b""
    assert network_tag("public").hex() == "85fa7bc11ec287f7"
    assert key.hex() == "649d22bd1104433e3b4fc1be782f5ed52a08031f7fc535ecbb28b7b19655511d"
    assert network_tag("public", key).hex() == "9d6f4e4c6794ffb9"


def test_sealed_datagrams_open_once_whole_and_only_under_the_key() -> None:
    """Round trip; every flipped bit, cut and foreign key is refused; two seals of one datagram differ."""

    async def main(world: VirtualWorld) -> None:
        host = world.host("10.0.0.1")
        one, other = (SealedNetwork(host, private_network_key("public", secret)) for secret in (RIGHT, WRONG))
        sealed = one.seal(b"\x05 a datagram")
        assert sealed != one.seal(b"\x05 a datagram")
        assert one.open_untrusted(sealed) == b"\x05 a datagram"
        assert other.open_untrusted(sealed) is None
        for bit in range(8 * len(sealed)):
            damaged = bytearray(sealed)
            damaged[bit // 8] ^= 1 << bit % 8
            if damaged[0] != OPEN_KIND:
                assert one.open_untrusted(bytes(damaged)) is None
        for cut in range(len(sealed)):
            assert one.open_untrusted(sealed[:cut]) is None

    run_virtual(main)
