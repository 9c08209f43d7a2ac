"""Path probes: does this way work, and how fast? Bytes to fields and back; docs/protocol/session.md, "Paths".

    0x0D · type (1: 0 probe, 1 answer; 2 more by a relay) · tag (8) · number (8) · MAC (16)

Each side of a connection tells the other a random path key on the control stream; its first 8 bytes are the tag by
which it knows frames of that connection, the other 24 the key of the MAC (BLAKE2b, 16 bytes, over type and number). A
frame is made under the *receiver's* key. It says whether it was given to a relay: so a relay cannot hand it over from
its own address, or from a victim's, as if that were a direct path.

Like RFC 9000's PATH_CHALLENGE and PATH_RESPONSE (section 8.2), outside of QUIC because qh3 knows one path only; an
answer is as long as its probe. Not padded to 1,200: nothing that we send is longer than what every path must carry.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

from p2pnode.core.errors import BadPacket

__all__ = ["PATH_KEY_BYTES", "PROBE", "PathKey", "ProbeFrame", "parse_probe_untrusted"]

PROBE = 0x0D
FRAME_BYTES = 34
TAG_BYTES, MAC_KEY_BYTES, MAC_BYTES = 8, 24, 16
PATH_KEY_BYTES = TAG_BYTES + MAC_KEY_BYTES


class ProbeFrame(NamedTuple):
    """`number`: 8 unguessable bytes of the prober's. `mac`: not checked yet."""

    is_answer: bool
    relayed: bool
    tag: bytes
    number: bytes
    mac: bytes


def parse_probe_untrusted(data: bytes) -> ProbeFrame:
    """Raise BadPacket: `bad_length`, `unknown_type`."""
    if len(data) != FRAME_BYTES:
        raise BadPacket("bad_length")
    if data[0] != PROBE or data[1] > 3:
        raise BadPacket("unknown_type")
    return ProbeFrame(bool(data[1] & 1), bool(data[1] & 2), data[2:10], data[10:18], data[18:])


class PathKey:
    """One side's path key. Raise ValueError when it has not 32 bytes."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) != PATH_KEY_BYTES:
            raise ValueError("a path key has 32 bytes")
        self.raw = raw
        self.tag = raw[:TAG_BYTES]
        self._key = raw[TAG_BYTES:]

    def frame(self, number: bytes, *, is_answer: bool, relayed: bool) -> bytes:
        """Return a frame for the side whose key this is."""
        kind = is_answer + 2 * relayed
        return bytes((PROBE, kind)) + self.tag + number + self._mac(number, kind)

    def accepts(self, frame: ProbeFrame) -> bool:
        """Whether who made this frame knows the key."""
        return hmac.compare_digest(frame.mac, self._mac(frame.number, frame.is_answer + 2 * frame.relayed))

    def _mac(self, number: bytes, kind: int) -> bytes:
        return hashlib.blake2b(bytes((kind,)) + number, key=self._key, digest_size=MAC_BYTES).digest()
