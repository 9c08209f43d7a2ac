"""What goes over a stream of `p2pnode/file/1` (docs/protocol/files.md). No I/O.

A stream is a row of pieces: a kind of one byte, a length of four, big endian, and so many bytes. Kind 0 is a frame, a
MessagePack array whose first element tells what it is; kind 1 is the next part of the bytes that were asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from p2pnode import BadPacket, UserId
from p2pnode.chat.framing import Codec
from p2pnode.chat.protocol import Hello

__all__ = [
    "FILE_PROTOCOL", "MAX_COUNT", "MAX_DEPTH", "MAX_MANIFEST_BYTES", "MAX_SIZE", "SEGMENT", "Answer", "Entry", "Frame",
    "Offer", "PieceReader", "Want", "Withdraw", "data_piece", "decode_untrusted", "encode", "encode_manifest",
    "leaves_size", "manifest_root", "parse_manifest_untrusted", "root_of",
]  # fmt: skip

# Fixed by this protocol.
FILE_PROTOCOL = "p2pnode/file/1"
ID_BYTES = 16
HASH_BYTES = 32
SEGMENT = 1 << 20  # bytes under one leaf of a file's tree
MAX_FRAME_BYTES = 4096
MAX_PIECE_BYTES = 1 << 20
MAX_SIZE = 1 << 38  # 256 GiB in one offer: 8 MiB of leaves
MAX_COUNT = 10_000  # files and folders in one offer
MAX_DEPTH = 32
MAX_MANIFEST_BYTES = 4 << 20
MAX_PATH_BYTES = 1024
_HEADER = 5
_FILE_DOMAIN = b"p2pnode/1/file"
_MANIFEST_DOMAIN = b"p2pnode/1/manifest"

Id = Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
Code = Annotated[str, msgspec.Meta(max_length=32, pattern="^[a-z_]*$")]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]


class Offer(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """The sender has something for the receiver. `id`: random; with the sender's key it names the offer.

    `room`: empty, for the receiver alone. `size`: of all files; `count`: files and folders in the list behind `root`,
    which has `manifest_size` bytes; a single file has a list of one.
    """

    id: Id
    room: Annotated[bytes, msgspec.Meta(max_length=64)]
    folder: bool
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    size: Bytes
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]
    manifest_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_MANIFEST_BYTES)]
    root: Hash


class Answer(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=3):
    """What became of an offer at the receiver. `code`: why it was refused, or must wait."""

    id: Id
    state: Literal["pending", "accepted", "waits", "refused", "done"]
    code: Code


class Withdraw(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=4):
    """The offer stands no more, or (`busy`) not now."""

    id: Id
    code: Annotated[str, msgspec.Meta(min_length=1, max_length=32, pattern="^[a-z_]+$")]


class Want(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=5):
    """The receiver takes the offer: send the list if `manifest`, then the leaves of entry `number` and its bytes from
    `offset` on, then leaves and bytes of all later ones."""

    id: Id
    manifest: bool
    number: Count
    offset: Bytes


Frame = Hello | Offer | Answer | Withdraw | Want


class Entry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A file in the list of an offer; an empty `root` and size 0: a folder. `path`: names from the top."""

    path: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=255)], ...],
        msgspec.Meta(min_length=1, max_length=MAX_DEPTH),
    ]
    size: Bytes
    root: Annotated[bytes, msgspec.Meta(max_length=HASH_BYTES)]

    @property
    def is_folder(self) -> bool:
        return not self.root


_encoder = msgspec.msgpack.Encoder()
_manifest_decoder = msgspec.msgpack.Decoder(
    Annotated[list[Entry], msgspec.Meta(min_length=1, max_length=MAX_COUNT)],
)


def _check_untrusted(frame: Frame) -> None:
    if isinstance(frame, Hello):
        UserId.from_untrusted(frame.user)


_codec: Codec[Frame] = Codec(Frame, length_bytes=4, max_bytes=MAX_FRAME_BYTES, check=_check_untrusted)
decode_untrusted = _codec.decode_untrusted
"""Raises BadPacket: `too_long`, `malformed`, `bad_key`."""


def encode(frame: Frame) -> bytes:
    """Return the frame as a piece."""
    return b"\x00" + _codec.encode(frame)


def data_piece(size: int) -> bytes:
    """Return the head of a piece of `size` bytes of data, 1 to 1 MiB."""
    return b"\x01" + size.to_bytes(4, "big")


class PieceReader:
    """Cuts a stream into frames and data. Holds at most one incomplete frame; data is handed on as it comes."""

    def __init__(self) -> None:
        self._held = b""
        self._data_left = 0

    def feed_untrusted(self, data: bytes) -> list[Frame | bytes]:
        """Return what came, in order. Raise BadPacket; the stream is of no use then."""
        found: list[Frame | bytes] = []
        if self._held:
            data, self._held = self._held + data, b""
        at = 0
        while at < len(data):
            if self._data_left:
                part = data[at : at + self._data_left] if at or self._data_left < len(data) else data
                self._data_left -= len(part)
                at += len(part)
                found.append(part)
                continue
            if len(data) - at < _HEADER:
                break
            kind, length = data[at], int.from_bytes(data[at + 1 : at + _HEADER], "big")
            if kind > 1 or not 0 < length <= (MAX_PIECE_BYTES if kind else MAX_FRAME_BYTES):
                raise BadPacket("bad_piece")
            if kind:
                self._data_left = length
                at += _HEADER
                continue
            if len(data) - at < _HEADER + length:
                break
            found.append(decode_untrusted(data[at + _HEADER : at + _HEADER + length]))
            at += _HEADER + length
        self._held = data[at:]
        return found


def encode_manifest(entries: Sequence[Entry]) -> bytes:
    """Return the list of an offer as bytes."""
    return _encoder.encode(entries)


def parse_manifest_untrusted(data: bytes) -> list[Entry]:
    """Read the list of an offer. Raise BadPacket: `too_long`, `malformed`, `bad_entry`."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise BadPacket("too_long")
    try:
        entries: list[Entry] = _manifest_decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as exc:
        raise BadPacket("malformed") from exc
    for entry in entries:
        if len(entry.root) not in (0, HASH_BYTES) or (entry.is_folder and entry.size):
            raise BadPacket("bad_entry")
        if sum(len(name.encode("utf-8", "replace")) + 1 for name in entry.path) > MAX_PATH_BYTES:
            raise BadPacket("bad_entry")
    if sum(entry.size for entry in entries) > MAX_SIZE:
        raise BadPacket("bad_entry")
    return entries


def manifest_root(manifest: bytes) -> bytes:
    """Return what an offer says of its list: SHA-256."""
    return hashlib.sha256(_MANIFEST_DOMAIN + manifest).digest()


def leaves_size(size: int) -> int:
    """Return how many bytes the leaves of a file of `size` bytes have: a SHA-256 for each MiB."""
    return -(-size // SEGMENT) * HASH_BYTES


def root_of(size: int, leaves: bytes) -> bytes:
    """Return the root of a file's tree, from its leaves: SHA-256."""
    return hashlib.sha256(_FILE_DOMAIN + size.to_bytes(8, "big") + leaves).digest()
