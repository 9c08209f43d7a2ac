"""Relay frames, byte by byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from p2pnode.core.errors import BadPacket
from p2pnode.relay_wire import DELIVER, SEND, deliver_frame, read_frame_untrusted, send_frame

VECTORS = Path(__file__).parents[1] / "vectors" / "relay.json"
FLOW, DATAGRAM = 0xBEEF, bytes(range(0x40, 0x50))


def make_vectors() -> dict[str, Any]:
    """What docs/protocol/relay.md names."""
    return {
        "flow": FLOW,
        "datagram": DATAGRAM.hex(),
        "send": send_frame(FLOW, DATAGRAM).hex(),
        "deliver": deliver_frame(FLOW, DATAGRAM).hex(),
        "paired": deliver_frame(FLOW, b"").hex(),
    }


def test_vectors_of_relay_frames() -> None:
    """The file's bytes are what we write and read, and what the byte table says."""
    stored = json.loads(VECTORS.read_text())
    assert stored == make_vectors()
    assert stored["send"] == "0b" + "beef" + stored["datagram"]
    assert stored["paired"] == "0cbeef"
    assert read_frame_untrusted(bytes.fromhex(stored["send"])) == (SEND, FLOW, DATAGRAM)
    assert read_frame_untrusted(bytes.fromhex(stored["deliver"])) == (DELIVER, FLOW, DATAGRAM)
    assert read_frame_untrusted(bytes.fromhex(stored["paired"])) == (DELIVER, FLOW, b"")


def test_a_frame_adds_three_bytes() -> None:
    """1,200 bytes of QUIC, in a frame, in a private network's seal (29), fit what every IPv6 path carries (1,232)."""
    assert len(send_frame(FLOW, bytes(1200))) == 1203
    assert 1203 + 29 <= 1280 - 48
    assert read_frame_untrusted(send_frame(FLOW, bytes(1200)))[2] == bytes(1200)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "bad_length"),
        (bytes((SEND, 1)), "bad_length"),
        (bytes((SEND, 1, 2)), "bad_length"),
        (bytes((0x0D, 1, 2, 3)), "unknown_type"),
        (send_frame(1, bytes(1201)), "bad_length"),
    ],
)
def test_other_bytes_are_refused(data: bytes, reason: str) -> None:
    """Too short, too long, empty, another type."""
    with pytest.raises(BadPacket, match=reason):
        read_frame_untrusted(data)
