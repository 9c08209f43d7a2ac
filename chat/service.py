"""Chat on a node: sends and receives messages, exactly once and in order, and tells its subscribers.

    chat = Chat(node, store)
    await chat.start()                      # before or after node.start()
    ...
    await chat.stop()                       # before node.stop(); the store is closed by whoever opened it

A message is on our disk, in history and outbox, before anything is sent; it is `delivered` when a device of the
recipient has it on its disk and said so. What is not delivered is sent again after a restart of either side, when the
peer comes back, and with pauses of 1 to 60 s in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from p2pnode import (
    Address,
    BadPacket,
    InvalidPeerError,
    Joined,
    LanPeerSeen,
    NetworkChanged,
    NodeEvent,
    PeerId,
    PresenceChanged,
    SessionClosed,
    SessionOpened,
    UserId,
    clean_name,
)
from p2pnode.chat.attention import Attention
from p2pnode.chat.contacting import Contacting
from p2pnode.chat.contacts import Directory
from p2pnode.chat.delivery import Deliveries, Delivery
from p2pnode.chat.devices.service import Devices
from p2pnode.chat.files.service import Files, FileSettings
from p2pnode.chat.gossip.service import Gossip
from p2pnode.chat.keeping.service import Keeping
from p2pnode.chat.limits import Buckets
from p2pnode.chat.links import Links
from p2pnode.chat.mail.service import Mail
from p2pnode.chat.members import HallKeeper
from p2pnode.chat.model import (
    STRANGER,
    ChatEvent,
    Contact,
    Hall,
    Member,
    MessageStateChanged,
    Party,
    PresenceSeen,
    RoomId,
    SendResult,
)
from p2pnode.chat.names.service import Names
from p2pnode.chat.ports import Cancel, NodePort, Part, SessionPort, addresses_of
from p2pnode.chat.protocol import CHAT_PROTOCOL, ID_BYTES, Hello, is_device_of
from p2pnode.chat.reception import Reception
from p2pnode.chat.resolving import Resolver
from p2pnode.chat.rooms.service import Rooms
from p2pnode.chat.store import ChatStore, DeviceRow, Outgoing
from p2pnode.chat.strangers.service import Strangers
from p2pnode.chat.table.rows import TableRow
from p2pnode.chat.table.service import Table
from p2pnode.chat.texts import check_text
from p2pnode.chat.told.service import HallHistory

__all__ = ["Chat", "ChatSettings"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ChatSettings:
    """Settings of the chat; safe defaults."""

    hall: bool = True
    """Take part in halls: greet peers seen on the LAN, let in whoever joins through us."""
    first_attempt_s: float = 15.0
    """How long `send` waits for the outcome of the first attempt when its caller names no time."""
    hall_outbox_s: float = 600.0
    """How long a message to the hall is tried for a member that does not answer, seconds."""
    inbound_streams: int = 4
    """Chat streams that one peer may have open to us; one is usual, more while sessions change over."""
    leave_s: float = 0.5
    """How long `stop` waits for goodbyes to leave."""
    files: FileSettings = field(default_factory=FileSettings)
    read_receipts: bool = True
    """Tell contacts which of their messages were read."""
    keep_days: int = 0
    """How long messages are kept where their conversation says nothing; 0: for ever."""
    table: tuple[TableRow, ...] = ()
    """People at fixed addresses, found without any discovery."""
    claim_name: bool = True
    """Tell everybody who looks for our name that we have it."""
    tell_contacts: bool = True
    """Tell contacts who ask for somebody whether that is a contact of ours as well."""


class Chat(Contacting):
    """The chat of one node. All methods belong to the event loop's thread."""

    def __init__(self, node: NodePort, store: ChatStore, settings: ChatSettings | None = None) -> None:
        self.node = node
        self.store = store
        # a bootstrap node is met by everybody: a hall through it would be a room of strangers
        self.settings = settings or ChatSettings(hall=node.settings.role == "peer")
        self.directory = Directory(node.user_id, node.peer_id)
        self.deliveries = Deliveries()
        self.hall = HallKeeper(self)
        self.reception = Reception(self)
        self.resolver = Resolver(self)
        self.links = Links(self)
        self.attention = Attention(self)
        self.files = Files(self, self.settings.files)
        self.mail = Mail(self)
        self.strangers = Strangers(self, store.database)
        self.table = Table(self, self.settings.table)
        self.hall_history = HallHistory(self)
        self.keeping = Keeping(self, self.settings.keep_days)
        self.gossip = Gossip(self, store.database)
        self.devices = Devices(self)
        self.rooms = Rooms(self)
        self.names = Names(self, store.database)
        self.parts: tuple[Part, ...] = (
            self.devices,
            self.files,
            self.mail,
            self.strangers,
            self.table,
            self.hall_history,
            self.keeping,
            self.gossip,
            self.rooms,
            self.names,
        )
        """What else works on the sessions, in the order of starting."""
        self.drops: Counter[str] = Counter()
        """Streams given up, by reason."""
        self._device_news = Buckets(rate=0.1, burst=23)  # per user: each new device or name written is a commit
        self._tasks: set[asyncio.Task[Any]] = set()
        self._subscribers: list[Callable[[ChatEvent], None]] = []
        self._unsubscribe: Cancel | None = None
        self.stopping = False

    # life

    async def start(self) -> None:
        """Read contacts and outbox, serve incoming streams, begin to send what is queued. Raise StorageError,
        CorruptFileError."""
        self.directory.replace_contacts(await self.store.contacts())
        for device in await self.store.devices():
            self.directory.learn(device)
        await self.devices.load()
        await self.store.forget_hall_outbox(None, before_ms=self.now_ms() - int(self.settings.hall_outbox_s * 1000))
        self._unsubscribe = self.node.subscribe(self._node_event)
        self.node.prefer_when(self.directory.is_known)
        self.node.refuse_when(self.directory.is_blocked)
        self.node.handle(CHAT_PROTOCOL, self.reception.serve)
        for device_id in await self.store.outbox_devices():
            self.links.resume(device_id)
        for party in await self.store.outbox_unresolved():
            if isinstance(party, UserId):
                self.resolver.begin(party, unaddressed=True)
        for session in self.node.sessions():
            self.links.came(session.peer)
        self.directory.changed = self._people_changed
        self.attention.look()
        for part in self.parts:
            await part.start()

    async def stop(self) -> None:
        """Say goodbye to the hall and stop; what is queued stays on the disk. Calling it twice is harmless."""
        if self.stopping:
            return
        for part in reversed(self.parts):
            await part.stop()
        await self.hall.leave(self.settings.leave_s)
        self.stopping = True
        if self._unsubscribe is not None:
            self._unsubscribe()
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # what applications call

    async def send(
        self, target: Party | None, text: str, *, wait: float | None = None, addresses: Sequence[Address] = ()
    ) -> SendResult:
        """Send `text` (1 to 15,000 bytes of UTF-8) to all devices of a user, to a device whose user is not known, or to
        the hall. Return when one has it on disk, else after `wait` seconds (None: after the first attempt).

        It is on our disk when this returns, whatever the state. `addresses`: where the target was said to be.
        Raise MessageTooLongError, EmptyMessageError, InvalidPeerError, PeerBlockedError (by us), StorageError,
        RefusedError (the other side will never take it), DeviceRevokedError.
        """
        started = self.node.network.monotonic()
        delivery = await self.post(target, text, addresses=addresses)
        limit = self.settings.first_attempt_s if wait is None else wait
        await delivery.wait(limit, first_attempt=wait is None)
        return delivery.result(self.node.network.monotonic() - started)

    async def post(self, target: Party | None, text: str, *, addresses: Sequence[Address] = ()) -> Delivery:
        """Put a message on its way: on our disk when this returns. Raise as `send`."""
        check_text(text)
        self.devices.ensure_counts()
        if isinstance(target, RoomId):
            return await self.rooms.post(target, text)
        party = self._conversation(target)
        if party is STRANGER:
            raise InvalidPeerError("A stranger has no name; use the calls for strangers.")
        if not isinstance(party, Hall):
            self.resolver.hint(party, addresses)
            if isinstance(party, PeerId) and addresses:
                self.links.hint(party, tuple(addresses))
        devices = self.hall.peers() if isinstance(party, Hall) else self.devices.addressees(party)
        if isinstance(party, Hall) and not devices:
            raise InvalidPeerError(self.hall.nobody())
        self.table.check(devices)
        # Nothing is awaited between here and the links but the write, and writes end in the order in which they were
        # begun: so the order on the wire is that of the history.
        message, item = await self.store.add_outgoing(
            Outgoing(
                self.node.network.token_bytes(ID_BYTES),
                self.node.peer_id,
                self.node.user_id,
                party,
                text,
                self.now_ms(),
                devices,
            )
        )
        delivery = self.deliveries.begin(message.id, party, devices)
        self.emit(MessageStateChanged(message.id, party, "queued"))
        if not isinstance(party, Hall):
            self._wrote_to(party, unaddressed=not devices)
        for device in devices:
            self.links.get(device).add(item)
        self.mail.posted(party, devices)
        return delivery

    def subscribe(self, callback: Callable[[ChatEvent], None]) -> Cancel:
        """Call `callback` with each event, in order, on the loop."""
        self._subscribers.append(callback)

        def cancel() -> None:
            with contextlib.suppress(ValueError):
                self._subscribers.remove(callback)

        return cancel

    def resolve(self, text: str) -> Party:
        """Return whom a name, id or prefix means. Raise NotFoundError, InvalidPeerError."""
        return self.directory.resolve(text)

    def user_of(self, peer: PeerId) -> UserId | None:
        """Return the user of a device that proved it, None while that is not known."""
        return self.directory.user_of(peer)

    def display_name(self, party: Party) -> str:
        return self.directory.display_name(party)

    def members(self) -> tuple[Member, ...]:
        """Return all others in the hall."""
        return self.hall.members()

    def enter_hall(self, peer: PeerId, addresses: Sequence[Address] = ()) -> None:
        """Join the hall of `peer`, after `node.join_through` named it; members appear as `HallChanged`."""
        self.hall.come_back()
        self.hall.enter(peer, tuple(addresses))

    async def settle(self, timeout: float) -> None:
        """Wait until everything sent was delivered or could not be on the first attempt; at most `timeout` seconds."""
        await self.deliveries.settle(timeout)

    # what the parts share

    def now_ms(self) -> int:
        return int(self.node.network.wall() * 1000)

    def emit(self, event: ChatEvent) -> None:
        for callback in list(self._subscribers):
            try:
                callback(event)
            except Exception:  # a subscriber's mistake must not stop the chat; it is logged
                log.exception("chat_subscriber_failed", event_type=type(event).__name__)

    def start_task(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` until the chat stops; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def heard_hello(self, session: SessionPort, hello: Hello) -> None:
        """Believe what is proven. Raise BadPacket: `bad_proof`, `not_listed`, `blocked`."""
        peer, user = session.peer, UserId(hello.user)
        if self.directory.user_of(peer) != user and not is_device_of(user, peer, hello.proof):
            raise BadPacket("bad_proof")
        self.devices.check(peer, user)
        name = clean_name(hello.name)
        known_before = self.directory.state_of(peer) is not None or self.directory.state_of(user) is not None
        news = self.directory.learn(DeviceRow(peer, user, name))
        if self.directory.is_blocked(peer):
            self.node.refuse_when(self.directory.is_blocked)  # a device that we did not know to be theirs
            raise BadPacket("blocked")
        # Beyond the rate it is known until we stop, and on the disk with its next message.
        if news and known_before and self._device_news.take(user, self.node.network.monotonic()):
            self.start_task(self._remember_device(peer, user, name), "chat-device")
        self.hall.heard_hello(Member(peer, user, name, addresses_of(session)), wants=hello.hall)

    # inside

    def _node_event(self, event: NodeEvent) -> None:
        if isinstance(event, SessionOpened):
            self.links.came(event.session.peer)
        elif isinstance(event, PresenceChanged):
            if event.online:
                self.links.came(event.peer)
            if self._knows(event.peer):
                user = self.directory.user_of(event.peer)
                self.emit(PresenceSeen(event.peer, user, event.online, event.age_s, event.state, event.evidence))
        elif isinstance(event, SessionClosed):
            self.hall.session_closed(event.session.peer, event.reason)
        elif isinstance(event, Joined | NetworkChanged):
            self.links.came(None)
        elif isinstance(event, LanPeerSeen) and self.settings.hall and not self.hall.away:
            self.hall.enter(event.peer, event.addresses)

    def _people_changed(self) -> None:
        self.attention.look()
        self.gossip.people_changed()

    def _knows(self, peer: PeerId) -> bool:
        return peer in self.hall or self.directory.state_of(self.directory.party_of(peer)) is not None

    def _conversation(self, target: Party | None) -> Party:
        if target is None:
            raise InvalidPeerError("Name somebody to write to.")
        if target == self.node.user_id or target == self.node.peer_id:
            raise InvalidPeerError("That is your own id; name somebody else's.")
        return self.directory.party_of(target) if isinstance(target, PeerId) else target

    def _wrote_to(self, party: UserId | PeerId, *, unaddressed: bool) -> None:
        """Whoever is written to may answer: the message's transaction accepted them, the directory follows."""
        known = self.directory.contact(party)
        if known is None:
            devices = self.directory.devices_of(party)
            name = next((name for device in devices if (name := self.directory.name_of(device))), "")
            now = self.node.network.wall()
            self.directory.put(Contact(party, "", name, "accepted", False, now, devices))
        elif known.state == "request":
            self.directory.put(replace(known, state="accepted"))
            self.links.welcome(party)
        if isinstance(party, UserId):
            self.resolver.begin(party, unaddressed=unaddressed)

    async def _remember_device(self, peer: PeerId, user: UserId, name: str) -> None:
        await self.store.learn_device(peer, user, name, now_ms=self.now_ms())
        self.directory.replace_contacts(await self.store.contacts())

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("chat_task_failed", task=task.get_name(), exc_info=error)
