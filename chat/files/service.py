"""Sends and receives files beside the messages of a chat.

A transfer is on our disk before anything is said of it, and each change of its state before anybody hears of that; how
far it is, the partial file says. So it goes on after any break: of a session, of either process, of the network.

    sender                                   receiver
    look through, hash (`preparing`)
    tell each device (`offered`)     ->      on the disk, shown to the user (`offered`)
                                             accepted (`active`): asks for what it lacks
    sends from there (`active`)      ->      writes, checks each MiB as it comes
    `done`                           <-      checked as a whole, under its name (`done`)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog

from p2pnode import (
    Address,
    BadPacket,
    InvalidPeerError,
    Joined,
    NetworkChanged,
    NodeEvent,
    NotFoundError,
    PeerId,
    PresenceChanged,
    SessionOpened,
    StorageError,
)
from p2pnode.chat.files.incoming import Incoming
from p2pnode.chat.files.jobs import Job
from p2pnode.chat.files.outgoing import Outgoing
from p2pnode.chat.files.records import FileRecords, Record
from p2pnode.chat.files.sharing import Sharing
from p2pnode.chat.files.talk import Talk
from p2pnode.chat.files.uploads import Uploads
from p2pnode.chat.files.wire import FILE_PROTOCOL, Answer, Offer, Want, Withdraw
from p2pnode.chat.link import BROKEN
from p2pnode.chat.model import FileChanged, FileState, Hall, Party, RoomId, Transfer
from p2pnode.chat.ports import Cancel, SessionPort, StreamPort
from p2pnode.chat.protocol import Hello

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["FileSettings", "Files"]

log = structlog.get_logger(__name__)
T = TypeVar("T")

# Chosen by us.
STREAMS = 8  # that one peer may have open to us
DISK_AT_ONCE = 2  # of the threads that the database needs as well
PROGRESS_S = 5.0


@dataclass(frozen=True)
class FileSettings:
    """Where files go, and what is taken unasked."""

    downloads: Path | None = None
    """The folder that files of others come into; None: nobody's are taken."""
    auto_accept_bytes: int = 0
    """Offers of contacts up to this size are accepted without asking; 0: none."""


class Files:
    """The files of one chat (`Part`). All methods belong to the event loop's thread."""

    def __init__(self, chat: Chat, settings: FileSettings | None = None) -> None:
        self.chat = chat
        self.settings = settings or FileSettings()
        self.records = FileRecords(chat.store.database)
        self.jobs: dict[tuple[PeerId, bytes], Job] = {}
        """All that are not over, by author and id."""
        self.outgoing = Outgoing(self)
        self.uploads = Uploads(self)
        self.incoming = Incoming(self)
        self.sharing = Sharing(self)
        self._disk = asyncio.Semaphore(DISK_AT_ONCE)
        self._streams: dict[PeerId, int] = {}
        self._unsubscribe: Cancel | None = None
        self._stopped = False

    # life

    async def start(self) -> None:
        """Go on with what is not over. Raise StorageError."""
        for record in await self.records.unended():
            self.jobs[record.author, record.id] = Job(record)
        await self.sharing.load()
        for job in list(self.jobs.values()):
            if job.record.outgoing:
                await self.outgoing.resume(job)
            else:
                self.incoming.resume(job)
        await self.outgoing.resume_untold()
        self._unsubscribe = self.chat.node.subscribe(self._node_event)
        self.chat.node.handle(FILE_PROTOCOL, self._serve)
        for session in self.chat.node.sessions():
            self._came(session.peer)

    async def stop(self) -> None:
        """Note how far all are. What is under way goes on after the next start."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._stopped = True
        for job in self.jobs.values():
            if job.done != job.record.known:
                job.record.known = job.done
                self._save_later(job)

    # what applications call

    async def send(self, party: Party, path: str, *, addresses: Sequence[Address] = ()) -> Transfer:
        """Offer a file or a folder to somebody, or to each member of a room. It is looked through in the background;
        the state says how far it is.

        `addresses`: where the other was said to be.

        Raise InvalidPeerError, PeerBlockedError, NotFoundError (not in that room), SourceError (`no_such_file`,
        `too_large`, ...), StorageError.
        """
        if isinstance(party, RoomId):
            return self.snapshot(await self.sharing.begin(party, path))
        if isinstance(party, Hall):
            raise InvalidPeerError("A file goes to a person or a room: name one.")
        if party in (self.chat.node.user_id, self.chat.node.peer_id):
            raise InvalidPeerError("That is your own id; name somebody else's.")
        if addresses:
            self.chat.resolver.hint(party, addresses)
            if isinstance(party, PeerId):
                self.chat.links.hint(party, tuple(addresses))
        who = self.chat.directory.party_of(party) if isinstance(party, PeerId) else party
        job = await self.outgoing.begin(who, path)
        return self.snapshot(job)

    async def accept(self, name: str = "") -> Transfer:
        """Take what is offered. `name`: the id, or its first characters; empty: the only one that is offered.

        Also begins anew at once what waits (for the disk, for the other side). Raise NotFoundError, InvalidPeerError.
        """
        record = await self._pick(name, lambda record: not record.outgoing and record.state in ("offered", "active"))
        return self.snapshot(await self.incoming.accept(self._job(record)))

    async def refuse(self, name: str = "") -> Transfer:
        """Do not take what is offered, or give up what is under way. Raise as `accept`."""
        record = await self._pick(name, lambda record: not record.outgoing and not record.ended)
        return self.snapshot(await self.incoming.refuse(self._job(record)))

    async def cancel(self, name: str = "") -> Transfer:
        """Withdraw an offer of ours, or give up whatever it is. Raise as `accept`."""
        record = await self._pick(name, lambda record: not record.ended)
        job = self._job(record)
        if record.outgoing:
            await self.outgoing.end(job, "cancelled", "")
        else:
            await self.incoming.refuse(job)
        return self.snapshot(job)

    async def transfers(self, limit: int = 100) -> list[Transfer]:
        """Return the newest, oldest first, those that are not over in any case."""
        records = {record.position: record for record in await self.records.newest(limit)}
        records |= {job.record.position: job.record for job in self.jobs.values()}
        return [await self._shown(records[position]) for position in sorted(records) if not records[position].parent]

    async def transfer(self, name: str) -> Transfer:
        """Return one by its id or the id's first characters. Raise NotFoundError, InvalidPeerError."""
        return await self._shown(await self._pick(name, lambda _record: True))

    # what the halves share

    @property
    def now(self) -> float:
        return self.chat.node.network.monotonic()

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run what blocks in a thread. Cancelled, it still waits for the thread: its file must not be closed before."""
        async with self._disk:
            work = asyncio.ensure_future(self.chat.node.network.run_blocking(function, *args))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait({work})
                raise

    def snapshot(self, job: Job) -> Transfer:
        return job.snapshot(self.now)

    async def change(self, job: Job, state: FileState | None = None, reason: str = "") -> None:
        """Set state and reason; on the disk when this returns, told to everybody then. Raise StorageError."""
        record = job.record
        if record.ended or ((state or record.state), reason) == (record.state, record.reason):
            return
        told = (record.state, record.reason, record.changed_at)
        record.state, record.reason, record.changed_at = state or record.state, reason, self.chat.now_ms()
        record.known = job.done
        try:
            await self.records.save(record)
        except BaseException:
            record.state, record.reason, record.changed_at = told
            raise
        if record.ended:
            self.jobs.pop((record.author, record.id), None)
            log.info("file_ended", id=record.id.hex(), state=record.state, reason=record.reason)
        self.chat.emit(FileChanged(self.snapshot(job)))

    def note_reason(self, job: Job, reason: str) -> None:
        """Say why it does not go on just now (empty: it does); with a later commit."""
        if job.record.reason == reason or job.record.ended or self._stopped:
            return
        job.record.reason = reason
        self._save_later(job)
        self.chat.emit(FileChanged(self.snapshot(job)))

    def moved(self, job: Job, done: int) -> None:
        """Note the bytes that are done, and tell it now and then."""
        now = self.now
        job.done = done
        job.meter.note(now, done)
        if now - job.told_at >= PROGRESS_S and done < job.record.size and not self._stopped:
            job.told_at = now
            job.record.known = done
            self._save_later(job)
            self.chat.emit(FileChanged(self.snapshot(job), progress=True))

    def own_hello(self, peer: PeerId) -> Hello:
        return self.chat.links.own_hello(peer)

    # inside

    def _save_later(self, job: Job) -> None:
        with contextlib.suppress(StorageError):  # the database is closed: what is in the file is a little older
            self.records.save_later(job.record)

    async def _shown(self, record: Record) -> Transfer:
        job = self.jobs.get((record.author, record.id)) or Job(record)
        if isinstance(record.party, RoomId) and record.outgoing and not job.parts:
            await self.sharing.load_parts(job)
        return self.snapshot(job)

    def _job(self, record: Record) -> Job:
        return self.jobs.get((record.author, record.id)) or Job(record)

    async def _pick(self, name: str, fits: Callable[[Record], bool]) -> Record:
        wanted = name.strip().casefold()
        if wanted:
            if not 4 <= len(wanted) <= 32 or any(char not in "0123456789abcdef" for char in wanted):
                raise InvalidPeerError(f"{name[:40]!r} is no id of a file: 4 to 32 hex digits, as `file list` shows.")
            found = await self.records.like(wanted)
            if not found:
                raise NotFoundError(f"There is no file {name[:40]!r}; `file list` shows all.")
        else:
            found = [job.record for job in self.jobs.values() if job.parent is None]
        fitting = [record for record in found if fits(record)]
        if len(fitting) == 1:
            return fitting[0]
        if len(fitting) > 1:
            raise InvalidPeerError("Several files could be meant; name one by its id, as `file list` shows.")
        if found and wanted:
            raise NotFoundError(f"The file {name[:40]!r} is {found[0].state}.")
        raise NotFoundError("Nothing is offered." if not wanted else f"There is no file {name[:40]!r}.")

    def _node_event(self, event: NodeEvent) -> None:
        if isinstance(event, SessionOpened):
            self._came(event.session.peer)
        elif isinstance(event, PresenceChanged) and event.online:
            self.outgoing.poke(event.peer)
            self.incoming.poke(event.peer)
        elif isinstance(event, Joined | NetworkChanged):
            self.outgoing.poke_all()
            self.incoming.poke(None)

    def _came(self, peer: PeerId) -> None:
        self.outgoing.came(peer)
        self.incoming.poke(peer)

    async def _serve(self, session: SessionPort, stream: StreamPort) -> None:
        peer = session.peer
        if self._streams.get(peer, 0) >= STREAMS or self.chat.directory.is_blocked(peer):
            stream.reset(1)
            return
        self._streams[peer] = self._streams.get(peer, 0) + 1
        talk = Talk(stream)
        try:
            await self._listen(session, talk)
        except BadPacket as bad:
            self.chat.drops[bad.reason] += 1
            log.info("file_stream_dropped", peer=str(peer), reason=bad.reason)
            stream.reset(1)
        except (*BROKEN, TimeoutError):
            stream.reset(0)
        finally:
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]

    async def _listen(self, session: SessionPort, talk: Talk) -> None:
        """Serve a stream that the other side opened. Raise BadPacket, and what BROKEN names."""
        hello = await talk.frame()
        if not isinstance(hello, Hello):
            raise BadPacket("no_hello")
        self.chat.heard_hello(session, hello)
        while (frame := await talk.next_frame()) is not None:
            if isinstance(frame, Offer):
                await talk.say(await self.incoming.offered(session.peer, frame))
            elif isinstance(frame, Withdraw):
                await self.incoming.withdrawn(session.peer, frame)
                await talk.say(Answer(frame.id, "done", ""))
            elif isinstance(frame, Answer):
                await self.outgoing.answered(session.peer, frame)
            elif isinstance(frame, Want):
                await self.uploads.serve(session, talk, frame)
                break
            else:
                raise BadPacket("unexpected_frame")
        talk.stream.finish()
