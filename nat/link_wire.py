"""What travels inside a TLS link: datagrams, each behind its length; docs/protocol/links.md.

    length 2 (big endian) · datagram of that length; 0: a sign of life, which the server answers with one

The server's first datagram is its greeting, `0x10 · UDP port 2 · count 1 · count times (length 1 · packed address)`:
the client's TCP address as the server sees it, then where the server can be reached by UDP. No other
datagram begins so (`nat.mux`).
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket

__all__ = [
    "ALIVE",
    "GREETING",
    "LINK_ALPN",
    "MAX_LINK_DATAGRAM",
    "FrameReader",
    "greeting",
    "link_frame",
    "read_greeting_untrusted",
]

LINK_ALPN = "p2pnode-link/1"
GREETING = 0x10
MAX_LINK_DATAGRAM = 1_300  # the longest is 1,232: QUIC's 1,200 in a relay's frame in a private network's seal
MAX_ADDRESSES = 4
ALIVE = bytes(2)


def link_frame(datagram: bytes) -> bytes:
    """Return a datagram as it travels. It has 1 to `MAX_LINK_DATAGRAM` bytes."""
    return len(datagram).to_bytes(2, "big") + datagram


class FrameReader:
    """Cuts what arrives into datagrams. Keeps one incomplete frame at most."""

    def __init__(self) -> None:
        self._rest = b""

    def feed_untrusted(self, data: bytes) -> list[bytes]:
        """Return the datagrams that are complete now; b"" stands for a sign of life. Raise BadPacket("bad_length"),
        after which the link is of no more use."""
        data = self._rest + data
        found = []
        at = 0
        while at + 2 <= len(data):
            length = data[at] << 8 | data[at + 1]
            if length > MAX_LINK_DATAGRAM:
                raise BadPacket("bad_length")
            if at + 2 + length > len(data):
                break
            found.append(data[at + 2 : at + 2 + length])
            at += 2 + length
        self._rest = data[at:]
        return found


def greeting(port: int, seen: Address, addresses: Sequence[Address]) -> bytes:
    """Return the server's first datagram. `seen`: the client's address; of ours at most four are told."""
    packed = [address.pack() for address in (seen, *addresses[:MAX_ADDRESSES])]
    told = b"".join(bytes((len(each),)) + each for each in packed)
    return bytes((GREETING,)) + port.to_bytes(2, "big") + bytes((len(packed),)) + told


def read_greeting_untrusted(data: bytes) -> tuple[int, Address, tuple[Address, ...]]:
    """Return (UDP port, our address as the server sees it, its addresses).

    Raise BadPacket: `bad_length`, `unknown_type`, `bad_address`.
    """
    if len(data) < 4:
        raise BadPacket("bad_length")
    if data[0] != GREETING:
        raise BadPacket("unknown_type")
    port, count, at = int.from_bytes(data[1:3], "big"), data[3], 4
    if not port:
        raise BadPacket("bad_address")
    if not 1 <= count <= 1 + MAX_ADDRESSES:
        raise BadPacket("bad_length")
    addresses = []
    for _ in range(count):
        if at >= len(data):
            raise BadPacket("bad_length")
        end = at + 1 + data[at]
        addresses.append(Address.unpack_untrusted(data[at + 1 : end]))
        at = end
    if at != len(data):
        raise BadPacket("bad_length")
    return port, addresses[0], tuple(addresses[1:])
