"""Publishers check that what they published can be found, at a bounded cost."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs
from support.virtual_nodes import lan_of, make_node, network_of

from p2pnode import Node
from p2pnode.api.metrics import metrics_text
from p2pnode.core.address import Realm
from p2pnode.dht.records import record_key
from p2pnode.presence import presence_salt
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

PRESENCE = presence_salt(Realm.PRIVATE)
BOTH = ["devices", "presence/private"]


def shares(node: Node) -> dict[str, tuple[int, int]]:
    return {each.what: (each.held, each.asked) for each in node.status().published}


def test_a_publisher_knows_how_many_of_the_nearest_hold_its_records() -> None:
    """In a LAN of 24 each node's presence and devices are read back from 20 nodes; the metrics page says the same."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 24) as nodes:
            await asyncio.sleep(360)
            assert all(sorted(shares(node)) == BOTH for node in nodes)
            held = sum(held for node in nodes[20:] for held, _ in shares(node).values())
            asked = sum(asked for node in nodes[20:] for _, asked in shares(node).values())
            print(f"the last four: {held} of {asked} hold")
            assert asked == 4 * 2 * 20
            assert held >= 0.9 * asked
            count, of = shares(nodes[23])["presence/private"]
            page = metrics_text(nodes[23])
            assert f'p2pnode_published_held{{realm="private",record="presence/private"}} {count}\n' in page
            assert f'p2pnode_published_asked{{realm="private",record="presence/private"}} {of}\n' in page

    run_virtual(main, delay=0.02)


def test_p1_holders_that_confirm_and_forget_are_found_out_and_it_is_said() -> None:
    """All eight others confirm every store and deny having anything: the publisher warns that nobody has them. Once
    they are honest, its next publish shows it."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 8) as nodes:
            for node in nodes:
                node.dht.storage.read = lambda *_: None  # type: ignore[method-assign]
            with capture_logs() as logged:
                newcomer = make_node(world.host("10.0.0.77"), 77, through=nodes[:1])
                await network_of(newcomer).run(newcomer.start())
                await asyncio.sleep(360)
            assert shares(newcomer) == dict.fromkeys(BOTH, (0, 8))
            events = [each for each in logged if each["event"] == "published_not_seen"]
            said = [each for each in events if each["asked"] == 8 and each["realm"] == "private"][:2]
            assert sorted(each["what"] for each in said) == BOTH
            assert all(each["log_level"] == "warning" for each in said)
            for node in nodes:
                del node.dht.storage.read
            await asyncio.sleep(480)
            assert shares(newcomer)["presence/private"] == (8, 8)
            await network_of(newcomer).run(newcomer.stop())

    run_virtual(main, delay=0.02)


def test_reading_back_costs_a_search_in_twenty_five_minutes() -> None:
    """In fifty minutes a presence is published seven times and read back at most three times, devices twice."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 6) as nodes:
            seen: set[tuple[str, Node, float]] = set()
            for _ in range(60):
                await asyncio.sleep(50)
                seen |= {(each.what, node, each.at) for node in nodes for each in node.status().published}
            counts = {what: sum(1 for each in seen if each[0] == what) / len(nodes) for what in BOTH}
            print(f"read back per node in 50 minutes: {counts}")
            assert 0 < counts["presence/private"] <= 3
            assert 0 < counts["devices"] <= 2

    run_virtual(main, delay=0.02)


def test_a_publisher_whose_clock_went_back_publishes_above_what_others_hold() -> None:
    """Others hold a presence from the future of our clock and refuse ours; within a minute ours is the newest again."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 6) as nodes:
            await asyncio.sleep(300)
            bob = nodes[4]
            state = bob.state._file.own_seq
            name = bob.key.public_raw + PRESENCE
            ahead = state[name] + 3_600_000
            state[name] = ahead - 1
            assert bob.publisher is not None
            bob.publisher._due_at[Realm.PRIVATE] = 0.0
            await bob.publisher.publish_due()  # with the clock of an hour from now
            state[name] = 0  # and then the file was lost
            bob.publisher._due_at[Realm.PRIVATE] = 0.0
            bob.publisher.wake()
            await asyncio.sleep(60)
            assert state[name] > ahead
            found = await nodes[1].dht.get(bob.key.public_raw, PRESENCE, realms=[Realm.PRIVATE])
            assert found.record is not None
            assert found.record.seq == state[name]

    run_virtual(main, delay=0.02)


def test_a_publish_that_was_replaced_meanwhile_is_not_called_outdated() -> None:
    """A lost store lets a publish settle, and be read back, after the next one: nobody is alarmed by our own newer."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 8) as nodes:
            node, publisher = nodes[5], nodes[5].publisher
            assert publisher is not None
            await asyncio.sleep(20)
            key = record_key(node.peer_id.raw, PRESENCE)
            first = nodes[1].dht.storage.read(Realm.PRIVATE, key, world.loop.time())
            assert first is not None
            network_of(node).host.add_address("10.0.0.70")
            await asyncio.sleep(20)
            assert node.state.own_seq(node.peer_id.raw + PRESENCE) > first.seq
            due = dict(publisher._due_at)
            with capture_logs() as logs:
                await publisher._read_backs._read(Realm.PRIVATE, first)
            assert [each["event"] for each in logs if each["log_level"] == "warning"] == []
            assert publisher._due_at == due, "nor is anything published again for it"

    run_virtual(main, delay=0.04)
