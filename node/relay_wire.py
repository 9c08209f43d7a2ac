"""Relay frames: bytes to fields and back; docs/protocol/relay.md.

    0x0B send      number of the flow (2) · datagram: to the relay
    0x0C deliver   number of the flow (2) · datagram: from the relay; empty: the other side has opened the flow as well

Three bytes, so that QUIC's 1,200 fit 1,280 less IPv6's and UDP's headers even in a private network's seal (29). A
side's number means something only together with its address, which the relay knows from the sealed request that opened
it. Two types, since two nodes may relay for each other.
"""

from __future__ import annotations

from p2pnode.core.errors import BadPacket

__all__ = ["DELIVER", "MAX_FLOW", "SEND", "deliver_frame", "read_frame_untrusted", "send_frame"]

SEND, DELIVER = 0x0B, 0x0C
HEADER_BYTES = 3
MAX_FLOW = 0xFFFF
MAX_FRAME_BYTES = HEADER_BYTES + 1_200


def send_frame(flow: int, datagram: bytes) -> bytes:
    return bytes((SEND, flow >> 8, flow & 0xFF)) + datagram


def deliver_frame(flow: int, datagram: bytes) -> bytes:
    return bytes((DELIVER, flow >> 8, flow & 0xFF)) + datagram


def read_frame_untrusted(data: bytes) -> tuple[int, int, bytes]:
    """Return (type, flow, datagram). Raise BadPacket: `bad_length`, `unknown_type`."""
    if not HEADER_BYTES <= len(data) <= MAX_FRAME_BYTES:
        raise BadPacket("bad_length")
    kind, flow, datagram = data[0], data[1] << 8 | data[2], data[HEADER_BYTES:]
    if kind not in (SEND, DELIVER):
        raise BadPacket("unknown_type")
    if kind == SEND and not datagram:
        raise BadPacket("bad_length")
    return kind, flow, datagram
