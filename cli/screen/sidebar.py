"""The list of conversations beside the messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message as Event
from textual.scroll_view import ScrollView
from textual.strip import Strip

from p2pnode import clean
from p2pnode.chat import Party
from p2pnode.chat.model import Hall
from p2pnode.cli.screen.rooms import Room

__all__ = ["PRESENCE", "RoomList"]

PRESENCE = {"online": "\u25cf", "last_seen": "\u25d0", "offline": "\u25cb", "": "\u00b7"}
"""What stands before a name: here, here a moment ago, away, nobody knows."""


Row = tuple[str, str, str, int, bool]
"""What a line shows: sign and its role, name, how much is unread, whether it is the open one."""


class RoomList(ScrollView, can_focus=False):
    """Shows `Room`s; a click opens one."""

    class Chosen(Event):
        """A conversation was clicked."""

        def __init__(self, party: Party) -> None:
            super().__init__()
            self.party = party

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "rooms--name", "rooms--open", "rooms--unread", "rooms--online", "rooms--last_seen", "rooms--away",
        "rooms--request",
    }  # fmt: skip
    DEFAULT_CSS = """
    RoomList {
        background: $panel;
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-size-vertical: 1;
        padding: 0 1;
        .rooms--name { color: $foreground; }
        .rooms--open { color: $block-cursor-foreground; background: $block-cursor-background; text-style: bold; }
        .rooms--unread { color: $text-accent; text-style: bold; }
        .rooms--online { color: $text-success; }
        .rooms--last_seen { color: $text-warning; }
        .rooms--away { color: $text-muted; }
        .rooms--request { color: $text-warning; text-style: bold; }
    }
    """

    def __init__(self, name_of: Callable[[Party], str], presence_of: Callable[[Party], str], id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._name_of = name_of
        self._presence_of = presence_of
        self._rooms: list[Room] = []
        self._rows: list[Row] = []
        self._base: Style | None = None

    def draw(self, rooms: list[Room], open_party: Party) -> None:
        """Show these, from the top; the open one stays in view. Nothing is painted when all is as it was."""
        rows = [self._row(room, room.party == open_party) for room in rooms]
        if rows == self._rows:
            return
        if len(rows) != len(self._rows):
            self.virtual_size = Size(self.size.width, len(rows))
        self._rooms, self._rows, self._base = rooms, rows, None
        at = next((index for index, room in enumerate(rooms) if room.party == open_party), 0)
        top, height = self.scroll_offset.y, max(1, self.size.height)
        if not top <= at < top + height:
            self.scroll_to(y=max(0, at - height // 2), animate=False, immediate=True)
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        row = self.scroll_offset.y + event.y
        if row < len(self._rooms):
            self.post_message(self.Chosen(self._rooms[row].party))

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._base = None

    def render_line(self, y: int) -> Strip:
        row, width = self.scroll_offset.y + y, self.size.width
        base = self._base = self._base or self.rich_style
        if row >= len(self._rows):
            return Strip.blank(width, base)
        sign, sign_role, name, unread, opened = self._rows[row]
        count = f" {unread if unread < 1000 else '999+'}" if unread else ""
        room_for_name = max(1, width - 2 - len(count))
        if cell_len(name) > room_for_name:
            name = set_cell_size(name, room_for_name - 1) + "\u2026"
        name_role = "rooms--unread" if unread else "rooms--name"
        pieces = ((f"{sign} ", sign_role), (set_cell_size(name, room_for_name), name_role), (count, "rooms--unread"))
        styles = (self.get_component_rich_style("rooms--open" if opened else role) for _, role in pieces)
        segments = [Segment(text, style) for (text, _), style in zip(pieces, styles, strict=True)]
        return Strip(segments).adjust_cell_length(width, base)

    def _row(self, room: Room, opened: bool) -> Row:
        name = clean(self._name_of(room.party), limit=80).removeprefix("#")
        return *self._sign(room), name, room.unread, opened

    def _sign(self, room: Room) -> tuple[str, str]:
        if isinstance(room.party, Hall):
            return "#", "rooms--name"
        if room.request:
            return "?", "rooms--request"
        presence = self._presence_of(room.party)
        role = {"online": "rooms--online", "last_seen": "rooms--last_seen"}.get(presence, "rooms--away")
        return PRESENCE.get(presence, PRESENCE[""]), role
