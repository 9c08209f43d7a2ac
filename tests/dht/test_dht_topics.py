"""Topics in whole networks: many signers under one key, found by paging and by sampling, as they come and go."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from support.dht_network import PUBLIC, DhtNode, make_network, make_node, start_node, stop_all
from support.dht_topics import CHESS, announce_all, announcers, held_by, values

from p2pnode.core.address import Realm
from p2pnode.dht import DhtSettings, KnownContact, topic_id
from p2pnode.dht.topic_entries import Shard
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

SMALL = DhtSettings(serve=frozenset(Realm), ksize=8, topic_shard_entries=16)


@pytest.mark.long
def test_200_announcers_in_one_topic_are_all_found() -> None:
    """60 nodes, 200 signers: a stranger's reading has each of them, each once, and says that it is complete."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 60, DhtSettings(serve=frozenset(Realm), ksize=16, paths=1))
        await asyncio.sleep(30)
        keys = announcers(200)
        stored = await announce_all(nodes, keys)
        found = await nodes[7].dht.topic(CHESS)
        print(
            f"200 announcers: {sum(stored) / 200:.1f} holders each; read {len(found.entries)} in {found.shards} shards,"
            f" {found.answered} holders, {found.elapsed_s:.1f} s"
        )
        assert min(stored) >= 12
        assert {entry.public_key for entry in found.entries} == {key.public_raw for key in keys}
        assert len(found.entries) == len(values(found)) == 200
        assert found.complete
        assert found.population >= 200
        some = await nodes[8].dht.topic(CHESS, limit=50)
        assert (len(some.entries), some.complete) == (50, False)
        pages = [page async for page in nodes[9].dht.topic_pages(CHESS)]
        assert {entry.public_key for page in pages for entry in page} == {key.public_raw for key in keys}
        assert len(pages) == found.shards
        nobody = await nodes[7].dht.topic(topic_id("checkers"))
        assert (nobody.entries, nobody.complete, nobody.answered > 0) == ((), True, True)
        assert all("internal_error" not in node.dht.statistics().drops for node in nodes)
        await asyncio.sleep(5)
        assert all(node.dht.statistics().pending == 0 for node in nodes)
        await stop_all(nodes)

    run_virtual(main, seed=1, delay=lambda rng: rng.uniform(0.025, 0.075))


@pytest.mark.slow
def test_a_random_sample_is_near_uniform() -> None:
    """80 signers in a tree of 16 per shard, 240 samples of 5: chi-square against equal chances stays below 99.9 %."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 16, SMALL)
        await asyncio.sleep(10)
        keys = announcers(80)
        await announce_all(nodes, keys)
        depths = Counter(shard.depth for node in nodes for _, shard in node.dht._topics._groups)
        drawn: Counter[bytes] = Counter()
        for number in range(240):
            result = await nodes[number % 16].dht.topic(CHESS, limit=5, sample=True)
            assert len(result.entries) == 5
            drawn.update(entry.public_key for entry in result.entries)
        expected = 240 * 5 / 80
        chi_square = sum((drawn[key.public_raw] - expected) ** 2 / expected for key in keys)
        print(f"sample: chi-square {chi_square:.0f} with 79 degrees of freedom (99.9 %: 124), depths {sorted(depths)}")
        assert max(depths) >= 2
        # Entries of one shard are drawn together in a reading, so the statistic is a bit wider than independent draws.
        assert chi_square < 160
        assert min(drawn[key.public_raw] for key in keys) > 0
        await stop_all(nodes)

    run_virtual(main, seed=2, delay=0.02)


@pytest.mark.slow
def test_a_sample_has_the_few_who_are_there_and_not_the_many_who_have_left() -> None:
    """60 announce and 54 of them withdraw: holders keep that for minutes, but their pages begin with the living."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 12, DhtSettings(serve=frozenset(Realm), ksize=8))
        await asyncio.sleep(10)
        keys = announcers(60)
        await announce_all(nodes, keys)
        for number, key in enumerate(keys[6:], 6):
            withdrawn = await nodes[number % 12].dht.unannounce(CHESS, key=key.public_raw)
            assert withdrawn is not None
        for reader in nodes:
            found = await reader.dht.topic(CHESS, limit=12, sample=True)
            assert {entry.public_key for entry in found.entries} == {key.public_raw for key in keys[:6]}
        await nodes[6].dht.announce(CHESS, b"back", key=keys[6])  # while pages are in their readers' order
        assert b"back" in values(await nodes[7].dht.topic(CHESS, limit=12, sample=True))
        await stop_all(nodes)

    run_virtual(main, seed=4, delay=0.02)


def test_an_entry_is_replaced_withdrawn_and_ends_by_itself() -> None:
    """A new value takes the old one's place; who withdraws is gone at once, who vanishes when its life is over."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 12, SMALL)
        await asyncio.sleep(10)
        one, other, reader = nodes[2], nodes[3], nodes[9]
        assert (await one.dht.announce(CHESS, b"beginner")).stored >= 7
        await other.dht.announce(CHESS, b"master", life=120)
        await one.dht.announce(CHESS, b"advanced")
        assert values(await reader.dht.topic(CHESS)) == {b"advanced", b"master"}
        assert [value for _, _, value, _ in one.dht.announced()] == [b"advanced"]
        # Two holders miss the withdrawal: the others' word is newer, and hides what these still have.
        deaf = [node for node in nodes[4:9] if held_by(node)][:2]
        for node in deaf:
            node.network.host.up = False
        withdrawn = await one.dht.unannounce(CHESS)
        assert withdrawn is not None
        assert withdrawn.stored >= 4
        for node in deaf:
            node.network.host.up = True
        for node in (reader, nodes[10], nodes[11]):
            assert values(await node.dht.topic(CHESS)) == {b"master"}
        assert await one.dht.unannounce(CHESS) is None
        await other.close()  # without a word
        await asyncio.sleep(100)
        assert values(await reader.dht.topic(CHESS)) == {b"master"}
        await asyncio.sleep(400)  # its life, and the tolerance for clocks
        assert values(await reader.dht.topic(CHESS)) == set()
        assert any(held_by(node) for node in nodes if node is not other)  # what was withdrawn stays until its life ends
        await asyncio.sleep(2200)
        assert sum(held_by(node) for node in nodes if node is not other) == 0
        assert all(node.dht.statistics().topic_bytes == 0 for node in nodes if node is not other)
        await stop_all(nodes)

    run_virtual(main, seed=3, delay=0.02)


def test_holders_die_and_the_next_refresh_restores() -> None:
    """All holders of a shard die at once: the entry is back, on living nodes, within a minute of the next refresh."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 40, SMALL)
        await asyncio.sleep(30)
        goal = int.from_bytes(Shard(0, 0, CHESS).key, "big")
        *_, announcer, reader = sorted(nodes, key=lambda node: int.from_bytes(node.key.node_id, "big") ^ goal)
        await announcer.dht.announce(CHESS, b"here", life=300)
        holders = [node for node in nodes if held_by(node)]
        for node in holders:
            node.network.host.up = False
        lost = await reader.dht.topic(CHESS)
        await asyncio.sleep(160)
        found = await reader.dht.topic(CHESS)
        again = [node for node in nodes if node.network.host.up and held_by(node)]
        print(f"{len(holders)} holders died: {len(lost.entries)} found, after the refresh {len(again)} hold it")
        assert len(holders) >= 8
        assert not lost.entries
        assert values(found) == {b"here"}
        assert len(again) >= 6
        await stop_all(nodes)

    run_virtual(main, seed=4, delay=0.02)


def test_the_tree_grows_with_the_topic_and_shrinks_again() -> None:
    """50 signers need shards below the first; when 40 are gone, the rest moves up, and a reading is short again."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 10, SMALL)
        await asyncio.sleep(10)
        keys = announcers(50)
        await announce_all(nodes, keys, life=1200)
        large = await nodes[1].dht.topic(CHESS)
        for number, key in enumerate(keys[:40]):
            await nodes[number % 10].dht.unannounce(CHESS, key=key.public_raw)
        left = {b"player %d" % number for number in range(40, 50)}
        after = await nodes[1].dht.topic(CHESS)
        await asyncio.sleep(1300)
        depths = {max(own.depths.values()) for node in nodes for own in node.dht._announcer._own.values()}
        await asyncio.sleep(3300)
        small = await nodes[1].dht.topic(CHESS)
        print(f"shards read: {large.shards} for 50 signers, {small.shards} for the 10 that stayed")
        assert len(large.entries) == 50
        assert large.shards >= 5
        assert values(after) == values(small) == left
        assert depths == {0}
        assert small.shards == 1
        await stop_all(nodes)

    run_virtual(main, seed=5, delay=0.02, until=6000)


def test_what_nobody_could_store_is_announced_once_there_is_somebody() -> None:
    """A node that is alone is told so; when it has joined, its entry is found without another call."""

    async def main(world: VirtualWorld) -> None:
        alone = make_node(world, "5.0.1.1", settings=PUBLIC)
        await alone.open("5.0.1.1")
        assert (await alone.dht.announce(CHESS, b"early")).stored == 0
        server = await start_node(world, "5.0.0.1")
        reader = await start_node(world, "5.0.2.1", bootstrap=[server])
        await alone.dht.bootstrap([server.contact])
        await asyncio.sleep(20)
        assert values(await reader.dht.topic(CHESS)) == {b"early"}
        await alone.dht.unannounce_all()
        assert values(await reader.dht.topic(CHESS)) == set()
        assert (await alone.dht.topic(CHESS, realms=[Realm.PRIVATE])).answered == 0
        await stop_all([alone, server, reader])

    run_virtual(main, delay=0.02)


def test_wrong_calls_are_refused_before_anything_is_sent() -> None:
    """An empty or long value, a topic that is not 20 bytes, a life out of bounds."""

    async def main(world: VirtualWorld) -> None:
        node = await start_node(world, "5.0.0.1")
        for topic, value, life in (
            (CHESS, b"", 600.0), (CHESS, bytes(201), 600.0), (b"short", b"x", 600.0), (CHESS, b"x", 59.0),
            (CHESS, b"x", 3601.0),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=r"20 bytes|60 s"):
                await node.dht.announce(topic, value, life=life)
        assert node.dht.announced() == []
        assert node.dht.statistics().bytes_out == 0
        await stop_all([node])

    run_virtual(main)


def test_signers_of_both_address_families_meet_in_a_topic() -> None:
    """One announces over IPv6 alone, one over IPv4 alone: nodes that have both, and each of the two, read both."""

    async def main(world: VirtualWorld) -> None:
        nodes: list[DhtNode] = []
        for number in range(8):
            ips = [f"5.0.{number}.1", f"2a00:{number + 1:x}::1"]
            ips = {6: ips[:1], 7: ips[1:]}.get(number, ips)
            node = make_node(world, *ips, settings=SMALL)
            await node.open(*ips)
            first = (nodes or [node])[0]
            ways = [KnownContact(first.key.peer_id, first.key.node_id, socket.local) for socket in first.sockets]
            families = {socket.local.is_ipv6 for socket in node.sockets}
            await node.dht.bootstrap([way for way in ways if nodes and way.address.is_ipv6 in families])
            nodes.append(node)
        await asyncio.sleep(10)
        await nodes[6].dht.announce(CHESS, b"four")
        await nodes[7].dht.announce(CHESS, b"six")
        for reader in nodes:
            assert values(await reader.dht.topic(CHESS)) == {b"four", b"six"}
        both = await nodes[2].dht.announce(CHESS, b"both")
        assert both.tried >= 12
        assert len((await nodes[3].dht.topic(CHESS)).entries) == 3
        await stop_all(nodes)

    run_virtual(main, delay=0.02)
