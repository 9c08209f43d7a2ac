"""Linking a device, what the user types about several, and what is left when they crash. Virtual time."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from support.chat_devices import eventually
from support.chat_fakes import FakeWorld, Person, befriend
from support.devices import ALICE, has, has_all, link, pair, stop

from p2pnode import LinkCodeError
from p2pnode.chat import (
    Conversation,
    LinkCode,
    Linked,
    OwnDevicesChanged,
    link_account,
)
from p2pnode.simulations.virtual import run_virtual


def test_linking_hands_over_the_account_once() -> None:
    """The code works once, for the one who has it; its text survives copying; a wrong or old one is refused."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        laptop = await Person(world, "alice").start()
        phone = Person(world, "fresh", device="phone")
        phone.node.go_up()
        kept: list[Linked] = []

        async def keep(linked: Linked) -> None:
            kept.append(linked)

        code = laptop.chat.devices.linking.begin()
        wrong = LinkCode.parse(code.text[:-26] + "a" * 26)
        with pytest.raises(LinkCodeError, match="not good"):
            await link_account(phone.node, wrong, keep)
        copied = LinkCode.parse(f" {code.text[:40]}\n  {code.text[40:]} ")
        assert copied.secret == code.secret
        waiting = asyncio.ensure_future(laptop.chat.devices.linking.wait())
        linked = await link_account(phone.node, copied, keep)
        assert await waiting == phone.node.peer_id
        assert kept == [linked]
        assert linked.account.user_id == laptop.node.user_id
        assert set(linked.devices.devices) == {laptop.node.peer_id, phone.node.peer_id}
        assert any(not e.revoked and len(e.devices) == 2 for e in laptop.of_type(OwnDevicesChanged))
        other = Person(world, "other", device="tablet")
        other.node.go_up()
        with pytest.raises(LinkCodeError):
            await link_account(other.node, code, keep)  # used
        late = laptop.chat.devices.linking.begin(seconds=60.0)
        waiting = asyncio.ensure_future(laptop.chat.devices.linking.wait())
        await asyncio.sleep(61)
        with pytest.raises(LinkCodeError):
            await waiting
        with pytest.raises(LinkCodeError):
            await link_account(other.node, late, keep)  # expired
        replaced = laptop.chat.devices.linking.begin()
        laptop.chat.devices.linking.begin()
        with pytest.raises(LinkCodeError):
            await link_account(other.node, replaced, keep)
        await stop(laptop)

    run_virtual(main)


@pytest.mark.parametrize("text", ["", "hello", "12D3KooW#aaaa", "p2p1abc#" + "a" * 26, "#" + "a" * 26, "x" * 5000])
def test_what_is_no_code_is_said_so(text: str) -> None:
    """One sentence, one code."""
    with pytest.raises(LinkCodeError, match="not a code"):
        LinkCode.parse(text)


def test_what_the_user_types_and_sees_of_several_devices() -> None:
    """`\\devices` lists, links and revokes; what was sent elsewhere is shown as one's own; `read` is said once."""

    async def main(_: Any) -> None:
        world = FakeWorld()
        laptop, phone = await pair(world)
        bob = await Person(world, "bob").start()
        await befriend(laptop, bob)
        await laptop.chat.add_contact(bob.node.user_id, "bob")
        shown: dict[str, list[str]] = {"laptop": [], "phone": []}
        at_laptop = Conversation(laptop.chat, own_port=4747, show=shown["laptop"].append)
        at_phone = Conversation(phone.chat, own_port=4747, show=shown["phone"].append)
        await at_phone.handle("\\devices")
        assert [line.split()[-1] for line in shown["phone"]] == [str(phone.node.peer_id), str(laptop.node.peer_id)]
        assert "this one" in shown["phone"][0]
        await at_laptop.handle("\\devices link")
        code = next(line.split()[-1] for line in shown["laptop"] if "id link 12D3" in line)
        assert LinkCode.parse(code).peer == laptop.node.peer_id

        await at_laptop.handle("bob/hello from the laptop")
        await eventually(lambda: any("hello from the laptop" in line for line in shown["phone"]))
        line = next(line for line in shown["phone"] if "hello from the laptop" in line)
        assert "you (to bob)" in line
        await eventually(has(bob, laptop.node.user_id, ["hello from the laptop"]))
        bob.chat.devices.seen(laptop.node.user_id, (await bob.store.history(laptop.node.user_id))[-1].position)
        await eventually(lambda: any("(read by bob)" in line for line in shown["laptop"]))
        await bob.chat.send(laptop.node.user_id, "an answer", wait=20.0)
        for lines in shown.values():
            await eventually(lambda lines=lines: sum("an answer" in line for line in lines) == 1)
        await asyncio.sleep(10)
        assert all(sum("an answer" in line for line in lines) == 1 for lines in shown.values())

        await at_laptop.handle("\\devices revoke nobody")
        assert shown["laptop"][-1].startswith("! 'nobody' is not one of your devices")
        await at_laptop.handle(f"\\devices revoke {str(phone.node.peer_id)[-8:]}")
        await eventually(lambda: any("was removed from your account" in line for line in shown["phone"]))
        await at_phone.handle("bob/am I still here?")
        assert shown["phone"][-1].startswith("! This device was removed")
        at_laptop.close()
        at_phone.close()
        await stop(laptop, phone, bob)

    run_virtual(main)


@pytest.mark.parametrize("seed", range(2))
def test_w1_devices_that_crash_again_and_again_end_up_the_same(tmp_path: Path, seed: int) -> None:
    """Either device dies at random moments while both send and receive: nothing lost, nothing twice, on either."""

    async def main(_: Any) -> None:
        world, rng = FakeWorld(), random.Random(seed)
        paths = {name: tmp_path / name for name in ("laptop", "phone")}
        devices = {
            name: await Person(world, "alice", path, account=ALICE, device=name).start() for name, path in paths.items()
        }
        await link(devices["laptop"], devices["phone"])
        listed = devices["laptop"].node.own_list
        bob = await Person(world, "bob").start()
        party = bob.node.user_id
        await befriend(devices["laptop"], bob)
        await asyncio.sleep(2)
        wanted: list[str] = []
        for number in range(40):
            name = rng.choice(("laptop", "phone"))
            if rng.random() < 0.2:
                await devices[name].crash()
                devices[name] = Person(world, "alice", paths[name], account=ALICE, device=name)
                devices[name].node.own_list = listed
                await devices[name].start()
            elif rng.random() < 0.5:
                await devices[name].chat.post(party, f"{name} {number}")
                wanted.append(f"{name} {number}")
            else:
                await bob.chat.post(ALICE.user_id, f"bob {number}")
                wanted.append(f"bob {number}")
            await asyncio.sleep(rng.expovariate(3.0))
        async with asyncio.timeout(600):
            for device in devices.values():
                await eventually(has_all(device, party, wanted), timeout=600)
        for device in devices.values():
            assert sorted(await device.texts(party)) == sorted(wanted)  # exactly once
        assert sorted(await bob.texts(ALICE.user_id)) == sorted(wanted)
        await stop(*devices.values(), bob)

    run_virtual(main)
