"""Fetches one transfer: asks for what is not here, writes and checks it, gives it its name."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from p2pnode import BadPacket
from p2pnode.chat.files import disk
from p2pnode.chat.files.jobs import Job
from p2pnode.chat.files.names import local_paths
from p2pnode.chat.files.talk import Talk
from p2pnode.chat.files.wire import (
    FILE_PROTOCOL,
    SEGMENT,
    Answer,
    Entry,
    Want,
    Withdraw,
    leaves_size,
    manifest_root,
    parse_manifest_untrusted,
    root_of,
)
from p2pnode.chat.link import BROKEN
from p2pnode.chat.ports import SessionPort

if TYPE_CHECKING:
    from p2pnode.chat.files.service import Files

__all__ = ["DiskError", "EndedError", "Fetch"]

T = TypeVar("T")

BATCH_MIN, BATCH_MAX = 64 << 10, SEGMENT  # bytes that a thread writes and hashes at a time: at most 2 ms
CHECK = 64  # segments that a thread reads again before others have a turn: 50 ms
BATCH_SHARE = 512  # of a file: what `kill -9` finds in memory is two of these


class DiskError(Exception):
    """Our disk refuses. `code`: `disk_full`, `storage`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class EndedError(Exception):
    """The sender does not send it: `busy` (not now), `taken`, `cancelled`, `changed`, `gone`, ..."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Fetch:
    """One transfer that was accepted; `once` is called until it returns."""

    def __init__(self, files: Files, job: Job, part: str) -> None:
        self._files, self._job, self._part = files, job, part
        self._entries: list[Entry] | None = None
        self._paths: list[tuple[str, ...]] = []
        self._checked: set[int] = set()

    async def named_before(self) -> bool:
        """Whether it got its name before the process died, and only the note of it is missing. Raise DiskError."""
        place = self._job.record.place
        if not place or await self._disk(os.path.lexists, self._part) or not await self._disk(os.path.lexists, place):
            return False
        await self._end()
        return True

    async def once(self, session: SessionPort) -> None:
        """Try to bring it to its end.

        Raise EndedError, DiskError, DamagedError, BadPacket (`wrong_hash`: for good), TimeoutError, what BROKEN names.
        """
        files, job = self._files, self._job
        record = job.record
        downloads = str(files.settings.downloads)
        await self._disk(disk.prepare, downloads)
        number, offset = await self._begin()
        if record.size - job.done > await self._disk(disk.free_bytes, downloads):
            raise DiskError("disk_full")
        talk = Talk(await session.open_stream(FILE_PROTOCOL))
        try:
            await talk.say(files.own_hello(record.author), Want(record.id, self._entries is None, number, offset))
            job.meter.rest()
            await self._receive(talk, number, offset)
            await self._check_all()
            await self._place()
            with contextlib.suppress(TimeoutError, *BROKEN):  # it is asked again otherwise
                await talk.say(Answer(record.id, "done", ""))
            talk.stream.finish()
        except BaseException:
            talk.stream.reset(0)
            raise
        finally:
            job.moving = False

    async def _begin(self) -> tuple[int, int]:
        """Return from which entry and byte on something is missing, by what is on the disk."""
        record, files = self._job.record, self._files
        if self._entries is None:
            manifest = await files.records.manifest(record.position)
            if manifest is None:
                return 0, 0
            await self._take_manifest(manifest)
        entries = self._entries or []
        sizes = await self._disk(disk.part_sizes, self._part, self._paths)
        done = 0
        for number, (entry, size) in enumerate(zip(entries, sizes, strict=True)):
            if size < entry.size or size < 0:
                offset = max(0, size)
                self._job.done = done + offset
                return number, offset
            if size > entry.size:
                self._job.done = done
                return number, 0
            done += entry.size
        self._job.done = done
        return len(entries), 0

    async def _take_manifest(self, manifest: bytes) -> None:
        """Raise BadPacket when it is not what the offer said."""
        record = self._job.record
        if manifest_root(manifest) != record.root:
            raise BadPacket("wrong_hash")
        try:  # in a thread: 4 MiB of strange names are seconds
            entries, self._paths = await self._files.run(_planned, manifest, record.folder)
        except BadPacket as bad:
            raise BadPacket("wrong_hash") from bad
        if sum(entry.size for entry in entries) != record.size or len(entries) != record.count:
            raise BadPacket("wrong_hash")
        self._entries = entries

    async def _receive(self, talk: Talk, number: int, offset: int) -> None:
        files, record = self._files, self._job.record
        if self._entries is None:
            manifest = await self._collect(talk, record.manifest_size)
            await self._take_manifest(manifest)
            await files.records.set_manifest(record.position, manifest)
        self._job.moving = True
        files.note_reason(self._job, "")
        files.moved(self._job, self._job.done)
        entries = self._entries or []
        for at in range(number, len(entries)):
            entry, path = entries[at], self._paths[at]
            if entry.is_folder:
                await self._disk(disk.make_folder, self._part, path)
                self._checked.add(at)
                continue
            leaves = await self._collect(talk, leaves_size(entry.size))
            if root_of(entry.size, leaves) != entry.root:
                raise BadPacket("wrong_hash")
            await self._file(talk, entry, path, leaves, offset if at == number else 0)
            self._checked.add(at)

    async def _file(self, talk: Talk, entry: Entry, path: tuple[str, ...], leaves: bytes, offset: int) -> None:
        files, job = self._files, self._job
        before = job.done - offset
        file = await self._disk(disk.PartFile, self._part, path, entry.size, leaves)
        try:
            while not await self._disk(file.check, CHECK):
                pass
            if file.have != offset:
                job.done = before + file.have
                raise disk.DamagedError  # what was there is not what it should be: asked for from there
            held: list[bytes] = []
            size, left = 0, entry.size - offset
            batch = min(BATCH_MAX, max(BATCH_MIN, entry.size // BATCH_SHARE))
            writing: asyncio.Task[None] | None = None
            try:
                while left:
                    data = await self._data(talk, left)
                    held.append(data)
                    size += len(data)
                    left -= len(data)
                    if size >= batch or not left:
                        if writing is not None:
                            await writing
                        files.moved(job, before + file.have)
                        writing = asyncio.create_task(self._disk(_write, file, held), name="file-write")
                        held, size = [], 0
                if writing is not None:
                    await writing
            except (EndedError, TimeoutError, *BROKEN):
                if writing is not None:
                    await writing
                if held:  # the stream broke: what came is kept
                    await self._disk(_write, file, held)
                raise
            finally:
                if writing is not None and not writing.done():
                    await asyncio.wait({writing})
            if not job.record.folder:
                await self._disk(file.sync)
            files.moved(job, before + entry.size)
        finally:
            job.done = before + file.have
            file.close()

    async def _check_all(self) -> None:
        """What was here before this process began is read again. Raise DamagedError: it is fetched anew."""
        for number, entry in enumerate(self._entries or []):
            if number in self._checked:
                continue
            if entry.is_folder:
                self._checked.add(number)
                continue
            root = await self._disk(disk.root_on_disk, self._part, self._paths[number], entry.size)
            if root != entry.root:
                await self._disk(disk.remove, os.path.join(self._part, *self._paths[number]))
                raise disk.DamagedError
            self._checked.add(number)
        if self._job.record.folder:
            await self._disk(disk.sync_all)

    async def _place(self) -> None:
        """Give it its name, which is noted before."""
        files, record = self._files, self._job.record
        downloads = str(files.settings.downloads)
        while True:
            record.place = await self._disk(disk.name_for, self._part, downloads, record.name, record.place)
            await files.records.save(record)
            try:
                await self._disk(disk.place, self._part, record.place)
            except FileExistsError:
                continue  # somebody was faster
            return await self._end()

    async def _end(self) -> None:
        self._job.done = self._job.record.size
        await self._files.change(self._job, "done", "")

    async def _collect(self, talk: Talk, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            found += await self._data(talk, size - len(found))
        return bytes(found)

    async def _data(self, talk: Talk, most: int) -> bytes:
        found = await talk.next()
        if found is None:
            raise EOFError("the other side ended the stream")
        if isinstance(found, bytes):
            if len(found) > most:
                raise BadPacket("too_much_data")
            return found
        if isinstance(found, Withdraw) and found.id == self._job.record.id:
            raise EndedError(found.code)
        raise BadPacket("unexpected_frame")

    async def _disk(self, function: Callable[..., T], *args: object) -> T:
        """Raise DiskError for what the disk says, FileExistsError and DamagedError as they are."""
        try:
            return await self._files.run(function, *args)
        except FileExistsError:
            raise
        except OSError as exc:
            raise DiskError("disk_full" if disk.is_full(exc) else "storage") from exc


def _write(file: disk.PartFile, pieces: list[bytes]) -> None:
    file.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))


def _planned(manifest: bytes, folder: bool) -> tuple[list[Entry], list[tuple[str, ...]]]:
    """Return entries and where each goes. Raise BadPacket."""
    entries = parse_manifest_untrusted(manifest)
    if folder:
        return entries, local_paths(entry.path for entry in entries)
    if len(entries) != 1 or entries[0].is_folder:
        raise BadPacket("bad_entry")
    return entries, [()]
