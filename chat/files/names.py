"""File names of others made harmless (X1, X2). No I/O.

A name that comes from a peer is one component of a path below the downloads folder and nothing else: no separator, no
`..`, no leading dot (hidden), no name of a device on Windows, no control or bidi character. What a folder's list names
is put into a tree of our own making; two names that became one get a number.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2pnode import clean

__all__ = ["MAX_NAME_BYTES", "local_paths", "numbered", "safe_name"]

MAX_NAME_BYTES = 180  # of UTF-8; file systems take 255, and a number has to fit
_FORBIDDEN = str.maketrans(dict.fromkeys('/\\:*?"<>|\0\ufffd\n', "_"))
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"}
    | {f"{d}{n}" for d in ("com", "lpt") for n in "0123456789¹²³"}
)


def safe_name(text: str) -> str:
    """Return a name for a file of ours: 1 to 180 bytes of UTF-8, one line, one component, not hidden, no device."""
    name = clean(text[:1024], limit=255).translate(_FORBIDDEN).lstrip(". -").rstrip(". ")
    if name.partition(".")[0].rstrip().casefold() in _DEVICES:
        name = "_" + name
    return _cut(name) or "file"


def numbered(name: str, number: int) -> str:
    """Return `name` (2), (3), ... before its last extension; `name` itself for 1."""
    if number < 2:
        return name
    stem, extension = _parts(name)
    return f"{stem} ({number}){extension}"


def local_paths(paths: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return where each path of a list goes below a folder of ours, one for one, no two alike whatever their case.

    Folders that are one in the list stay one. A path that is a file and a folder at once gets two names.
    """
    folders: dict[tuple[str, ...], tuple[str, ...]] = {(): ()}
    taken: dict[tuple[str, ...], set[str]] = {}
    highest: dict[tuple[tuple[str, ...], str], int] = {}

    def place(parent: tuple[str, ...], text: str) -> tuple[str, ...]:
        name = safe_name(text)
        names = taken.setdefault(parent, set())
        key = (parent, name.casefold())
        number = highest.get(key, 0) + 1
        while numbered(name, number).casefold() in names:
            number += 1
        highest[key] = number
        names.add(numbered(name, number).casefold())
        return (*parent, numbered(name, number))

    found = []
    for path in paths:
        parent: tuple[str, ...] = ()
        for depth in range(1, len(path)):
            if path[:depth] not in folders:
                folders[path[:depth]] = place(parent, path[depth - 1])
            parent = folders[path[:depth]]
        found.append(place(parent, path[-1]))
    return found


def _parts(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension) if stem and len(extension.encode()) <= 16 else (name, "")


def _cut(name: str) -> str:
    if len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES:
        return name
    stem, extension = _parts(name)
    room = MAX_NAME_BYTES - len(extension.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(". ") + extension
