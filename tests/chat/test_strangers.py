"""Strangers meet, talk, go on: whole nodes in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from support.strangers import Someone, lobby_of

from p2pnode import MessageTooLongError, NotFoundError, RefusedError
from p2pnode.chat.strangers.mask import Mask
from p2pnode.chat.strangers.receipts import epoch_of, reports_topic
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


def mask_of(person: Someone) -> Mask:
    """The throw-away node that is in use."""
    assert person.strangers._mask is not None
    return person.strangers._mask


async def met(*people: Someone) -> None:
    """All of them look for strangers and have found one."""
    for person in people:
        await person.strangers.begin()
    for person in people:
        await person.until("found")


def test_two_strangers_find_each_other_talk_and_are_told_when_one_leaves() -> None:
    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 2) as (one, other):
            await met(one, other)
            assert one.events[-1].path == "direct"
            ways = {spec.peer for spec in one.node.ways_in()}  # a throw-away node joins through others
            assert len(ways) >= 5
            assert one.node.peer_id not in ways
            assert one.events[-1].seconds < 5.0
            await one.strangers.say("hello \x1b[2J you\u202e")
            assert await other.heard() == "hello \ufffd[2J you"
            await other.strangers.say("two\nlines")
            assert await one.heard() == "two\nlines"
            with pytest.raises(RefusedError, match="already"):
                await one.strangers.begin()
            with pytest.raises(MessageTooLongError):
                await one.strangers.say("x" * 2_001)
            await asyncio.gather(one.strangers.next(), one.strangers.next())  # from console and API at once
            assert [task.get_name() for task in asyncio.all_tasks()].count("stranger") == 2
            assert (await other.until("ended")).reason == "left"
            with pytest.raises(NotFoundError, match="has gone"):
                await other.strangers.say("still there?")
            assert one.strangers.phase == "searching"
            await one.strangers.quit()
            assert one.events[-1].phase == "off"
            with pytest.raises(NotFoundError):
                await one.strangers.next()

    run_virtual(main, delay=0.03)


@pytest.mark.long
def test_of_two_who_choose_a_third_one_gets_him_and_the_other_is_matched_anew_within_five_seconds() -> None:
    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 4) as (third, one, other, fourth):
            await third.strangers.begin()
            await asyncio.sleep(10)
            await asyncio.gather(one.strangers.begin(), other.strangers.begin())
            await third.until("found")
            await asyncio.sleep(6)
            happy, left = (one, other) if one.strangers.phase == "found" else (other, one)
            assert happy.strangers.phase == "found"
            assert left.strangers.phase == "searching"
            began = world.loop.time()
            await fourth.strangers.begin()
            await left.until("found")
            await fourth.until("found")
            took = world.loop.time() - began
            print(f"matched anew after {took:.2f} s")
            assert took < 5.0
            await happy.strangers.say("hi")
            assert await third.heard() == "hi"
            await left.strangers.say("ho")
            assert await fourth.heard() == "ho"

    run_virtual(main, delay=0.03)


@pytest.mark.long
def test_last_partner_is_not_met_again_at_once_but_after_a_minute_when_nobody_else_is_there() -> None:
    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 2) as (one, other):
            await met(one, other)
            first = mask_of(one).node.peer_id
            await asyncio.sleep(20)
            thrown_away = {mask_of(person).node.peer_id for person in (one, other)}
            assert not thrown_away & {contact.peer_id for contact in other.node.dht.known_contacts()}
            await one.strangers.next()
            await other.until("ended")
            parted = world.loop.time()
            await other.strangers.next()
            await one.until("found", timeout=150)
            assert 55 < world.loop.time() - parted < 100
            assert mask_of(one).node.peer_id != first

    run_virtual(main, delay=0.03)


@pytest.mark.long
def test_one_does_not_meet_oneself() -> None:
    """Two programs with one device's secret, as after a copied home."""

    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 2) as (one, twin):
            twin.strangers.reports._secret = one.strangers.reports._secret
            await one.strangers.begin()
            await twin.strangers.begin()
            await asyncio.sleep(30)
            assert one.strangers.phase == twin.strangers.phase == "searching"

    run_virtual(main, delay=0.03)


@pytest.mark.long
def test_texts_survive_a_broken_session_and_who_vanishes_is_missed() -> None:
    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 2) as (one, other):
            await met(one, other)
            for round_ in range(2):
                await one.strangers.say(f"before {round_}")
                [session] = [s for s in mask_of(one).node.sessions() if s.peer == mask_of(other).node.peer_id]  # type: ignore[attr-defined]
                session.close("cut")
                await one.strangers.say(f"after {round_}")
                await other.strangers.say(f"back {round_}")
                await asyncio.sleep(10)
            assert one.strangers.phase == other.strangers.phase == "found"
            assert [await other.heard() for _ in range(4)] == ["before 0", "after 0", "before 1", "after 1"]
            assert [await one.heard() for _ in range(2)] == ["back 0", "back 1"]
            assert one.texts.empty()
            other.network.host.up = False
            began = world.loop.time()
            assert (await one.until("ended", timeout=80)).reason == "lost"
            print(f"missed after {world.loop.time() - began:.0f} s")
            other.network.host.up = True

    run_virtual(main, delay=0.03)


@pytest.mark.long
def test_relay_only_hides_the_address() -> None:
    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 2) as (one, other):
            await asyncio.sleep(30)  # the others have found out that they can be relays
            await one.strangers.begin(relay_only=True)
            await other.strangers.begin()
            assert (await one.until("found")).path == "relay"
            await other.until("found")
            own = one.network.host.addresses()[0]
            seen = {s.remote.ip for s in mask_of(other).node.sessions()}  # type: ignore[attr-defined]
            assert own not in seen
            await one.strangers.say("hidden")
            assert await other.heard() == "hidden"

    run_virtual(main, delay=0.03)


@pytest.mark.long
def test_report_reaches_those_who_are_about_to_choose() -> None:
    """One reports the other; a third, who has met neither, reads it; after the reporter is gone, too."""

    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 3) as (one, other, third):
            await met(one, other)
            at = int(other.node.network.wall())
            device = other.strangers.key_at(at).public_raw
            await one.strangers.report()
            assert (await other.until("ended")).reason == "left"
            assert one.events[-1].reason == "reported"
            with pytest.raises(NotFoundError, match="no stranger to report"):
                await one.strangers.report()
            await asyncio.sleep(10)
            await one.strangers.quit()
            await one.stop()
            await third.strangers.begin()
            await asyncio.sleep(2)
            reports = third.strangers.reports
            epoch = epoch_of(at)
            assert await reports.wanted(mask_of(third).node, device, epoch)  # one report changes nothing
            assert reports.board.reports(device) == 1
            listing = await third.node.topic(reports_topic(device, epoch))
            assert [member.peer.raw for member in listing.members] == [one.strangers.key_at(at).public_raw]

    run_virtual(main, delay=0.03)
