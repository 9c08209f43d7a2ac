"""Devices of a user under attack: revoked ones, forged and replayed lists, strangers in the devices' own protocols."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from support.chat_devices import eventually
from support.chat_fakes import FakeWorld, Person, befriend

from p2pnode import AccountKey, DeviceList, P2PError
from p2pnode.chat.devices import link_wire, sync_wire, wire
from p2pnode.chat.devices.lists import KnownList
from p2pnode.chat.protocol import CHAT_PROTOCOL, VERSION, Hello, TextMessage, device_proof, encode
from p2pnode.simulations.virtual import run_virtual

ALICE = AccountKey.generate(random.Random("account alice").randbytes)


async def say(person: Person, to: Person, protocol: str, data: bytes) -> bytes:
    """Open a stream as a program of one's own would, and return what comes back. Raise P2PError when it is reset."""
    session = await person.node.connect(to.node.peer_id)
    stream = await session.open_stream(protocol)
    await stream.write(data)
    stream.finish()
    answer = b""
    async with asyncio.timeout(60):
        while piece := await stream.read():
            answer += piece
    return answer


def listed(known: KnownList) -> bytes:
    frame = known.frame
    assert frame is not None
    return wire.encode(frame)


def test_v3_a_revoked_device_with_the_old_list_is_refused_by_all_who_could_know() -> None:
    """The thief keeps the old list and the account key's old signature. Bob was away when the phone was revoked: he
    asks the network when it speaks, and from then on nothing of it counts, whatever it replays."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        laptop = await Person(world, "alice", account=ALICE, device="laptop").start()
        phone = await Person(world, "alice", account=ALICE, device="phone").start()
        both = await laptop.node.change_devices(add=[phone.node.peer_id])
        phone.node.adopt_devices(both)
        bob = await Person(world, "bob").start()
        await befriend(laptop, bob)
        await befriend(phone, bob)
        await phone.chat.send(bob.node.user_id, "still mine", wait=20.0)
        await laptop.chat.send(bob.node.user_id, "me too", wait=20.0)
        await eventually(lambda: len(bob.chat.directory.devices_of(ALICE.user_id)) == 2)
        world.walls |= {frozenset((laptop.node, bob.node)), frozenset((laptop.node, phone.node))}
        for session in [*laptop.node.sessions(), *phone.node.sessions()]:
            session.break_off("lost")
        await laptop.chat.devices.revoke(phone.node.peer_id)
        await asyncio.sleep(700)  # Bob has looked the list up when the two met; he may again
        assert not phone.chat.devices.revoked  # the thief lets nobody tell it

        await phone.chat.post(bob.node.user_id, "lend me money")
        await eventually(lambda: bob.chat.directory.devices_of(ALICE.user_id) == (laptop.node.peer_id,))
        before = len(await bob.texts(ALICE.user_id))
        for text in ("now", "please"):
            await phone.chat.post(bob.node.user_id, text)
        await asyncio.sleep(120)
        for _ in range(3):
            await say(phone, bob, wire.DEVICES_PROTOCOL, listed(KnownList.sign(ALICE, both)))
        await asyncio.sleep(60)
        assert len(await bob.texts(ALICE.user_id)) == before
        assert bob.chat.directory.devices_of(ALICE.user_id) == (laptop.node.peer_id,)
        hello = Hello(VERSION, ALICE.user_id.raw, device_proof(ALICE, phone.node.peer_id), "alice", hall=False)
        text = TextMessage(bytes(16), hall=False, sequence=1, sent_at=1, text="it is me, really")
        with pytest.raises(P2PError):
            await say(phone, bob, CHAT_PROTOCOL, encode(hello) + encode(text))
        assert bob.chat.drops["not_listed"] == 1
        assert len(await bob.texts(ALICE.user_id)) == before
        for person in (laptop, phone, bob):
            await person.stop()

    run_virtual(main)


def test_v3_nothing_is_sent_to_a_device_that_was_revoked_while_the_sender_was_away(tmp_path: Path) -> None:
    """Bob knew both devices. The phone is revoked while he is off; the thief waits for what he writes next."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        laptop = await Person(world, "alice", account=ALICE, device="laptop").start()
        phone = await Person(world, "alice", account=ALICE, device="phone").start()
        phone.node.adopt_devices(await laptop.node.change_devices(add=[phone.node.peer_id]))
        bob = await Person(world, "bob", tmp_path / "bob").start()
        await befriend(laptop, bob)
        await befriend(phone, bob)
        for person in (phone, laptop):
            await person.chat.send(bob.node.user_id, "hello", wait=20.0)
        both = (await bob.chat.send(ALICE.user_id, "to both", wait=20.0)).devices
        await bob.stop()
        world.walls.add(frozenset((laptop.node, phone.node)))
        for session in phone.node.sessions():
            session.break_off("lost")
        await laptop.chat.devices.revoke(phone.node.peer_id)
        bob = await Person(world, "bob", tmp_path / "bob").start()
        assert len(bob.chat.directory.devices_of(ALICE.user_id)) == 2  # as far as he knows
        result = await bob.chat.send(ALICE.user_id, "the secret", wait=20.0)
        assert (result.delivered, result.everywhere, result.devices) == (True, True, 1)
        await asyncio.sleep(120)
        assert "the secret" in await laptop.texts(bob.node.user_id)
        assert "the secret" not in await phone.texts(bob.node.user_id)
        print(f"devices before: {both}, after: {result.devices}")
        for person in (laptop, phone, bob):
            await person.stop()

    run_virtual(main)


def test_v3_lists_that_the_account_did_not_sign_change_nothing() -> None:
    """Forged, of somebody else, unnumbered, from the future, without end: refused and counted; the devices stay."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        alice, bob = await Person(world, "alice").start(), await Person(world, "bob").start()
        mallory = await Person(world, "mallory").start()
        await befriend(alice, bob)
        await alice.chat.send(bob.node.user_id, "hello", wait=20.0)
        account, now = mallory.node.account, int(mallory.node.network.wall() * 1000)
        own = DeviceList(now, (mallory.node.peer_id,))
        stolen = KnownList(alice.node.user_id, own, KnownList.sign(account, own).signature)
        for bad, reason in (
            (stolen, "bad_list_signature"),
            (KnownList.sign(account, DeviceList(0, own.devices)), "no_number"),
            (KnownList.sign(account, DeviceList(now + 2 * 86_400_000, own.devices)), "too_new"),
        ):
            with pytest.raises(P2PError):
                await say(mallory, bob, wire.DEVICES_PROTOCOL, listed(bad))
            assert bob.chat.drops[f"devices_{reason}"] == 1
        with pytest.raises(P2PError):
            await say(mallory, bob, wire.DEVICES_PROTOCOL, listed(KnownList.sign(account, own)) * 65)
        assert bob.chat.drops["devices_too_many_frames"] == 1
        refused = 0
        for _ in range(100):
            try:
                await say(mallory, bob, wire.DEVICES_PROTOCOL, listed(KnownList.sign(account, own)))
            except P2PError:
                refused += 1
        print(f"of 100 streams in a row {refused} were refused")
        assert refused > 0
        assert bob.chat.directory.devices_of(alice.node.user_id) == (alice.node.peer_id,)
        assert (await alice.chat.send(bob.node.user_id, "still here", wait=20.0)).delivered
        for person in (alice, bob, mallory):
            await person.stop()

    run_virtual(main)


def test_x3_strangers_cannot_keep_up_with_us_nor_mark_what_others_wrote() -> None:
    """The own devices' protocol is closed to all others; a receipt counts in the sender's conversation only."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        alice, bob = await Person(world, "alice").start(), await Person(world, "bob").start()
        mallory = await Person(world, "mallory").start()
        await befriend(alice, bob)
        await befriend(alice, mallory)
        sent = await alice.chat.send(bob.node.user_id, "for bob", wait=20.0)
        await mallory.chat.send(alice.node.user_id, "hello", wait=20.0)
        with pytest.raises(P2PError):
            await say(mallory, alice, sync_wire.SYNC_PROTOCOL, sync_wire.encode(sync_wire.Log(bytes(16))))
        entry = sync_wire.ContactEntry("user", mallory.node.user_id.raw, 99, "accepted", "Mum", True, 0)
        batch = sync_wire.Batch(1, 1, [entry], [], [], [])
        for frames in ([sync_wire.Log(bytes(16)), batch], [batch]):
            data = b"".join(sync_wire.encode(frame) for frame in frames)
            with pytest.raises(P2PError):
                await say(mallory, alice, sync_wire.SYNC_PROTOCOL, data)
        assert alice.chat.drops["sync_not_own_device"] == 3
        read = wire.encode(wire.Read([bytes.fromhex(sent.id)]))
        assert await say(mallory, alice, wire.DEVICES_PROTOCOL, read) == wire.encode(wire.Noted())
        assert [m.state for m in await alice.store.history(bob.node.user_id)] == ["delivered"]
        assert alice.chat.display_name(mallory.node.user_id) != "Mum"
        for person in (alice, bob, mallory):
            await person.stop()

    run_virtual(main)


def test_v2_linking_without_a_code_or_with_guesses_gives_nothing() -> None:
    """No code open: refused. Guesses void the code after five; the account's list stays as it was."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        alice, mallory = await Person(world, "alice").start(), await Person(world, "mallory").start()
        ask = link_wire.encode(link_wire.Ask(bytes(16), bytes(32), "phone"))
        with pytest.raises(P2PError):
            await say(mallory, alice, link_wire.LINK_PROTOCOL, ask)
        assert alice.chat.drops["link_no_code"] == 1
        alice.chat.devices.linking.begin()
        for _ in range(7):
            with pytest.raises(P2PError):
                await say(mallory, alice, link_wire.LINK_PROTOCOL, ask)
        assert alice.chat.drops["link_wrong_code"] == 5
        assert alice.chat.drops["link_no_code"] == 3
        assert alice.chat.devices.linking.open_s == 0
        assert [device.peer for device in alice.chat.devices.own()] == [alice.node.peer_id]
        await alice.stop()
        await mallory.stop()

    run_virtual(main)
