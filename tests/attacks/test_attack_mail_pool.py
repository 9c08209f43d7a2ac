"""Attacks on pools and first letters: floods, invented strangers, what is not what it says (security.md P2, X3, V1)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from support.chat_fakes import FakeWorld, Person, befriend, until
from support.chat_mail import FakeHolders
from support.dht_attacks import record
from support.dht_pair import WALL, World
from support.dht_pools import EXPIRES, POOL, TAG, storage, worked

from p2pnode import POOL_PLACES, AccountKey, BadPacket, NodeKey, PeerId
from p2pnode.chat import MessageReceived, RequestReceived
from p2pnode.chat.limits import StrangerGate
from p2pnode.chat.mail.first_letters import FIRST_BYTES, Note, open_first_untrusted, pool_of, seal_first
from p2pnode.chat.mail.letters import LetterMessage
from p2pnode.chat.protocol import device_proof
from p2pnode.core.address import Realm
from p2pnode.core.keys import SigningKey
from p2pnode.dht import SignedRecord, pool_salt
from p2pnode.dht.messages import ErrorCode
from p2pnode.dht.storage import WORKS_BURST
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]]) -> None:
    VirtualLoop().run(main(FakeWorld(holders=FakeHolders())), until=1e7)  # type: ignore[arg-type]


@pytest.mark.slow
def test_attack_p2_a_flood_of_pools_takes_no_room_from_mail_and_little_time() -> None:
    """From one block, then from a thousand: contacts' mail and other records stay; few of its hashes are computed."""
    peer = World().peer("5.0.0.1")
    kept = storage(mail_bytes=200_000, storage_bytes=200_000, pool_bytes=20_000)
    for i in range(60):
        assert kept.store(record(peer, salt=b"mail/%d" % i), Realm.PUBLIC, b"m%d" % i, 0.0, WALL) is None
        assert kept.store(record(peer, salt=b"plain%d" % i), Realm.PUBLIC, b"h%d" % i, 0.0, WALL) is None
    before = [entry.record for _, entry in kept]
    refused = []
    for i in range(1_000):  # all with work that was never done: judging each would be three seconds
        false = SignedRecord.sign(
            SigningKey(bytes([i % 256] * 32)), TAG, pool_salt(POOL, i % 8), 2**63 - 1 - i, EXPIRES, b"x" * 800
        )
        refused.append(kept.store(false, Realm.PUBLIC, b"a%d" % (i // 2), 0.0, WALL))
    judged = refused.count((ErrorCode.BAD_RECORD, 0))
    print(f"P2: {judged} of 1,000 judged, {refused.count((ErrorCode.BUSY, 0))} turned away")
    assert judged <= WORKS_BURST
    assert [entry.record for _, entry in kept] == before


@pytest.mark.slow
def test_attack_p2_a_worked_flood_fills_the_pools_room_only() -> None:
    """Bounded in bytes, and the flood's block in number; the letter of somebody else finds room."""
    peer = World().peer("5.0.0.1")
    kept = storage(mail_bytes=200_000, pool_bytes=12_000)
    for i in range(100):
        assert kept.store(record(peer, salt=b"mail/%d" % i), Realm.PUBLIC, b"m%d" % i, 0.0, WALL) is None
    mail = kept.bytes
    for i in range(7):
        flood = worked(100 + i, pool=bytes([i] * 20), value=b"x" * 700)
        kept.store(flood, Realm.PUBLIC, b"bad", 10.0 * i, WALL)
    assert kept.bytes - mail <= 12_000
    honest = worked(1)
    assert kept.store(honest, Realm.PUBLIC, b"good", 500.0, WALL) is None
    held = [entry.prefix for _, entry in kept if entry.record.salt.startswith(b"mail/pool/")]
    print(f"P2: {held.count(b'bad')} of the flood's 7 beside the honest one, {kept.bytes - mail} bytes")
    assert b"good" in held
    assert sum(entry.prefix[:1] == b"m" for _, entry in kept) == 100


class Stranger:
    """Somebody invented."""

    def __init__(self, number: int) -> None:
        rng = random.Random(f"stranger {number}")
        self.key, self.account = NodeKey.generate(rng.randbytes), AccountKey.generate(rng.randbytes)
        self.ephemeral, self.id = rng.randbytes(32), rng.randbytes(16)

    def letter(self, reader: PeerId, key: bytes, text: str = "hello", proof: bytes = b"") -> bytes:
        message = LetterMessage(self.id, 1, 1_700_000_000_000, text)
        proof = proof or device_proof(self.account, self.key.peer_id)
        return seal_first(reader, key, self.key, self.account.user_id, proof, "x", message, self.ephemeral)


async def key_of(person: Person) -> bytes:
    found = await person.node.read_mail(person.node.peer_id.raw, 0)
    assert found is not None
    return Note.decode_untrusted(found.value).key


def test_attack_p2_a_flooded_pool_takes_nothing_from_contacts_nor_from_a_stranger_who_works() -> None:
    """All eight places are full of junk, again and again: a contact's letter comes; a stranger outworks a place."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await Person(world, "alice").start(), await Person(world, "bob").start()
        await befriend(alice, bob)
        await alice.chat.send(bob.node.user_id, "first", wait=5.0)
        await asyncio.sleep(60.0)
        carol = await Person(world, "carol").start()
        for one in (alice, carol):
            world.walls.add(frozenset((one.node, bob.node)))
        for session in bob.node.sessions():
            session.break_off("lost")
        for place in [*range(POOL_PLACES)] * 5:
            junk = random.Random(place).randbytes(FIRST_BYTES)
            await alice.node.leave_in_pool(pool_of(bob.node.peer_id), place, junk, tries=1, above=99)
        assert (await alice.chat.send(bob.node.user_id, "from a contact")).state == "stored"
        assert (await carol.chat.send(bob.node.user_id, "from a stranger")).state == "stored"
        await bob.chat.mail.fetch()
        await bob.chat.mail.pool.read()
        assert (await bob.texts(alice.node.user_id)) == ["first", "from a contact"]
        assert (await bob.texts(carol.node.user_id)) == ["from a stranger"]
        print("P2:", {reason: count for reason, count in bob.chat.drops.items() if reason.startswith("mail")})
        assert bob.chat.drops["mail_first_not_opened"] == POOL_PLACES - 1

    run(main)


@pytest.mark.slow
def test_attack_x3_invented_strangers_fill_eight_places_and_no_more_requests_than_all_others() -> None:
    """Letters of new people for months: as many requests as may be open, whatever comes; one letter a person."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        await asyncio.sleep(60.0)
        key, pool = await key_of(bob), pool_of(bob.node.peer_id)
        for number in range(StrangerGate.MAX_OPEN + 3 * POOL_PLACES):
            place = number % POOL_PLACES
            await bob.node.leave_in_pool(pool, place, Stranger(number).letter(bob.node.peer_id, key), tries=1)
            if place == POOL_PLACES - 1:
                await bob.chat.mail.pool.read()
                await bob.chat.mail.pool.read()  # what was read shows nothing twice
        await until(bob, lambda: bool(bob.of_type(RequestReceived)), timeout=5.0)
        print(f"X3: {len(bob.of_type(RequestReceived))} requests of {StrangerGate.MAX_OPEN + 3 * POOL_PLACES} letters")
        assert len(bob.of_type(RequestReceived)) == len(bob.of_type(MessageReceived)) == StrangerGate.MAX_OPEN

    run(main)


def test_attack_v1_a_first_letter_says_nothing_that_is_not_proven() -> None:
    """Another's proof, another reader, a text too long, each byte changed: refused, with one error."""
    alice, mallory = Stranger(1), Stranger(2)
    reader, other = Stranger(3).key.peer_id, Stranger(4).key.peer_id
    private = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = private.public_key().public_bytes_raw()
    good = alice.letter(reader, public)
    assert open_first_untrusted(reader, [private], good).user == alice.account.user_id
    stolen = mallory.letter(reader, public, proof=device_proof(alice.account, alice.key.peer_id))
    for letter, keys, to, reason in (
        (stolen, [private], reader, "bad_proof"),
        (good, [private], other, "not_opened"),
        (good, [], reader, "not_opened"),
        (good[:-1], [private], reader, "malformed"),
        (bytes(FIRST_BYTES), [private], reader, "not_opened"),
    ):
        with pytest.raises(BadPacket, match=reason):
            open_first_untrusted(to, keys, letter)
    for at in range(0, FIRST_BYTES, 7):
        with pytest.raises(BadPacket, match="not_opened"):
            open_first_untrusted(reader, [private], good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :])
    assert len(good) == len(alice.letter(reader, public, text="x" * 400)) == FIRST_BYTES
    with pytest.raises(ValueError, match="400"):
        alice.letter(reader, public, text="x" * 401)
