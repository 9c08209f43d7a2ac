"""Messages, outbox and contacts in the database: exactly once and in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from p2pnode import NotFoundError, PeerBlockedError, PeerId, UserId
from p2pnode.chat import ChatStore, searching
from p2pnode.chat.store import Incoming, Outgoing, Received

RNG = random.Random("chat store")
ME, OTHER, OTHER2 = (PeerId(RNG.randbytes(32)) for _ in range(3))
MY_USER, FRIEND, STRANGER = (UserId(RNG.randbytes(32)) for _ in range(3))


def outgoing(text: str, *, party: Any = FRIEND, devices: tuple[PeerId, ...] = (OTHER,), at: int = 1000) -> Outgoing:
    return Outgoing(RNG.randbytes(16), ME, MY_USER, party, text, at, devices)


def incoming(text: str, sequence: int, *, user: UserId = FRIEND, hall: bool = False, id_: bytes = b"") -> Incoming:
    return Incoming(id_ or RNG.randbytes(16), OTHER, user, hall, sequence, text, 1000, 1001, "bob")


def with_store(work: Callable[[ChatStore], Awaitable[None]], path: Path | None = None) -> None:
    async def main() -> None:
        store = await ChatStore.open(path)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(main())


async def befriended(store: ChatStore) -> None:
    await store.put_contact(FRIEND, "accepted", now_ms=1)


def test_message_is_stored_once_however_often_it_comes() -> None:
    """The same author and id is a duplicate; the same id of another author is not."""

    async def work(store: ChatStore) -> None:
        await befriended(store)
        first = incoming("hi", 1)
        kinds = [(await store.receive(first)).kind for _ in range(3)]
        assert kinds == ["new", "duplicate", "duplicate"]
        stolen = Incoming(first.id, OTHER2, FRIEND, False, 1, "other author", 1, 1)
        assert (await store.receive(stolen)).kind == "new"
        assert [m.text for m in await store.history(FRIEND)] == ["hi", "other author"]

    with_store(work)


def test_late_message_is_shown_before_later_ones_of_its_author() -> None:
    """Order is the author's, whatever the order of arrival; others' messages stay where they were."""

    async def work(store: ChatStore) -> None:
        await befriended(store)
        await store.receive(incoming("1", 1))
        await store.receive(incoming("3", 3))
        await store.add_outgoing(outgoing("mine"))
        await store.receive(incoming("4", 4))
        await store.receive(incoming("2", 2))
        assert [m.text for m in await store.history(FRIEND)] == ["1", "2", "3", "mine", "4"]

    with_store(work)


@pytest.mark.parametrize("seed", range(5))
def test_every_order_of_arrival_gives_the_order_of_writing(seed: int) -> None:
    """Shuffled and doubled arrivals of 30 messages end in order, once each."""

    async def work(store: ChatStore) -> None:
        await befriended(store)
        messages = [incoming(str(n), n) for n in range(1, 31)]
        arrivals = messages * 2
        random.Random(seed).shuffle(arrivals)
        await asyncio.gather(*(store.receive(m) for m in arrivals))
        assert [m.text for m in await store.history(FRIEND)] == [str(n) for n in range(1, 31)]

    with_store(work)


def test_first_message_of_a_stranger_is_a_request_and_the_second_is_refused() -> None:
    """Until the user decides; then they come."""

    async def work(store: ChatStore) -> None:
        first = await store.receive(incoming("hello", 1, user=STRANGER))
        assert first.kind == "request"
        assert first.contact is not None
        assert first.contact.name == "bob"
        assert (await store.receive(incoming("again", 2, user=STRANGER))).code == "request_pending"
        await store.put_contact(STRANGER, "accepted", now_ms=1)
        assert (await store.receive(incoming("again", 2, user=STRANGER))).kind == "new"
        assert (await store.receive(incoming("x", 3, user=MY_USER), strangers=False)).code == "busy"

    with_store(work)


def test_blocked_people_are_refused_in_both_directions() -> None:
    """Nothing is stored from them, nothing is sent to them."""

    async def work(store: ChatStore) -> None:
        await store.put_contact(FRIEND, "blocked", now_ms=1)
        assert (await store.receive(incoming("hi", 1))) == Received("refused", code="blocked")
        assert (await store.receive(incoming("hi", 1, hall=True))) == Received("refused", code="blocked")
        with pytest.raises(PeerBlockedError):
            await store.add_outgoing(outgoing("hi"))
        assert await store.history(FRIEND) == []

    with_store(work)


def test_outbox_survives_reopening_and_ends_with_the_acknowledgement(tmp_path: Path) -> None:
    """What was queued is there after a restart; what was acknowledged is not."""
    path = tmp_path / "chat.db"

    async def first(store: ChatStore) -> None:
        await store.add_outgoing(outgoing("one"))
        await store.add_outgoing(outgoing("two", devices=(OTHER, OTHER2)))

    async def second(store: ChatStore) -> None:
        items = await store.outbox(OTHER)
        assert [item.text for item in items] == ["one", "two"]
        store.mark_delivered(OTHER, [item.position for item in items])

    async def third(store: ChatStore) -> None:
        assert await store.outbox_devices() == [OTHER2]
        assert [m.state for m in await store.history(FRIEND)] == ["delivered", "delivered"]

    for work in (first, second, third):
        with_store(work, path)


def test_unresolved_messages_go_to_the_devices_once_known() -> None:
    """A message to a user without known devices waits, and is then addressed to each."""

    async def work(store: ChatStore) -> None:
        await store.add_outgoing(outgoing("hi", devices=()))
        assert await store.outbox_unresolved() == [FRIEND]
        await store.outbox_add_devices(ME, FRIEND, [OTHER, OTHER2], since_ms=0)
        assert await store.outbox_unresolved() == []
        assert [i.text for d in (OTHER, OTHER2) for i in await store.outbox(d)] == ["hi", "hi"]

    with_store(work)


def test_conversation_with_a_device_becomes_its_users() -> None:
    """Once a device proves whose it is, its history, contact and petname are the user's."""

    async def work(store: ChatStore) -> None:
        await store.add_outgoing(outgoing("to the device", party=OTHER))
        await store.rename_contact(OTHER, "Bobby")
        await store.learn_device(OTHER, FRIEND, "bob", now_ms=5)
        assert [m.text for m in await store.history(FRIEND)] == ["to the device"]
        assert [(c.party, c.petname, c.state, c.devices) for c in await store.contacts()] == [
            (FRIEND, "Bobby", "accepted", (OTHER,))
        ]

    with_store(work)


def test_history_is_paged_and_searched_without_regard_to_case() -> None:
    """`before` pages back, `search` finds in any case of any script."""

    async def work(store: ChatStore) -> None:
        await befriended(store)
        for number, text in enumerate(["Straße 1", "two", "STRASSE 3", "100% done", "under_score"], 1):
            await store.receive(incoming(text, number))
        assert [m.text for m in await store.history(FRIEND, search="strasse")] == ["Straße 1", "STRASSE 3"]
        assert [m.text for m in await store.history(FRIEND, search="0% D")] == ["100% done"]
        last = await store.history(FRIEND, limit=2)
        assert [m.text for m in last] == ["100% done", "under_score"]
        assert [m.text for m in await store.history(FRIEND, limit=2, before=last[0].position)] == ["two", "STRASSE 3"]

    with_store(work)


def test_followers_see_each_message_once() -> None:
    """`messages(after=...)` continues where the last answer ended."""

    async def work(store: ChatStore) -> None:
        await befriended(store)
        await store.receive(incoming("1", 1))
        position = await store.last_position()
        await store.receive(incoming("3", 3))
        await store.receive(incoming("2", 2))
        assert [m.text for m in await store.messages(after=position)] == ["3", "2"]
        with pytest.raises(NotFoundError):
            await store.message("00" * 16)

    with_store(work)


def test_unread_counts_what_others_wrote_beyond_the_mark() -> None:
    """Own messages are never unread; a mark only rises; `after` reads on from a message."""

    async def work(store: ChatStore) -> None:
        await befriended(store)
        for number in range(1, 4):
            await store.receive(incoming(str(number), sequence=number))
        await store.add_outgoing(outgoing("mine"))
        [summary] = await store.conversations()
        assert summary.unread == 3
        messages = await store.history(FRIEND)
        store.mark_seen(FRIEND, messages[1].position)
        store.mark_seen(FRIEND, messages[0].position)
        assert [m.text for m in await store.history(FRIEND, after=messages[0].position, limit=2)] == ["2", "3"]
        await asyncio.sleep(0.2)
        [summary] = await store.conversations()
        assert summary.unread == 1

    with_store(work)


def test_search_finds_the_same_as_reading_every_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rare and common texts, beyond what is read first, of one, two and many characters, with quotes and wide ones, in
    whatever case; other conversations stay out."""
    monkeypatch.setattr(searching, "READ_FIRST", 20)
    rng = random.Random("search")
    words = ["Straße", "a", "100%", '"quoted"', "x*y", "漢字", "émile", "AND", "not found", "\U0001f600", "l'été"]

    async def work(store: ChatStore) -> None:
        await befriended(store)
        for number in range(1, 121):
            text = " ".join(rng.choices(words, k=4)) + (" needle" if number in (3, 90) else "")
            await store.receive(incoming(text, number, hall=number % 5 == 0))
        every = [m.text for m in await store.history(FRIEND, limit=1000)]
        for wanted in (
            "needle",
            "NEEDLE",
            "strasse",
            "a",
            "x*",
            '"quoted" a',
            "漢字",
            "É",
            "not found AND",
            "zzz",
            "'été l",
        ):
            for limit in (3, 1000):
                found = [m.text for m in await store.history(FRIEND, search=wanted, limit=limit)]
                assert found == [text for text in every if wanted.casefold() in text.casefold()][-limit:], wanted

    with_store(work)
