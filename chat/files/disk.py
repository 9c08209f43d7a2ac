"""The disk's side of transfers: plain blocking functions, called through `Network.run_blocking`.

The files that people send and get are a named exception from "all I/O goes through Network", as SQLite's file is.
Of a folder only regular files and folders are sent: links are not followed and not made, devices and pipes left out.
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
from dataclasses import dataclass
from pathlib import Path

from p2pnode import P2PError
from p2pnode.chat.files.names import numbered
from p2pnode.chat.files.wire import HASH_BYTES, MAX_COUNT, MAX_DEPTH, MAX_SIZE, SEGMENT, root_of

__all__ = [
    "DamagedError", "Found", "PartFile", "SourceError", "SourceFile", "Tree", "first_free", "free_bytes", "is_full",
    "leaves_of", "look", "make_folder", "name_for", "part_sizes", "place", "prepare", "remove", "root_on_disk",
    "sync_all",
]  # fmt: skip

READ = 1 << 20
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
RESERVE = 64 << 20  # bytes that a transfer leaves free: the database and the log have to go on
MAX_NUMBER = 10_000  # of names "x (2)", "x (3)", ...


class SourceError(P2PError):
    """What is to be sent cannot be. `code`: `no_such_file`, `not_a_file`, `too_large`, `changed`, `gone`, ..."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class DamagedError(Exception):
    """A segment is not what its leaf says; the file ends before it now."""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing to send. `stamp`: when it was last written, nanoseconds; -1 for a folder."""

    path: tuple[str, ...]
    source: str
    size: int
    stamp: int


@dataclass(frozen=True, slots=True)
class Tree:
    """What a path holds. `skipped`: links, devices and what cannot be read in a folder."""

    name: str
    folder: bool
    found: tuple[Found, ...]
    skipped: int

    @property
    def size(self) -> int:
        return sum(each.size for each in self.found)


# sending


def look(path: str) -> Tree:
    """Find out what is at `path`; a link that is named itself is followed. Raise SourceError."""
    top = Path(path)
    try:
        path.encode()  # what is no UTF-8 can be neither stored nor sent
        top = top.resolve(strict=True)
        info = top.stat()
    except FileNotFoundError as exc:
        raise SourceError("no_such_file", f"There is no file {path!r}.") from exc
    except (OSError, ValueError, RuntimeError) as exc:
        raise _unreadable(path, exc) from exc
    name = Path(path).name or top.name
    name = (name if name != ".." else top.name).encode("utf-8", "replace").decode() or "files"
    if stat.S_ISREG(info.st_mode):
        tree = Tree(name, False, (Found((name,), str(top), info.st_size, info.st_mtime_ns),), 0)
    elif stat.S_ISDIR(info.st_mode):
        found: list[Found] = []
        skipped = _walk(str(top), (), found)
        if not found:
            raise SourceError("nothing_to_send", f"The folder {path!r} holds nothing that can be sent.")
        tree = Tree(name, True, tuple(found), skipped)
    else:
        raise SourceError("not_a_file", f"{path!r} is neither a file nor a folder.")
    if tree.size > MAX_SIZE:
        raise SourceError("too_large", f"{path!r} has {tree.size:,} bytes; at most {MAX_SIZE:,} are sent at once.")
    return tree


def _walk(folder: str, above: tuple[str, ...], found: list[Found]) -> int:
    if len(above) >= MAX_DEPTH:
        raise SourceError("too_deep", f"{folder!r} lies more than {MAX_DEPTH} folders deep; send it on its own.")
    skipped, empty = 0, True
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                path = (*above, entry.name)
                if not _sendable(entry):
                    skipped += 1
                    continue
                empty = False
                if entry.is_dir(follow_symlinks=False):
                    skipped += _walk(entry.path, path, found)
                else:
                    info = entry.stat(follow_symlinks=False)
                    found.append(Found(path, entry.path, info.st_size, info.st_mtime_ns))
                if len(found) > MAX_COUNT:
                    raise SourceError(
                        "too_many_files", f"The folder holds more than {MAX_COUNT:,} files; pack it first."
                    )
    except OSError as exc:
        raise _unreadable(folder, exc) from exc
    if empty and above:
        found.append(Found(above, folder, 0, -1))
    return skipped


def _sendable(entry: os.DirEntry[str]) -> bool:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return False
    return entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)


class SourceFile:
    """A file that is sent. Raise SourceError `changed` or `gone` when it is no longer what was hashed."""

    def __init__(self, path: str, size: int, stamp: int) -> None:
        self._path, self._size, self._stamp = path, size, stamp
        try:
            self._fd = os.open(path, os.O_RDONLY | _NO_LINK | getattr(os, "O_NONBLOCK", 0) | _FLAGS)
        except FileNotFoundError as exc:
            raise SourceError("gone", f"{path} is no longer there; send it again when it is.") from exc
        except OSError as exc:
            raise _unreadable(path, exc) from exc

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes, fewer never."""
        try:
            self._check()
            os.lseek(self._fd, offset, os.SEEK_SET)
            data = os.read(self._fd, count)
            while len(data) < count:
                more = os.read(self._fd, count - len(data))
                if not more:
                    raise self._changed()
                data += more
            self._check()
        except OSError as exc:
            raise _unreadable(self._path, exc) from exc
        return data

    def close(self) -> None:
        os.close(self._fd)

    def _check(self) -> None:
        info = os.fstat(self._fd)
        if not stat.S_ISREG(info.st_mode) or (info.st_size, info.st_mtime_ns) != (self._size, self._stamp):
            raise self._changed()

    def _changed(self) -> SourceError:
        return SourceError("changed", f"{self._path} was changed while it was being sent; send it again.")


def leaves_of(path: str, size: int, stamp: int, first: int, count: int) -> bytes:
    """Return the leaves of `count` segments of a file from segment `first` on. Raise SourceError."""
    source = SourceFile(path, size, stamp)
    try:
        return b"".join(
            hashlib.sha256(source.read(at, min(SEGMENT, size - at))).digest()
            for at in range(first * SEGMENT, min(size, (first + count) * SEGMENT), SEGMENT)
        )
    finally:
        source.close()


# receiving


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
        if hasattr(os, "fstatvfs") and (room := os.fstatvfs(self._fd)).f_bavail * room.f_frsize < RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the database has to go on
        view = memoryview(data)
        while view:
            end = min((self.have // SEGMENT + 1) * SEGMENT, self._size)
            part = view[: end - self.have]
            view = view[len(part) :]
            self._hash.update(part)
            os.lseek(self._fd, self.have, os.SEEK_SET)
            written = 0
            while written < len(part):
                written += os.write(self._fd, part[written:])
            self.have += len(part)
            if self.have == end:
                start = (end - 1) // SEGMENT * SEGMENT
                good, self._hash = self._hash.digest() == self._leaf(start), hashlib.sha256()
                if not good:
                    os.ftruncate(self._fd, start)
                    self.have = start
                    raise DamagedError

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

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


def _unreadable(path: str, exc: Exception) -> SourceError:
    why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return SourceError("unreadable", f"{path} cannot be read: {why}.")
