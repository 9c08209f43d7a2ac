"""Relay frames, path probes, repair packets, and a relay's table under the first two."""

from __future__ import annotations

import random

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.nat.probes import PathKey, ProbeFrame, parse_probe_untrusted
from p2pnode.nat.repair import RepairReceiver
from p2pnode.relay_table import RelaySettings, RelayTable
from p2pnode.relay_wire import SEND, deliver_frame, read_frame_untrusted, send_frame
from targets.base import Target

__all__ = ["TARGETS"]

_KEY = PathKey(bytes(range(32)))
_NODES = [bytes([n]) * 20 for n in range(4)]
_PLACES = [Address(f"192.0.2.{n}", 4747) for n in range(4)]


def hold_frame(data: bytes, frame: tuple[int, int, bytes]) -> None:
    kind, flow, datagram = frame
    assert (send_frame if kind == SEND else deliver_frame)(flow, datagram) == data


def hold_probe(data: bytes, frame: ProbeFrame) -> None:
    """Only the key's owner can make it."""
    made = _KEY.frame(frame.number, is_answer=frame.is_answer, relayed=frame.relayed)
    assert _KEY.accepts(frame) is (frame.mac == made[18:])
    assert parse_probe_untrusted(made).number == frame.number
    assert len(made) == len(data)


def run_repair(data: bytes) -> bytes | None:
    """A repair packet, after some packets of which its group may be; each is a packet as it could come."""
    there = RepairReceiver()
    there.keep(data, 40)
    there.keep(bytes(range(256)), 25)
    return there.missing_untrusted(data, 0.0)


def hold_repair(data: bytes, packet: bytes | None) -> None:
    assert packet is None or 13 <= len(packet) <= len(data) - 21


def run_table(data: bytes) -> int:
    """Each four bytes are a step: open, end or renew a side from some place, or a frame. Returns bytes forwarded."""
    table = RelayTable(RelaySettings(max_flows=6, max_flows_of_node=3), random.Random(1).randbytes)
    flows, asked, passed, now = [0], set[tuple[bytes, bytes]](), 0, 0.0
    for at in range(0, len(data) - 3, 4):
        what, where = data[at], _PLACES[data[at + 3] & 3]
        one, other = _NODES[data[at + 1] & 3], _NODES[data[at + 2] & 3]
        now += what >> 4
        if what & 1:
            lease = 0 if what & 8 else 100
            opened = table.open(one, other, where, lease, now)
            if opened is not None and lease:
                flows.append(opened.flow)
                asked.add((one, other))
                assert not opened.paired or (other, one) in asked
        else:
            try:
                frame, to = table.forward_untrusted(flows[data[at + 1] % len(flows)], data[at:], where, now)
            except BadPacket:
                continue
            assert to in _PLACES
            assert frame[3:] == data[at:]
            passed += len(frame) - 3
    assert table.statistics().flows <= 6
    assert table.statistics().bytes == passed
    return passed


TARGETS = [
    Target("relay_frame", read_frame_untrusted, hold_frame, max_bytes=1_210),
    Target("path_probe", parse_probe_untrusted, hold_probe, max_bytes=40),
    Target("repair", run_repair, hold_repair),
    Target("relay_table", run_table, max_bytes=200),
]
