"""The screen itself: puts its parts together, follows the chat, and hands what is typed to `chat.Conversation`."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import zlib
from collections.abc import Coroutine
from typing import Any

import structlog
from textual import events, on
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static, TextArea

from p2pnode import P2PError, PeerId, clean
from p2pnode.chat import MAX_TEXT_BYTES, Chat, Conversation, Inspector, Message, Party, People, RequestReceived
from p2pnode.chat.language import Macro, parse_line
from p2pnode.chat.model import FileChanged, Hall, RoomChanged
from p2pnode.chat.told.text import author_label
from p2pnode.cli.screen.details import Details, describe
from p2pnode.cli.screen.dialogs import Help, OwnId, Whereabouts
from p2pnode.cli.screen.driver import behind, driver_class
from p2pnode.cli.screen.entry import Entry
from p2pnode.cli.screen.feed import Batch, Feed
from p2pnode.cli.screen.frame import KEYS, fits, is_light, title
from p2pnode.cli.screen.layout import NAME_COLOURS
from p2pnode.cli.screen.log import MessageLog
from p2pnode.cli.screen.paging import read_around, read_more, read_newest
from p2pnode.cli.screen.rooms import Rooms
from p2pnode.cli.screen.search import Search
from p2pnode.cli.screen.sidebar import RoomList
from p2pnode.cli.screen.timeline import Remark, Timeline

__all__ = ["ChatApp"]

log = structlog.get_logger(__name__)

TICK_S = 1.0
SLOW_MACROS = frozenset({"users", "online", "offline", "who", "ping"})  # what is typed next does not wait for these
SIZE_SHOWN = MAX_TEXT_BYTES * 4 // 5  # bytes typed from which their number is shown


class ChatApp(App[bool]):
    """Shows a chat until the user leaves; the result is whether that was by Ctrl-C."""

    TITLE = "p2pnode"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [  # noqa: RUF012 - as Textual declares it
        Binding("ctrl+c", "leave", show=False, priority=True),
        Binding("ctrl+q", "quit_chat", show=False, priority=True),
        Binding("f1", "help", show=False, priority=True),
        Binding("f2", "own_id", show=False, priority=True),
        Binding("f3", "toggle_details", show=False, priority=True),
        Binding("f4", "toggle_rooms", show=False, priority=True),
        Binding("ctrl+f", "search", show=False, priority=True),
        Binding("ctrl+n,alt+down", "step(1)", show=False, priority=True),
        Binding("ctrl+p,alt+up", "step(-1)", show=False, priority=True),
        Binding("ctrl+g", "next_unread", show=False, priority=True),
        Binding("ctrl+t", "light_or_dark", show=False, priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
        Binding("ctrl+end", "newest", show=False, priority=True),
    ]
    CSS = """
    #top { height: 1; background: $primary-muted; color: $text; padding: 0 1; }
    #middle { height: 1fr; }
    #rooms { width: 22; }
    #log { width: 1fr; }
    #details { width: 34; display: none; }
    ToastRack { dock: top; align: right top; margin: 1 0 0 0; }
    #keys { height: 1; background: $panel; color: $text-muted; padding: 0 1; }
    """

    def __init__(
        self, chat: Chat, where: Whereabouts, inspector: Inspector | None = None, *, first: bool = False
    ) -> None:
        """`first`: nobody was ever written to: who we are and what to do is shown."""
        super().__init__(driver_class=driver_class())
        self.chat = chat
        self.conversation = Conversation(chat, own_port=where.port, show=self.tell, inspector=inspector, listen=False)
        self.rooms = Rooms(chat.display_name)
        self.timeline = Timeline(self.conversation.party)
        self._where = where
        self._inspector = inspector
        self._first = first
        self._people = People(self.chat)
        self._remarks: dict[Party, list[Remark]] = {}
        self._feed = Feed(self.chat, self._show_batch)
        self._typed: asyncio.Queue[str] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._details_wanted: bool | None = None
        self._rooms_wanted: bool | None = None
        self._names: dict[Party, str] = {}
        self._undrawn = False
        self._shown_title: Content | None = None
        self.top = Static(id="top", markup=False)
        self.room_list = RoomList(chat.display_name, self._presence, id="rooms")
        self.log_view = MessageLog(self.timeline, self._who, id="log")
        self.details = Details(id="details")
        self.entry = Entry(self.conversation.complete, id="entry")
        self.keys = Static(KEYS, id="keys", markup=False)

    # life

    def compose(self) -> ComposeResult:
        yield self.top
        with Horizontal(id="middle"):
            yield self.room_list
            yield self.log_view
            yield self.details
        yield self.entry
        yield self.keys

    async def on_mount(self) -> None:
        # Textual asks for eager tasks where Python has them; the node beneath was written for ordinary ones.
        asyncio.get_running_loop().set_task_factory(None)
        self.theme = "textual-light" if is_light(os.environ.get("COLORFGBG", "")) else "textual-dark"
        position = await self.chat.store.last_position()
        self.rooms.load(await self.chat.store.conversations(), self.chat.directory.contacts())
        await self.open(self.conversation.party)
        self._begin(self._feed.run(position))
        self._begin(self._type())
        self.set_interval(TICK_S, self._tick)
        self._tick()
        self.entry.focus()
        if self._first:
            self._show_own_id(first=True)
        gc.collect()  # what was loaded stays: looking through all of it again later is 100 ms without an echo
        gc.freeze()

    def on_unmount(self) -> None:
        self._feed.close()
        for task in self._tasks:
            task.cancel()

    def tell(self, text: str, party: Party | None = None) -> None:
        """Show a line of the program's own, in a conversation or (None) in the open one. Before the screen is there,
        too."""
        party = self.timeline.party if party is None else party
        if party == self.timeline.party:
            self.timeline.remark(text, time.time())
            if self.log_view.is_mounted:
                self._draw_log()
        else:
            known = self.rooms[party].last_position
            self._remarks.setdefault(party, []).append(Remark(text, time.time(), known))

    # what the user does

    @on(Entry.Submitted)
    def _submitted(self, event: Entry.Submitted) -> None:
        self._typed.put_nowait(event.text)

    @on(Entry.Offered)
    def _offered(self, event: Entry.Offered) -> None:
        self.keys.update(Content("  ".join(event.choices[:20]) or KEYS), layout=False)

    @on(TextArea.Changed)
    def _edited(self, event: TextArea.Changed) -> None:
        size = len(event.text_area.text.encode(errors="surrogatepass"))
        if size > SIZE_SHOWN:
            over = "; send it in parts" if size > MAX_TEXT_BYTES else ""
            self.keys.update(Content(f"{size:,} of {MAX_TEXT_BYTES:,} bytes{over}"), layout=False)
        elif not event.text_area.text:
            self.keys.update(Content(KEYS), layout=False)

    @on(RoomList.Chosen)
    async def _chosen(self, event: RoomList.Chosen) -> None:
        await self.turn_to(event.party)

    async def turn_to(self, party: Party) -> None:
        """Open a conversation; plain text goes there."""
        self.conversation.turn_to(party)
        if party != self.timeline.party:
            await self.open(party)

    async def action_step(self, step: int) -> None:
        await self.turn_to(self.rooms.beside(self.timeline.party, step))

    async def action_next_unread(self) -> None:
        party = self.rooms.next_unread(self.timeline.party)
        if party is not None:
            await self.turn_to(party)

    def action_page(self, step: int) -> None:
        self.log_view.scroll_relative(y=step * max(1, self.log_view.size.height - 2), animate=False)
        self._draw_rooms()
        if self.log_view.follows:
            self._seen()

    async def action_newest(self) -> None:
        if self.timeline.at_end:
            self.log_view.draw(at_end=True)
        else:
            await self.open(self.timeline.party)

    def action_leave(self) -> None:
        """Ctrl-C: copy what is selected, else leave."""
        selected = self.screen.get_selected_text()
        typed = self.focused.selected_text if isinstance(self.focused, TextArea) else ""
        if selected or typed:
            self.copy_to_clipboard(selected or typed)
            self.screen.clear_selection()
            self.notify("Copied; Ctrl+C once more leaves.", markup=False)
            return
        self.exit(True)

    def action_quit_chat(self) -> None:
        self.exit(False)

    def action_help(self) -> None:
        self.push_screen(Help())

    def action_own_id(self) -> None:
        self._show_own_id(first=False)

    def action_toggle_details(self) -> None:
        self._details_wanted = not self.details.display
        self._arrange()
        self._tick()

    def action_toggle_rooms(self) -> None:
        self._rooms_wanted = not self.room_list.display
        self._arrange()

    def action_light_or_dark(self) -> None:
        self.theme = "textual-dark" if self.theme == "textual-light" else "textual-light"

    def action_search(self) -> None:
        self.push_screen(Search(self.chat, self.timeline.party), self._go_to)

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002 - Textual's call
        self._arrange()

    def on_app_focus(self) -> None:
        self._seen()

    # what happens in the chat

    async def open(self, party: Party) -> None:
        """Show a conversation, its newest messages first read from the database."""
        if self.timeline.remarks:
            self._remarks[self.timeline.party] = list(self.timeline.remarks)
        timeline = self.timeline = Timeline(party, self._remarks.pop(party, ()))
        await read_newest(self.chat.store, timeline, self.rooms[party].unread)
        if timeline is not self.timeline:
            return  # the user was faster
        self.log_view.open(timeline)
        self._seen()
        self._tick()

    @on(MessageLog.Wanted)
    async def _read_more(self, event: MessageLog.Wanted) -> None:
        timeline, keep = self.timeline, self.log_view.top_position()
        await read_more(self.chat.store, timeline, older=event.older)
        if timeline is self.timeline:
            self.log_view.draw(at_end=False, keep=keep)

    async def _go_to(self, position: int | None) -> None:
        """Show the messages round one that was found."""
        if position is None:
            return
        timeline = self.timeline
        if position not in {message.position for message in timeline.messages}:
            await read_around(self.chat.store, timeline, position)
            self.log_view.draw(at_end=False)
        self.log_view.show_position(position)

    def _show_batch(self, batch: Batch) -> None:
        followed = self.log_view.follows
        shown = timeline_changed = False
        for message in batch.messages:
            here = message.party == self.timeline.party
            self.rooms.note(message, open_now=here and followed and self.app_focus)
            if here:
                shown = self.timeline.add(message) or shown
        timeline_changed = self.timeline.change(batch.states, batch.gone)
        if followed:
            self.timeline.trim()
        for event in batch.events:
            for party, line in self.conversation.remarks(event):
                self.tell(line, party)
                if isinstance(event, RequestReceived | FileChanged | RoomChanged) and line.startswith("*"):
                    title = {FileChanged: "Files", RoomChanged: "Rooms"}.get(type(event), "Somebody new")
                    self.notify(clean(line).removeprefix("* "), title=title, markup=False)
        self.rooms.know(self.chat.directory.contacts() if batch.events or batch.messages else ())
        self.rooms.recount(batch.unread)
        if shown or timeline_changed:
            self._draw_log()
        if shown and followed:
            self._seen()
        self._draw_rooms()

    # inside

    def _show_own_id(self, *, first: bool) -> None:
        def typed(key: events.Key) -> None:
            self.entry.post_message(events.Key(key.key, key.character))

        name, user = self.chat.node.settings.name, str(self.chat.node.user_id)
        self.push_screen(OwnId(name, user, self._where, typed, first=first))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="screen")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("screen_task_failed", exc_info=error)
            self.tell(f"! {error.message}" if isinstance(error, P2PError) else "! Something went wrong; see the log.")

    async def _type(self) -> None:
        """Do what was typed, one line after the other."""
        while True:
            line = await self._typed.get()
            command = parse_line(line)
            if isinstance(command, Macro) and command.name in SLOW_MACROS:
                self._begin(self.conversation.handle(line))
                continue
            await self._handle(line)

    async def _handle(self, line: str) -> None:
        if not self.log_view.follows:
            await self.action_newest()  # whoever types wants to see it
        await self.conversation.handle(line)
        if self.conversation.finished:
            self.exit(False)
        elif self.conversation.party != self.timeline.party:
            await self.open(self.conversation.party)
        self.rooms.know(self.chat.directory.contacts())
        self._tick()

    def _who(self, message: Message) -> tuple[str, int]:
        author = message.author_user or message.author
        colour = 0 if message.outgoing else zlib.crc32(author.raw) % NAME_COLOURS
        return author_label(self.chat, message), colour

    def _presence(self, party: Party) -> str:
        return "" if isinstance(party, Hall) else self._people.glance(party)

    def _seen(self) -> None:
        """The user sees the end of the open conversation."""
        if self.log_view.follows and self.app_focus:
            room = self.rooms[self.timeline.party]
            room.unread = 0
            if self.timeline.messages:
                self.chat.devices.seen(room.party, self.timeline.last_position)

    def _tick(self) -> None:
        """Draw what changes without a message: presence, paths, names."""
        party = self.timeline.party
        if isinstance(party, PeerId) and (user := self.chat.user_of(party)) is not None:
            self.rooms.adopt(party, user)
            self._begin(self.turn_to(user))
            return
        names = {room.party: self.chat.display_name(room.party) for room in self.rooms.ordered()}
        if names != self._names:
            self._names = names
            self.log_view.names_changed()
            self._draw_log()
        elif self._undrawn:
            self._draw_log()
        self._draw_rooms()
        if self.details.display and not behind(self._driver):
            self.details.show(describe(self.chat, self._inspector, party, self._presence(party)))

    def _draw_log(self) -> None:
        self._undrawn = behind(self._driver) or not self.is_running
        if not self._undrawn:
            self.log_view.draw()

    def _draw_rooms(self) -> None:
        if behind(self._driver):
            self._undrawn = True
            return
        if not self.is_running:
            return
        self.room_list.draw(self.rooms.ordered(), self.timeline.party)
        title = self._title()
        if title != self._shown_title:
            self._shown_title = title
            self.top.update(title, layout=False)

    def _title(self) -> Content:
        party, unread, older = self.timeline.party, self.rooms.unread, not self.log_view.follows
        presence, port = self._presence(party), self._where.port
        return title(self.chat, party, presence, unread, port, self.size.width, scrolled=older)

    def _arrange(self) -> None:
        rooms, details = fits(self.size.width, self._rooms_wanted, self._details_wanted)
        self.details.display = details
        self.room_list.display = rooms
