"""Records on disk: a node that was restarted or killed still holds them; a bad file or disk costs the file only."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from support.dht_network import DhtNode, make_node

from p2pnode.core.address import Realm
from p2pnode.core.keys import NodeKey
from p2pnode.core.network_id import network_tag
from p2pnode.dht import MIN_WORK, DhtSettings, SignedRecord, pool_salt, work_of
from p2pnode.dht.limits import Budget, PrefixBudgets
from p2pnode.dht.storage import OVERHEAD_BYTES
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

PREFIX = b"\x05\x06\x07"
AUTHOR = NodeKey.generate(lambda count: bytes(range(count)))


class Home:
    """A file, and nodes that run on it one after the other."""

    def __init__(self, world: VirtualWorld, path: Path, **settings: int) -> None:
        self.world, self.path, self.settings, self.started = world, path, settings, 0

    def make(self) -> DhtNode:
        self.started += 1
        settings = DhtSettings(serve=frozenset(Realm), record_file=str(self.path), **self.settings)
        return make_node(self.world, f"5.0.{self.started}.1", settings=settings)

    async def start(self) -> DhtNode:
        node = self.make()
        await node.open(f"5.0.{self.started}.1")
        return node

    def rows(self) -> list[tuple[str, bytes, bytes, float, bytes]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute("SELECT realm, key, prefix, expires, record FROM records").fetchall()


def signed(node: DhtNode, number: int, seq: int = 1, life: float = 900) -> SignedRecord:
    expires = int(node.network.wall() + life)
    return SignedRecord.sign(AUTHOR, node.dht.network_tag, b"%d" % number, seq, expires, b"v" * 400)


def give(node: DhtNode, record: SignedRecord, prefix: bytes = PREFIX) -> None:
    now, wall = node.network.monotonic(), node.network.wall()
    assert node.dht.storage.store(record, Realm.PUBLIC, prefix, now, wall) is None


def held(node: DhtNode) -> dict[bytes, tuple[int, bytes, float]]:
    """Return seq, prefix and seconds of life by key."""
    now = node.network.monotonic()
    return {key: (each.record.seq, each.prefix, each.expires_at - now) for (_, key), each in node.dht.storage}


def test_w1_a_killed_node_loses_at_most_the_records_of_the_last_two_seconds(tmp_path: Path) -> None:
    """600 records in 6 s, then an end without warning: whoever starts on the file has all but the last 2 s, each
    with its prefix and the rest of its life, the clock's pause included."""

    async def main(world: VirtualWorld) -> None:
        home = Home(world, tmp_path / "records.db")
        first = await home.start()
        given: list[tuple[float, SignedRecord]] = []
        for number in range(600):
            record = signed(first, number, life=600 + number)
            give(first, record, b"%3d" % (number % 50))
            given.append((world.loop.time(), record))
            await asyncio.sleep(0.01)
        killed_at, before = world.loop.time(), held(first)
        second = await home.start()  # `first` writes no more: nothing changes there
        await asyncio.sleep(100)
        after = held(second)
        lost = [at for at, record in given if record.key not in after]
        print(f"{len(lost)} of {len(given)} lost, the oldest {killed_at - min(lost, default=killed_at):.2f} s old")
        assert all(killed_at - at <= 2 for at in lost)
        for key, (seq, prefix, life) in after.items():
            assert (seq, prefix) == before[key][:2]
            assert life == pytest.approx(before[key][2] - 100, abs=0.1)
        for node in (first, second):
            await node.close()

    run_virtual(main)


def test_what_is_replaced_expires_or_makes_room_leaves_the_file_too(tmp_path: Path) -> None:
    """The file holds what memory holds, neither less nor more, also after a full storage."""

    async def main(world: VirtualWorld) -> None:
        room = 20 * (OVERHEAD_BYTES + 402)
        home = Home(world, tmp_path / "records.db", storage_bytes=room)
        node = await home.start()
        for number in range(10):
            give(node, signed(node, number, life=120))
        for number in range(5):
            give(node, signed(node, number, seq=2, life=4000))
        await asyncio.sleep(600)  # five have expired
        assert len(home.rows()) == len(held(node)) == 5
        for number in range(100, 160):
            record, prefix = signed(node, number), b"%3d" % number  # from sixty networks
            node.dht.storage.store(record, Realm.PUBLIC, prefix, world.loop.time(), node.network.wall())
        await asyncio.sleep(2)
        assert {row[1] for row in home.rows()} == set(held(node))
        assert 15 <= len(held(node)) <= 20
        before = held(node)
        await node.close()
        again = await home.start()
        assert held(again).keys() == before.keys()
        await again.close()

    run_virtual(main)


def test_what_expired_while_the_node_was_away_is_dropped_and_counted(tmp_path: Path) -> None:
    """Of ten records five outlive the pause; the others are counted, and leave the file."""

    async def main(world: VirtualWorld) -> None:
        home = Home(world, tmp_path / "records.db")
        node = await home.start()
        for number in range(10):
            give(node, signed(node, number, life=100 if number % 2 else 5000))
        await node.close()
        await asyncio.sleep(1000)
        again = await home.start()
        assert len(held(again)) == len(home.rows()) == 5
        assert again.dht.statistics().drops == {"kept_record": 5}
        await again.close()

    run_virtual(main)


@pytest.mark.slow
def test_places_of_pools_survive_a_restart_however_many_they_are(tmp_path: Path) -> None:
    """What was judged before is not turned away as a flood of one block would be."""

    async def main(world: VirtualWorld) -> None:
        home = Home(world, tmp_path / "records.db")
        first = await home.start()
        expires, given = int(first.network.wall() + 600), []
        for number in range(2):
            salt, stamp = pool_salt(bytes([number] * 20), 0), 0
            while (seq := work_of(AUTHOR.public_raw, salt, expires, stamp.to_bytes(8, "big"))) < MIN_WORK:
                stamp += 1
            given.append(SignedRecord.sign(AUTHOR, first.dht.network_tag, salt, seq, expires, stamp.to_bytes(8, "big")))
            give(first, given[-1])
        await first.close()
        second = home.make()
        second.dht.storage._works = PrefixBudgets(Budget(0.0, 0.0), 0.0)
        await second.open(f"5.0.{home.started}.1")
        await asyncio.sleep(2.0)
        assert held(second).keys() == {record.key for record in given}
        await second.close()

    run_virtual(main)


def with_slow_disk(node: DhtNode, seconds: float) -> None:
    """Let everything that may block take so long."""
    at_once = node.network.run_blocking

    async def slowly(function: Callable[..., Any], *args: object) -> Any:
        await asyncio.sleep(seconds)
        return await at_once(function, *args)

    node.network.run_blocking = slowly  # type: ignore[method-assign]


def test_a_long_file_is_read_behind_the_start_and_loses_nothing_to_an_early_stop(tmp_path: Path) -> None:
    """1,000 records on a slow disk: the start waits a second for them. What comes in meanwhile and is newer stays; and
    a node that is stopped in the middle leaves the file whole."""

    async def main(world: VirtualWorld) -> None:
        home = Home(world, tmp_path / "records.db")
        node = await home.start()
        records = [signed(node, number, life=5000) for number in range(1000)]
        for record in records:
            give(node, record)
        await node.close()
        for stops_early in (True, False):
            node = home.make()
            with_slow_disk(node, 0.3)
            started = world.loop.time()
            await node.open(f"5.0.{home.started}.1")
            assert world.loop.time() - started == pytest.approx(1.0)
            assert 0 < len(held(node)) < 1000
            newer = signed(node, 999, seq=2, life=5000)
            give(node, newer)
            if not stops_early:
                await asyncio.sleep(10)
                assert len(held(node)) == 1000
                assert held(node)[newer.key][0] == 2
            await node.close()
            assert len(home.rows()) == 1000
        again = await home.start()
        assert held(again)[newer.key][0] == 2
        assert len(held(again)) == 1000
        await again.close()

    run_virtual(main)


def hostile_rows(good: SignedRecord) -> Iterator[tuple[object, ...]]:
    """What somebody who can write the file might put in; each but the last claims a key of its own."""
    encode = msgspec.msgpack.encode
    forged = msgspec.structs.replace(good, value=b"forged")
    other = SignedRecord.sign(AUTHOR, network_tag("other"), b"o", 1, good.expires, b"v")
    far = SignedRecord.sign(AUTHOR, network_tag("public"), b"f", 1, good.expires + 10**9, b"v")
    for record in (forged, other, far):
        yield "public", record.key, PREFIX, 1e12, encode(record)
    yield "public", b"wrong key", PREFIX, 1e12, encode(good)
    yield "nowhere", good.key, PREFIX, 1e12, encode(good)
    yield 5, good.key, PREFIX, 1e12, encode(good)
    yield "public", b"a", PREFIX, 1e12, b"\x91" * 5000
    yield "public", b"b", PREFIX, 1e12, "text"
    yield "public", b"c", PREFIX, "soon", encode(good)
    yield "private", good.key, bytes(500), 1e12, encode(good)
    yield "loopback", good.key, PREFIX, float("-inf"), encode(good)


def test_p1_rows_that_do_not_hold_are_dropped_and_counted(tmp_path: Path) -> None:
    """Forged, foreign and malformed rows are not believed for being on our disk; the good ones beside them are."""

    async def main(world: VirtualWorld) -> None:
        home = Home(world, tmp_path / "records.db")
        node = await home.start()
        for number in range(300):
            give(node, signed(node, number))
        await node.close()
        rows = list(hostile_rows(signed(node, 999)))
        with closing(sqlite3.connect(home.path)) as connection, connection:
            connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
        again = await home.start()
        drops = again.dht.statistics().drops
        print(f"{len(rows)} hostile rows: {drops}")
        assert len(held(again)) == len(home.rows()) == 300
        assert drops == {"kept_record": len(rows)}
        await again.close()

    run_virtual(main)


def damaged(path: Path, kind: str) -> bytes:
    """Make the file unusable in one way; return its bytes."""
    if kind == "text":
        path.write_bytes(b"these are not the records that you are looking for")
    elif kind == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])
    elif kind == "scribbled":
        data = bytearray(path.read_bytes())
        data[4096:12288] = b"\xa5" * 8192
        path.write_bytes(data)
    else:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DROP TABLE records" if kind == "no table" else "PRAGMA user_version = 7")
    return path.read_bytes()


def content(path: str) -> bytes:
    return Path(path).read_bytes()


@pytest.mark.parametrize("kind", ["text", "half", "scribbled", "no table", "newer"])
def test_z1_a_file_that_cannot_be_used_is_set_aside_and_the_node_goes_on(tmp_path: Path, kind: str) -> None:
    """One warning names the copy, which is untouched; a second such file does not overwrite the first; new records
    are kept in a new file."""

    async def main(world: VirtualWorld) -> None:
        home = Home(world, tmp_path / "records.db")
        aside = []
        for _ in range(2):
            node = await home.start()
            for number in range(200):
                give(node, signed(node, number))
            await node.close()
            spoiled = damaged(home.path, kind)
            with capture_logs() as logged:
                node = await home.start()
            warnings = [each for each in logged if each["log_level"] == "warning"]
            assert [each["event"] for each in warnings] == ["record_file_set_aside"]
            assert content(warnings[0]["kept_as"]) == spoiled
            aside.append(warnings[0]["kept_as"])
            assert not held(node)
            give(node, signed(node, 7))
            await node.close()
            assert len(home.rows()) == 1
        assert len(set(aside)) == 2

    run_virtual(main)


def test_z1_a_disk_that_refuses_is_said_once_and_tried_again(tmp_path: Path) -> None:
    """Without its folder the node keeps records in memory; once the folder is there, all of them are written."""

    async def main(world: VirtualWorld) -> None:
        home = Home(world, tmp_path / "away" / "records.db")
        with capture_logs() as logged:
            node = await home.start()
            for number in range(20):
                give(node, signed(node, number))
                await asyncio.sleep(10)
            home.path.parent.mkdir()
            await asyncio.sleep(70)
        events = [each["event"] for each in logged if each["log_level"] == "warning"]
        assert events == ["records_not_kept", "records_kept_again"]
        assert len(home.rows()) == len(held(node)) == 20
        await node.close()

    run_virtual(main)
