"""Attacks on gossip: strangers, floods, stolen entries, old statements (security.md X3, V1, R1, P2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace
from support.chat_fakes import FakeWorld, Person, befriend

from p2pnode import AccountKey, DeviceList, NodeKey, P2PError, UserId
from p2pnode.chat.devices.lists import KnownList
from p2pnode.chat.gossip.book import MAX_DEVICES, MAX_OF_USER, Book
from p2pnode.chat.gossip.service import BURST
from p2pnode.chat.gossip.statements import Body, Statement, entry_of, fill_of, sign, tag_of
from p2pnode.chat.gossip.wire import GOSSIP_PROTOCOL, Ask, FrameBuffer, Tell, encode
from p2pnode.chat.ports import StreamPort
from p2pnode.chat.protocol import device_proof
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]]) -> None:
    VirtualLoop().run(main(FakeWorld()), until=10_000.0)  # type: ignore[arg-type]


def statement(number: int, *, at: int = 1, text: str = "", audience: list[bytes] | None = None) -> Statement:
    rng = random.Random(f"attack {number}")
    key, account = NodeKey.generate(rng.randbytes), AccountKey.generate(rng.randbytes)
    body = Body(
        key.public_raw, account.public_raw, device_proof(account, key.peer_id), at, True, "x", text, key.x25519_public,
        [], audience or [],
    )  # fmt: skip
    return sign(key, body, (rng.randbytes(8) for _ in range(16)))


async def opened(person: Person, other: Person) -> StreamPort:
    """A stream of gossip that the attacker holds, in the place of its program's: one is taken in a session."""
    person.chat.gossip._stopping = True
    known = person.node.session(other.node.peer_id)
    if known is not None:
        known.break_off("lost")
        await asyncio.sleep(1)
    session = await person.node.connect(other.node.peer_id)
    return await session.open_stream(GOSSIP_PROTOCOL)


async def all_that_comes(stream: StreamPort, seconds: float) -> list[Statement]:
    """What is told within some time."""
    buffer, found = FrameBuffer(), list[Statement]()
    try:
        async with asyncio.timeout(seconds):
            while data := await stream.read(65_536):
                for frame in buffer.feed_untrusted(data):
                    assert isinstance(frame, Tell)
                    found += [Statement.check_untrusted(packed) for packed in frame.statements]
    except (TimeoutError, P2PError):
        pass
    return found


async def town(world: FakeWorld) -> tuple[Person, Person, Person]:
    """Bob knows Carol, who shows a status; Eve knows Bob."""
    bob, carol, eve = [await Person(world, name).start() for name in ("bob", "carol", "eve")]
    for one, other in ((bob, carol), (bob, eve)):
        await befriend(one, other)
        await one.chat.send(other.node.user_id, "hi")
    await carol.chat.gossip.set_text("for friends only")
    await asyncio.sleep(5)
    assert bob.chat.gossip.status_of(carol.node.user_id) == "for friends only"
    return bob, carol, eve


def test_attack_x3_strangers_hear_and_say_nothing() -> None:
    async def main(world: FakeWorld) -> None:
        bob, _, _ = await town(world)
        mallory = await Person(world, "mallory").start()
        await mallory.chat.send(bob.node.user_id, "let me in")
        stream = await opened(mallory, bob)
        await stream.write(encode(Ask([bytes(16)])))
        assert await all_that_comes(stream, 30) == []
        assert bob.chat.drops["gossip_not_a_contact"] >= 1

    run(main)


def test_attack_r1_who_reads_an_audience_asks_in_nobodys_place() -> None:
    """Eve once was Carol's contact and kept a statement: neither its entries nor a tag of another reader help her."""

    async def main(world: FakeWorld) -> None:
        bob, carol, eve = await town(world)
        kept = bob.chat.gossip._book._newest[carol.node.peer_id]  # as Carol sent it to those she trusted
        stream = await opened(eve, bob)
        stolen = [entry.ljust(16, b"\0") for entry in kept.audience]
        own = tag_of(eve.node.key, kept.body.x25519, carol.node.peer_id)
        real = tag_of(bob.node.key, kept.body.x25519, carol.node.peer_id)  # even Bob's own, had he lost it
        assert entry_of(real, bob.node.peer_id) in kept.audience
        await stream.write(encode(Ask([*stolen, own, real])))
        told = await all_that_comes(stream, 30)
        assert [each.device for each in told] == []
        assert bob.chat.gossip._listening[eve.node.peer_id].entries

    run(main)


def test_attack_p2_a_flood_of_statements_is_cut_off_and_grows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A contact who tells of 1,000 made-up people is cut off; not one is kept, nor is what lies in the future."""

    async def main(world: FakeWorld) -> None:
        bob, _, eve = await town(world)
        before = len(bob.chat.gossip._book._newest)
        talk = eve.chat.gossip._speaking[bob.node.peer_id]  # the one stream that she may have
        looked = 0
        honest = Statement.peek_untrusted

        def peek(packed: bytes) -> Statement:
            nonlocal looked
            looked += 1
            return honest(packed)

        monkeypatch.setattr(Statement, "peek_untrusted", peek)
        for number in range(0, 1_000, 10):
            talk.say(Tell([statement(n).packed for n in range(number, number + 10)]))
            await asyncio.sleep(0.02)
        await asyncio.sleep(5)
        print(f"statements that were looked at before the stream was cut: {looked}")
        assert bob.chat.drops["gossip_too_fast"] == 1
        assert BURST / 2 < looked < 2 * BURST + 100  # twice each: before and while its signatures are checked
        assert len(bob.chat.gossip._book._newest) == before

    run(main)


def test_attack_r1_old_statements_and_those_of_tomorrow_change_nothing() -> None:
    async def main(world: FakeWorld) -> None:
        bob, carol, eve = await town(world)
        old = bob.chat.gossip._book._newest[carol.node.peer_id]
        await carol.chat.gossip.set_text("newer")
        await asyncio.sleep(5)
        stream = await opened(eve, bob)
        await stream.write(encode(Tell([old.packed])))
        await asyncio.sleep(1)
        assert bob.chat.gossip._listening[eve.node.peer_id]
        assert bob.chat.drops["gossip_again"] == 0
        assert bob.chat.gossip.status_of(carol.node.user_id) == "newer"

    run(main)
    book = Book(NodeKey.generate(random.Random(1).randbytes), lambda _device, _user: True)
    assert not book.put(statement(1, at=10_000_000), 10_000_000 - 300_001)
    assert book.put(statement(1, at=10_000_000), 10_000_000)
    assert not book.put(statement(1, at=9_999_999), 10_000_000)


def test_attack_p2_the_book_is_bounded() -> None:
    """5 KB each at most, those heard of longest ago go first."""
    book = Book(NodeKey.generate(random.Random(1).randbytes), lambda _device, _user: True)
    one = statement(1)
    for number in range(MAX_DEVICES + 50):
        other = Statement.stored(one.packed)
        other.device = NodeKey.generate(random.Random(number).randbytes).peer_id
        other.user = UserId(other.device.raw)
        assert book.put(other, 1_000)
    assert len(list(book)) == MAX_DEVICES
    assert len(book.audience()) <= 256


def test_attack_p2_a_contact_with_thousands_of_devices_pushes_nobody_out() -> None:
    """An account can vouch for any number of keys: the book, and the disk, keep as many of one user as others take."""

    async def main(world: FakeWorld) -> None:
        bob, carol, eve = await town(world)
        talk = eve.chat.gossip._speaking[bob.node.peer_id]  # the one stream that she may have
        for number in range(100):
            key = NodeKey.generate(random.Random(number).randbytes)
            body = Body(
                key.public_raw, eve.node.account.public_raw, device_proof(eve.node.account, key.peer_id),
                bob.chat.now_ms(), True, "x", "", key.x25519_public, [], [],
            )  # fmt: skip
            talk.tell(sign(key, body, fill_of(key)))
        await asyncio.sleep(5)
        kept = [each.user for each in bob.chat.gossip._book]
        rows = await bob.store.database.read(lambda c: c.execute("SELECT count(*) FROM gossip_heard").fetchone()[0])
        print(f"P2: {kept.count(eve.node.user_id)} of 100 devices kept, {rows} rows")
        assert kept.count(eve.node.user_id) == MAX_OF_USER
        assert rows <= MAX_OF_USER + 1
        assert bob.chat.gossip.status_of(carol.node.user_id) == "for friends only"

    run(main)


def test_attack_x3_two_statements_do_not_tell_how_many_contacts_there_are() -> None:
    """What fills up the audience stays: between two statements only what was added or removed is another."""
    key, rng = NodeKey.generate(random.Random(1).randbytes), random.Random(2)
    account = AccountKey.generate(rng.randbytes)
    contacts = [rng.randbytes(8) for _ in range(6)]
    body = Body(
        key.public_raw, account.public_raw, device_proof(account, key.peer_id), 1, True, "x", "", key.x25519_public, [],
        contacts,
    )  # fmt: skip
    one, same = (sign(key, body.at_time(at), fill_of(key)) for at in (1, 2))
    more = sign(key, replace(body, at=3, audience=[*contacts, rng.randbytes(8)]), fill_of(key))
    assert one.audience == same.audience
    assert len(one.audience - more.audience) == len(more.audience - one.audience) == 1


def test_attack_v3_a_revoked_device_says_nothing_in_its_users_name() -> None:
    """Carol's phone is stolen, and she revokes it: what it says goes nowhere, also through somebody who missed that."""

    async def main(world: FakeWorld) -> None:
        bob, carol, eve = await town(world)
        stolen = carol.node
        other = NodeKey.generate(random.Random(3).randbytes).peer_id
        await bob.chat.devices._take(KnownList.sign(stolen.account, DeviceList(bob.chat.now_ms(), (other,))))
        assert bob.chat.gossip.told_of(stolen.user_id) is None
        body = Body(
            stolen.key.public_raw, stolen.account.public_raw, device_proof(stolen.account, stolen.peer_id),
            bob.chat.now_ms() + 1_000, True, "carol", "send money", stolen.key.x25519_public, [], [],
        )  # fmt: skip
        eve.chat.gossip._speaking[bob.node.peer_id].tell(sign(stolen.key, body, fill_of(stolen.key)))
        await asyncio.sleep(5)
        assert bob.chat.gossip.told_of(stolen.user_id) is None
        assert bob.chat.gossip.status_of(stolen.user_id) == ""

    run(main)
