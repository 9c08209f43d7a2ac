"""Rooms on the chat's screen: made, joined, read in one order, listed; typed as a user types."""

from __future__ import annotations

import os
from pathlib import Path

from support.screens import Desk, at_desk

from p2pnode.chat import FileSettings, RoomId


def test_room_is_made_listed_and_read_on_the_screen() -> None:
    """`\\room create`, who joins is told of, texts appear with their state, F3 lists the members."""

    async def work(at: Desk) -> None:
        alice, bob = at.people
        await at.type(r"\room create garden open")
        await at.until(lambda: isinstance(at.timeline.party, RoomId))
        room = at.timeline.party
        assert isinstance(room, RoomId)
        await bob.chat.rooms.join("garden")
        await at.until(lambda: at.shows("is in #garden now"))
        await at.type("welcome")
        await at.until(lambda: at.shows("welcome \u2713"))
        await bob.chat.send(room, "thank you")
        await at.until(lambda: at.shows("thank you"))
        assert [message.text for message in at.timeline.messages] == ["welcome", "thank you"]
        assert "#garden: 2 members, 1 connected" in str(at.app.top.render())
        await at.pilot.press("f3")
        await at.until(lambda: "owner, you" in str(at.app.details.query_one("Static").render()))
        await at.type(r"\chat")
        await bob.chat.send(room, "again")
        await at.until(lambda: at.app.rooms[room].unread == 1)
        await at.type("#garden/seen")
        await at.type(r"\chat garden")
        await at.until(lambda: at.shows("seen \u2713"))
        assert [message.text for message in at.timeline.messages] == ["welcome", "thank you", "again", "seen"]
        assert at.app.rooms.unread == 0
        assert [message.text for message in await bob.store.history(room)] == ["welcome", "thank you", "again", "seen"]
        assert alice.chat.display_name(room) == "#garden"

    at_desk(work, "alice", "bob", size=(120, 30))


def test_file_is_offered_to_the_room_on_the_screen(tmp_path: Path) -> None:
    """`\\file PATH` in a room's conversation: who has it is said there, `\\file` shows how far each is."""

    async def work(at: Desk) -> None:
        alice, bob, carol = at.people
        await at.type(r"\room create garden open")
        await at.until(lambda: isinstance(at.timeline.party, RoomId))
        for one in at.people:
            one.chat.files.settings = FileSettings(tmp_path / one.node.settings.name)
        for other in (bob, carol):
            await other.chat.rooms.join("garden")
        await at.until(lambda: "#garden: 3 members" in str(at.app.top.render()))
        (tmp_path / "plan.txt").write_text("dig")
        await at.type(rf"\file {tmp_path}/plan.txt")
        await at.until(lambda: at.shows("plan.txt (3 B) is offered to #garden."))
        await at.until(lambda: bool(bob.chat.files.jobs) and bool(carol.chat.files.jobs))
        await bob.chat.files.accept()
        await carol.chat.files.refuse()
        await at.until(lambda: at.shows(f"{alice.chat.display_name(bob.node.user_id)} has plan.txt (3 B)."))
        await at.until(lambda: at.shows(f"{alice.chat.display_name(carol.node.user_id)} does not take plan.txt (3 B)."))
        await at.type(r"\file")
        await at.until(lambda: at.shows("1 of 2 have it"))
        await bob.chat.files.send(at.timeline.party, str(tmp_path / "plan.txt"))
        await at.until(lambda: at.shows("offers the room plan.txt"))
        if picture := os.environ.get("P2PNODE_LOOK"):
            at.app.save_screenshot(picture)

    at_desk(work, "alice", "bob", "carol", size=(120, 30))
