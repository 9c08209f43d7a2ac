"""What is sent, on the disk: plain blocking functions, called through `Network.run_blocking`.

Of a folder only regular files and folders are sent: links are not followed, devices and pipes left out.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from p2pnode import P2PError
from p2pnode.chat.files.wire import MAX_COUNT, MAX_DEPTH, MAX_SIZE, SEGMENT

__all__ = ["Found", "SourceError", "SourceFile", "Tree", "leaves_of", "look"]

AHEAD = 4 << 20  # bytes that the disk reads while those before them are sent
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


class SourceError(P2PError):
    """What is to be sent cannot be. `code`: `no_such_file`, `not_a_file`, `too_large`, `changed`, `gone`, ..."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


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
            self._fd = os.open(path, _FLAGS)
        except FileNotFoundError as exc:
            raise SourceError("gone", f"{path} is no longer there; send it again when it is.") from exc
        except OSError as exc:
            raise _unreadable(path, exc) from exc

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes, fewer never. The system begins to read what comes after them."""
        try:
            os.lseek(self._fd, offset, os.SEEK_SET)
            data = os.read(self._fd, count)
            while len(data) < count:
                more = os.read(self._fd, count - len(data))
                if not more:
                    raise self._changed()
                data += more
            self._check()
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._fd, offset + count, AHEAD, os.POSIX_FADV_WILLNEED)
        except OSError as exc:
            raise _unreadable(self._path, exc) from exc
        return data

    def read_nowait(self, offset: int, into: memoryview) -> int:
        """Read what the system holds in memory, without waiting for the disk; return how many bytes that were.

        Of a file that was just hashed it is all: no thread is needed, and no memory for each piece. Linux; else 0.
        """
        if sys.platform != "linux":
            return 0
        try:
            count = os.preadv(self._fd, [into], offset, os.RWF_NOWAIT)
            self._check()
        except BlockingIOError:
            return 0
        except OSError as exc:
            if exc.errno == errno.EOPNOTSUPP:  # this file system cannot
                return 0
            raise _unreadable(self._path, exc) from exc
        return count

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


def _unreadable(path: str, exc: Exception) -> SourceError:
    why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return SourceError("unreadable", f"{path} cannot be read: {why}.")
