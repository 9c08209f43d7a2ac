"""Where text is typed: Enter sends, several lines are possible, Up brings back what was sent, Tab completes."""

from __future__ import annotations

from collections.abc import Callable

from textual import events
from textual.binding import Binding
from textual.message import Message as Event
from textual.widgets import TextArea

from p2pnode import clean

__all__ = ["Entry", "Past"]

PAST_KEPT = 200
PASTE_MAX = 65_536  # characters; a message has 15,000 bytes, so more than that is a mistake

Complete = Callable[[str], list[tuple[int, str]]]
"""`Conversation.complete`."""


class Past:
    """What was typed before, as Up and Down walk through it. Pure."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._at: int | None = None
        self._draft = ""

    def add(self, line: str) -> None:
        """Keep a line that was sent."""
        if line.strip() and (not self._lines or self._lines[-1] != line):
            self._lines.append(line)
            del self._lines[:-PAST_KEPT]
        self._at = None

    def back(self, now: str) -> str | None:
        """Return the line before the one shown, None when there is none. `now`: what stands in the input."""
        if self._at is None:
            self._draft = now
        at = len(self._lines) if self._at is None else self._at
        if at == 0:
            return None
        self._at = at - 1
        return self._lines[self._at]

    def forward(self) -> str | None:
        """Return the line after the one shown, at the end what was being typed; None when that is shown already."""
        if self._at is None:
            return None
        self._at = self._at + 1 if self._at + 1 < len(self._lines) else None
        return self._draft if self._at is None else self._lines[self._at]


class Entry(TextArea):
    """The input. Posts `Submitted` with what was typed, and empties itself."""

    class Submitted(Event):
        """Enter was pressed."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Offered(Event):
        """Tab was pressed: what the word may become; empty when that is settled."""

        def __init__(self, choices: list[str]) -> None:
            super().__init__()
            self.choices = choices

    BINDINGS = [  # noqa: RUF012 - as Textual declares it
        Binding("tab", "complete", show=False),
        Binding("ctrl+j,alt+enter,shift+enter", "newline", show=False),
    ]
    DEFAULT_CSS = """
    Entry {
        height: auto;
        min-height: 3;
        max-height: 9;
        border: round $border-blurred;
        background: $background;
        padding: 0 1;
        &:focus { border: round $border; }
        & .text-area--cursor-line { background: $background; }
    }
    """

    def __init__(self, complete: Complete, id: str) -> None:  # noqa: A002 - as Textual calls it
        super().__init__(soft_wrap=True, tab_behavior="focus", highlight_cursor_line=False, id=id)
        self._complete = complete
        self._past = Past()
        self._cycle: list[str] = []  # the texts that further Tabs go through
        self._cycle_at = 0

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.submit()
            return
        await super()._on_key(event)

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        if len(event.text) > PASTE_MAX:
            self.notify(f"Only the first {PASTE_MAX:,} characters were pasted.", severity="warning", markup=False)
        # it may come from a stranger's page, and is drawn here before anybody has seen it
        text = clean(event.text[:PASTE_MAX], limit=PASTE_MAX, newline=True)
        start, end = sorted(self.selection)
        self.replace(text, start, end, maintain_selection_offset=False)

    def submit(self) -> None:
        """Hand on what was typed, if anything."""
        text = self.text
        if not text.strip():
            return
        self._past.add(text)
        self.put("")
        self.post_message(self.Submitted(text))

    def put(self, text: str) -> None:
        """Let the input hold `text`, with the cursor behind it."""
        self.text = text
        self.move_cursor(self.document.end)

    def action_newline(self) -> None:
        self.insert("\n")

    def action_cursor_up(self, select: bool = False) -> None:
        if not select and self.cursor_at_first_line:
            self._show(self._past.back(self.text))
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        if not select and self.cursor_at_last_line:
            self._show(self._past.forward())
        else:
            super().action_cursor_down(select)

    def action_complete(self) -> None:
        """Complete the last word; further Tabs go through what it may become."""
        text = self.text
        if self._cycle and text == self._cycle[self._cycle_at]:
            self._cycle_at = (self._cycle_at + 1) % len(self._cycle)
        else:
            row, column = self.cursor_location
            if row or (row, column) != self.document.end:
                return
            found = self._complete(text)
            self._cycle = [text[: len(text) - count] + choice for count, choice in found]
            self._cycle_at = 0
            self.post_message(self.Offered([choice for _, choice in found] if len(found) > 1 else []))
            if not found:
                return
        only = len(self._cycle) == 1
        whole = self._cycle[self._cycle_at]
        if only:
            self._cycle = []
            whole += "" if whole.endswith("/") else " "
        self.put(whole)

    def _show(self, line: str | None) -> None:
        if line is not None:
            self.put(line)
