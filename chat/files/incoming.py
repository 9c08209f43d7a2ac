"""What others offer: taken note of, shown, decided about, fetched."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

import structlog

from p2pnode import BadPacket, NotFoundError, P2PError, PeerId
from p2pnode.chat.files import disk
from p2pnode.chat.files.fetching import DiskError, EndedError, Fetch
from p2pnode.chat.files.jobs import Job
from p2pnode.chat.files.names import safe_name
from p2pnode.chat.files.records import Record
from p2pnode.chat.files.wire import Answer, Offer, Withdraw
from p2pnode.chat.limits import Buckets
from p2pnode.chat.link import BROKEN
from p2pnode.chat.model import FileChanged, FileState, RoomId
from p2pnode.chat.outbox import retry_delay

if TYPE_CHECKING:
    from p2pnode.chat.files.service import Files

__all__ = ["Incoming"]

log = structlog.get_logger(__name__)

# Chosen by us. An offer that is not over is a row of 1 KB and an object of as much.
MAX_OFFERED = 256  # that wait for the user, in all
MAX_OFFERED_PER_USER = 16
MAX_OFFERED_PER_MEMBER = 2  # of a room's member who is no contact
MAX_OFFERED_MEMBERS = 16  # of all of these
MAX_ACTIVE = 64
AT_ONCE = 4  # that are fetched at a time: 4 MiB of memory each, and the session's window
PER_PEER = 2
DAMAGED_MAX = 3  # times that a segment may come wrong
DISK_PAUSE_S = 60.0


class Incoming:
    """Offers of others, and a task for each that was accepted."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._offers = Buckets(rate=0.1, burst=32, capacity=1024)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._peer_slots: dict[PeerId, asyncio.Semaphore] = {}

    async def offered(self, peer: PeerId, offer: Offer) -> Answer:
        """Judge an offer; what is shown to the user is on the disk before. Never raises what the peer can cause."""
        files, chat = self._files, self._files.chat
        job = files.jobs.get((peer, offer.id))
        record = job.record if job is not None else await files.records.by_id(peer, offer.id)
        if record is not None:
            return _state_of(record, offer)
        if files.settings.downloads is None:
            return Answer(offer.id, "refused", "no_downloads")
        known, room = chat.directory.is_known(peer), RoomId(offer.room) if offer.room else None
        if room is not None:
            hindrance = files.sharing.hindrance(room, peer)
            if hindrance:
                return Answer(offer.id, "waits", hindrance)
        elif not known:
            return Answer(offer.id, "waits", "request_pending")
        if not self._has_place(peer, known=known):
            return Answer(offer.id, "waits", "busy")
        now = chat.now_ms()
        record = Record(
            id=offer.id,
            author=peer,
            outgoing=False,
            party=room or chat.directory.party_of(peer),
            folder=offer.folder,
            name=safe_name(offer.name),
            size=offer.size,
            count=offer.count,
            manifest_size=offer.manifest_size,
            root=offer.root,
            state="offered",
            created_at=now,
            changed_at=now,
        )
        job = Job(record)
        files.jobs[peer, offer.id] = job  # before the disk: the same offer may come twice at once
        try:
            await files.records.add(record)
        except P2PError as exc:
            files.jobs.pop((peer, offer.id), None)
            log.error("offer_not_stored", reason=exc.code, why=exc.message)
            return Answer(offer.id, "waits", "storage")
        chat.emit(FileChanged(files.snapshot(job)))
        if known and 0 < files.settings.auto_accept_bytes >= offer.size and self._active() < MAX_ACTIVE:
            await self.accept(job)
            return Answer(offer.id, "accepted", "")
        return Answer(offer.id, "pending", "")

    def _has_place(self, peer: PeerId, *, known: bool) -> bool:
        """Whether one more offer of this device may wait for the user. Members of a room who are no contacts have few
        places, and never take those of contacts."""
        files, directory = self._files, self._files.chat.directory
        authors = [
            job.record.author
            for job in files.jobs.values()
            if job.record.state == "offered" and not job.record.outgoing
        ]
        party = directory.party_of(peer)
        of_user = sum(directory.party_of(author) == party for author in authors)
        if not known:
            others = sum(not directory.is_known(author) for author in authors)
            if of_user >= MAX_OFFERED_PER_MEMBER or others >= MAX_OFFERED_MEMBERS:
                return False
        return len(authors) < MAX_OFFERED and of_user < MAX_OFFERED_PER_USER and self._offers.take(party, files.now)

    async def withdrawn(self, peer: PeerId, frame: Withdraw) -> None:
        """The sender takes its offer back, or another device has it."""
        job = self._files.jobs.get((peer, frame.id))
        if job is not None and not job.record.outgoing:
            await self.withdraw(job, frame.code)

    async def withdraw(self, job: Job, code: str) -> None:
        own = code in ("cancelled", "taken")
        await self._end(job, "cancelled" if own else "failed", "withdrawn" if code == "cancelled" else code)

    async def accept(self, job: Job) -> Job:
        """Fetch it, from now on and until it is here. Raise NotFoundError, StorageError."""
        files, record = self._files, job.record
        if files.settings.downloads is None:
            raise NotFoundError("There is no folder for downloads; set `downloads`.")
        if record.state == "offered":
            if self._active() >= MAX_ACTIVE:
                raise NotFoundError(f"{MAX_ACTIVE} transfers are under way; wait for one to end.")
            await files.change(job, "active", "")
            files.outgoing.answer_soon(record.author, Answer(record.id, "accepted", ""))
        self.resume(job)
        return job

    async def refuse(self, job: Job) -> Job:
        """Do not take it, or no longer. Raise StorageError."""
        was = job.record.state
        await self._end(job, "refused" if was == "offered" else "cancelled", "")
        self._files.outgoing.answer_soon(job.record.author, Answer(job.record.id, "refused", "refused"))
        return job

    def resume(self, job: Job) -> None:
        """Fetch what was accepted, unless that is being done; a pause is cut short."""
        job.wake.set()
        if job.record.state == "active" and (job.task is None or job.task.done()):
            job.task = self._files.chat.start_task(self._run(job), "file-fetch")

    def poke(self, peer: PeerId | None) -> None:
        """A device (None: perhaps any) can be reached."""
        for job in self._files.jobs.values():
            if not job.record.outgoing and peer in (None, job.record.author) and job.record.reason != "disk_full":
                job.wake.set()

    def part_of(self, record: Record) -> str:
        """Return where a transfer is while it comes: a name of ours, that two nodes with one folder do not share."""
        own = self._files.chat.node.peer_id
        mark = hashlib.sha256(own.raw + record.author.raw + record.id).hexdigest()[:24]
        return os.path.join(str(self._files.settings.downloads), f".p2pnode-{mark}.part")

    # inside

    def _active(self) -> int:
        return sum(j.record.state == "active" and not j.record.outgoing for j in self._files.jobs.values())

    async def _run(self, job: Job) -> None:
        files, record, failures, damaged = self._files, job.record, 0, 0
        slot = self._peer_slots.setdefault(record.author, asyncio.Semaphore(PER_PEER))
        fetch = Fetch(files, job, self.part_of(record))
        while not record.ended:
            before, pause = job.done, 0.0
            try:
                if await fetch.named_before():
                    files.outgoing.answer_soon(record.author, Answer(record.id, "done", ""))
                    return
                session = await files.chat.links.connect(record.author)
                async with slot, self._slots:
                    await fetch.once(session)
                return
            except EndedError as exc:
                if exc.code != "busy":
                    await self.withdraw(job, exc.code)
                    return
                files.note_reason(job, "busy")
            except DiskError as exc:
                files.note_reason(job, exc.code)
                pause = DISK_PAUSE_S
            except (disk.DamagedError, BadPacket) as exc:
                damaged += 1
                for_good = isinstance(exc, BadPacket) and exc.reason == "wrong_hash"
                if for_good or damaged >= DAMAGED_MAX:
                    await self._end(job, "failed", "damaged")
                    files.outgoing.answer_soon(record.author, Answer(record.id, "refused", "damaged"))
                    return
            except (*BROKEN, TimeoutError) as exc:
                files.note_reason(job, exc.code if isinstance(exc, P2PError) and exc.code == "blocked" else "offline")
            failures = 1 if job.done > before else failures + 1
            await self._pause(job, pause or retry_delay(failures, files.chat.node.network.rng))

    async def _pause(self, job: Job, seconds: float) -> None:
        job.wake.clear()  # what came before was the session of this attempt
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await job.wake.wait()

    async def _end(self, job: Job, state: FileState, reason: str) -> None:
        await self._files.change(job, state, reason)
        if job.task is not None and job.task is not asyncio.current_task():
            job.task.cancel()
            await asyncio.wait({job.task}, timeout=10.0)
        if self._files.settings.downloads is not None:
            await self._files.run(disk.remove, self.part_of(job.record))


def _state_of(record: Record, offer: Offer) -> Answer:
    """Return what is known of an offer that came before."""
    if record.root != offer.root:
        return Answer(offer.id, "refused", "bad_offer")
    if record.state == "offered":
        return Answer(offer.id, "pending", "")
    if record.state == "active":
        return Answer(offer.id, "accepted", "")
    if record.state == "done":
        return Answer(offer.id, "done", "")
    return Answer(offer.id, "refused", "damaged" if record.reason == "damaged" else "refused")
