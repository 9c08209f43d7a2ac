"""A node without a network: sessions and streams in memory, on the virtual loop.

`FakeWorld` knows all nodes. It can cut connections, take nodes away (a crash: nothing is said to anybody) and bring
them back. Streams deliver after `delay` seconds, in order, and lose what is under way when their session breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.chat_devices import FakeDevices
from support.chat_mail import FakeHolders, FakeMailing
from support.chat_network import FakeNetwork
from support.chat_topics import FakeTopics, Topics

from p2pnode import (
    AccountKey,
    Address,
    DeviceList,
    FindResult,
    HelloResult,
    LanPeerSeen,
    NodeEvent,
    NodeKey,
    NodeSettings,
    P2PError,
    PeerId,
    PeerNotFoundError,
    PeerOfflineError,
    PresenceChanged,
    Priority,
    SessionClosed,
    SessionOpened,
    UserId,
)
from p2pnode.chat import Chat, ChatEvent, ChatSettings, ChatStore
from p2pnode.chat.ports import Cancel, SessionPort, StreamPort

Handler = Callable[[SessionPort, StreamPort], Awaitable[None]]
PACED = 16_384  # bytes that leave at a time where streams have a rate


class FakeStream:
    """One end of a stream."""

    def __init__(self, session: FakeSession, protocol: str) -> None:
        self.protocol = protocol
        self.session = session
        self.priority = Priority.NORMAL
        self.other: FakeStream
        self.written = bytearray()
        self._chunks: list[bytes] = []
        self._ended = False
        self._broken: Exception | None = None
        self._changed = asyncio.Event()

    async def read(self, limit: int = 65_536) -> bytes:
        while not self._chunks:
            if self._broken is not None:
                raise self._broken
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = self._chunks.pop(0)
        if len(data) > limit:
            self._chunks.insert(0, data[limit:])
            data = data[:limit]
        return data

    async def write(self, data: bytes) -> None:
        if self._broken is not None:
            raise self._broken
        rate = self.session.world.bytes_per_s
        for at in range(0, len(data), PACED if rate else max(1, len(data))):
            part = bytes(data[at : at + PACED] if rate else data)
            self.written += part
            if rate:
                await asyncio.sleep(len(part) / rate)
                if self._broken is not None:
                    raise self._broken
            self._later(self.other._arrive, part)

    def finish(self) -> None:
        self._later(self.other._end)

    def reset(self, code: int = 0) -> None:
        self.fail(P2PError("The stream was given up.", reset_code=code))
        self._later(self.other.fail, P2PError("The other side gave the stream up.", reset_code=code))

    def fail(self, error: Exception) -> None:
        if self._broken is None:
            self._broken = error
        self._changed.set()

    def _later(self, call: Callable[..., None], *args: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(self.session.world.delay, self.session.other.if_whole, call, *args)

    def _arrive(self, data: bytes) -> None:
        if self._broken is None:
            self._chunks.append(data)
            self._changed.set()

    def _end(self) -> None:
        self._ended = True
        self._changed.set()


class FakeSession:
    """One end of a session."""

    rtt_s: float | None = 0.001
    path = "lan"

    def __init__(self, world: FakeWorld, node: FakeNode, peer: FakeNode) -> None:
        self.world = world
        self.node = node
        self.peer = peer.peer_id
        self.remote = peer.address
        self.closed = False
        self.other: FakeSession
        self.streams: list[FakeStream] = []

    async def open_stream(self, protocol: str) -> FakeStream:
        if self.closed:
            raise P2PError("The session has ended.")
        ours, theirs = FakeStream(self, protocol), FakeStream(self.other, protocol)
        ours.other, theirs.other = theirs, ours
        self.streams.append(ours)
        self.other.streams.append(theirs)
        self.world.streams += [ours, theirs]
        asyncio.get_running_loop().call_later(
            self.world.delay, self.other.if_whole, self.other.node._stream, self.other, protocol, theirs
        )
        return ours

    async def ping(self, timeout: float = 5.0) -> float:
        await asyncio.sleep(2 * self.world.delay)
        return 2 * self.world.delay

    def if_whole(self, call: Callable[..., None], *args: Any) -> None:
        if not self.closed:
            call(*args)

    def break_off(self, reason: str) -> None:
        """End it. Cleanly (`stopping`): what was written before still arrives, then the other side sees `closed`.
        Else at both sides at once; what is under way is lost."""
        self._end(reason)
        if reason == "stopping":
            asyncio.get_running_loop().call_later(self.world.delay, self.other._end, "closed")
        else:
            self.other._end(reason)

    def _end(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        for stream in self.streams:
            stream.fail(P2PError("The session has ended."))
        if self.node.sessions_by_peer.get(self.peer) is self:
            del self.node.sessions_by_peer[self.peer]
        self.node.emit(SessionClosed(self, reason))  # type: ignore[arg-type]  # a smaller session


class FakeNode(FakeMailing, FakeDevices, FakeTopics):
    """What `chat.ports.NodePort` asks for."""

    listed = True

    def __init__(self, world: FakeWorld, name: str, account: AccountKey | None = None, device: str = "") -> None:
        rng = random.Random(name + device)
        self.world = world
        self.key = NodeKey.generate(rng.randbytes)
        self.account = account or AccountKey.generate(random.Random(f"account {name}").randbytes)
        self.peer_id: PeerId = self.key.peer_id
        self.user_id: UserId = self.account.user_id
        self.settings = NodeSettings(name=name)
        world.made[name + device] += 1  # after a restart, others are drawn
        self.network: Any = FakeNetwork(name + device + "'" * (world.made[name + device] - 1))
        self.address = Address(f"10.0.0.{len(world.nodes) + 1}", 4747)
        self.up = False
        self.dials = 0
        self.watched: set[PeerId] = set()
        self.known: dict[PeerId, PresenceChanged] = {}
        self.sessions_by_peer: dict[PeerId, FakeSession] = {}
        self.own_list = DeviceList(0, (self.peer_id,))
        self.found_lists: dict[UserId, DeviceList] = {}
        self._handlers: dict[str, Handler] = {}
        self._subscribers: list[Callable[[NodeEvent], None]] = []
        self._blocked: Callable[[PeerId], bool] = lambda _peer: False
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, peer: PeerId, *, timeout: float = 10.0) -> FindResult:
        found = self.world.nodes.get(peer)
        if found is None:
            raise PeerNotFoundError("Nobody knows this peer.")
        return FindResult(peer, found.up, 1.0, (found.address,), found.settings.name, found.user_id, 1, 0.01)

    def watch(self, peer: PeerId) -> bool:
        self.watched.add(peer)
        return True

    def unwatch(self, peer: PeerId) -> None:
        self.watched.discard(peer)

    def presence(self, peer: PeerId) -> PresenceChanged | None:
        return self.known.get(peer)

    async def connect(self, peer: PeerId, *, addresses: Sequence[Address] = (), timeout: float = 15.0) -> FakeSession:
        self.dials += 1
        await asyncio.sleep(2 * self.world.delay)
        if (open_one := self.session(peer)) is not None:
            return open_one
        other = self.world.nodes.get(peer)
        if other is None or not other.up or not self.up or frozenset((self, other)) in self.world.walls:
            raise PeerOfflineError("The peer does not answer.")
        if other._blocked(self.peer_id) or self._blocked(peer):
            raise PeerOfflineError("The peer refused.")
        ours, theirs = FakeSession(self.world, self, other), FakeSession(self.world, other, self)
        ours.other, theirs.other = theirs, ours
        self.sessions_by_peer[peer], other.sessions_by_peer[self.peer_id] = ours, theirs
        self.emit(SessionOpened(ours))  # type: ignore[arg-type]  # a smaller session
        other.emit(SessionOpened(theirs))  # type: ignore[arg-type]
        return ours

    def session(self, peer: PeerId) -> FakeSession | None:
        return found if (found := self.sessions_by_peer.get(peer)) is not None and not found.closed else None

    def sessions(self) -> list[FakeSession]:
        return [s for s in self.sessions_by_peer.values() if not s.closed]

    async def hello(self, host: str, port: int, *, timeout: float = 3.0) -> HelloResult:
        for node in self.world.nodes.values():
            if node.address == (host, port) and node.up:
                return HelloResult(node.peer_id, 0.001, self.address)
        raise PeerOfflineError(f"Nobody answers at {host} port {port}.")

    async def join_through(self, host: str, port: int) -> PeerId:
        return (await self.hello(host, port)).peer_id

    def handle(self, protocol: str, handler: Handler) -> None:
        self._handlers[protocol] = handler

    def prefer_when(self, known: Callable[[PeerId], bool]) -> None:
        """Only budgets depend on it."""

    def refuse_when(self, blocked: Callable[[PeerId], bool]) -> None:
        self._blocked = blocked
        for session in self.sessions():
            if blocked(session.peer):
                session.break_off("refused")

    def subscribe(self, callback: Callable[[NodeEvent], None]) -> Cancel:
        self._subscribers.append(callback)

        def cancel() -> None:
            with contextlib.suppress(ValueError):
                self._subscribers.remove(callback)

        return cancel

    def emit(self, event: NodeEvent) -> None:
        for callback in list(self._subscribers):
            callback(event)

    def meet_on_lan(self, other: FakeNode) -> None:
        self.emit(LanPeerSeen(other.peer_id, (other.address,)))

    def _stream(self, session: FakeSession, protocol: str, stream: FakeStream) -> None:
        handler = self._handlers.get(protocol)
        if handler is None:
            stream.reset(0)
            return
        task = asyncio.get_running_loop().create_task(self._serve(handler, session, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, handler: Handler, session: FakeSession, stream: FakeStream) -> None:
        try:
            await handler(session, stream)
        except (P2PError, EOFError):
            stream.reset(0)

    def go_up(self) -> None:
        self.up = True
        self.world.nodes[self.peer_id] = self

    def go_down(self, reason: str = "lost") -> None:
        """Vanish; the others' sessions break."""
        self.up = False
        for session in self.sessions():
            session.break_off(reason)
        self._subscribers.clear()
        self._handlers.clear()


@dataclass
class FakeWorld:
    """All nodes, by id. `delay`: one way, seconds. `bytes_per_s`: of each stream, 0: no limit. `walls`: pairs that
    cannot reach each other. `holders`: of mail. `streams`: both ends of all that ever were. `lists`: those
    that were published. `topics`: who announces what."""

    delay: float = 0.005
    bytes_per_s: float = 0.0
    lookup_s: float = 0.05
    nodes: dict[PeerId, FakeNode] = field(default_factory=dict)
    walls: set[frozenset[FakeNode]] = field(default_factory=set)
    streams: list[FakeStream] = field(default_factory=list)
    holders: FakeHolders | None = None
    lists: dict[UserId, DeviceList] = field(default_factory=dict)
    topics: Topics = field(default_factory=Topics)
    made: Counter[str] = field(default_factory=Counter)


class Person:
    """A chat on a fake node, with a note of its events. `path` None: the database is in memory."""

    def __init__(
        self,
        world: FakeWorld,
        name: str,
        path: Path | None = None,
        *,
        account: AccountKey | None = None,
        device: str = "",
        settings: ChatSettings | None = None,
    ) -> None:
        self.node = FakeNode(world, name, account, device)
        self.events: list[ChatEvent] = []
        self.chat: Chat
        self.store: ChatStore
        self._path = path
        self._settings = settings
        world.nodes.setdefault(self.node.peer_id, self.node)

    async def start(self) -> Person:
        self.store = await ChatStore.open(self._path, run_blocking=self.node.network.run_blocking)
        self.chat = Chat(self.node, self.store, self._settings)
        self.chat.subscribe(self.events.append)
        self.node.go_up()
        await self.chat.start()
        return self

    async def stop(self) -> None:
        """Leave cleanly."""
        await self.chat.stop()
        self.node.go_down("stopping")
        await self.store.close()

    async def crash(self) -> None:
        """Stop as `kill -9` would: nothing more is written, nobody is told."""
        database = self.store.database
        database._closed = True
        database._waiting.clear()
        database._later.clear()
        if database._later_timer is not None:
            database._later_timer.cancel()
        database._reader.close()
        database._writer.close()
        self.node.go_down("lost")
        self.chat._unsubscribe = None
        for task in [*self.chat._tasks, *self.node._tasks]:
            task.cancel()
        await asyncio.sleep(0)

    async def texts(self, party: Any) -> list[str]:
        return [message.text for message in await self.store.history(party, limit=10_000)]

    def of_type(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def befriend(one: Person, other: Person) -> None:
    """Each makes the other a contact."""
    await one.chat.add_contact(other.node.user_id)
    await other.chat.add_contact(one.node.user_id)


async def until(person: Person, condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Wait until `condition` holds after some event of the person's chat. Raise TimeoutError."""
    changed = asyncio.Event()
    cancel = person.chat.subscribe(lambda _: changed.set())
    try:
        async with asyncio.timeout(timeout):
            while not condition():
                changed.clear()
                await changed.wait()
    finally:
        cancel()
