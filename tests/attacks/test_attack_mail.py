"""Attacks on mail: holders that lie, strangers who flood, thieves (security.md P1, P2, V1, R1, X3)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from support.chat_fakes import FakeWorld, Person, befriend, until
from support.chat_mail import FakeHolders
from support.dht_attacks import record
from support.dht_network import DhtNode, make_network
from support.dht_pair import WALL, World

from p2pnode import BadPacket, Mailing
from p2pnode.chat import MessageReceived
from p2pnode.chat.mail import tables
from p2pnode.chat.mail.frames import MAIL_PROTOCOL, Check, Grant, encode
from p2pnode.chat.mail.letters import LetterMessage, Slot, open_untrusted, seal
from p2pnode.chat.mail.postbox import GONE, Postbox
from p2pnode.core.address import Realm
from p2pnode.core.keys import NodeKey
from p2pnode.dht import MAIL_LIFE, MAIL_SALT, DhtSettings, SignedRecord
from p2pnode.dht.messages import ErrorCode
from p2pnode.dht.storage import RecordStorage
from p2pnode.simulations.virtual import VirtualLoop, VirtualWorld, run_virtual


def run(main: Callable[[FakeWorld], Awaitable[None]]) -> None:
    VirtualLoop().run(main(FakeWorld(holders=FakeHolders())), until=1e7)  # type: ignore[arg-type]


async def friends(world: FakeWorld) -> tuple[Person, Person]:
    """Two contacts with the means to leave each other mail; the second is away, and out of the first one's reach."""
    alice, bob = await Person(world, "alice").start(), await Person(world, "bob").start()
    await befriend(alice, bob)
    await alice.chat.send(bob.node.user_id, "first", wait=5.0)
    await asyncio.sleep(1.0)
    world.walls.add(frozenset((alice.node, bob.node)))
    for session in bob.node.sessions():
        session.break_off("lost")
    return alice, bob


def test_attack_p1_mail_has_room_of_its_own() -> None:
    """A flood of mail from one /24 takes no room from other records or from others' mail, and the reverse."""
    peer = World().peer("5.0.0.1")
    storage = RecordStorage(peer.tag, DhtSettings(storage_bytes=200_000, mail_bytes=200_000))
    for i in range(300):
        storage.store(record(peer, salt=b"mail/%d" % i), Realm.PUBLIC, b"bad", 0.0, WALL)
    flooded = storage.bytes
    assert flooded <= 200_000
    for i in range(100):
        assert storage.store(record(peer, salt=b"plain%d" % i), Realm.PUBLIC, b"h%d" % i, 0.0, WALL) is None
    assert storage.bytes > flooded  # nothing of the mail gave way
    for i in range(60):
        assert storage.store(record(peer, salt=b"mail/h%d" % i), Realm.PUBLIC, b"m%d" % i, 0.0, WALL) is None
    held = [entry.prefix for _, entry in storage]
    print(f"P1: the flood keeps {held.count(b'bad')} letters beside 60 of others, and all 100 other records")
    assert storage.bytes <= 400_000
    assert sum(prefix[:1] == b"h" for prefix in held) == 100
    assert sum(prefix[:1] == b"m" for prefix in held) == 60


def test_attack_p1_only_mail_waits_a_week_and_none_longer() -> None:
    peer = World().peer("5.0.0.1")
    storage = RecordStorage(peer.tag, DhtSettings())
    week, longer = MAIL_LIFE, MAIL_LIFE + 400
    assert storage.store(record(peer, salt=b"mail/0", expires=week), Realm.PUBLIC, b"x", 0.0, WALL) is None
    for salt, expires in ((b"mail/1", longer), (b"presence", week), (b"mail", week)):
        refused = storage.store(record(peer, salt=salt, expires=expires), Realm.PUBLIC, b"x", 0.0, WALL)
        assert refused == (ErrorCode.EXPIRES, 0)
    assert storage.expire(MAIL_LIFE - 100.0) == 0
    assert storage.expire(MAIL_LIFE + 400.0) == 1


def test_attack_p2_nobody_else_removes_or_replaces_a_letter() -> None:
    """A holder, or whoever saw the letter, can neither empty the slot nor bring back what was removed."""
    rng = random.Random(1)
    slot, thief = Slot(rng.randbytes(32)), NodeKey.generate(rng.randbytes)
    peer = World().peer("5.0.0.1")
    storage, salt = RecordStorage(peer.tag, DhtSettings()), MAIL_SALT + b"\0"
    key = NodeKey(slot.seed, bytes(range(32)))
    letter = SignedRecord.sign(key, peer.tag, salt, 10, int(WALL) + 900, b"letter")
    assert storage.store(letter, Realm.PUBLIC, b"x", 0.0, WALL) is None
    forged = SignedRecord.sign(thief, peer.tag, salt, 20, int(WALL) + 900, b"")
    for attempt in (
        SignedRecord(slot.public, salt, 20, forged.expires, b"", forged.signature),
        SignedRecord(slot.public, salt, 20, letter.expires, b"", letter.signature),
    ):
        assert storage.store(attempt, Realm.PUBLIC, b"x", 0.0, WALL) == (ErrorCode.BAD_RECORD, 0)
    assert storage.read(Realm.PUBLIC, letter.key, 0.0) == letter
    removed = SignedRecord.sign(key, peer.tag, salt, int(WALL * 1000), int(WALL) + 900, b"")
    assert storage.store(removed, Realm.PUBLIC, b"x", 0.0, WALL) is None
    renewed = SignedRecord.sign(key, peer.tag, salt, int(WALL) + MAIL_LIFE, int(WALL) + MAIL_LIFE, b"letter")
    for old in (letter, renewed):
        assert storage.store(old, Realm.PUBLIC, b"x", 0.0, WALL) == (ErrorCode.LOWER_SEQ, removed.seq)


def test_attack_r1_replayed_letters_show_nothing_twice() -> None:
    """Holders bring back every letter after it was read, and old records in the place of newer ones."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world)
        assert world.holders is not None
        texts = [f"number {number}" for number in range(5)]
        for text in texts:
            assert (await alice.chat.send(bob.node.user_id, text)).state == "stored"
        copies = dict(world.holders.records)
        for _ in range(4):
            await bob.chat.mail.fetch()
            await asyncio.sleep(60.0)
            world.holders.records.update(copies)
        assert await bob.texts(alice.node.user_id) == ["first", *texts]
        world.walls.clear()
        assert (await alice.chat.send(bob.node.user_id, "direct", wait=30.0)).delivered
        assert [event.message.text for event in bob.of_type(MessageReceived)] == ["first", *texts, "direct"]

    run(main)


def test_attack_p2_a_hostile_contact_gets_no_further_than_its_own_slots() -> None:
    """Junk in its slots, letters in another's name: dropped and counted; another contact's mail comes all the same."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world)
        mallory = await Person(world, "mallory").start()
        await befriend(mallory, bob)
        await mallory.chat.send(bob.node.user_id, "hi", wait=5.0)
        await asyncio.sleep(1.0)
        held = await mallory.store.database.read(lambda c: tables.taken(c, bob.node.peer_id))
        assert held is not None
        slot, posted = Slot(held.secret), Postbox(mallory.node)
        for number in range(6):
            message = LetterMessage(bytes([number] * 16), number, 0, "I am alice")
            letter = bytearray(
                seal(slot, bob.node.peer_id, held.key, alice.node.key, [message], bytes([number + 1] * 32))
            )
            if number % 2:
                letter[100] ^= 1
            assert await posted.store(slot.seed, bytes(letter))
            slot = slot.next()
        await mallory.node.put_mail(slot.seed, 0, b"\xff" * 800)
        assert (await alice.chat.send(bob.node.user_id, "really alice")).state == "stored"
        await bob.chat.mail.fetch()
        assert (await bob.texts(alice.node.user_id))[-1] == "really alice"
        assert await bob.texts(mallory.node.user_id) == ["hi"]
        drops = {reason: count for reason, count in bob.chat.drops.items() if reason.startswith("mail")}
        print("P2: dropped", drops)
        assert drops == {"mail_wrong_author": 3, "mail_not_opened": 3, "mail_malformed": 1}

    run(main)


def test_attack_x3_strangers_and_floods_of_grants_are_refused() -> None:
    """Only accepted contacts are heard; a contact that sends grants without end is held to a few."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world)
        world.walls.clear()
        mallory = await Person(world, "mallory").start()
        session = await mallory.node.connect(bob.node.peer_id)
        stream = await session.open_stream(MAIL_PROTOCOL)
        await stream.write(encode(Grant(bytes(32), bytes(range(32)))))
        await asyncio.sleep(1.0)
        assert await bob.store.database.read(lambda c: tables.taken(c, mallory.node.peer_id)) is None
        session = await alice.node.connect(bob.node.peer_id)
        for number in range(40):
            stream = await session.open_stream(MAIL_PROTOCOL)
            await stream.write(encode(Check(bytes(8))) + encode(Grant(bytes([number] * 32), bytes(range(32)))))
        await asyncio.sleep(1.0)
        print("X3:", {reason: count for reason, count in bob.chat.drops.items() if reason.startswith("mail")})
        assert bob.chat.drops["mail_not_a_contact"] == 1
        assert bob.chat.drops["mail_too_fast"] >= 36

    run(main)


def test_attack_p2_what_a_holder_sees_names_nobody_and_a_thief_opens_no_old_letter() -> None:
    """Records of one chain have nothing in common; a copy of the reader's database opens nothing that was read."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world)
        assert world.holders is not None
        for text in ("a secret", "another"):
            await alice.chat.send(bob.node.user_id, text)
        copies = dict(world.holders.records)
        assert len({key for key, _ in copies}) == 2
        assert {len(each.value) for each in copies.values()} == {512}
        names = [node.peer_id.raw for node in (alice.node, bob.node)] + [alice.node.user_id.raw, bob.node.user_id.raw]
        assert not any(secret in each.value for each in copies.values() for secret in (b"secret", *names))
        await bob.chat.mail.fetch()
        await until(bob, lambda: len(bob.of_type(MessageReceived)) == 3, timeout=60.0)
        kept = await bob.store.database.read(tables.given)
        slots = [Slot(each.secret).next(steps) for each in kept for steps in range(4)]
        privates = [X25519PrivateKey.from_private_bytes(each.private) for each in kept]
        for each in copies.values():
            for slot in slots:
                for private in privates:
                    with pytest.raises(BadPacket):
                        open_untrusted(slot, bob.node.peer_id, private, each.value)

    run(main)


class Post(Mailing):
    """The mail calls of a node of which only the DHT runs."""

    def __init__(self, node: DhtNode) -> None:
        self.dht, self.network = node.dht, node.network


def test_attack_p2_a_third_of_the_holders_drops_or_replays() -> None:
    """Of 40 nodes 6 drop what they took, 6 give what they had first for ever: letters arrive, removals show."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 40)
        await asyncio.sleep(60.0)
        for number, node in enumerate(nodes[1:13]):
            _turn_hostile(node, drops=number % 2 == 0)
        rng = random.Random(3)
        writer, reader = Postbox(Post(nodes[20])), Postbox(Post(nodes[30]))
        letters = {Slot(rng.randbytes(32)): rng.randbytes(512) for _ in range(12)}
        read = seen = 0
        for slot, noise in letters.items():
            letter = b"\0" + noise[1:]
            assert await writer.store(slot.seed, letter)
            read += await reader.fetch(slot) == letter
            await reader.remove(slot.seed, letter)
            await asyncio.sleep(5.0)
            seen += await reader.fetch(slot) == GONE
        print(f"P2: {read} of 12 read, {seen} of 12 seen as removed")
        assert (read, seen) == (12, 12)

    run_virtual(main, until=10_000.0)


def _turn_hostile(node: DhtNode, *, drops: bool) -> None:
    storage = node.dht.storage
    honest, first = storage.read, {}

    def read(realm: Realm, key: bytes, now: float) -> SignedRecord | None:
        if drops:
            return None
        found = honest(realm, key, now)
        return first.setdefault(key, found) if found is not None else None

    storage.read = read  # type: ignore[method-assign]
