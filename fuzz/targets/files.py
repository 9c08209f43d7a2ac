"""Frames, pieces and lists of the file protocol, and the names in them."""

from __future__ import annotations

import unicodedata

from p2pnode.chat.files.names import MAX_NAME_BYTES, local_paths, safe_name
from p2pnode.chat.files.wire import (
    Entry,
    Frame,
    PieceReader,
    decode_untrusted,
    encode,
    encode_manifest,
    parse_manifest_untrusted,
)
from targets.base import Target
from targets.core import text_of
from targets.framed import frame_target, stream_target

__all__ = ["TARGETS"]

Pieces = list[Frame | bytes]


def _joined(pieces: Pieces) -> Pieces:
    found: Pieces = []
    for piece in pieces:
        if isinstance(piece, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += piece
        else:
            found.append(piece)
    return found


def read_manifest(data: bytes) -> list[Entry]:
    return parse_manifest_untrusted(data)


def hold_manifest(_data: bytes, entries: list[Entry]) -> None:
    """Every entry gets a place of its own below the folder."""
    assert parse_manifest_untrusted(encode_manifest(entries)) == entries
    places = local_paths(entry.path for entry in entries)
    assert len({"/".join(place).casefold() for place in places}) == len(entries)
    for place in places:
        for name in place:
            hold_name(b"", name)


def read_name(data: bytes) -> str:
    return safe_name(text_of(data))


def hold_name(_data: bytes, name: str) -> None:
    assert 1 <= len(name.encode()) <= MAX_NAME_BYTES + 8
    assert not set(name) & set('/\\:*?"<>|\0\n\r')
    assert not name.startswith((".", "-", " "))
    assert not name.endswith((".", " "))
    assert not {unicodedata.category(char) for char in name if char != "\u200d"} & {"Cc", "Cf", "Co", "Cs"}


TARGETS = [
    frame_target("file_frame", decode_untrusted, encode, head=5, max_bytes=4_200),
    stream_target("file_pieces", PieceReader, joined=_joined, max_bytes=4_000),
    Target("file_manifest", read_manifest, hold_manifest, max_bytes=4_000),
    Target("file_name", read_name, hold_name, (), 1_200),
]
