"""The messages of the open conversation: drawn line by line, only what is in view."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.message import Message as Event
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.widget import Widget

from p2pnode.chat import Message
from p2pnode.cli.screen import layout
from p2pnode.cli.screen.layout import NAME_COLOURS, Line
from p2pnode.cli.screen.timeline import Remark, Timeline

__all__ = ["MessageLog"]

STRIPS_KEPT = 500  # rows drawn that are kept, 5 kB each
NEAR_EDGE = 5  # lines from the loaded part's end at which more is asked for


class MessageLog(ScrollView, can_focus=False):
    """Shows a `Timeline`. Stays at the end while the user is there, and where they are otherwise."""

    class Wanted(Event):
        """The user scrolls to where nothing is loaded: more of the older messages, or of the newer ones."""

        def __init__(self, *, older: bool) -> None:
            super().__init__()
            self.older = older

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "log--time", "log--own", "log--text", "log--mark", "log--failed", "log--remark", "log--warning", "log--rule",
        "log--unread", "log--found", *(f"log--name-{number}" for number in range(NAME_COLOURS)),
    }  # fmt: skip
    DEFAULT_CSS = """
    MessageLog {
        background: $background;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size-vertical: 0;  /* a third of each drawing, and nobody drags it through a chat */
        padding: 0 1;
        .log--time { color: $text-muted; }
        .log--own { color: $text-primary; text-style: bold; }
        .log--text { color: $foreground; }
        .log--mark { color: $text-success; }
        .log--failed { color: $text-error; text-style: bold; }
        .log--remark { color: $text-muted; text-style: italic; }
        .log--warning { color: $text-warning; }
        .log--rule { color: $text-muted; }
        .log--unread { color: $text-accent; }
        .log--found { background: $warning-muted; }
        .log--name-0 { color: $text-accent; text-style: bold; }
        .log--name-1 { color: $text-success; text-style: bold; }
        .log--name-2 { color: $text-warning; text-style: bold; }
        .log--name-3 { color: $text-secondary; text-style: bold; }
        .log--name-4 { color: $text-error; text-style: bold; }
        .log--name-5 { color: $foreground; text-style: bold; }
    }
    """

    def __init__(self, timeline: Timeline, who: Callable[[Message], tuple[str, int]], id: str) -> None:  # noqa: A002
        """`who`: name and colour of a message's author."""
        super().__init__(id=id)
        self.timeline = timeline
        self._who = who
        self._lines: list[Line] = []
        self._starts: dict[int, int] = {}
        self._cache: dict[tuple[object, ...], list[Line]] = {}
        self._cached_width = 0
        self._asked = False
        self._base: Style | None = None
        self._strips: dict[int, tuple[Line, Strip]] = {}  # by row: what was shown there last
        self.found: int | None = None
        """Position of a message to mark, which a search led to."""

    @property
    def follows(self) -> bool:
        """Whether the user is at the end, and so sees what comes."""
        return self.timeline.at_end and self.scroll_offset.y >= self.max_scroll_y - 1

    def open(self, timeline: Timeline) -> None:
        """Show another conversation, from its end."""
        self.timeline = timeline
        self.found = None
        self._cache.clear()
        self.draw(at_end=True)

    def draw(self, *, at_end: bool | None = None, keep: int | None = None) -> None:
        """Lay out what changed and repaint. `at_end`: go there (None: stay there if we are). `keep`: position of the
        message whose place on the screen must not change."""
        self._asked = False
        at_end = self.follows if at_end is None else at_end
        anchor = self._starts.get(keep, 0) - self.scroll_offset.y if keep is not None else 0
        self._lay_out()
        # Set past the reactive, which would lay out the whole screen anew.
        size = Size(self._width, len(self._lines))
        self.set_reactive(Widget.virtual_size, size)
        self._scroll_update(size)
        if keep is not None:
            self.scroll_to(y=self._starts.get(keep, 0) - anchor, animate=False, immediate=True, force=True)
        elif at_end:
            self.scroll_to(y=len(self._lines), animate=False, immediate=True, force=True)
        self.refresh()

    def show_position(self, position: int) -> None:
        """Scroll to a message and mark it."""
        self.found = position
        middle = self._starts.get(position, 0) - self.size.height // 2
        self.scroll_to(y=max(0, middle), animate=False, immediate=True, force=True)
        self.refresh()

    def top_position(self) -> int | None:
        """Return the position of the first message in view."""
        top = self.scroll_offset.y
        return next((position for position, start in self._starts.items() if start >= top), None)

    def names_changed(self) -> None:
        """Names are looked up again."""
        self._cache.clear()

    # Textual's side

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._strips.clear()

    def on_resize(self) -> None:
        at_end, top = self.follows or not self._lines, self.top_position()
        self.draw(at_end=at_end, keep=None if at_end else top)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self._asked or round(old_value) == round(new_value):
            return
        if new_value <= NEAR_EDGE and not self.timeline.at_start:
            self._asked = True
            self.post_message(self.Wanted(older=True))
        elif new_value >= self.max_scroll_y - NEAR_EDGE and not self.timeline.at_end:
            self._asked = True
            self.post_message(self.Wanted(older=False))

    @property
    def allow_select(self) -> bool:
        return True

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        return selection.extract("\n".join(layout.text_of(line).rstrip() for line in self._lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:  # noqa: ARG002 - Textual's call
        self.refresh()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return rows of the screen. Textual's own way styles all that are in view anew whenever one line comes."""
        base, background = self.rich_style, self.background_colors[1]
        if base != self._base:  # worked out through all parents: it tells of another theme, too
            self._base = base
            self._strips.clear()
        strips = [self._strip(self.scroll_offset.y + y, base) for y in crop.line_range]
        for line_filter in self.get_line_filters():
            strips = [strip.apply_filter(line_filter, background) for strip in strips]
        begin, end = crop.column_span
        return strips if (begin, end) == (0, self.outer_size.width) else [strip.crop(begin, end) for strip in strips]

    def _strip(self, row: int, base: Style) -> Strip:
        if row >= len(self._lines):
            return Strip.blank(self.outer_size.width, base)
        line, selected = self._lines[row], self.text_selection
        span = selected.get_span(row) if selected is not None else None
        plain = span is None and (self.found is None or row != self._starts.get(self.found))
        if plain and (known := self._strips.get(row)) is not None and known[0] is line:
            return known[1]
        styles = [self._style(role) for _, role in line]
        if self.found is not None and row == self._starts.get(self.found):
            found = self.get_component_rich_style("log--found", partial=True)
            styles = [style + found for style in styles]
        segments = [Segment(text, style) for (text, _), style in zip(line, styles, strict=True)]
        if span is not None:
            segments = self._selected(segments, *span)
        middle = Strip(segments).adjust_cell_length(self.size.width, base).apply_offsets(0, row)
        edge = Strip([Segment(" ", Style(bgcolor=base.bgcolor))], 1)  # the padding
        strip = Strip.join([edge, middle, edge])
        if plain:
            self._strips[row] = line, strip
        return strip

    # inside

    @property
    def _width(self) -> int:
        return max(layout.MIN_WIDTH, self.scrollable_content_region.width)

    def _style(self, role: str) -> Style:
        return self.get_component_rich_style(f"log--{role}")

    def _selected(self, segments: list[Segment], start: int, end: int) -> list[Segment]:
        style = self.screen.get_component_rich_style("screen--selection")
        found: list[Segment] = []
        at = 0
        for segment in segments:
            text = segment.text
            stop = len(text) if end == -1 else max(0, min(len(text), end - at))
            begin = max(0, min(stop, start - at))
            for part, chosen in ((text[:begin], False), (text[begin:stop], True), (text[stop:], False)):
                if part:
                    found.append(Segment(part, (segment.style or Style()) + style if chosen else segment.style))
            at += len(text)
        return found

    def _lay_out(self) -> None:
        width = self._width
        if width != self._cached_width:
            self._cache.clear()
            self._strips.clear()
            self._cached_width = width
        before, self._cache = self._cache, {}
        lines: list[Line] = []
        starts: dict[int, int] = {}
        day, timeline = None, self.timeline
        unread_after = timeline.unread_after
        for item in timeline.items():
            if isinstance(item, Remark):
                key: tuple[object, ...] = (id(item),)
                laid = before.get(key) or layout.remark_lines(item.text, width)
            else:
                if unread_after is not None and item.position > unread_after and not item.outgoing:
                    lines.append(layout.unread_line(width))
                    unread_after = None
                today = layout.day_of(item.received_at)
                if today != day:
                    lines.append(layout.day_line(item.received_at, width))
                    day = today
                key = (item.position, item.state, item.everywhere and timeline.several)
                laid = before.get(key) or layout.message_lines(item, *self._who(item), width, several=timeline.several)
                starts[item.position] = len(lines)
            self._cache[key] = laid
            lines += laid
        self._lines, self._starts = lines, starts
        if len(self._strips) > STRIPS_KEPT:
            self._strips.clear()
