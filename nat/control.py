"""Frames on stream 0 after the proof: credit, ping, pong, path key.

qh3 hands flow-control credit back as data arrives, not as the application reads it, so QUIC's own windows do not hold a
fast sender back behind a slow reader. Credit frames do: each direction of a stream may carry `INITIAL_CREDIT` bytes and
then as many as the reader's last credit frame allows. Pings are answered by the other side's connection at once,
whereas an acknowledgement may wait 25 ms (RFC 9000, section 13.2.1, "Sending ACK Frames").

Layout, big endian:

    0x01 credit   stream id (8) · how many bytes, in all, may be sent on it (8)
    0x02 ping     number (8)
    0x03 pong     number (8)
    0x04 path key (32): the sender's, see `probes.py`; each side sends it once
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.core.errors import BadPacket

__all__ = ["ControlReader", "Credit", "PathKeyFrame", "Ping", "Pong", "encode_control"]

_CREDIT, _PING, _PONG, _PATH_KEY = 0x01, 0x02, 0x03, 0x04
_LENGTHS = {_CREDIT: 17, _PING: 9, _PONG: 9, _PATH_KEY: 33}


@dataclass(frozen=True, slots=True)
class Credit:
    """`limit`: bytes that may be sent on stream `stream_id` since its beginning."""

    stream_id: int
    limit: int


@dataclass(frozen=True, slots=True)
class Ping:
    number: int


@dataclass(frozen=True, slots=True)
class Pong:
    number: int


@dataclass(frozen=True, slots=True)
class PathKeyFrame:
    """`key`: 32 bytes."""

    key: bytes


Control = Credit | Ping | Pong | PathKeyFrame


def encode_control(frame: Control) -> bytes:
    if isinstance(frame, Credit):
        return bytes((_CREDIT,)) + frame.stream_id.to_bytes(8, "big") + frame.limit.to_bytes(8, "big")
    if isinstance(frame, PathKeyFrame):
        return bytes((_PATH_KEY,)) + frame.key
    kind = _PING if isinstance(frame, Ping) else _PONG
    return bytes((kind,)) + frame.number.to_bytes(8, "big")


class ControlReader:
    """Cuts the bytes of stream 0 into frames; keeps at most 32 bytes between calls."""

    def __init__(self) -> None:
        self._rest = b""

    def feed_untrusted(self, data: bytes) -> list[Control]:
        """Return the complete frames. Raise BadPacket("bad_control") on an unknown one; the connection then ends."""
        data = self._rest + data
        position, frames = 0, list[Control]()
        while position < len(data):
            length = _LENGTHS.get(data[position])
            if length is None:
                raise BadPacket("bad_control")
            if len(data) - position < length:
                break
            if data[position] == _PATH_KEY:
                frames.append(PathKeyFrame(data[position + 1 : position + length]))
                position += length
                continue
            first = int.from_bytes(data[position + 1 : position + 9], "big")
            if data[position] == _CREDIT:
                frames.append(Credit(first, int.from_bytes(data[position + 9 : position + 17], "big")))
            else:
                frames.append(Ping(first) if data[position] == _PING else Pong(first))
            position += length
        self._rest = data[position:]
        return frames
