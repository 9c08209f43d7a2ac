"""Attacks found in a review of the whole: what single parts withstood, and their joints did not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.chat_fakes import FakeNode, FakeWorld, Person, befriend

from p2pnode import BadPacket, NotFoundError
from p2pnode.api.types import rfc3339
from p2pnode.chat import HallChanged
from p2pnode.chat import protocol as wire
from p2pnode.chat.contacts import MAX_USER_DEVICES
from p2pnode.core.keys import AccountKey
from p2pnode.simulations.virtual import VirtualLoop

# -- chat


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 10_000.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


async def greet(node: FakeNode, bob: Person, account: AccountKey, *, name: str = "m", hall: bool = False) -> object:
    """Open a stream to Bob and say Hello as a device of `account`."""
    stream = await (await node.connect(bob.node.peer_id)).open_stream(wire.CHAT_PROTOCOL)
    proof = wire.device_proof(account, node.peer_id)
    await stream.write(wire.encode(wire.Hello(1, account.user_id.raw, proof, name, hall)))
    return stream


def test_x3_a_message_dated_beyond_the_calendar_cannot_break_the_lists() -> None:
    """A `sent_at` of year 292 million would make every listing of messages fail for ever."""
    with pytest.raises(BadPacket, match="malformed"):
        wire.decode_untrusted(wire.encode(wire.TextMessage(bytes(16), False, 1, 2**63 - 1, "x"))[4:])
    last = 253_402_300_799_999
    wire.decode_untrusted(wire.encode(wire.TextMessage(bytes(16), False, 1, last, "x"))[4:])
    assert rfc3339(last / 1000).startswith("9999-12-31T23:59:59")
    assert rfc3339((2**63 - 1) / 1000).startswith("9999-12-31T23:59:59"), "in a database from before"


def test_x3_an_account_cannot_fill_memory_disk_and_outbox_with_devices() -> None:
    """300 keys that one requesting account vouches for: 23 are kept, and writing to it addresses no more."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        account = AccountKey.generate(lambda n: b"\x07" * n)
        for number in range(300):
            node = FakeNode(world, "mallory", account, device=str(number))
            node.go_up()
            stream = await greet(node, bob, account)
            if not number:
                message = wire.TextMessage(bytes(16), False, 1, 1, "hi")
                await stream.write(wire.encode(message))  # type: ignore[attr-defined]
            await asyncio.sleep(1)
            node.go_down()
        assert bob.chat.directory.state_of(account.user_id) == "request"
        assert len(bob.chat.directory.devices_of(account.user_id)) == MAX_USER_DEVICES
        assert len(bob.chat.directory._devices) == MAX_USER_DEVICES
        assert len(await bob.store.devices()) <= MAX_USER_DEVICES
        await bob.chat.post(account.user_id, "who are you?")
        assert len(await bob.store.outbox_devices()) <= MAX_USER_DEVICES

    run(main)


def test_x3_a_device_that_changes_its_account_leaves_nothing_behind() -> None:
    """One session, 500 greetings with a fresh account each: one user is remembered, not 500."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        node = FakeNode(world, "mallory")
        node.go_up()
        for number in range(500):
            account = AccountKey.generate(lambda n, number=number: number.to_bytes(n, "big"))  # type: ignore[misc]
            stream = await greet(node, bob, account)
            await asyncio.sleep(0.05)
            stream.finish()  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
        assert bob.chat.directory.user_of(node.peer_id) == account.user_id
        assert len(bob.chat.directory._by_user) == 1

    run(main)


def test_x3_greetings_under_changing_names_do_not_cost_a_commit_each() -> None:
    """A contact that greets 400 times within a minute under new names: some 30 commits, not 400."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        node = FakeNode(world, "mallory")
        node.go_up()
        await bob.chat.add_contact(node.user_id)
        before = bob.store.database.commits
        for number in range(400):
            stream = await greet(node, bob, node.account, name=f"m{number}")
            await asyncio.sleep(0.05)
            stream.finish()  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
        commits = bob.store.database.commits - before
        print(f"{commits} commits for 400 greetings")
        assert commits <= 40
        assert bob.chat.directory.name_of(node.peer_id) == "m399"

    run(main)


def test_x3_a_new_device_of_a_blocked_user_is_sent_away() -> None:
    """Its first greeting shows whose it is: the session ends, nothing is written down."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        account = AccountKey.generate(lambda n: b"\x08" * n)
        await bob.chat.block(account.user_id)
        node = FakeNode(world, "mallory", account, device="new")
        node.go_up()
        await greet(node, bob, account)
        await asyncio.sleep(1)
        assert node.session(bob.node.peer_id) is None
        assert bob.chat.drops["blocked"] == 1
        assert await bob.store.devices() == []

    run(main)


def test_x3_entering_and_leaving_the_hall_in_a_loop_is_noticed_ten_times() -> None:
    """1,000 pairs of Members and Leave on one stream: ten entries, not a thousand lines and transactions."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        node = FakeNode(world, "mallory")
        node.go_up()
        stream = await greet(node, bob, node.account)
        pair = wire.encode(wire.Members([])) + wire.encode(wire.Leave())
        for _ in range(20):
            await stream.write(pair * 50)  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        assert len(bob.of_type(HallChanged)) <= 2 * 11
        assert bob.chat.drops["hall_too_often"] > 900

    run(main)


def test_x3_a_name_with_a_tilde_takes_nobodys_place() -> None:
    """Whoever types a name with the end of an id means that id, not a stranger who calls himself so."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        node = FakeNode(world, "mallory")
        node.go_up()
        await greet(node, bob, node.account, name="alice~7x2k9q")
        await asyncio.sleep(1)
        with pytest.raises(NotFoundError):
            bob.chat.resolve("alice~7x2k9q")

    run(main)


def test_x3_message_ids_and_acks_of_others_change_nothing() -> None:
    """Carol repeats the id of Alice's message and acknowledges it: both messages are kept, Bob's stays queued."""

    async def main(world: FakeWorld) -> None:
        bob, alice, carol = [await Person(world, name).start() for name in ("bob", "alice", "carol")]
        await befriend(bob, alice)
        await befriend(bob, carol)
        seen = (await alice.chat.send(bob.node.user_id, "from alice")).id
        alice.node.go_down()
        queued = await bob.chat.send(alice.node.user_id, "to alice", wait=0.1)
        await carol.chat.send(bob.node.user_id, "hello", wait=5.0)
        stream = await greet(carol.node, bob, carol.node.account)
        forged = wire.TextMessage(bytes.fromhex(seen), False, 1, 1, "from carol")
        await stream.write(wire.encode(forged))  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        assert "from alice" in await bob.texts(alice.node.user_id)
        assert "from carol" in await bob.texts(carol.node.user_id)
        link = bob.chat.links.get(carol.node.peer_id)
        session = bob.node.session(carol.node.peer_id)
        assert session is not None
        link._answer(session, wire.Ack([bytes.fromhex(queued.id)]), 0.0)
        assert (await bob.store.message(queued.id)).state == "queued"

    run(main)
