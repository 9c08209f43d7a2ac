"""Where files of others come to: plain blocking functions, called through `Network.run_blocking`.

The files that people send and get are a named exception from "all I/O goes through Network", as SQLite's file is.
What comes is written below the downloads folder under a name of ours (`part_name`), mode 0600, through no link.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from p2pnode.chat.files.names import numbered
from p2pnode.chat.files.wire import HASH_BYTES, SEGMENT, root_of

__all__ = [
    "DamagedError", "PartFile", "first_free", "free_bytes", "is_full", "make_folder", "name_for", "part_sizes", "place",
    "prepare", "remove", "root_on_disk", "sync_all",
]  # fmt: skip

READ = 1 << 20
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
RESERVE = 64 << 20  # bytes that a transfer leaves free: the database and the log have to go on
LOOK_EVERY = 8 << 20  # bytes between two looks at how much room there is
FLUSH = 8 << 20  # bytes that are sent to the disk as soon as they are written
FLUSH_LAG = 32 << 20  # bytes after which those have surely arrived there
MAX_NUMBER = 10_000  # of names "x (2)", "x (3)", ...


class DamagedError(Exception):
    """A segment is not what its leaf says; the file ends before it now."""


def prepare(downloads: str) -> None:
    """Make the downloads folder unless it is there. Raise OSError."""
    Path(downloads).mkdir(mode=0o700, parents=True, exist_ok=True)


def free_bytes(downloads: str) -> int:
    """Return how much a transfer may still write. Raise OSError."""
    return max(0, shutil.disk_usage(downloads).free - RESERVE)


def part_sizes(base: str, paths: Sequence[tuple[str, ...]]) -> list[int]:
    """Return how much of each file is there, -1 where nothing is."""

    def size(path: tuple[str, ...]) -> int:
        try:
            info = os.lstat(os.path.join(base, *path))
        except OSError:
            return -1
        return info.st_size if stat.S_ISREG(info.st_mode) else 0 if stat.S_ISDIR(info.st_mode) else -1

    return [size(path) for path in paths]


def make_folder(base: str, path: tuple[str, ...]) -> None:
    """Make a folder below `base`, with all above it, through no link. Raise OSError."""
    place = base
    for name in ("", *path):
        place = os.path.join(place, name) if name else place
        with contextlib.suppress(FileExistsError):
            os.mkdir(place, 0o700)
        if not stat.S_ISDIR(os.lstat(place).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place)


class PartFile:
    """A file that comes. What is there when it is opened is checked against the leaves (`check`), more is written."""

    def __init__(self, base: str, path: tuple[str, ...], size: int, leaves: bytes) -> None:
        """`path`: below `base`; empty: `base` itself is the file. Raise OSError."""
        if path:
            make_folder(base, path[:-1])
        self._size, self._leaves = size, leaves
        self._fd = os.open(os.path.join(base, *path), os.O_RDWR | os.O_CREAT | _NO_LINK | _FLAGS, 0o600)
        self._hash = hashlib.sha256()
        self._look_at = self._flush_at = 0
        self.have = 0
        """Good bytes from the start; the last ones, of a segment not yet whole, are as they are."""

    def check(self, segments: int) -> bool:
        """Read so many segments more of what is there; whether that was all of it. What is not good is cut off."""
        length = min(os.fstat(self._fd).st_size, self._size)
        os.lseek(self._fd, self.have, os.SEEK_SET)
        for _ in range(segments):
            end = min(self.have + SEGMENT, self._size)
            data = _read_fully(self._fd, min(end, length) - self.have)
            digest = hashlib.sha256(data)
            whole = self.have + len(data) == end
            if not data or (whole and digest.digest() != self._leaf(self.have)):
                break
            self.have += len(data)
            if not whole:
                self._hash = digest
                break
        else:
            if self.have < length:
                return False
        os.ftruncate(self._fd, self.have)
        return True

    def write(self, data: bytes) -> None:
        """Append. Raise DamagedError where a segment is not what its leaf says, OSError."""
        if self.have >= self._look_at:
            self._look_at = self.have + LOOK_EVERY
            if hasattr(os, "fstatvfs") and (room := os.fstatvfs(self._fd)).f_bavail * room.f_frsize < RESERVE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the database has to go on
        view = memoryview(data)
        while view:
            end = min((self.have // SEGMENT + 1) * SEGMENT, self._size)
            part = view[: end - self.have]
            view = view[len(part) :]
            self._hash.update(part)
            written = 0
            while written < len(part):
                written += _write_at(self._fd, part[written:], self.have + written)
            self.have += len(part)
            if self.have == end:
                start = (end - 1) // SEGMENT * SEGMENT
                good, self._hash = self._hash.digest() == self._leaf(start), hashlib.sha256()
                if not good:
                    os.ftruncate(self._fd, start)
                    self.have = start
                    raise DamagedError
        if self.have >= self._flush_at + FLUSH:
            self._flush()

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def _flush(self) -> None:
        """Begin to bring the last `FLUSH` bytes to the disk, and give back the memory of those well before them.

        Else all of a large file waits in memory for the end, pushing out what other programs read, and pages of its
        own for each byte cost more than writing it: 2.5 s of the processor for 1 GB, here 0.5, and 0.4 s at the end.
        """
        self._flush_at = self.have // FLUSH * FLUSH
        if hasattr(os, "posix_fadvise"):
            for end in (self._flush_at, self._flush_at - FLUSH_LAG):
                if end > 0:
                    os.posix_fadvise(self._fd, end - FLUSH, FLUSH, os.POSIX_FADV_DONTNEED)

    def _leaf(self, start: int) -> bytes:
        number = start // SEGMENT
        return self._leaves[number * HASH_BYTES : (number + 1) * HASH_BYTES]


def root_on_disk(base: str, path: tuple[str, ...], size: int) -> bytes:
    """Return the root of a file that is there; empty when it has another size. Raise OSError."""
    fd = os.open(os.path.join(base, *path), os.O_RDONLY | _NO_LINK | _FLAGS)
    try:
        if os.fstat(fd).st_size != size:
            return b""
        leaves = [hashlib.sha256(_read_fully(fd, min(SEGMENT, size - at))).digest() for at in range(0, size, SEGMENT)]
        return root_of(size, b"".join(leaves))
    finally:
        os.close(fd)


def name_for(part: str, downloads: str, name: str, noted: str) -> str:
    """Return the path to give: the one that was noted, while that is free or ours already, else the first free one."""
    if noted and (not os.path.lexists(noted) or (os.path.isfile(part) and os.path.samefile(part, noted))):
        return noted
    return first_free(downloads, name)


def first_free(downloads: str, name: str) -> str:
    """Return the path in the downloads folder that nothing has yet. Raise OSError."""
    for number in range(1, MAX_NUMBER):
        path = os.path.join(downloads, numbered(name, number))
        if not os.path.lexists(path):
            return path
    raise OSError(errno.EEXIST, "too many files of this name", name)


def place(part: str, path: str) -> None:
    """Give what is whole its final name. Raise FileExistsError where something has it, OSError.

    A file gets the new name before it loses the old one: a crash between the two leaves both, and the next call ends
    it. That `part` is gone and `path` there means that an earlier call did all.
    """
    if not os.path.lexists(part) and os.path.lexists(path):
        return
    if os.path.isdir(part):
        os.mkdir(path, 0o700)  # fails where something is: nothing of theirs is touched
        if os.name == "nt":
            os.rmdir(path)
        os.rename(part, path)  # onto the empty one: one step
    elif not (os.path.isfile(path) and os.path.samefile(part, path)):
        _move_file(part, path)
    else:
        os.unlink(part)
    _sync_folder(os.path.dirname(path))


def _move_file(part: str, path: str) -> None:
    try:
        os.link(part, path, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # no hard links here (FAT, some network disks)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK | _FLAGS, 0o600))
        os.replace(part, path)
        return
    os.unlink(part)


def _sync_folder(path: str) -> None:
    with contextlib.suppress(OSError):  # some systems cannot
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_all() -> None:
    """Bring everything to the disk: for a folder of many files, one call instead of thousands."""
    if hasattr(os, "sync"):
        os.sync()


def remove(part: str) -> None:
    """Take away what was not finished. Never raises."""
    with contextlib.suppress(OSError):
        if os.path.isdir(part) and not os.path.islink(part):
            shutil.rmtree(part, ignore_errors=True)
        elif os.path.lexists(part):
            os.unlink(part)


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _read_fully(fd: int, count: int) -> bytes:
    data = os.read(fd, count)
    while len(data) < count:
        more = os.read(fd, count - len(data))
        if not more:
            break
        data += more
    return data


def _write_at(fd: int, data: memoryview, offset: int) -> int:
    """One call where the system has it: each gives the interpreter's lock away and has to get it back."""
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, data, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)
