"""Strangers meet, talk, go on: whole nodes in virtual time."""

from __future__ import annotations

import pytest
from support.strangers import lobby_of

from p2pnode import NotFoundError
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


def test_two_strangers_find_each_other_talk_and_are_told_when_one_leaves() -> None:
    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 2) as (one, other):
            await one.strangers.begin()
            await other.strangers.begin()
            found = await one.until("found")
            await other.until("found")
            assert found.path == "direct"
            assert found.seconds < 5.0
            await one.strangers.say("hello \x1b[2J you\u202e")
            assert await other.heard() == "hello \ufffd[2J you"
            await other.strangers.say("two\nlines")
            assert await one.heard() == "two\nlines"
            await one.strangers.next()
            assert (await other.until("ended")).reason == "left"
            with pytest.raises(NotFoundError, match="has gone"):
                await other.strangers.say("still there?")
            assert one.strangers.phase == "searching"
            await one.strangers.quit()
            assert one.events[-1].phase == "off"

    run_virtual(main, delay=0.03)
