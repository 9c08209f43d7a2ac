"""All devices of a user, on fake nodes in virtual time: lists, revoking, syncing, receipts, linking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.chat_devices import eventually
from support.chat_fakes import FakeWorld, Person, befriend
from support.devices import ALICE, has, link, pair, stop

from p2pnode import DeviceRevokedError, NotFoundError, P2PError
from p2pnode.chat import (
    ChatSettings,
    MessagesSynced,
    MessageStateChanged,
    OwnDevicesChanged,
)
from p2pnode.simulations.virtual import run_virtual


def state_is(person: Person, party: Any, state: str, *, everywhere: bool) -> Callable[[], Any]:
    async def check() -> bool:
        last = (await person.store.history(party))[-1]
        return (last.state, last.everywhere) == (state, everywhere)

    return check


def test_what_one_device_sends_and_gets_the_others_show_once() -> None:
    """Sent on one, shown on the other with its state; received by both directly, still there once."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        laptop, phone = await pair(world)
        bob = await Person(world, "bob").start()
        await befriend(laptop, bob)
        result = await laptop.chat.send(bob.node.user_id, "from the laptop")
        assert result.delivered
        await eventually(has(phone, bob.node.user_id, ["from the laptop"]))
        await eventually(lambda: phone.chat.directory.state_of(bob.node.user_id) == "accepted")
        copy = (await phone.store.history(bob.node.user_id))[0]
        assert copy.outgoing
        assert copy.id == result.id
        await eventually(state_is(phone, bob.node.user_id, "delivered", everywhere=True))
        answer = await bob.chat.send(laptop.node.user_id, "to both", wait=20.0)
        assert answer.delivered
        for device in (laptop, phone):
            await eventually(has(device, bob.node.user_id, ["from the laptop", "to both"]))
        await phone.chat.send(bob.node.user_id, "from the phone")
        await asyncio.sleep(10)
        for device in (laptop, phone):
            assert await device.texts(bob.node.user_id) == ["from the laptop", "to both", "from the phone"]
        assert await bob.texts(laptop.node.user_id) == ["from the laptop", "to both", "from the phone"]
        await stop(laptop, phone, bob)

    run_virtual(main)


def test_a_device_that_was_away_is_told_all_when_it_comes_back(tmp_path: Path) -> None:
    """Hundreds of messages both ways, contacts, what was seen: nothing lost, nothing twice, also after a crash."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        laptop = await Person(world, "alice", tmp_path / "laptop", account=ALICE, device="laptop").start()
        phone = await Person(world, "alice", tmp_path / "phone", account=ALICE, device="phone").start()
        await link(laptop, phone)
        bob = await Person(world, "bob").start()
        await befriend(laptop, bob)
        await asyncio.sleep(5)
        await phone.crash()
        sent = [f"from laptop {n}" for n in range(150)] + ["x" * 14_000 for _ in range(9)]
        for text in sent:
            await laptop.chat.post(bob.node.user_id, text)
        await laptop.chat.rename_contact(bob.node.user_id, "Bobby")
        await eventually(has(bob, laptop.node.user_id, sent), timeout=60)
        await asyncio.sleep(30)

        again = Person(world, "alice", tmp_path / "phone", account=ALICE, device="phone")
        again.node.own_list = phone.node.own_list
        await again.start()
        assert not again.of_type(OwnDevicesChanged)  # nothing has changed
        await eventually(has(again, bob.node.user_id, sent), timeout=120)
        assert len(again.of_type(MessagesSynced)) >= 3  # in several batches
        await eventually(lambda: again.chat.display_name(bob.node.user_id) == "Bobby")
        await again.crash()
        last = Person(world, "alice", tmp_path / "phone", account=ALICE, device="phone")
        last.node.own_list = phone.node.own_list
        await last.start()
        await laptop.chat.post(bob.node.user_id, "one more")
        await eventually(has(last, bob.node.user_id, [*sent, "one more"]), timeout=120)
        assert sum(len(e.messages) for e in last.of_type(MessagesSynced)) == 1
        await stop(laptop, last, bob)

    run_virtual(main)


def test_decisions_about_people_are_those_of_the_last_device_that_made_them() -> None:
    """Added, renamed, verified, blocked, removed on either: the other follows, and a block acts there as well."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        laptop, phone = await pair(world)
        bob = await Person(world, "bob").start()
        party = bob.node.user_id
        await laptop.chat.add_contact(party, "Bob")
        await eventually(lambda: phone.chat.display_name(party) == "Bob")
        await phone.chat.rename_contact(party, "Robert")
        await phone.chat.verify_contact(party)
        await eventually(lambda: laptop.chat.display_name(party) == "Robert")
        contact = laptop.chat.directory.contact(party)
        assert contact is not None
        assert contact.verified
        await bob.chat.add_contact(laptop.node.user_id)
        await bob.chat.send(laptop.node.user_id, "hello", wait=10.0)
        await eventually(has(phone, party, ["hello"]))
        await laptop.chat.block(party)
        await eventually(lambda: phone.chat.directory.state_of(party) == "blocked")
        assert phone.node._blocked(bob.node.peer_id)
        await phone.chat.block(party, blocked=False)
        await eventually(lambda: laptop.chat.directory.state_of(party) == "accepted")
        await laptop.chat.remove_contact(party)
        await eventually(lambda: phone.chat.directory.state_of(party) is None)
        await stop(laptop, phone, bob)

    run_virtual(main)


def test_what_was_read_on_one_device_is_read_on_the_others_and_the_sender_hears_of_it() -> None:
    """Unread counts agree; the sender's devices show `read`; what came later stays unread."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        laptop, phone = await pair(world)
        bob = await Person(world, "bob").start()
        await befriend(laptop, bob)
        party = bob.node.user_id
        await eventually(lambda: phone.chat.directory.state_of(party) == "accepted")
        for n in range(3):
            await bob.chat.send(laptop.node.user_id, f"message {n}", wait=10.0)
        await eventually(has(phone, party, ["message 0", "message 1", "message 2"]))
        history = await laptop.store.history(party)
        laptop.chat.devices.seen(party, history[1].position)
        await eventually(unread(phone, 1))
        await eventually(unread(laptop, 1))
        await eventually(lambda: sum(e.state == "read" for e in bob.of_type(MessageStateChanged)) == 2)
        states = [m.state for m in await bob.store.history(laptop.node.user_id)]
        assert states == ["read", "read", "delivered"]
        phone.chat.devices.seen(party, (await phone.store.history(party))[-1].position)
        await eventually(unread(laptop, 0))
        await eventually(lambda: sum(e.state == "read" for e in bob.of_type(MessageStateChanged)) == 3)
        await stop(laptop, phone, bob)

    run_virtual(main)


def unread(person: Person, count: int) -> Callable[[], Any]:
    async def check() -> bool:
        return [c.unread for c in await person.store.conversations() if str(c.party) != "hall"] == [count]

    return check


def test_nobody_is_told_what_was_read_while_receipts_are_off(tmp_path: Path) -> None:
    """Off: never told, not even when they are switched on later. Strangers are never told."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        quiet = ChatSettings(read_receipts=False)
        alice = await Person(world, "alice", tmp_path / "alice", settings=quiet).start()
        bob = await Person(world, "bob").start()
        await bob.chat.send(alice.node.user_id, "are you there?", wait=10.0)
        alice.chat.devices.seen(bob.node.user_id, 1)
        await asyncio.sleep(5)
        await befriend(alice, bob)
        alice.chat.devices.seen(bob.node.user_id, 1)
        await asyncio.sleep(5)
        await alice.stop()
        alice = await Person(world, "alice", tmp_path / "alice").start()
        await bob.chat.send(alice.node.user_id, "and now?", wait=30.0)
        alice.chat.devices.seen(bob.node.user_id, 2)
        await eventually(lambda: "read" in [e.state for e in bob.of_type(MessageStateChanged)])
        await asyncio.sleep(5)
        assert [m.state for m in await bob.store.history(alice.node.user_id)] == ["delivered", "read"]
        await stop(alice, bob)

    run_virtual(main)


def test_a_message_is_on_all_devices_once_the_last_one_has_it() -> None:
    """`delivered` with the first device, `everywhere` with the last, in the event and in the history."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        laptop, phone = await pair(world)
        bob = await Person(world, "bob").start()
        await befriend(laptop, bob)
        await bob.chat.send(laptop.node.user_id, "hello", wait=20.0)
        await eventually(state_is(bob, laptop.node.user_id, "delivered", everywhere=True))
        phone.node.go_down()
        result = await bob.chat.send(laptop.node.user_id, "only one is here", wait=20.0)
        assert (result.delivered, result.everywhere, result.devices) == (True, False, 1)
        await eventually(state_is(bob, laptop.node.user_id, "delivered", everywhere=False))
        await stop(laptop, bob)

    run_virtual(main)


def test_messages_go_to_devices_that_we_have_not_met() -> None:
    """The list names the phone, which never wrote to Bob: it gets his messages itself, also while the laptop is off."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        laptop, phone = await pair(world)
        bob = await Person(world, "bob").start()
        await befriend(laptop, bob)
        await bob.chat.send(laptop.node.user_id, "first", wait=20.0)
        await eventually(lambda: len(bob.chat.directory.devices_of(laptop.node.user_id)) == 2)
        await eventually(has(phone, bob.node.user_id, ["first"]))
        await eventually(lambda: phone.chat.directory.state_of(bob.node.user_id) == "accepted")
        assert laptop.chat.directory.state_of(bob.node.user_id) == "accepted"  # the phone took it for a request
        laptop.node.go_down()
        result = await bob.chat.send(laptop.node.user_id, "second", wait=20.0)
        assert (result.delivered, result.devices) == (True, 1)
        assert await phone.texts(bob.node.user_id) == ["first", "second"]
        await stop(phone, bob)

    run_virtual(main)


def test_a_revoked_device_gets_nothing_and_speaks_for_nobody() -> None:
    """Messages go to the others, its own are refused, it is told, and what was queued for it alone goes elsewhere."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        laptop, phone = await pair(world)
        bob = await Person(world, "bob").start()
        await befriend(laptop, bob)
        await befriend(phone, bob)
        await bob.chat.send(laptop.node.user_id, "to both", wait=20.0)
        await phone.chat.send(bob.node.user_id, "hi", wait=20.0)
        await eventually(has(phone, bob.node.user_id, ["to both", "hi"]))

        with pytest.raises(P2PError, match="itself"):
            await laptop.chat.devices.revoke(laptop.node.peer_id)
        with pytest.raises(NotFoundError):
            await laptop.chat.devices.revoke(bob.node.peer_id)
        await laptop.chat.devices.revoke(phone.node.peer_id)
        await eventually(lambda: phone.chat.devices.revoked)
        await eventually(lambda: bob.chat.directory.devices_of(laptop.node.user_id) == (laptop.node.peer_id,))
        assert any(e.revoked for e in phone.of_type(OwnDevicesChanged))
        with pytest.raises(DeviceRevokedError):
            await phone.chat.send(bob.node.user_id, "still me")
        result = await bob.chat.send(laptop.node.user_id, "secret", wait=20.0)
        assert (result.delivered, result.devices, result.everywhere) == (True, 1, True)
        await laptop.chat.send(bob.node.user_id, "also secret", wait=20.0)
        await asyncio.sleep(60)
        assert "secret" not in await phone.texts(bob.node.user_id)
        assert "also secret" not in await phone.texts(bob.node.user_id)
        await stop(laptop, phone, bob)

    run_virtual(main)
