"""What the process of a run and its parent say to each other, through pipes.

Downwards one frame with the Job, later a single byte that means "stop, and hand over what you have"; end of file means
that the parent is gone. Upwards frames, each 4 bytes of length (big endian), one byte of kind, and msgpack.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import msgspec

from p2pnode.simulations.harness.execution import Outcome, Standing
from p2pnode.simulations.harness.job import Job

__all__ = ["STOP", "decode", "encode", "read_frame"]

STOP = b"!"
_LENGTH = struct.Struct(">I")
_KINDS: dict[bytes, type[Job | Standing | Outcome]] = {b"J": Job, b"S": Standing, b"O": Outcome}


def encode(message: Job | Standing | Outcome) -> bytes:
    """Return a message as one frame."""
    kind = next(letter for letter, each in _KINDS.items() if isinstance(message, each))
    body = kind + msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Job | Standing | Outcome:
    """Return what a frame's body holds. Raise KeyError, msgspec.ValidationError: not of this version."""
    return msgspec.msgpack.decode(body[1:], type=_KINDS[body[:1]])


def read_frame(stream: BinaryIO) -> bytes | None:
    """Return the body of the next frame; None at the end of the stream."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    return body if len(body) == length else None
