"""The pictures of docs/chat.md: drawn by the screen itself, and what the screen draws today is what they show.

`P2PNODE_PICTURES=1 uv run pytest tests/cli/test_screen_pictures.py` draws them anew; then somebody looks at them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.screens import Desk, at_desk, path

from p2pnode.chat import HALL

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
MORNING = 1_790_000_000.0  # what all clocks show: 2026-09-21 14:13 UTC


@pytest.fixture(autouse=True)
def fixed_surroundings() -> Iterator[None]:
    """The same clock face and colours on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        for name in ("NO_COLOR", "COLORFGBG", "TEXTUAL_THEME", "TEXTUAL_COLOR_SYSTEM"):
            patch.delenv(name, raising=False)
        time.tzset()
        yield
    time.tzset()


def stop_clocks(at: Desk) -> None:
    at.app.entry.cursor_blink = False
    for person in at.people:
        person.node.network.wall = lambda: MORNING


async def compare(at: Desk, name: str) -> None:
    """Draw the screen; it must be the picture, or becomes it when pictures are wanted."""
    await at.pilot.pause()
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", at.app.export_screenshot(), flags=re.DOTALL)  # nothing from elsewhere
    picture = FOLDER / f"{name}.svg"
    if os.environ.get("P2PNODE_PICTURES") == "1":
        FOLDER.mkdir(exist_ok=True)
        picture.write_text(drawn, encoding="utf-8")
    assert drawn == picture.read_text(encoding="utf-8"), f"draw {name} anew (see above) and look at it"


async def talk(at: Desk) -> None:
    """An ordinary morning in the hall."""
    stop_clocks(at)
    _alice, bob, carol = at.people
    await bob.chat.send(HALL, "good morning, all")
    await at.until(lambda: at.shows("good morning, all"))
    await carol.chat.send(
        HALL, "morning! Who brings the projector? The one in room 3 is broken, and we need it at ten."
    )
    await at.until(lambda: at.shows("projector"))
    await at.type("I do")
    await at.until(lambda: at.shows("you: I do \u2713"))


def test_welcome() -> None:
    """The first start."""

    async def work(at: Desk) -> None:
        stop_clocks(at)
        await compare(at, "welcome")

    at_desk(work, "alice", first=True, hall=False, alone=True)


def test_hall_with_an_unread_message() -> None:
    """80 columns."""

    async def work(at: Desk) -> None:
        await talk(at)
        alice, bob, _carol = at.people
        await alice.chat.add_contact(bob.node.user_id, "Bob")
        await bob.chat.send(alice.node.user_id, "and just between us: is there cake?")
        await at.until(lambda: at.app.rooms.unread == 1)
        await at.type("half a li", enter=False)
        at.app.clear_notifications()
        at.app._tick()  # names as they are now, whenever it came last
        await compare(at, "hall")

    at_desk(work, "alice", "bob", "carol")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_conversation_with_panel(theme: str) -> None:
    """120 columns: list, messages, panel; both colours."""

    async def work(at: Desk) -> None:
        await talk(at)
        alice, bob, carol = at.people
        await alice.chat.add_contact(bob.node.user_id, "Bob")
        await bob.chat.send(alice.node.user_id, "and just between us: is there cake?")
        await carol.chat.send(alice.node.user_id, "hello, this is Carol from the other floor")
        await at.until(lambda: at.app.rooms.unread == 2)
        why = (
            "Relayed through 198.51.100.4:4747, because both routers choose a new random port for each destination"
            " (symmetric NAT). Enabling UPnP, NAT-PMP or PCP on either router would make it direct."
        )
        at.inspector.paths[bob.node.peer_id] = path("relay", rtt_s=0.084, text=why)
        at.inspector.paths[carol.node.peer_id] = path("punched")
        await at.type("\\chat Bob")
        await at.until(lambda: at.app.timeline.party == bob.node.user_id)
        await at.type("Yes: apple cake.\nIt is in the kitchen.")
        await at.until(lambda: at.shows("kitchen. \u2713"))
        at.app.clear_notifications()
        if theme == "light":
            await at.pilot.press("ctrl+t")
        at.app._tick()
        await compare(at, f"panel-{theme}")

    at_desk(work, "alice", "bob", "carol", size=(120, 30))


def test_search_and_help() -> None:
    """What covers the screen for a moment."""

    async def work(at: Desk) -> None:
        await talk(at)
        await at.pilot.press("ctrl+f", *"project")
        await at.pilot.pause(0.4)
        at.app.screen.query_one("Input").cursor_blink = False  # type: ignore[attr-defined]
        await compare(at, "search")
        await at.pilot.press("escape", "f1")
        await at.pilot.pause(0.1)
        await compare(at, "help")

    at_desk(work, "alice", "bob", "carol", size=(80, 30))
