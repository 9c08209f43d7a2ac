"""The pure parts of the screen: what is loaded, in which order conversations stand, how a message becomes lines."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from rich.cells import cell_len

from p2pnode import PeerId, UserId
from p2pnode.chat import HALL, Contact, ConversationSummary, Message
from p2pnode.cli.screen import layout, timeline
from p2pnode.cli.screen.rooms import Rooms
from p2pnode.cli.screen.timeline import Remark, Timeline

RNG = random.Random("screen parts")
ME, OTHER, THIRD = (PeerId(RNG.randbytes(32)) for _ in range(3))
USER, FRIEND = (UserId(RNG.randbytes(32)) for _ in range(2))


def message(position: int, *, author: PeerId = OTHER, sequence: int = 0, text: str = "", own: bool = False) -> Message:
    """One of a conversation; `sequence` as `position` when not given."""
    return Message(
        position=position, id=f"{position:032x}", party=FRIEND, author=ME if own else author, author_user=FRIEND,
        author_name="bob", outgoing=own, text=text or str(position), sent_at=1.0, received_at=1.0,
        state="queued" if own else "received", sequence=sequence or position,
    )  # fmt: skip


def positions(line: Timeline) -> list[int]:
    return [m.position for m in line.messages]


def loaded(*numbers: int, at_start: bool = True, at_end: bool = True) -> Timeline:
    line = Timeline(FRIEND)
    line.load([message(n) for n in numbers], at_start=at_start, at_end=at_end)
    return line


def test_late_message_is_shown_before_the_later_ones_of_its_author() -> None:
    """As the database does it; a second copy is nothing."""
    line = Timeline(FRIEND)
    for number, (author, sequence) in enumerate(((OTHER, 5), (THIRD, 1), (OTHER, 3), (OTHER, 4), (OTHER, 6)), 1):
        assert line.add(message(number, author=author, sequence=sequence))
    assert positions(line) == [3, 4, 1, 2, 5]
    assert not line.add(message(3, sequence=3))


def test_window_in_the_middle_takes_no_new_message() -> None:
    """It belongs beyond the window's end, which is read when the user scrolls there."""
    line = loaded(1, 2, at_end=False)
    assert not line.add(message(9))
    line.add_newer([message(2), message(3)], at_end=True)
    assert positions(line) == [1, 2, 3]
    assert line.add(message(9))


def test_what_came_while_messages_were_read_is_not_lost() -> None:
    """Opening a conversation takes a moment."""
    line = Timeline(FRIEND)
    line.add(message(3))
    line.load([message(1), message(2)], at_start=True, at_end=True)
    assert positions(line) == [1, 2, 3]


def test_memory_is_bounded_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scrolled up, the newest go; followed, the oldest go; the flags tell that something is left out."""
    monkeypatch.setattr(timeline, "KEPT", 4)
    line = loaded(5, 6, 7, at_start=False)
    line.add_older([message(3), message(4)], at_start=False)
    assert (positions(line), line.at_end) == ([3, 4, 5, 6], False)
    line = loaded(1, 2, 3, 4)
    line.add(message(5))
    line.trim()
    assert (positions(line), line.at_start) == ([2, 3, 4, 5], False)


def test_states_reach_own_messages_only() -> None:
    """By id, wherever they are; ids of others change nothing."""
    line = Timeline(FRIEND)
    line.load([message(1, own=True), message(2), message(3, own=True)], at_start=True, at_end=True)
    states = {f"{n:032x}": ("delivered", "", False) for n in (1, 2)}
    assert line.change(states)  # type: ignore[arg-type]  # literals
    assert [m.state for m in line.messages] == ["delivered", "received", "queued"]
    assert not line.change({"f" * 32: ("read", "", True)})


def test_remarks_stand_where_they_were_said() -> None:
    """Behind the messages that were there; those of a part that is not loaded are left out."""
    line = loaded(1, 2)
    line.remark("after two", 1.0)
    line.add(message(3))
    line.remark("after three", 1.0)
    shown = [item.text for item in line.items()]
    assert shown == ["1", "2", "after two", "3", "after three"]
    window = Timeline(FRIEND, [Remark("old", 1.0, 1), Remark("new", 1.0, 9)])
    window.load([message(5), message(6)], at_start=False, at_end=True)
    assert [item.text for item in window.items()] == ["5", "6", "new"]


def test_unread_mark_stands_before_the_messages_not_seen() -> None:
    """Own messages do not count."""
    line = Timeline(FRIEND)
    line.load([message(1), message(2), message(3, own=True), message(4)], at_start=True, at_end=True)
    line.mark_unread(2)
    assert line.unread_after == 1
    line.mark_unread(0)
    assert line.unread_after is None


def contact(party: UserId | PeerId, state: str = "accepted") -> Contact:
    return Contact(party, "", "", state, False, 0.0)  # type: ignore[arg-type]  # a literal


def test_rooms_hall_first_then_the_newest_then_by_name() -> None:
    """The blocked are not listed; a bare device whose user becomes known is one with its user."""
    names = {HALL: "hall", FRIEND: "bob", USER: "zoe", OTHER: "adam", THIRD: "tom"}
    rooms = Rooms(lambda party: names[party])  # type: ignore[index]
    rooms.load(
        [ConversationSummary(FRIEND, 1, replace(message(1), received_at=5.0), 2)],
        [contact(USER), contact(OTHER), contact(THIRD, "blocked"), contact(FRIEND)],
    )
    assert [names[room.party] for room in rooms.ordered()] == ["hall", "bob", "adam", "zoe"]
    assert (rooms.unread, rooms.next_unread(HALL), rooms.beside(HALL, -1)) == (2, FRIEND, USER)
    rooms.note(replace(message(2), party=OTHER, received_at=9.0), open_now=False)
    assert [names[room.party] for room in rooms.ordered()] == ["hall", "adam", "bob", "zoe"]
    rooms.adopt(OTHER, USER)
    assert (rooms[USER].unread, len(rooms.ordered())) == (1, 3)
    rooms.know([contact(FRIEND, "blocked"), contact(USER, "request")])
    assert [(names[room.party], room.request) for room in rooms.ordered()] == [("hall", False), ("zoe", True)]


@pytest.mark.parametrize("width", [12, 20, 57, 100])
def test_no_line_is_wider_than_the_window_and_nothing_is_lost(width: int) -> None:
    """Words, long words, wide characters, emoji, line ends, own and others', long names."""
    rng = random.Random(width)
    alphabet = [
        "a",
        "word",
        "\u6f22\u5b57",
        "\U0001f600",
        "e\u0301",
        " ",
        "  ",
        "\n",
        "x" * 70,
        "\U0001f468\u200d\U0001f469",
    ]
    for number in range(200):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(60)))
        sent = replace(message(1, own=number % 2 == 0), text=text, state="delivered")
        lines = layout.message_lines(sent, rng.choice(["you", "a name of thirty-nine characters~7x2k9q"]), 0, width)
        assert max(cell_len(layout.text_of(line)) for line in lines) <= max(width, layout.MIN_WIDTH)
        shown = "".join(piece for line in lines for piece, role in line if role == "text")
        assert "".join(shown.split()) == "".join(layout.clean(text, newline=True).split())


def test_marks_follow_the_state() -> None:
    """Behind the last line of an own message; none behind others'."""
    for state, mark in layout.MARKS.items():
        lines = layout.message_lines(replace(message(1, own=True), state=state), "you", 0, 40)  # type: ignore[arg-type]
        assert layout.text_of(lines[-1]).endswith(f" {mark}")
    assert layout.text_of(layout.message_lines(message(1), "bob", 0, 40)[-1]).endswith("bob: 1")


def test_remark_lines_keep_their_columns() -> None:
    """An indented line goes on further in."""
    first, second = layout.remark_lines("  \\chat [NAME]           talk to NAME from now on", 40)
    assert layout.text_of(first).startswith("  \\chat")
    assert layout.text_of(second).startswith("    ")
