"""What we offer: looked through, told to each device of the other side, withdrawn."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import structlog

from p2pnode import BadPacket, P2PError, PeerBlockedError, PeerId, UserId, clean
from p2pnode.chat.files import sources
from p2pnode.chat.files.jobs import Job
from p2pnode.chat.files.records import Record, Source
from p2pnode.chat.files.talk import Talk
from p2pnode.chat.files.wire import (
    FILE_PROTOCOL,
    ID_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_PATH_BYTES,
    SEGMENT,
    Answer,
    Entry,
    Offer,
    Withdraw,
    encode_manifest,
    manifest_root,
    root_of,
)
from p2pnode.chat.link import BROKEN
from p2pnode.chat.model import FileChanged, FileState, Hall, RoomId
from p2pnode.chat.outbox import retry_delay

if TYPE_CHECKING:
    from p2pnode.chat.files.service import Files

__all__ = ["Outgoing"]

log = structlog.get_logger(__name__)

# Chosen by us.
MAX_OPEN = 256  # offers of ours that are not over
AT_ONCE = 64  # segments that a thread hashes before others have a turn: 50 ms
HASHERS = min(4, os.cpu_count() or 1)
ANSWER_S = 10.0
WAITS_S = 60.0  # between two tries where the other side said "not now"
EXPIRE_MS = 7 * 86_400_000  # an offer that nobody answered


class Outgoing:
    """Looks through what is to be sent, and runs a courier for each device that something is to be told."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._couriers: dict[PeerId, asyncio.Task[None]] = {}
        self._wake: dict[PeerId, asyncio.Event] = {}
        self._untold: dict[PeerId, dict[bytes, str]] = {}
        self._answers: dict[PeerId, dict[bytes, Answer]] = {}

    async def begin(self, party: UserId | PeerId | RoomId, path: str) -> Job:
        """Offer what is at `path`; it is on the disk when this returns. Raise as `Files.send`."""
        files, chat = self._files, self._files.chat
        if not isinstance(party, RoomId) and chat.directory.state_of(party) == "blocked":
            raise PeerBlockedError("You have blocked this contact; unblock it to send files.")
        if sum(job.record.outgoing and job.parent is None for job in files.jobs.values()) >= MAX_OPEN:
            raise sources.SourceError("too_many_transfers", f"{MAX_OPEN} transfers are not over yet; cancel some.")
        tree = await files.run(sources.look, path)
        now = chat.now_ms()
        record = Record(
            id=chat.node.network.token_bytes(ID_BYTES),
            author=chat.node.peer_id,
            outgoing=True,
            party=party,
            folder=tree.folder,
            name=clean(tree.name, limit=255) or "file",
            size=tree.size,
            count=len(tree.found),
            manifest_size=0,
            root=b"",
            state="preparing",
            created_at=now,
            changed_at=now,
            source=path,
        )
        await files.records.add(record)
        # whoever is sent something may answer and send as well
        if not isinstance(party, RoomId):
            contact = chat.directory.contact(party)
            if contact is None or contact.state == "request":
                await chat.add_contact(party)
        job = Job(record)
        files.jobs[record.author, record.id] = job
        chat.emit(FileChanged(files.snapshot(job)))
        job.task = chat.start_task(self._prepare(job, tree), "file-prepare")
        return job

    async def resume(self, job: Job) -> None:
        """Go on after a restart."""
        files, record = self._files, job.record
        if record.state == "preparing":
            job.task = files.chat.start_task(self._prepare(job, None), "file-prepare")
            return
        job.devices = await files.records.devices(record.position)
        for device, state in job.devices.items():
            if state not in ("refused", "told", "untold"):
                job.devices[device] = "new"
                self.poke(device)
        if not job.devices:
            job.task = files.chat.start_task(self.address(job), "file-address")

    async def resume_untold(self) -> None:
        for record, device in await self._files.records.untold():
            self._untold.setdefault(device, {})[record.id] = _code_for(record, device)
            self.poke(device)

    def poke(self, peer: PeerId) -> None:
        """Something is to be told to a device, or it can be reached."""
        if peer in self._wake:
            self._wake[peer].set()
        if peer not in self._couriers and self._has_work(peer):
            self._wake[peer] = asyncio.Event()
            self._couriers[peer] = self._files.chat.start_task(self._run(peer), f"file-courier {peer}")

    def poke_all(self) -> None:
        """Perhaps everybody can be reached now."""
        for wake in self._wake.values():
            wake.set()

    def came(self, peer: PeerId) -> None:
        """A session opened: what was told before is told again, in case that either side forgot."""
        for job in self._open_to(peer):
            if not job.moving and job.devices.get(peer) in ("waits", "pending", "accepted"):
                job.devices[peer] = "new"
            job.retry_at.pop(peer, None)
        self.poke(peer)

    async def end(self, job: Job, state: FileState, reason: str) -> None:
        """It is over; who was told of it hears that. Raise StorageError."""
        files, record = self._files, job.record
        if record.ended:
            return
        await files.change(job, state, reason)
        if job.task is not None and job.task is not asyncio.current_task():
            job.task.cancel()
        files.uploads.stop(job)
        telling = {d: "untold" for d, said in job.devices.items() if said not in ("refused", "told")}
        if state == "done" and record.taker is not None:
            telling[record.taker] = "told"
        await self._tell(job, telling)
        await files.sharing.ended(job)

    async def taken(self, job: Job, taker: PeerId) -> None:
        """One device takes it: the others are told. Raise StorageError."""
        job.devices[taker] = "accepted"
        await self._tell(job, {d: "untold" for d, said in job.devices.items() if d != taker and said != "told"})

    async def answered(self, peer: PeerId, answer: Answer) -> None:
        """Take what a device says of an offer of ours. Raise StorageError."""
        files = self._files
        job = files.jobs.get((files.chat.node.peer_id, answer.id))
        if job is None or not self.may_take(job, peer):
            return
        record = job.record
        if record.taker not in (None, peer) or record.state == "preparing":
            return
        job.retry_at.pop(peer, None)
        if answer.state == "done":
            job.done = record.size
            record.taker = record.taker or peer
            await self.end(job, "done", "")
        elif answer.state == "refused":
            job.devices[peer] = "refused"
            await files.records.set_devices(record.position, {peer: "refused"})
            all_refused = all(said == "refused" for said in job.devices.values())
            if answer.code == "refused" or all_refused or record.taker == peer:
                await self.end(job, "refused", answer.code or "refused")
        elif answer.state == "waits":
            job.devices[peer] = "waits"
            job.retry_at[peer] = files.now + WAITS_S
            files.note_reason(job, answer.code)
        else:
            job.devices[peer] = answer.state
            await files.records.set_devices(record.position, {peer: answer.state})
            if not job.moving:
                files.note_reason(job, "pending" if answer.state == "pending" else "")

    def may_take(self, job: Job, peer: PeerId) -> bool:
        """Whether the offer is for this device: a look-up named it, or it proved whose it is."""
        return peer in job.devices or job.record.party in (peer, self._files.chat.directory.party_of(peer))

    def answer_soon(self, peer: PeerId, answer: Answer) -> None:
        """Tell the sender of an offer what became of it here, if it can be reached now; it asks again otherwise."""
        self._answers.setdefault(peer, {})[answer.id] = answer
        self.poke(peer)

    # preparing

    async def _prepare(self, job: Job, tree: sources.Tree | None) -> None:
        files, record = self._files, job.record
        try:
            if tree is None:
                tree = await files.run(sources.look, record.source)
            entries, rows, done = [], [], 0
            for found in tree.found:
                leaves = await self._leaves(found)
                done += found.size
                root = b"" if found.stamp < 0 else root_of(found.size, leaves)
                entries.append(_entry(found, root))
                rows.append(Source(found.source, found.size, found.stamp, leaves))
            manifest = encode_manifest(entries)
            if len(manifest) > MAX_MANIFEST_BYTES:
                raise sources.SourceError("too_many_files", "The names of these files are too long; pack them first.")
        except P2PError as exc:
            log.info("file_not_sent", id=record.id.hex(), reason=exc.code, why=exc.message)
            await files.change(job, "failed", exc.code)
            return
        record.size, record.count = tree.size, len(entries)
        record.manifest_size, record.root = len(manifest), manifest_root(manifest)
        await files.records.prepared(record, manifest, rows)
        await files.change(job, "offered", "")
        await self.address(job)

    async def _leaves(self, found: sources.Found) -> bytes:
        """Hash a file, in as many threads as the machine has processors, four at most."""
        leaves, starts = b"", range(0, -(-found.size // SEGMENT), AT_ONCE)
        for turn in range(0, len(starts), HASHERS):
            pieces = await asyncio.gather(
                *(
                    self._files.run(sources.leaves_of, found.source, found.size, found.stamp, first, AT_ONCE)
                    for first in starts[turn : turn + HASHERS]
                ),
                return_exceptions=True,  # all have ended then
            )
            for piece in pieces:
                if isinstance(piece, BaseException):
                    raise piece
                leaves += piece
        return leaves

    async def address(self, job: Job) -> None:
        """Find the devices of the other side, for as long as that takes."""
        files, chat, failures = self._files, self._files.chat, 0
        party = job.record.party
        if isinstance(party, Hall):
            await files.sharing.spread(job)
            return
        while not job.record.ended:
            await self._add_devices(job, chat.directory.devices_of(party))
            if isinstance(party, PeerId) or (job.parent is not None and job.devices):
                return
            devices, reason = await chat.resolver.devices(party)
            await self._add_devices(job, devices)
            if devices:
                return
            files.note_reason(job, reason)
            failures += 1
            await asyncio.sleep(retry_delay(failures, chat.node.network.rng))

    async def _add_devices(self, job: Job, devices: tuple[PeerId, ...]) -> None:
        fresh = {device: "new" for device in devices if device not in job.devices}
        if fresh and job.record.taker is None:
            job.devices |= fresh
            await self._files.records.set_devices(job.record.position, fresh)
            for device in fresh:
                self.poke(device)

    # couriers

    def _open_to(self, peer: PeerId) -> list[Job]:
        return [job for job in self._files.jobs.values() if job.record.outgoing and peer in job.devices]

    def _to_offer(self, peer: PeerId) -> list[Job]:
        now = self._files.now
        return [
            job
            for job in self._open_to(peer)
            if job.record.state in ("offered", "active")
            and (job.devices[peer] == "new" or (job.devices[peer] == "waits" and job.retry_at.get(peer, now) <= now))
        ]

    def _has_work(self, peer: PeerId) -> bool:
        waiting = any(job.devices[peer] in ("new", "waits") for job in self._open_to(peer))
        return waiting or bool(self._untold.get(peer)) or bool(self._answers.get(peer))

    async def _run(self, peer: PeerId) -> None:
        files, failures = self._files, 0
        try:
            while self._has_work(peer):
                pause = WAITS_S
                if self._to_offer(peer) or self._untold.get(peer) or self._answers.get(peer):
                    try:
                        await self._converse(peer)
                        failures = 0
                        continue
                    except (*BROKEN, TimeoutError) as exc:
                        failures += 1
                        pause = retry_delay(failures, files.chat.node.network.rng)
                        self._failed(peer, exc)
                        self._wake[peer].clear()  # what came before was the session of this attempt
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake[peer].wait()
                self._wake[peer].clear()
        finally:
            del self._couriers[peer], self._wake[peer]

    def _failed(self, peer: PeerId, exc: Exception) -> None:
        self._answers.pop(peer, None)
        oldest = self._files.chat.now_ms() - EXPIRE_MS
        for job in self._to_offer(peer):
            if job.record.created_at < oldest:
                self._files.chat.start_task(self.end(job, "failed", "expired"), "file-expired")
            elif not job.moving:
                self._files.note_reason(job, exc.code if isinstance(exc, P2PError) else "offline")

    async def _converse(self, peer: PeerId) -> None:
        """Tell a device everything that it has not heard. Raise what BROKEN names, TimeoutError."""
        files = self._files
        session = await files.chat.links.connect(peer)
        talk = Talk(await session.open_stream(FILE_PROTOCOL))
        try:
            await talk.say(files.own_hello(peer), *self._answers.pop(peer, {}).values())
            for offer, code in list(self._untold.get(peer, {}).items()):
                await talk.say(Withdraw(offer, code))
                await self._heard(talk, offer)
                self._untold.get(peer, {}).pop(offer, None)
                await self._told(peer, offer)
            for job in self._to_offer(peer):
                await talk.say(_offer(job))
                answer = await self._heard(talk, job.record.id)
                if job.devices.get(peer) in ("new", "waits"):
                    job.devices[peer] = "pending"  # whatever it says next
                    await self.answered(peer, answer)
            talk.stream.finish()
        except BaseException:
            talk.stream.reset(0)
            raise
        if not self._untold.get(peer):
            self._untold.pop(peer, None)

    async def _heard(self, talk: Talk, offer: bytes) -> Answer:
        frame = await talk.frame(ANSWER_S)
        if not isinstance(frame, Answer) or frame.id != offer:
            raise BadPacket("not_an_answer")
        return frame

    async def _tell(self, job: Job, devices: dict[PeerId, str]) -> None:
        if not devices:
            return
        job.devices |= devices
        await self._files.records.set_devices(job.record.position, devices)
        for device, state in devices.items():
            if state == "untold":
                self._untold.setdefault(device, {})[job.record.id] = _code_for(job.record, device)
                self.poke(device)

    async def _told(self, peer: PeerId, offer: bytes) -> None:
        files = self._files
        own = files.chat.node.peer_id
        job = files.jobs.get((own, offer))
        record = job.record if job is not None else await files.records.by_id(own, offer)
        if job is not None:
            job.devices[peer] = "told"
        if record is not None:
            await files.records.set_devices(record.position, {peer: "told"})


def _entry(found: sources.Found, root: bytes) -> Entry:
    if sum(len(name.encode()) + 1 for name in found.path) > MAX_PATH_BYTES or any(len(n) > 255 for n in found.path):
        raise sources.SourceError("too_deep", f"The path {found.source!r} is too long to be sent.")
    return Entry(found.path, found.size, root)


def _offer(job: Job) -> Offer:
    record, room = job.record, job.party.raw if isinstance(job.party, RoomId) else b""
    return Offer(
        record.id, room, record.folder, record.name, record.size, record.count, record.manifest_size, record.root
    )


def _code_for(record: Record, device: PeerId) -> str:
    """Why the offer stands no more, as the device is told."""
    if record.taker is not None and record.taker != device:
        return "taken"
    return (record.reason or "failed") if record.state == "failed" else "cancelled"
