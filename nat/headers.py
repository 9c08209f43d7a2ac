"""What a QUIC packet tells before it is decrypted (RFC 9000, section 17; RFC 8999)."""

from __future__ import annotations

__all__ = ["CID_BYTES", "FIRST_LONG", "LONG_HEADER", "is_first_packet", "is_run_untrusted"]

# Fixed by the specification
MIN_INITIAL_BYTES = 1200  # RFC 9000, section 14.1, "Initial Datagram Size"
LONG_HEADER = 0x80  # section 17.2, "Long Header Packets": the first bit is set
FIRST_LONG = bytes([LONG_HEADER])

# Chosen by us
CID_BYTES = 8


def is_first_packet(version: int | None, packet_type: int, size: int, cid: bytes) -> bool:
    """Whether a datagram with this header may begin a connection (QUIC version 1, padded Initial)."""
    return version == 1 and packet_type == 0 and size >= MIN_INITIAL_BYTES and 8 <= len(cid) <= 20


def is_run_untrusted(buffer: bytes, size: int) -> bool:
    """Whether what came together is packets of one connection only, with short headers (RFC 9000, section 17.3).

    `size`: bytes of each but the last; above 0.
    """
    cid = buffer[1 : 1 + CID_BYTES]
    last = (len(buffer) - 1) // size * size
    return len(buffer) - last > CID_BYTES and all(
        buffer[at] < LONG_HEADER and buffer.startswith(cid, at + 1) for at in range(0, len(buffer), size)
    )
