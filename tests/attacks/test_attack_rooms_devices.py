"""Attacks on rooms: invented devices that fork, questions for everything, revoked devices (security.md P2, V3)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.chat_fakes import FakeWorld, Person, befriend

from p2pnode import AccountKey, BadPacket, DeviceList, NodeKey, encode_devices
from p2pnode.chat.devices.lists import KnownList
from p2pnode.chat.devices.wire import list_signature
from p2pnode.chat.model import RoomId
from p2pnode.chat.protocol import device_proof
from p2pnode.chat.rooms.entries import NO_HASH, Devices, Entry, Join, Mark, Out, Role, Signed, read_untrusted, sign
from p2pnode.chat.rooms.exchange import MAX_UNKNOWN_FORKS
from p2pnode.chat.rooms.room import Room
from p2pnode.chat.rooms.wire import Ask, Entries, Fork, Forks, Have, Range, Want
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


class Household:
    """A user with a laptop and a phone in a room that somebody else owns, and a friend there. The phone is stolen."""

    def __init__(self, world: FakeWorld) -> None:
        self.world = world
        self.account = AccountKey.generate(random.Random("household").randbytes)

    async def start(self, *, laptop_in: bool = True) -> None:
        self.owner, self.friend = [await Person(self.world, name).start() for name in ("owner", "friend")]
        self.laptop = await Person(self.world, "carol", account=self.account, device="laptop").start()
        self.phone = await Person(self.world, "carol", account=self.account, device="phone").start()
        self.phone.node.adopt_devices(await self.laptop.node.change_devices(add=[self.phone.node.peer_id]))
        if not laptop_in:
            await self.laptop.stop()
        self.room = await garden(self.world, self.owner, self.friend, self.phone)
        if laptop_in:
            await self.laptop.node.connect(self.phone.node.peer_id)
            await asyncio.sleep(5.0)
            assert self.laptop.chat.rooms.rooms[self.room].joined.is_set()

    def room_of(self, person: Person) -> Room:
        return person.chat.rooms.rooms[self.room]

    def new_list(self) -> KnownList:
        """Signed by the account: the phone is not in it."""
        return KnownList.sign(self.account, DeviceList(self.owner.chat.now_ms() + 1, (self.laptop.node.peer_id,)))

    async def nobody_gives_the_phone_a_key(self, *others: Person) -> None:
        """A new epoch soon, and only those others get its key, whatever the phone asks."""
        thief = self.room_of(self.phone)
        old = set(thief.keys)
        await asyncio.sleep(20.0)
        epoch = self.room_of(self.owner).log.roll.epoch
        assert epoch is not None
        assert epoch.id not in old
        assert not self.room_of(self.owner).log.roll.stale
        for person in (self.owner, *others):
            assert self.room_of(person).log.roll.epoch == epoch
            assert epoch.id in self.room_of(person).keys
            for frame in (Have(self.room.raw, True, []), Ask(self.room.raw, [epoch.id])):
                self.phone.chat.rooms.send(person.node.peer_id, frame)
        await self.owner.chat.send(self.room, "without the phone", wait=5.0)
        await asyncio.sleep(40.0)
        assert set(thief.keys) == old
        assert "without the phone" not in await self.phone.texts(self.room)
        for person in others:
            assert "without the phone" in await person.texts(self.room)


@pytest.mark.parametrize("who", ["owner", "friend", "laptop"])
def test_attack_v3_a_revoked_device_gets_no_key_after_any_member_knew(who: str) -> None:
    """Whoever hears of it first, the owner, another member or the user's own laptop: the room learns of it, an owner
    renews the key at once, and members who were told by nobody else do not hand it to the phone."""

    async def main(world: FakeWorld) -> None:
        house = Household(world)
        await house.start(laptop_in=who == "laptop")
        await house.phone.chat.send(house.room, "before", wait=5.0)
        await asyncio.sleep(2.0)
        if who == "laptop":
            await house.laptop.node.change_devices(remove=[house.phone.node.peer_id])
            house.laptop.node.adopt_devices(house.new_list().devices)
        else:
            knows = house.owner if who == "owner" else house.friend
            await knows.chat.devices._take(house.new_list())
        others = [house.friend, house.laptop] if who == "laptop" else [house.friend]
        await house.nobody_gives_the_phone_a_key(*others)
        for person in (house.owner, house.friend):
            assert house.phone.node.peer_id not in person.chat.directory.devices_of(house.account.user_id)
            assert await person.texts(house.room) == ["before", "without the phone"]
        late = await Person(world, "late").start()
        await befriend(house.owner, late)
        await house.owner.chat.rooms.invite(house.room, late.node.user_id)
        await asyncio.sleep(5.0)
        await late.chat.rooms.join("garden")
        await asyncio.sleep(10.0)
        assert await late.texts(house.room) == ["before", "without the phone"]  # what it wrote before counts

    run(main)


def test_attack_v3_what_only_the_network_told_an_owner_counts_for_the_room() -> None:
    """The list out of a record carries no signature that others could check: they believe their owner."""

    async def main(world: FakeWorld) -> None:
        house = Household(world)
        await house.start(laptop_in=False)
        await house.owner.chat.devices._take(KnownList(house.account.user_id, house.new_list().devices))
        await house.nobody_gives_the_phone_a_key(house.friend)

    run(main)


def test_attack_v3_a_stolen_device_of_an_owner_says_nothing_any_more() -> None:
    """Two owners; the phone of one is stolen and makes a friend of the thief an owner, removes members: too late."""

    async def main(world: FakeWorld) -> None:
        house = Household(world)
        await house.start()
        await house.owner.chat.rooms.make_owner(house.room, house.account.user_id)
        await asyncio.sleep(2.0)
        await house.owner.chat.devices._take(house.new_list())
        await asyncio.sleep(20.0)
        thief = house.room_of(house.phone)
        for body in (Role(house.friend.node.user_id.raw, True), Out(house.friend.node.user_id.raw, [], b"")):
            late = thief._sign(body)
            thief.log.take(late)
            for person in (house.owner, house.friend, house.laptop):
                house.room_of(person).exchange.neighbours.add(house.phone.node.peer_id)
                frame = Entries(house.room.raw, False, False, [late.raw])
                await house.room_of(person).exchange.heard(house.phone.node.peer_id, frame)
        for person in (house.owner, house.friend, house.laptop):
            roll = house.room_of(person).log.roll
            assert roll.is_member(house.friend.node.user_id.raw)
            assert not roll.is_owner(house.friend.node.user_id.raw)
            assert roll.is_owner(house.account.user_id.raw)

    run(main)


def test_attack_v3_lists_that_prove_nothing_put_nobody_out() -> None:
    """Another member's unsigned list, an older one, one of somebody else's account: no device is lost."""

    async def main(world: FakeWorld) -> None:
        house = Household(world)
        await house.start()
        user = house.account.user_id.raw
        value = encode_devices([house.laptop.node.peer_id], house.owner.chat.now_ms() + 5)
        wrong = list_signature(AccountKey.generate(random.Random(9).randbytes), value)
        theirs = house.room_of(house.friend)
        with pytest.raises(BadPacket, match="bad_list_signature"):
            read_untrusted(theirs._sign(Devices(user, value, wrong, [])).raw).check_untrusted()
        await theirs.write(Devices(user, value, b"", [Mark(house.phone.node.peer_id.raw, 0)]))
        old = encode_devices([house.laptop.node.peer_id], 1)
        await theirs.write(Devices(user, old, list_signature(house.account, old), []))
        await asyncio.sleep(20.0)
        for person in (house.owner, house.laptop, house.phone):
            roll = house.room_of(person).log.roll
            assert not roll.lists
            assert not roll.is_lost(house.phone.node.peer_id.raw)
        assert (await house.phone.chat.send(house.room, "still here", wait=5.0)).delivered

    run(main)


@pytest.mark.parametrize("laptop_in", [True, False])
def test_attack_v3_an_old_list_puts_a_device_out_for_a_moment_at_most(laptop_in: bool) -> None:
    """A member tells a genuine list from before the phone, and nobody else knows a newer one: its user does."""

    async def main(world: FakeWorld) -> None:
        house = Household(world)
        await house.start(laptop_in=laptop_in)
        for person in (house.owner, house.friend):
            person.chat.devices._lists._lists.clear()
        old = encode_devices([house.laptop.node.peer_id], 1)
        theirs = house.room_of(house.friend)
        await theirs.write(Devices(house.account.user_id.raw, old, list_signature(house.account, old), []))
        await asyncio.sleep(120.0)
        for person in (house.owner, house.friend):
            assert not house.room_of(person).log.roll.is_lost(house.phone.node.peer_id.raw)
            assert house.phone.node.peer_id in person.chat.directory.devices_of(house.account.user_id)
        assert house.room_of(house.phone).active
        assert (await house.phone.chat.send(house.room, "still here", wait=5.0)).delivered

    run(main)
