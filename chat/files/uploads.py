"""Sends the bytes that a device asks for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from p2pnode import BadPacket, Priority
from p2pnode.chat.files import sources
from p2pnode.chat.files.jobs import Job
from p2pnode.chat.files.records import Source
from p2pnode.chat.files.talk import Talk
from p2pnode.chat.files.wire import SEGMENT, Answer, Entry, Want, Withdraw, parse_manifest_untrusted
from p2pnode.chat.link import BROKEN
from p2pnode.chat.ports import SessionPort

if TYPE_CHECKING:
    from p2pnode.chat.files.service import Files

__all__ = ["Uploads"]

log = structlog.get_logger(__name__)

# Chosen by us.
AT_ONCE = 8  # of a MiB each
READ = 256 << 10  # bytes that are copied between two turns of the loop: 40 us
PER_PEER = 4
END_S = 600.0  # for the other side to bring a large file to a slow disk, once it has all


class Uploads:
    """Serves `Want`."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._running: dict[Job, asyncio.Task[None]] = {}

    async def serve(self, session: SessionPort, talk: Talk, want: Want) -> None:
        """One device takes an offer of ours, from where it says. Raise BadPacket, what BROKEN names, StorageError."""
        files, peer = self._files, session.peer
        job = files.jobs.get((files.chat.node.peer_id, want.id))
        if job is None or not files.outgoing.may_take(job, peer):
            record = await files.records.by_id(files.chat.node.peer_id, want.id)
            ended = record is not None and record.ended and peer in await files.records.devices(record.position)
            failed = ended and record is not None and record.state == "failed"
            await talk.say(Withdraw(want.id, (record.reason or "failed") if failed and record else "cancelled"))
            return
        code = await self._hindrance(job, session)
        if code:
            await talk.say(Withdraw(want.id, code))
            return
        running = asyncio.get_running_loop().create_task(self._send(job, talk, want), name="file-upload")
        self._running[job] = running
        try:
            await asyncio.wait({running})
        finally:
            running.cancel()
            await asyncio.wait({running})
            if self._running.get(job) is running:
                del self._running[job]
        if running.cancelled():
            talk.stream.reset(0)  # withdrawn, or the same device asks anew
        else:
            running.result()

    def stop(self, job: Job) -> None:
        """It is over: send no more of it."""
        running = self._running.get(job)
        if running is not None and running is not asyncio.current_task() and job.record.state == "cancelled":
            running.cancel()

    async def _hindrance(self, job: Job, session: SessionPort) -> str:
        """Return why it cannot be sent now, "" when it can: then it is this device's."""
        files, record, peer = self._files, job.record, session.peer
        if record.state == "preparing":
            return "busy"
        if record.taker not in (None, peer):
            return "taken"
        if (old := self._running.get(job)) is not None:
            old.cancel()  # the same device asks anew: the old stream is of no use to it any more
            await asyncio.wait({old}, timeout=1.0)
        others = [other for other in self._running if other is not job]
        if len(others) >= AT_ONCE or sum(other.record.taker == peer for other in others) >= PER_PEER:
            return "busy"
        first = record.taker is None
        record.taker = peer
        await files.change(job, "active", "")
        if first:
            await files.outgoing.taken(job, peer)
        return ""

    async def _send(self, job: Job, talk: Talk, want: Want) -> None:
        files, record = self._files, job.record
        talk.stream.priority = Priority.BACKGROUND  # of what we send: messages go before
        ending = asyncio.get_running_loop().create_task(self._ended(job, talk), name="file-upload-end")
        job.moving = True
        job.meter.rest()
        files.note_reason(job, "")
        try:
            manifest = await files.records.manifest(record.position) or b""
            if want.manifest:
                await self._bytes(talk, manifest)
            entries = parse_manifest_untrusted(manifest)
            files.moved(job, sum(entry.size for entry in entries[: want.number]) + want.offset)
            for number in range(want.number, len(entries)):
                if not entries[number].is_folder:
                    offset = want.offset if number == want.number else 0
                    await self._entry(job, talk, entries[number], number, offset)
            async with asyncio.timeout(END_S):
                await ending
        except sources.SourceError as exc:
            log.info("file_broken_off", id=record.id.hex(), reason=exc.code, why=exc.message)
            await talk.say(Withdraw(record.id, exc.code))
            await files.outgoing.end(job, "failed", exc.code)
        finally:
            job.moving = False
            ending.cancel()
            with contextlib.suppress(asyncio.CancelledError, TimeoutError, *BROKEN):
                await ending
            if not record.ended:
                files.note_reason(
                    job, "offline" if files.chat.node.session(record.taker or record.author) is None else ""
                )

    async def _entry(self, job: Job, talk: Talk, entry: Entry, number: int, offset: int) -> None:
        files = self._files
        source = await files.records.source(job.record.position, number)
        if offset > entry.size:
            raise BadPacket("bad_offset")
        await self._bytes(talk, source.leaves)
        if entry.size <= SEGMENT:
            data = await files.run(_read_whole, source)
            await talk.data(data[offset:])
            files.moved(job, job.done + len(data) - offset)
            return
        reader = await files.run(sources.SourceFile, source.path, source.size, source.stamp)
        try:
            await self._pump(job, talk, reader, offset, entry.size)
        finally:
            reader.close()

    async def _pump(self, job: Job, talk: Talk, reader: sources.SourceFile, offset: int, size: int) -> None:
        """Send from `offset` to the end: what is in memory from one buffer, the rest read by a thread."""
        buffer = memoryview(bytearray(READ))
        while offset < size:
            room = buffer[: size - offset]
            count = reader.read_nowait(offset, room)
            data = room[:count] if count else await self._files.run(reader.read, offset, min(SEGMENT, size - offset))
            await talk.data(data)
            offset += len(data)
            self._files.moved(job, job.done + len(data))

    async def _bytes(self, talk: Talk, data: bytes) -> None:
        for at in range(0, len(data), SEGMENT):
            await talk.data(data[at : at + SEGMENT])

    async def _ended(self, job: Job, talk: Talk) -> None:
        """Hear what the receiver says at the end. Raise BadPacket, what BROKEN names."""
        frame = await talk.frame(None)
        if not isinstance(frame, Answer) or frame.id != job.record.id or job.record.taker is None:
            raise BadPacket("not_an_answer")
        await self._files.outgoing.answered(job.record.taker, frame)


def _read_whole(source: Source) -> bytes:
    reader = sources.SourceFile(source.path, source.size, source.stamp)
    try:
        return reader.read(0, source.size) if source.size else b""
    finally:
        reader.close()
