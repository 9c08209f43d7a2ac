"""Search in the history of a conversation: results as one types, Enter leads to the message."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from p2pnode import P2PError, clean
from p2pnode.chat import Chat, Message, Party
from p2pnode.chat.inspecting import author_of, moment

__all__ = ["Search"]

FOUND_MAX = 100
PAUSE_S = 0.15  # after the last key
AROUND = 30  # characters before what was found


class Search(ModalScreen[int | None]):
    """Gives the position of the message that was chosen, None when none was."""

    BINDINGS = [  # noqa: RUF012 - as Textual declares it
        Binding("escape", "dismiss(None)", show=False),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("ctrl+c", "app.leave", show=False, priority=True),
    ]
    DEFAULT_CSS = """
    Search { align: center top; background: $background 60%; }
    Search > Vertical {
        width: 90%;
        height: 90%;
        background: $surface;
        border: round $border;
    }
    Search Input { margin: 0 1; }
    Search OptionList { height: 1fr; border: none; background: $surface; }
    Search Static { height: 1; padding: 0 1; color: $text-muted; }
    """

    def __init__(self, chat: Chat, party: Party) -> None:
        super().__init__()
        self._chat = chat
        self._party = party
        self._found: list[Message] = []
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Input(placeholder="search in this conversation", compact=True)
            yield OptionList(markup=False)
            yield Static("Enter: go there   Up, Down: choose   Escape: back", markup=False)

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        self.query_one(Input).focus()

    @on(Input.Changed)
    def _changed(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(PAUSE_S, self._look)

    @on(Input.Submitted)
    async def _submitted(self) -> None:
        await self._look()
        at = self.query_one(OptionList).highlighted
        await self.action_dismiss(self._found[at].position if at is not None else None)

    @on(OptionList.OptionSelected)
    async def _clicked(self, event: OptionList.OptionSelected) -> None:
        await self.action_dismiss(self._found[event.option_index].position)

    async def action_dismiss(self, result: int | None = None) -> None:
        """Close; what was on its way to this screen does nothing any more."""
        if self.is_current:
            self.dismiss(result)

    def action_move(self, step: int) -> None:
        results = self.query_one(OptionList)
        if step > 0:
            results.action_cursor_down()
        else:
            results.action_cursor_up()

    async def _look(self) -> None:
        text = self.query_one(Input).value.strip()
        results, status = self.query_one(OptionList), self.query_one(Static)
        chosen = results.highlighted
        before = [message.position for message in self._found]
        try:
            found = await self._chat.store.history(self._party, search=text, limit=FOUND_MAX) if text else []
        except P2PError as error:
            status.update(Content(clean(error.message)))
            return
        self._found = found[::-1]  # the newest first
        if [message.position for message in self._found] == before:
            return
        results.clear_options()
        results.add_options([Option(self._line(message, text)) for message in self._found])
        if self._found:
            results.highlighted = min(chosen or 0, len(self._found) - 1)
        more = f"the newest {FOUND_MAX}" if len(self._found) == FOUND_MAX else str(len(self._found))
        status.update(Content(f"{more} found" if text else "Enter: go there   Up, Down: choose   Escape: back"))

    def _line(self, message: Message, text: str) -> Content:
        shown = " ".join(clean(message.text, newline=True).split())
        at = shown.casefold().find(text.casefold())
        if at > AROUND:
            shown, at = "\u2026" + shown[at - AROUND :], AROUND + 1
        hit = len(text) if at >= 0 else 0
        at = max(at, 0)
        return Content.assemble(
            (f"{moment(message.received_at)} ", "$foreground-muted"),
            (f"{clean(author_of(self._chat, message), limit=80)}: ", "bold"),
            shown[:at], (shown[at : at + hit], "reverse"), shown[at + hit : at + 200],
        )  # fmt: skip
