"""The console without its terminal: takes typed lines and events, gives lines to show.

    conversation = Conversation(chat, own_port=4747, show=print)
    conversation.greet(ready)
    await conversation.handle("hello")         # until conversation.finished

Line mode and the screen have this in common: the screen draws messages itself (`listen=False`), and all that is typed
means the same in both. Everything shown passes `clean()`, whoever it comes from.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from p2pnode import P2PError, PeerOfflineError, WrongKeyError, clean, clean_name
from p2pnode.chat.adding import add_lines
from p2pnode.chat.devices.console import device_event_lines, device_lines, last_seen
from p2pnode.chat.files.text import other_side, remark
from p2pnode.chat.filing import file_lines
from p2pnode.chat.gossip.console import STATUS_MACROS, status_lines
from p2pnode.chat.inspecting import Inspector, search_lines, trace_lines, verify_lines
from p2pnode.chat.keeping.text import disappear_lines, keep_lines, timer_event_lines
from p2pnode.chat.language import MACROS, Empty, Macro, Say, SayTo, Unknown, parse_line
from p2pnode.chat.model import (
    HALL,
    STRANGER,
    ChatEvent,
    FileChanged,
    Hall,
    HallChanged,
    HallTold,
    Message,
    MessageReceived,
    MessagesSynced,
    MessageStateChanged,
    OwnDevicesChanged,
    Party,
    RequestReceived,
    RoomChanged,
    RoomId,
    StrangerChanged,
    StrangerSaid,
    TableChanged,
    TimerChanged,
)
from p2pnode.chat.names.console import name_lines
from p2pnode.chat.people import People
from p2pnode.chat.rooms.console import member_lines, room_macro
from p2pnode.chat.rooms.console import remark as room_remark
from p2pnode.chat.service import Chat
from p2pnode.chat.strangers.console import StrangerConsole, event_lines
from p2pnode.chat.table.text import table_event_lines, table_lines
from p2pnode.chat.told.text import author_label

__all__ = ["Conversation"]

ADDRESS_TEXTS = {
    "request_pending": "waits until it is accepted there",
    "peer_not_found": "nobody in the network knows an address; it goes out when the peer comes",
    "peer_offline": "the peer is offline; it goes out when the peer comes",
    "no_path": "the peer could not be reached; it is tried again",
    "storage": "the other side could not store it; it is tried again",
}
"""What a reason means, for those who wonder why a message is still queued."""

RECENT_S = 600.0  # what other devices tell of is shown line by line when it is not older
LEAVE_S = 1.0  # for goodbyes to leave, when the user leaves the hall
QUEUED_AFTER_S = 3.0  # a message that is delivered sooner needs no remark


class Conversation:
    """One user at one console. `show` is called with each line, from the event loop's thread."""

    def __init__(
        self,
        chat: Chat,
        *,
        own_port: int,
        show: Callable[[str], None],
        inspector: Inspector | None = None,
        listen: bool = True,
        only_strangers: bool = False,
    ) -> None:
        """`own_port`: our UDP port, where `\\ping IP` asks when no port is given. `inspector`: tells of paths.

        `listen`: show what arrives, a line each. False: whoever made this shows it. `only_strangers`: who leaves the
        strangers leaves the program.
        """
        self.chat = chat
        self.party: Party = HALL
        self.finished = False
        self._own_port = own_port
        self._show = show
        self._inspector = inspector
        self._people = People(chat)
        self._strangers = StrangerConsole(chat)
        self._before_stranger: Party = HALL
        self._only_strangers = only_strangers
        self._last_sent = ""
        self._echo = not listen
        self._in_background: set[asyncio.Task[None]] = set()
        self._cancel = chat.subscribe(self.on_event) if listen else lambda: None

    @property
    def prompt(self) -> str:
        """Whom plain text goes to, as the prompt shows it."""
        return f"{clean_name(self.chat.display_name(self.party)) or 'nobody'}> "

    def close(self) -> None:
        """Stop listening to events."""
        self._cancel()

    def greet(self, *, addresses: tuple[str, ...], bootstrap: str | None, alone: bool) -> None:
        """Say who and where we are, and the line to type on another machine."""
        node = self.chat.node
        name = clean_name(node.settings.name)
        self._say(f"You are {name or 'nameless'}, {node.user_id}")
        self._say(f"Listening on port {self._own_port}" + (f" ({', '.join(addresses)})" if addresses else ""))
        if bootstrap is not None:
            self._say("To join you from another terminal or machine:")
            self._say(f"    p2pnode join NAME {bootstrap}")
        if alone and not addresses:
            self._say("This computer has no network; waiting until it has one.")
        elif alone:
            self._say("Nobody else is here yet; waiting for somebody on the LAN or for the line above.")
        if members := self.chat.members():
            names = ", ".join(self.chat.display_name(member.user or member.peer) for member in members)
            self._say(f"In the hall: {names}")
        self._say("Plain text goes to everybody in the hall; \\chat NAME talks to one, \\help lists the rest.")

    def complete(self, text: str) -> list[tuple[int, str]]:
        """Return what may stand instead of the last word of `text`, the line up to the cursor: (characters to replace,
        replacement). The first word: macros and `NAME/`; after a macro: names, which may hold spaces."""
        macro, space, word = text.partition(" ")
        if space:
            choices = self.chat.directory.names() if macro[:1] in ("\\", "/") else []
        else:
            word, slash = text, text[:1] if text[:1] in ("\\", "/") else "\\"
            choices = [f"{slash}{name}" for name in MACROS] + [f"{name}/" for name in self.chat.directory.names()]
        return [(len(word), choice) for choice in choices if word and choice.casefold().startswith(word.casefold())]

    async def handle(self, line: str) -> None:
        """Do what a typed line says. Every failure is one line shown; nothing is raised for what a user typed."""
        command = parse_line(line)
        try:
            if isinstance(command, Say):
                await self._send(self.party, command.text)
            elif isinstance(command, SayTo):
                await self._say_to(command)
            elif isinstance(command, Macro):
                await self._macro(command)
            elif isinstance(command, Unknown):
                hint = f"did you mean \\{command.nearest}?" if command.nearest else "\\help lists them."
                self._say(f"There is no \\{command.name[:40]}; {hint} (//text sends text that begins with a slash.)")
            else:
                assert isinstance(command, Empty)  # noqa: S101 - the last kind of command
        except P2PError as exc:
            self._say(f"! {exc.message}")

    def on_event(self, event: ChatEvent) -> None:
        """Show what an event means to the user, if anything."""
        if isinstance(event, MessageReceived):
            self._show_message(event.message)
            self.chat.devices.seen(event.message.party, event.message.position)
        elif isinstance(event, MessagesSynced):
            self._show_synced(event)
        elif isinstance(event, HallTold):
            for message in event.messages:
                self._show_message(message)
            self.chat.store.mark_seen(HALL, event.messages[-1].position)
        elif isinstance(event, MessageStateChanged) and event.state == "read" and event.id == self._last_sent:
            self._last_sent = ""
            self._say(f"  (read by {self.chat.display_name(event.party)})")
        for _, line in self.remarks(event):
            self._say(line)

    def remarks(self, event: ChatEvent) -> list[tuple[Party, str]]:
        """Return what an event means to the user beyond a message: lines, and the conversation each belongs to."""
        name = self.chat.display_name
        if isinstance(event, StrangerChanged | StrangerSaid):
            return [(STRANGER, line) for line in event_lines(event, echo=self._echo)]
        if isinstance(event, RequestReceived):
            who = name(event.contact.party)
            line = f"* {who} writes to you for the first time; answer, or type \\add {who}, to hear more."
            return [(event.contact.party, line)]
        if isinstance(event, HallChanged):
            came = [f"* {name(member.user or member.peer)} has entered the hall." for member in event.joined]
            left = [f"* {name(member.user or member.peer)} has left the hall." for member in event.left]
            return [(HALL, line) for line in came + left]
        if isinstance(event, MessageStateChanged) and event.state == "refused":
            return [(event.party, f"! {name(event.party)} does not take your messages.")]
        if isinstance(event, TimerChanged):
            return [(event.party, line) for line in timer_event_lines(self.chat, event)]
        if isinstance(event, OwnDevicesChanged):
            return [(HALL, line) for line in device_event_lines(event)]
        if isinstance(event, TableChanged):
            return [(event.party or HALL, line) for line in table_event_lines(event)]
        if isinstance(event, RoomChanged):
            told = room_remark(self.chat, event)
            return [(event.room, told)] if told is not None else []
        if isinstance(event, FileChanged) and not event.progress:
            told = remark(event.transfer, name(other_side(event.transfer, self.chat.user_of)))
            return [(event.transfer.party, told)] if told is not None else []
        return []

    async def flush(self, timeout: float) -> None:
        """Give what was just sent a chance to arrive before we leave; it stays queued otherwise."""
        await self.chat.settle(timeout)

    async def _send(self, party: Party, text: str) -> None:
        if party is STRANGER:
            await self._strangers.say(text)
            return
        delivery = await self.chat.post(party, text)
        self._last_sent = delivery.id
        task = asyncio.get_running_loop().create_task(self._remark_on(delivery.id, party), name="console-remark")
        self._in_background.add(task)
        task.add_done_callback(self._in_background.discard)

    async def _remark_on(self, message_id: str, party: Party) -> None:
        delivery = self.chat.deliveries.get(message_id)
        if delivery is None:
            return
        await delivery.wait(QUEUED_AFTER_S, first_attempt=True)
        if delivery.has or delivery.refused or isinstance(party, Hall):
            return
        if delivery.is_stored:
            self._say(f"  (stored: it waits in the network, sealed, until {self.chat.display_name(party)} is back)")
            return
        why = ADDRESS_TEXTS.get(delivery.reason, "it goes out as soon as the peer can be reached")
        self._say(f"  (queued for {self.chat.display_name(party)}: {why})")

    async def _say_to(self, command: SayTo) -> None:
        try:
            party = await self.chat.table.resolve(command.name)
        except (WrongKeyError, PeerOfflineError):
            raise
        except P2PError:
            close = self.chat.directory.suggest(command.name)
            hint = f"did you mean {close}/...?" if close else "\\users lists who is known."
            self._say(
                f"! Nobody known is called {command.name[:40]}; {hint} Nothing was sent"
                " (to send the line as it is, begin it with a space)."
            )
            return
        await self._send(party, command.text)

    async def _macro(self, macro: Macro) -> None:
        if macro.name in ("random", "next", "report") or (macro.name == "quit" and self.party is STRANGER):
            await self._stranger(macro)
        elif macro.name in ("quit", "exit"):
            self.finished = True
        elif macro.name == "help":
            self._help()
        elif macro.name == "leave":
            await self.chat.hall.go_out(LEAVE_S)
            self._say("* You have left the hall; \\chat leads back.")
        elif macro.name == "chat":
            await self._turn_to_named(macro.argument)
        elif macro.name == "find":
            self._lines(await name_lines(self.chat, macro.argument))
        elif macro.name == "add":
            self._lines(await add_lines(self.chat, macro.argument))
        elif macro.name == "block":
            await self._block(macro.argument)
        elif macro.name == "verify":
            await self._verify(macro.argument)
        elif macro.name == "ping":
            await self._ping(macro.argument)
        elif macro.name == "keep":
            self._lines(await keep_lines(self.chat, self.party, macro.argument))
        elif macro.name == "disappear":
            self._lines(await disappear_lines(self.chat, self.party, macro.argument))
        elif macro.name == "devices":
            self._lines(await device_lines(self.chat, macro.argument))
        elif macro.name == "table":
            self._lines(table_lines(self.chat))
        elif macro.name == "file":
            self._lines(await file_lines(self.chat, self.party, macro.argument))
        elif macro.name in STATUS_MACROS:
            self._lines(await status_lines(self.chat, macro.name, macro.argument))
        elif macro.name == "room":
            lines, room = await room_macro(self.chat, self.party, macro.argument)
            self.turn_to(room or self.party)
            self._lines(lines)
        elif macro.name == "who" and isinstance(self.party, RoomId):
            self._lines(member_lines(self.chat, self.party))
        elif macro.name == "search":
            await self._search(macro.argument)
        elif macro.name == "trace":
            self._lines(trace_lines(self.chat, self._inspector, self._named(macro.argument)))
        else:
            self._lines(await self._people.lines(macro.name, self.party))

    async def _stranger(self, macro: Macro) -> None:
        """A macro about strangers: they are the conversation from `\\random` to `\\quit`."""
        if macro.name == "random" and self.party is not STRANGER:
            self._before_stranger = self.party
            self.turn_to(STRANGER)
        try:
            self._lines(await self._strangers.macro(macro.name, macro.argument))
        finally:
            if not self._strangers.begun and self.party is STRANGER:
                self.turn_to(self._before_stranger)
                self.finished = self.finished or self._only_strangers
                if not self.finished and not self._echo:
                    self._say(f"* Plain text goes to {self.chat.display_name(self.party)} again.")

    def _lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._say(line)

    def _named(self, name: str) -> Party:
        """Return whom a macro means: NAME, or the current conversation. Raise NotFoundError, InvalidPeerError."""
        return self.chat.resolve(name) if name else self.party

    async def _block(self, name: str) -> None:
        if not name:
            self._say("! \\block NAME: whom?")
            return
        contact = await self.chat.block(self._named(name))
        who = self.chat.display_name(contact.party)
        self._say(f"* {who} is blocked: nothing comes from there any more. \\add {who} takes it back.")

    async def _verify(self, argument: str) -> None:
        name, _, word = argument.rpartition(" ")
        same = word == "yes" and (name or not isinstance(self.party, Hall))
        party = self._named(name if same else argument)
        if isinstance(party, Hall):
            self._say("! \\verify NAME: whose safety number?")
            return
        if same:
            await self.chat.verify_contact(party)
        self._lines(verify_lines(self.chat, party))

    async def _search(self, text: str) -> None:
        self._lines(
            await search_lines(self.chat, self.party, text) if text else ["! \\search TEXT: what are you looking for?"]
        )

    def _help(self) -> None:
        self._lines(f"  {f'{chr(92)}{name} {arguments}':<24} {what}" for name, (arguments, what) in MACROS.items())
        self._say(f"  {'NAME/text':<24} one message to NAME, the conversation stays")
        self._say(f"  {'//text':<24} text that begins with /; macros may begin with / too")

    def turn_to(self, party: Party) -> None:
        """Let plain text go to `party` from now on."""
        self.party = party

    async def _turn_to_named(self, name: str) -> None:
        self.turn_to(await self.chat.table.resolve(name) if name else HALL)
        if self.party is HALL:
            self.chat.hall.come_back()
            self._say("* Plain text goes to everybody in the hall.")
        else:
            self._say(f"* Plain text goes to {self.chat.display_name(self.party)}; \\chat leads back to the hall.")

    async def _ping(self, argument: str) -> None:
        host, _, port_text = argument.partition(" ")
        port_text = port_text.strip()
        if not host or (port_text and not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536)):
            self._say("! \\ping IP [PORT]: a port is a number from 1 to 65535.")
            return
        port = int(port_text) if port_text else self._own_port
        found = await self.chat.node.hello(host, port)
        self._say(f"* {found.peer_id} answers at {host} port {port} after {found.rtt_s * 1000:.1f} ms.")
        await self.chat.node.join_through(host, port)

    def _show_synced(self, event: MessagesSynced) -> None:
        """What came by way of another device of ours: what is new is shown, the rest is counted."""
        now = self.chat.node.network.wall()
        recent = [message for message in event.messages if now - message.received_at < RECENT_S]
        for message in recent:
            self._show_message(message)
        if older := len(event.messages) - len(recent):
            self._say(f"* {older} older message{'s' if older > 1 else ''} came from your other devices.")
        for party, position in last_seen(event).items():
            self.chat.devices.seen(party, position)

    def _show_message(self, message: Message) -> None:
        who = author_label(self.chat, message)
        clock = time.strftime("%H:%M", time.localtime(message.received_at))
        where = "" if isinstance(message.party, Hall) else " (to you)"
        if message.outgoing:  # written on another device
            who, where = "you", f" (to {self.chat.display_name(message.party)})"
        if isinstance(message.party, RoomId) and message.party != self.party:
            where = f" ({self.chat.display_name(message.party)})"
        first, *others = message.text.split("\n") or [""]
        self._say(f"{clock} {who}{where}: {first}")
        for line in others:
            self._say(f"      {line}")

    def _say(self, text: str) -> None:
        self._show(clean(text, limit=20_000))
