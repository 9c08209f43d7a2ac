"""What was written before goes straight to its holders: no search, as long as enough of them take it."""

from __future__ import annotations

import asyncio
from collections import Counter

from support.dht_network import DhtNode, make_network, stop_all

from p2pnode.core.address import Realm
from p2pnode.dht import DhtSettings, SignedRecord
from p2pnode.dht.contact import Contact
from p2pnode.dht.holders import MAX_KEYS, HolderBook
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.tokens import PUT_TOKEN_LIFE, PutTokens
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

SMALL = DhtSettings(serve=frozenset(Realm), ksize=8)
PUBLIC_ONLY = [Realm.PUBLIC]


def version(author: DhtNode, seq: int) -> SignedRecord:
    expires = int(author.network.wall() + 900)
    return SignedRecord.sign(author.key, author.dht.network_tag, b"s", seq, expires, b"value")


def by_distance(nodes: list[DhtNode], record: SignedRecord) -> list[DhtNode]:
    goal = int.from_bytes(record.key, "big")
    return sorted(nodes, key=lambda node: int.from_bytes(node.key.node_id, "big") ^ goal)


def holding(nodes: list[DhtNode], record: SignedRecord) -> list[bool]:
    now = nodes[0].network.monotonic()
    return [node.dht.storage.read(Realm.PUBLIC, record.key, now) == record for node in nodes]


def asked(nodes: list[DhtNode]) -> Counter[str]:
    total: Counter[str] = Counter()
    for node in nodes:
        total.update(node.dht.statistics().requests)
    return total


def test_what_is_written_again_goes_straight_to_its_holders() -> None:
    """A refresh costs one store for each holder and one round trip, and reaches all eight nearest."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 30, SMALL)
        await asyncio.sleep(60)
        author = nodes[3]
        first = await author.dht.put(version(author, 1), realms=PUBLIC_ONLY, again=True)
        assert not first.direct, "nobody is known yet"
        await asyncio.sleep(PUT_TOKEN_LIFE - 10)
        before = asked(nodes)
        record = version(author, 2)
        result = await author.dht.put(record, realms=PUBLIC_ONLY, again=True)
        spent = asked(nodes) - before
        others = [node for node in by_distance(nodes, record) if node is not author]
        print(f"asked {dict(spent)}, {result.elapsed_s:.2f} s")
        assert result.direct
        assert result.lost == 0
        assert (spent["FindNode"], spent["Get"], spent["Put"]) == (0, 0, result.stored)
        assert result.stored == 8
        assert result.elapsed_s < 0.11
        assert all(holding(others[:8], record))
        await stop_all(nodes)

    run_virtual(main, delay=0.05, until=7_200)


def test_tokens_that_are_worth_nothing_lead_to_a_search() -> None:
    """Holders that no longer accept their tokens (they restarted, our address is another one) get new ones."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 30, SMALL)
        await asyncio.sleep(60)
        author = nodes[3]
        await author.dht.put(version(author, 1), realms=PUBLIC_ONLY)
        for node in nodes:
            node.dht._engine._answerer._service._tokens = PutTokens(node.network.token_bytes)
        record = version(author, 2)
        result = await author.dht.put(record, realms=PUBLIC_ONLY, again=True)
        assert not result.direct
        assert result.refused == {}
        assert all(holding([node for node in by_distance(nodes, record) if node is not author][:8], record))
        again = await author.dht.put(version(author, 3), realms=PUBLIC_ONLY, again=True)
        assert again.direct
        await stop_all(nodes)

    run_virtual(main, delay=0.05)


def test_holders_that_died_are_missed_by_a_refresh_and_replaced_by_a_read_back() -> None:
    """Three of eight die: the refresh says so and reaches five; after a read-back the next goes to eight that live."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 30, SMALL)
        await asyncio.sleep(60)
        author = nodes[3]
        await author.dht.put(version(author, 1), realms=PUBLIC_ONLY)
        near = [node for node in by_distance(nodes, version(author, 1)) if node is not author]
        for node in near[1:6:2]:
            node.network.host.up = False
        record = version(author, 2)
        result = await author.dht.put(record, realms=PUBLIC_ONLY, again=True)
        assert (result.direct, result.stored, result.lost, result.found) == (True, 5, 3, 8)
        await asyncio.sleep(180)  # their neighbours notice that they are gone, and name others
        found = await author.dht.read_back(record, Realm.PUBLIC)
        await asyncio.sleep(1)
        print(f"{found.held} of {found.asked} held it before")
        living = [node for node in near if node.network.host.up]
        assert all(holding(living[:8], record))
        record = version(author, 3)
        result = await author.dht.put(record, realms=PUBLIC_ONLY, again=True)
        assert (result.direct, result.stored, result.lost) == (True, 8, 0)
        assert all(holding(living[:8], record))
        await stop_all(nodes)

    run_virtual(main, delay=0.05)


def test_what_is_known_of_holders_is_bounded_and_ends_with_their_tokens() -> None:
    """The keys written last are remembered; tokens are not used beyond the time for which they surely hold."""
    book, overlay = HolderBook(), Overlay.of(Realm.PUBLIC, is_ipv6=False)
    holders: list[Contact] = []
    for number in range(MAX_KEYS + 5):
        book.searched(overlay, bytes([number]) * 20, holders, {}, float(number))
    assert len(book) == MAX_KEYS
    assert book.lost(overlay, bytes(20)) == (0, 0)
    assert book.known(overlay, bytes([MAX_KEYS]) * 20, MAX_KEYS + PUT_TOKEN_LIFE + 1) == []
