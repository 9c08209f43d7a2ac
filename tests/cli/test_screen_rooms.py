"""Rooms on the chat's screen: made, joined, read in one order, listed; typed as a user types."""

from __future__ import annotations

from support.screens import Desk, at_desk

from p2pnode.chat import RoomId


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
