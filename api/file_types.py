"""What the control API takes and gives about files. As `types`: names never change, new ones may come."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2pnode.api.types import Limit, PeerText

__all__ = ["FileInfo", "FileName", "FileQuery", "FileReceiver", "FileSend", "Files", "FilesQuery"]

Id = Annotated[str, Meta(max_length=64, description="A transfer's id or its first characters; empty: the only one")]


class FileSend(Struct):
    """Offer a file or a folder, by its path on the node's machine."""

    peer: PeerText
    path: Annotated[str, Meta(min_length=1, max_length=4096)]


class FileName(Struct):
    """Which transfer."""

    id: Id = ""


class FileQuery(Struct):
    """Which transfer."""

    id: Id


class FilesQuery(Struct):
    """The newest `limit`."""

    limit: Limit = 100


class FileReceiver(Struct, kw_only=True):
    """How far a member of a room is with what was offered to the room. `id`: of that transfer alone."""

    id: str
    user: str
    name: str
    done: int
    state: str
    reason: str
    text: str
    rate: float
    eta_s: float | None


class FileInfo(Struct, kw_only=True):
    """A transfer. `direction`: `in` or `out`. `peer`: the device that offers. `with_name`: how the other is called.

    `state`: preparing, offered, active, done, refused, failed, cancelled; `reason`: a stable word where there is one to
    say, `text` both as a sentence. `files`: files and folders in it. Bytes in `size`, `done`; `rate` bytes per second.
    `path`: what is sent, or where it is once it is done. `room`: where it is for one; `receivers`: of what we send to a
    room, each of its members.
    """

    id: str
    direction: str
    peer: str
    user: str | None
    with_name: str
    name: str
    folder: bool
    size: int
    files: int
    done: int
    state: str
    reason: str
    text: str
    path: str | None
    rate: float
    eta_s: float | None
    created_at: str
    changed_at: str
    room: str | None = None
    receivers: list[FileReceiver] = []


class Files(Struct):
    """Transfers, oldest first."""

    files: list[FileInfo]
