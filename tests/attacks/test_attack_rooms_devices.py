"""Attacks on rooms: invented devices that fork, questions for everything, revoked devices (security.md P2, V3)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from support.chat_fakes import FakeWorld, Person, befriend

from p2pnode import AccountKey, DeviceList, NodeKey
from p2pnode.chat.devices.lists import KnownList
from p2pnode.chat.model import RoomId
from p2pnode.chat.protocol import device_proof
from p2pnode.chat.rooms.entries import NO_HASH, Entry, Join, Signed, sign
from p2pnode.chat.rooms.exchange import MAX_UNKNOWN_FORKS
from p2pnode.chat.rooms.wire import Fork, Forks, Range, Want
from p2pnode.chat.store import DeviceRow
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]]) -> None:
    VirtualLoop().run(main(FakeWorld()), until=10_000.0)  # type: ignore[arg-type]


async def garden(world: FakeWorld, *people: Person) -> RoomId:
    """The first owns a room, the others are in."""
    owner = people[0]
    room = (await owner.chat.rooms.create("garden")).id
    for other in people[1:]:
        await befriend(owner, other)
        await owner.chat.rooms.invite(room, other.node.user_id)
        async with asyncio.timeout(30.0):
            while room not in other.chat.rooms.rooms:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.05)
        await other.chat.rooms.join("garden")
    await asyncio.sleep(5.0)
    return room


def forked(room: RoomId, number: int) -> tuple[Signed, Signed]:
    """Two first entries of a device that nobody knows."""
    rng = random.Random(number)
    key, account = NodeKey.generate(rng.randbytes), AccountKey.generate(rng.randbytes)
    join = Join(account.public_raw, device_proof(account, key.peer_id), "x" * 32)
    entries = (Entry(room.raw, key.public_raw, 1, NO_HASH, [], 2, at, join) for at in (1, 2))
    one, other = (sign(key, entry) for entry in entries)
    return one, other


def test_attack_p2_proofs_against_invented_devices_fill_no_disk_and_travel_no_further() -> None:
    async def main(world: FakeWorld) -> None:
        owner, member, mallory = [await Person(world, name).start() for name in ("owner", "member", "mallory")]
        room = await garden(world, owner, member, mallory)
        for number in range(100):
            one, other = forked(room, number)
            mallory.chat.rooms.send(owner.node.peer_id, Forks(room.raw, [Fork(one.raw, other.raw)]))
        await asyncio.sleep(10.0)
        for person in (owner, member):
            count = await person.store.database.read(lambda c: c.execute("SELECT count(*) FROM room_forks").fetchone())
            print(f"P2: {count[0]} of 100 proofs kept, {person.chat.rooms.drops['too_many_forks']} refused")
            assert count[0] <= MAX_UNKNOWN_FORKS
        assert (await member.chat.send(room, "still here", wait=5.0)).delivered

    run(main)


def test_attack_p2_who_asks_for_everything_has_no_more_looked_at_than_is_sent() -> None:
    async def main(world: FakeWorld) -> None:
        owner, mallory = [await Person(world, name).start() for name in ("owner", "mallory")]
        room = await garden(world, owner, mallory)
        exchange, log = owner.chat.rooms.rooms[room].exchange, owner.chat.rooms.rooms[room].log
        looked = 0

        class Counting(list[int]):
            def __getitem__(self, at: object) -> int:  # type: ignore[override]
                nonlocal looked
                looked += 1
                return super().__getitem__(at)  # type: ignore[index]

        ranges = []
        for number in range(200):
            device = number.to_bytes(32, "big")
            log.load(device, bytes(16), 1, 100)
            log.logs[device].depths = Counting(range(1, 10_001))  # type: ignore[assignment]
            exchange.neighbours.stored[device] = 10_000
            ranges.append(Range(device, 1, 10_000))
        await exchange._send_wanted(exchange.neighbours.all[mallory.node.peer_id], Want(room.raw, True, ranges))
        print(f"P2: {looked} of 2,000,000 entries looked at")
        assert 0 < looked < 2_000

    run(main)


def test_attack_v3_a_revoked_device_that_was_in_a_room_is_not_learned_again(tmp_path: Path) -> None:
    """Its entry and proof stay in the room's log; neither a restart nor a late copy makes it the user's again."""

    async def main(world: FakeWorld) -> None:
        owner = await Person(world, "owner", tmp_path / "owner.db").start()
        member = await Person(world, "member").start()
        room = await garden(world, owner, member)
        stolen, user = member.node.peer_id, member.node.user_id
        other = NodeKey.generate(random.Random(3).randbytes).peer_id
        assert stolen in owner.chat.directory.devices_of(user)
        found = KnownList.sign(member.node.account, DeviceList(owner.chat.now_ms(), (other,)))
        await owner.chat.devices._take(found)
        assert stolen not in owner.chat.directory.devices_of(user)
        await member.chat.rooms.rooms[room].say("send money")
        await asyncio.sleep(5.0)
        await owner.stop()
        owner = await Person(world, "owner", tmp_path / "owner.db").start()
        await asyncio.sleep(60.0)
        assert room in owner.chat.rooms.rooms
        assert stolen not in owner.chat.directory.devices_of(user)
        assert await owner.texts(room) == []

    run(main)


def test_attack_v3_what_another_device_of_ours_hands_over_brings_no_revoked_device_back() -> None:
    """An old message of the stolen phone comes from our tablet: the phone is not its user's for that."""

    async def main(world: FakeWorld) -> None:
        bob, carol = [await Person(world, name).start() for name in ("bob", "carol")]
        await befriend(bob, carol)
        await carol.chat.send(bob.node.user_id, "hi", wait=5.0)
        stolen, user = carol.node.peer_id, carol.node.user_id
        other = NodeKey.generate(random.Random(3).randbytes).peer_id
        await bob.chat.devices._take(KnownList.sign(carol.node.account, DeviceList(bob.chat.now_ms(), (other,))))
        assert not bob.chat.directory.learn(DeviceRow(stolen, user, "carol"))  # as `Syncing._take` does
        assert stolen not in bob.chat.directory.devices_of(user)
        assert bob.chat.directory.user_of(stolen) is None

    run(main)
