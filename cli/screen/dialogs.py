"""What covers the screen for a moment: help, and who we are (also shown at the first start)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from p2pnode import clean
from p2pnode.chat.language import MACROS
from p2pnode.cli.screen.layout import MARKS, wrap
from p2pnode.cli.screen.sidebar import PRESENCE

__all__ = ["Help", "OwnId", "Whereabouts", "qr_lines"]

KEYS = (
    ("Enter", "send; Ctrl+J or Alt+Enter: a new line"),
    ("Up, Down", "what was sent before"),
    ("Tab", "complete a name or a command"),
    ("PageUp, PageDown", "scroll; Ctrl+End: back to the newest"),
    ("Ctrl+N, Ctrl+P", "next, previous conversation"),
    ("Ctrl+G", "next conversation with something unread"),
    ("Ctrl+F", "search in the history"),
    ("F2", "who you are: id, QR code, the line for others"),
    ("F3", "the panel: path, round trip, why so"),
    ("F4", "the list of conversations"),
    ("Ctrl+T", "light or dark"),
    ("Ctrl+C, Ctrl+Q", "leave; Ctrl+C copies when text is selected"),
)
SIGNS = (
    (" ".join(MARKS.values()), "behind your messages: " + ", ".join(MARKS)),
    (" ".join(PRESENCE.values()), "before a name: here, here a moment ago, away, nobody knows"),
    ("? #", "a stranger who wrote; the hall"),
)
HELP_WIDTH, KEY_WIDTH = 74, 27


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where we are, as in `Ready`. `bootstrap`: what others join by, None without an address."""

    port: int
    addresses: tuple[str, ...] = ()
    bootstrap: str | None = None
    alone: bool = False

    @property
    def invitation(self) -> str | None:
        """The line to type on another machine."""
        return None if self.bootstrap is None else f"p2pnode join NAME {self.bootstrap}"


class Dialog(ModalScreen[None]):
    """A box over the screen that Escape and Enter close."""

    async def action_dismiss(self, result: None = None) -> None:
        """Close; a second Escape that was on its way does nothing (Textual would close what is beneath)."""
        if self.is_current:
            self.dismiss(result)

    BINDINGS = [  # noqa: RUF012 - as Textual declares it
        Binding("escape,enter,f1,f2", "dismiss", show=False),
        Binding("ctrl+c", "app.leave", show=False, priority=True),
    ]
    DEFAULT_CSS = """
    Dialog {
        align: center middle;
        background: $background 60%;
    }
    Dialog > .box {
        width: auto;
        height: auto;
        max-width: 100%;
        max-height: 100%;
        background: $surface;
        border: round $border;
        padding: 0 1;
    }
    """


class Help(Dialog):
    """Keys and commands."""

    DEFAULT_CSS = "Help > .box { width: 80; scrollbar-size-vertical: 1; }"

    def compose(self) -> ComposeResult:
        commands = [(f"\\{name} {arguments}", what) for name, (arguments, what) in MACROS.items()]
        commands += [
            ("NAME/text", "one message to NAME, the conversation stays"),
            ("//text", "text that begins with /"),
        ]
        pieces: list[tuple[str, str]] = []
        for title, rows in (("Keys", KEYS), ("Commands (\\ or / before the name)", commands), ("Signs", SIGNS)):
            pieces.append((f"{title}\n", "bold"))
            for key, what in rows:
                first, *more = wrap(what, HELP_WIDTH - KEY_WIDTH)
                pieces += [(f"  {key:<{KEY_WIDTH - 2}}", "$text-accent"), (f"{first}\n", "")]
                pieces += [(f"{' ' * KEY_WIDTH}{line}\n", "") for line in more]
            pieces.append(("\n", ""))
        with VerticalScroll(classes="box"):
            yield Static(Content.assemble(*pieces, ("Escape closes this.", "$foreground-muted")))


class OwnId(Dialog):
    """Who we are, with a QR code of the user id; `first`: said to somebody who starts for the first time."""

    BINDINGS = [  # noqa: RUF012 - as Textual declares it
        Binding("c", "copy('line')", show=False),
        Binding("i", "copy('id')", show=False),
    ]
    DEFAULT_CSS = """
    OwnId #qr { width: 33; height: 17; color: black; background: white; }
    OwnId #told { width: 42; height: auto; padding: 0 0 0 1; }
    OwnId > .box { max-width: 80; }
    OwnId Horizontal { width: auto; height: auto; }
    OwnId #whole { width: 76; height: auto; }
    OwnId.-small > .box { width: 100%; }
    OwnId.-small Horizontal, OwnId.-small #told, OwnId.-small #whole { width: 100%; padding: 0; }
    OwnId.-small #qr { display: none; }
    """

    def __init__(
        self, name: str, user_id: str, where: Whereabouts, typed: Callable[[events.Key], None], *, first: bool
    ) -> None:
        """`typed`: takes keys that are meant for the input."""
        super().__init__()
        self._typed = typed
        self._leaving = False
        self._own_name = clean(name, limit=80) or "nameless"
        self._user_id = user_id
        self._where = where
        self._first = first

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="box", can_focus=False):
            with Horizontal():
                yield Static("\n".join(qr_lines(self._user_id)), id="qr", markup=False)
                yield Static(Content.assemble(*self._told()), id="told")
            yield Static(Content.assemble(*self._whole()), id="whole")

    def on_resize(self, event: events.Resize) -> None:
        """Where the code does not fit, it would be none."""
        self.set_class(event.size.width < 78 or event.size.height < 20, "-small")

    def on_key(self, event: events.Key) -> None:
        """At the first start whoever just types is understood: it goes to the input, also what is typed while this
        is being closed."""
        if self._first and (self._leaving or event.is_printable):
            event.stop()
            event.prevent_default()
            self._typed(event)
            if not self._leaving and self.is_current:
                self._leaving = True
                self.dismiss(None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's call
        return not (self._first and action == "copy")

    def action_copy(self, what: str) -> None:
        """Put the user id, or the line for others, where the terminal keeps what was copied (OSC 52)."""
        line = self._where.invitation if what == "line" else None
        self.app.copy_to_clipboard(line or self._user_id)
        self.notify("Copied, if your terminal allows it.", markup=False)

    def _told(self) -> list[tuple[str, str]]:
        where = self._where
        if not self._first:
            addresses = ", ".join(where.addresses) or "no address that others can use"
            return [
                (f"{self._own_name}\n", "bold"),
                (f"Port {where.port}\n{addresses}\n\n", ""),
                ("The QR code is your user id.\n\n", "$foreground-muted"),
                ("i  copies the user id\nc  copies the line below\nEsc closes this", "$foreground-muted"),
            ]
        waiting = "Nobody else is here yet." if where.alone else "You are in the network."
        return [
            (f"Welcome, {self._own_name}.\n\n", "bold"),
            ("1 The code is your id: let a friend scan or copy it.\n", ""),
            ("2 \\add and a friend's id: you have a contact.\n", ""),
            ("3 \\chat NAME talks to one; plain text in the hall goes to everybody there.\n", ""),
            ("4 Messages wait until the other comes back.\n", ""),
            ("5 F1 shows all keys, \\quit leaves.\n\n", ""),
            (f"{waiting}\n", "$text-warning" if where.alone else "$text-success"),
            ("Just type, or Esc; F2 shows this again.", "$foreground-muted"),
        ]

    def _whole(self) -> list[tuple[str, str]]:
        where = self._where
        pieces = [("user id ", "$foreground-muted"), (self._user_id, "")]
        if where.invitation:
            pieces += [("\non another machine: ", "$foreground-muted"), (where.invitation, "")]
        return pieces


def qr_lines(text: str) -> list[str]:
    """Return a QR code as lines of half blocks, dark on light, with two modules of margin."""
    import segno

    # Upper case: QR's alphanumeric mode is a third smaller, and bech32m reads either case.
    rows = [
        list(row) for row in segno.make(text.upper(), micro=False, error="l", boost_error=False).matrix_iter(border=2)
    ]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    blocks = {(0, 0): " ", (1, 0): "\u2580", (0, 1): "\u2584", (1, 1): "\u2588"}
    return [
        "".join(blocks[bool(top), bool(bottom)] for top, bottom in zip(rows[at], rows[at + 1], strict=True))
        for at in range(0, len(rows), 2)
    ]
