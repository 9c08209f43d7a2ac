"""The chat's screen under Textual's pilot: typing, conversations, states, search, what a small window shows."""

from __future__ import annotations

import pytest
from support.chat_fakes import befriend
from support.screens import Desk, at_desk, path

from p2pnode.chat import HALL
from p2pnode.cli.screen.details import Details
from p2pnode.cli.screen.dialogs import Help, OwnId
from p2pnode.cli.screen.entry import Entry, Past
from p2pnode.cli.screen.frame import fits, is_light
from p2pnode.cli.screen.search import Search
from p2pnode.cli.screen.sidebar import RoomList

pytestmark = pytest.mark.slow


def test_what_is_typed_appears_with_its_state_and_what_comes_too() -> None:
    """One's own message first queued, then delivered; another's with its author."""

    async def work(at: Desk) -> None:
        await at.type("hello all")
        await at.until(lambda: at.shows("you: hello all \u2713"))
        bob = at.people[1]
        await bob.chat.send(HALL, "good morning")
        await at.until(lambda: at.shows(f"{at.own.chat.display_name(bob.node.user_id)}: good morning"))
        assert await bob.texts(HALL) == ["hello all", "good morning"]

    at_desk(work, "alice", "bob")


def test_message_to_somebody_who_is_away_stays_marked_as_queued() -> None:
    """And is marked as delivered once it is."""

    async def work(at: Desk) -> None:
        alice, bob = at.people
        await befriend(alice, bob)
        await alice.chat.add_contact(bob.node.user_id, "bob")
        bob.node.up = False
        for session in alice.node.sessions():
            session.break_off("lost")
        await at.type("bob/are you there?")
        await at.pilot.press("ctrl+n")
        await at.until(lambda: at.shows("are you there? \u2026"))
        bob.node.up = True
        alice.chat.links.came(bob.node.peer_id)
        await at.until(lambda: at.shows("are you there? \u2713"))

    at_desk(work, "alice", "bob", hall=False)


def test_unread_messages_are_counted_until_their_conversation_is_opened() -> None:
    """In the list and at the top; the count survives a restart, what was opened stays read."""

    async def work(at: Desk) -> None:
        alice, bob = at.people
        await befriend(alice, bob)
        for text in ("one", "two"):
            await bob.chat.send(alice.node.user_id, text)
        party = bob.node.user_id
        await at.until(lambda: at.app.rooms[party].unread == 2)
        assert {s.party: s.unread for s in await alice.store.conversations()}[party] == 2
        await at.pilot.press("ctrl+g")
        await at.until(lambda: at.shows("two"))
        assert at.app.rooms.unread == 0
        assert any("new" in line for line in at.lines())
        await bob.chat.send(alice.node.user_id, "three")
        await at.until(lambda: at.shows("three"))
        assert at.app.rooms.unread == 0
        await at.pilot.pause(0.3)  # the mark rides along with a later commit
        assert {s.party: s.unread for s in await alice.store.conversations()}[party] == 0

    at_desk(work, "alice", "bob")


def test_half_typed_line_stays_as_it_is() -> None:
    """While messages come, conversations are switched and a dialog covers the screen."""

    async def work(at: Desk) -> None:
        await at.type("half a li", enter=False)
        await at.people[1].chat.send(HALL, "interrupting")
        await at.until(lambda: at.shows("interrupting"))
        await at.pilot.press("f1")
        await at.pilot.pause()
        assert isinstance(at.app.screen, Help)
        await at.pilot.press("escape", "escape", "ctrl+n", "ctrl+p")
        await at.pilot.pause()
        await at.type("ne")
        await at.until(lambda: at.shows("you: half a line"))

    at_desk(work, "alice", "bob")


def test_several_lines_history_and_completion() -> None:
    """Ctrl+J makes a line; Up brings back what was sent, Down the draft; Tab completes names and commands."""

    async def work(at: Desk) -> None:
        entry = at.app.query_one(Entry)
        await at.pilot.press(*"first", "ctrl+j", *"second", "enter")
        await at.until(lambda: at.shows("second \u2713"))
        assert await at.people[1].texts(HALL) == ["first\nsecond"]
        await at.pilot.press(*"draft", "up")
        assert entry.text == "first\nsecond"
        await at.pilot.press("down", "down")
        assert entry.text == "draft"
        entry.put("")
        await at.pilot.press(*"\\cha", "tab")
        assert entry.text == "\\chat "
        await at.pilot.press(*"b", "tab")
        assert entry.text == "\\chat bob "
        await at.pilot.press("enter")
        await at.until(lambda: at.app.timeline.party == at.people[1].node.user_id)
        await at.pilot.press("\\", "tab", "tab")
        assert entry.text == "\\chat"
        entry.put("")
        await at.pilot.press(*"bo", "tab", *"psst", "enter")
        await at.until(lambda: at.shows("you: psst"))

    at_desk(work, "alice", "bob")


def test_long_text_is_pasted_whole_and_never_sent_by_its_line_ends() -> None:
    """Its size is shown near the limit; above the limit it is refused, and Up brings it back."""

    async def work(at: Desk) -> None:
        from textual import events

        entry = at.app.query_one(Entry)
        text = "line of text\n" * 1000
        entry.post_message(events.Paste(text.replace("\n", "\r\n")))
        await at.until(lambda: entry.text == text)
        assert "13,000 of 15,000" in str(at.app.query_one("#keys").render())
        await at.pilot.press("enter")
        await at.until(lambda: bool(at.app.timeline.messages))
        assert at.app.timeline.messages[0].text == text.rstrip()
        entry.put("x" * 15_001)
        await at.pilot.press("enter")
        await at.until(lambda: at.shows("at most 15,000"))
        await at.pilot.press("up")
        assert len(entry.text) == 15_001

    at_desk(work, "alice", "bob")


def test_same_language_as_line_mode() -> None:
    """Macros, `NAME/text`, `//text`, a mistyped command: what they say stands in the conversation."""

    async def work(at: Desk) -> None:
        for typed, answer in (
            ("\\hlep", "did you mean \\help?"),
            ("/users", "here now, in the hall"),
            ("nobody/x", "Nobody known is called nobody"),
            ("//etc", "you: /etc"),
            ("\\who", "in the hall"),
            ("\\search etc", "/etc"),
            ("\\trace", "no session now"),
        ):
            await at.type(typed)
            await at.until(lambda answer=answer: at.shows(answer))  # type: ignore[misc]
        await at.type(":q")
        await at.until(lambda: not at.app.is_running)
        assert at.app.return_value is False

    at_desk(work, "alice", "bob")


def test_ctrl_c_leaves_and_says_so() -> None:
    """The program's exit code depends on it."""

    async def work(at: Desk) -> None:
        await at.pilot.press("ctrl+c")
        await at.until(lambda: not at.app.is_running)
        assert at.app.return_value is True

    at_desk(work, "alice", hall=False)


def test_request_of_a_stranger_is_a_notice_and_blocking_ends_it() -> None:
    """The conversation is marked; `\\block` takes it away."""

    async def work(at: Desk) -> None:
        alice, mallory = at.people
        await mallory.chat.send(alice.node.user_id, "you do not know me", wait=2.0)
        party = mallory.node.user_id
        await at.until(lambda: at.app.rooms[party].request)
        assert len(at.app._notifications) == 1
        await at.type(f"\\block {alice.chat.display_name(party)}")
        await at.until(lambda: at.shows("is blocked"))
        assert party not in [room.party for room in at.app.rooms.ordered()]

    at_desk(work, "alice", "mallory", hall=False)


def test_panel_tells_path_round_trip_and_why() -> None:
    """Of the device that there is a session with, in words; a relayed path asks why."""

    async def work(at: Desk) -> None:
        alice, bob = at.people
        await befriend(alice, bob)
        at.inspector.paths[bob.node.peer_id] = path("relay", text="Relayed, because both routers choose random ports.")
        await at.type("\\chat bob")
        await at.until(lambda: at.app.timeline.party == bob.node.user_id)
        panel = at.app.query_one(Details)
        assert not panel.display
        await at.pilot.press("f3")
        await at.until(lambda: panel.display)
        shown = str(panel.query_one("Static").render())  # type: ignore[no-untyped-call]
        for text in ("relay, 12 ms", "198.51.100.4:4747", "Why relayed? Relayed, because both", "router keeps ports"):
            assert text in shown
        await at.type("\\trace")
        await at.until(lambda: at.shows("lookup: started"))

    at_desk(work, "alice", "bob")


def test_search_leads_to_the_message_however_old() -> None:
    """Results while typing; Enter shows the messages round it, Ctrl+End leads back to the newest."""

    async def work(at: Desk) -> None:
        bob = at.people[1]
        for number in range(500):
            await bob.chat.post(HALL, "the needle" if number == 20 else f"hay {number}")
        await at.until(lambda: at.app.rooms[HALL].last_position >= 500, 30.0)
        await at.app.open(HALL)
        assert not at.shows("needle")
        await at.pilot.press("ctrl+f")
        await at.pilot.pause()
        assert isinstance(at.app.screen, Search)
        await at.pilot.press(*"NEEDLE")
        await at.pilot.pause(0.3)
        await at.pilot.press("enter")
        await at.until(lambda: at.shows("the needle"))
        rows = at.app.log_view
        top = rows.scroll_offset.y
        assert any("the needle" in line for line in at.lines()[top : top + rows.size.height])
        await bob.chat.post(HALL, "meanwhile")
        await at.pilot.pause(0.3)
        assert not at.shows("meanwhile")
        await at.pilot.press("ctrl+end")
        await at.until(lambda: at.shows("meanwhile"))

    at_desk(work, "alice", "bob")


def test_scrolling_back_reads_older_messages_and_stays_in_place() -> None:
    """Until the first one; new messages do not move what is read."""

    async def work(at: Desk) -> None:
        bob = at.people[1]
        for number in range(450):
            await bob.chat.post(HALL, f"number {number}")
        await at.until(lambda: at.app.rooms[HALL].last_position >= 450, 30.0)
        await at.app.open(HALL)
        await at.pilot.pause()
        assert not at.shows("number 100")
        log = at.app.log_view
        await at.pilot.press("pageup")
        while not at.timeline.at_start:
            log.scroll_to(y=0, animate=False)
            await at.pilot.pause(0.02)
        log.scroll_to(y=20, animate=False)
        await at.pilot.pause()
        assert at.shows("number 0")
        shown = at.lines()[log.scroll_offset.y]
        await bob.chat.post(HALL, "one more")
        await at.until(lambda: at.shows("one more"))
        assert at.lines()[log.scroll_offset.y] == shown

    at_desk(work, "alice", "bob")


def test_first_start_explains_and_whoever_types_is_understood() -> None:
    """Five lines, the own id, its QR code and the line for others; keys go to the input at once."""

    async def work(at: Desk) -> None:
        welcome = at.app.screen
        assert isinstance(welcome, OwnId)
        told = "\n".join(str(part.render()) for part in welcome.query("Static"))  # type: ignore[attr-defined]
        assert [line[0] for line in told.splitlines() if line[:2] in ("1 ", "2 ", "3 ", "4 ", "5 ")] == list("12345")
        assert str(at.own.node.user_id) in told
        assert f"p2pnode join NAME {at.own.node.peer_id}@192.0.2.7:4747" in told
        assert "\u2588" in told
        await at.pilot.press(*"hello")
        await at.pilot.pause()
        assert at.app.query_one(Entry).text == "hello"

    at_desk(work, "alice", first=True, hall=False, alone=True)


def test_parts_that_fit() -> None:
    """80 columns: list and messages; wide: the panel as well; narrow: messages alone; what is asked for comes."""
    assert fits(80, None, None) == (True, False)
    assert fits(120, None, None) == (True, True)
    assert fits(50, None, None) == (False, False)
    assert fits(80, None, True) == (False, True)
    assert fits(80, True, True) == (True, True)
    assert fits(120, None, False) == (True, False)
    assert [is_light(value) for value in ("", "15;0", "0;15", "0;default;15")] == [False, False, True, True]


def test_light_and_dark_and_the_list() -> None:
    """Ctrl+T changes the colours, F4 the list."""

    async def work(at: Desk) -> None:
        assert at.app.theme == "textual-dark"
        await at.pilot.press("ctrl+t")
        assert at.app.theme == "textual-light"
        rooms = at.app.query_one(RoomList)
        assert rooms.display
        await at.pilot.press("f4")
        assert not rooms.display

    at_desk(work, "alice", hall=False)


def test_past_walks_back_and_forth() -> None:
    """The draft comes back behind the last one; neighbours that are equal are one."""
    past = Past()
    assert past.back("x") is None
    for line in ("a", "b", "b", " "):
        past.add(line)
    assert [past.back("draft"), past.back("b"), past.back("a")] == ["b", "a", None]
    assert [past.forward(), past.forward(), past.forward()] == ["b", "draft", None]
