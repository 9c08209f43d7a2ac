"""The screen in a flood of messages: drawn seldom, and only what is new."""

from __future__ import annotations

import asyncio

import pytest
from support.chat_fakes import FakeWorld, Person, until
from support.screens import Desk, at_desk
from textual.geometry import Region

from p2pnode.chat import HALL
from p2pnode.cli.screen.feed import Batch, Feed
from p2pnode.simulations.virtual import VirtualLoop


def test_flood_is_drawn_five_times_a_second() -> None:
    """A single message is shown at once; while they keep coming, each drawing shows a fifth of a second of them."""

    async def main() -> None:
        world = FakeWorld(delay=0.0, lookup_s=0.0)
        alice, bob = [await Person(world, name).start() for name in ("alice", "bob")]
        bob.chat.enter_hall(alice.node.peer_id)
        await until(bob, lambda: len(bob.chat.members()) == 1)
        loop = asyncio.get_running_loop()
        drawn: list[int] = []

        def show(batch: Batch) -> None:
            if batch.messages:
                drawn.append(len(batch.messages))

        feed = Feed(alice.chat, show)
        running = loop.create_task(feed.run(await alice.chat.store.last_position()))
        await asyncio.sleep(1.0)
        await bob.chat.send(HALL, "first")
        await asyncio.sleep(0.05)
        assert len(drawn) == 1
        for number in range(40):
            await asyncio.sleep(0.05)
            await bob.chat.send(HALL, str(number))
        await asyncio.sleep(1.0)
        assert sum(drawn) == 41
        assert len(drawn) <= 14  # 2 s: ten, and the first ones
        running.cancel()
        feed.close()
        await alice.stop()
        await bob.stop()

    VirtualLoop().run(main())


@pytest.mark.slow
def test_row_that_was_drawn_is_not_drawn_again() -> None:
    """The same row is the same strip, until colours, the width or what it says change."""

    async def work(at: Desk) -> None:
        log = at.app.log_view
        at.app.tell("hello")
        await at.until(lambda: at.shows("hello"))
        row = next(number for number, line in enumerate(at.lines()) if "hello" in line) - log.scroll_offset.y
        crop = Region(0, row, log.outer_size.width, 1)
        before = log.render_lines(crop)[0]
        assert "hello" in before.text
        assert before.cell_length == log.outer_size.width
        assert log.render_lines(crop)[0] is before
        assert log.render_lines(Region(2, row, 9, 1))[0].cell_length == 9
        await at.pilot.press("ctrl+t")
        await at.pilot.pause()
        light = log.render_lines(crop)[0]
        assert light.text == before.text
        assert light != before
        await at.pilot.resize_terminal(100, 24)
        await at.pilot.pause()
        assert log.render_lines(Region(0, row, log.outer_size.width, 1))[0].cell_length == log.outer_size.width

    at_desk(work, "alice", hall=False)
