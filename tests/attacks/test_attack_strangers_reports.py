"""Attacks on reports of strangers: signatures for nothing, two weeks' ids, floods of one's own topic (X3)."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.strangers import Someone, lobby_of

from p2pnode import NodeKey, P2PError
from p2pnode.chat.database import Database
from p2pnode.chat.strangers import judging
from p2pnode.chat.strangers.lobby import Patience
from p2pnode.chat.strangers.mask import Mask
from p2pnode.chat.strangers.ports import throw_away_node
from p2pnode.chat.strangers.receipts import EPOCH_S, Receipt, device_key, epoch_of, report_value, reports_topic
from p2pnode.chat.strangers.store import MAX_KEPT, TIDY_EVERY, StrangerStore
from p2pnode.chat.strangers.talk import Pipe
from p2pnode.chat.strangers.wire import RANDOM_PROTOCOL, Card, Consent, Frame
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

NOW = 1_700_000_000.0


def mask_of(person: Someone) -> Mask:
    """The throw-away node that is in use."""
    assert person.strangers._mask is not None
    return person.strangers._mask


async def ask(asker: Someone, asked: Someone, at: int, seed: int, patience: float = 4.0) -> list[Frame]:
    """Ask as somebody with another id, and from another place, each time would, sign nothing; return what comes."""
    asked.strangers.patience = Patience()
    node = throw_away_node(asker.node, relay_only=False)
    await node.start()
    try:
        session = await node.connect(mask_of(asked).node.peer_id)
        pipe = Pipe(await session.open_stream(RANDOM_PROTOCOL))
        rng = random.Random(seed)
        await pipe.send(Card(1, at, device_key(rng.randbytes(32), epoch_of(at)).public_raw, rng.randbytes(16)))
        frames: list[Frame] = []
        try:
            async with asyncio.timeout(patience):
                while True:
                    frames.append(await pipe.read())
        except (TimeoutError, EOFError, P2PError):
            return frames
    finally:
        await node.stop()


@pytest.mark.long
def test_x3_who_asks_and_goes_away_gets_no_signature_to_report_with() -> None:
    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 2) as (victim, enemy):
            await victim.strangers.begin()
            await asyncio.sleep(5)
            got: list[Frame] = []
            for number in range(3):
                at = int(victim.node.network.wall())
                got += await ask(enemy, victim, at, number)
                await asyncio.sleep(3)
            print("X3:", [type(frame).__name__ for frame in got])
            assert sum(isinstance(frame, Card) for frame in got) >= 1
            assert not any(isinstance(frame, Consent) for frame in got)
            assert victim.strangers.phase == "searching"
            await enemy.strangers.begin()
            await victim.until("found", timeout=120)

    run_virtual(main, delay=0.03)


@pytest.mark.long
def test_x3_nobody_is_shown_the_ids_of_two_weeks_by_one_node() -> None:
    """In the minutes in which clocks may differ about the week: whoever asks with either date gets the id of one week
    from a node; when the week is over, another node takes its place."""

    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 2) as (victim, enemy):
            into_the_week = victim.node.network.wall() % EPOCH_S
            for host in world.hosts:  # a minute of the one before is left
                host.wall_offset = -into_the_week - 60
            await victim.strangers.begin()
            await asyncio.sleep(10)
            shown: dict[bytes, set[bytes]] = {}
            for number in range(6):
                node = mask_of(victim).node.peer_id
                at = int(victim.node.network.wall())
                for date in (at, at + 120, at - 120):
                    got = await ask(enemy, victim, date, 10 * number, 1.0)
                    ids = {frame.device for frame in got if isinstance(frame, Card)}
                    if mask_of(victim).node.peer_id == node:
                        shown.setdefault(node.raw, set()).update(ids)
                    await asyncio.sleep(4)
            print("X3:", [len(ids) for ids in shown.values()])
            assert victim.strangers.phase == "searching"
            assert len(shown) == 2
            assert all(len(ids) <= 1 for ids in shown.values())
            assert len(set[bytes]().union(*shown.values())) == 2

    run_virtual(main, delay=0.03)


@pytest.mark.long
def test_x3_who_floods_his_own_topic_hides_no_reports() -> None:
    """140 entries of nonsense from one block beside ten reports from five: readers see all ten, in time."""

    async def main(world: VirtualWorld) -> None:
        rng = random.Random(1)
        async with lobby_of(world, 7) as (pest, reader, *others):
            now = int(pest.node.network.wall())
            epoch = epoch_of(now)
            key = device_key(rng.randbytes(32), epoch)
            topic = reports_topic(key.public_raw, epoch)
            junk = [device_key(rng.randbytes(32), epoch) for _ in range(140)]
            for each in junk:
                await pest.node.announce(topic, b"\x01" + rng.randbytes(100), key=each)
                pest.node.abandon(topic, key=each)
            for number in range(10):
                reporter = device_key(rng.randbytes(32), epoch)
                receipt = Receipt(now, reporter.public_raw, key.public_raw, rng.randbytes(32))
                value = report_value(receipt, key.sign(receipt.signing_input()))
                await others[number % 5].node.announce(topic, value, key=reporter)
            began = world.loop.time()
            await reader.strangers.reports.read(reader.node, key.public_raw, epoch)
            seen = reader.strangers.reports.board.reports(key.public_raw)
            print(f"X3: {seen} of 10 reports seen in {world.loop.time() - began:.2f} s")
            assert seen == 10

    run_virtual(main, delay=0.05)


def test_x3_devices_that_nobody_reported_push_no_reports_out() -> None:
    board, pest = judging.Board(), bytes(32)
    board.add(pest, {b"r" * 32: NOW})
    for number in range(2 * judging.MAX_DEVICES):
        board.add(NodeKey.generate(random.Random(number).randbytes).peer_id.raw, {})
    assert board.reports(pest) == 1


def test_x3_invented_devices_with_invented_reports_fill_no_disk_and_push_out_none_of_ours() -> None:
    async def main(_world: object) -> None:
        database = await Database.open(None)
        store = StrangerStore(database)
        await store.load(bytes(32), NOW)
        await store.report(b"d" * 32, b"r" * 32, int(NOW) - 3_600, b"value")
        for number in range(300):
            device = number.to_bytes(32, "big")
            store.saw(device, {bytes([n]) + device[1:]: NOW + 500 for n in range(64)})
        await database.write(lambda _: None)  # what may be written later is there then
        [count] = await database.write(lambda c: c.execute("SELECT count(*) FROM stranger_reports").fetchone())
        print(f"X3: {count} of 19,200 reports are kept")
        assert count <= MAX_KEPT + TIDY_EVERY + 64 + 1
        kept = await StrangerStore(database).load(bytes(32), NOW)
        assert [device for device, _, _ in kept.made] == [b"d" * 32]
        await database.close()

    run_virtual(main)
