"""Repair packets: the one packet that a burst lost is made anew by who misses it. Bytes and decisions, no I/O.

    0x0D · 4 · tag (8) · count (1) · first (4) · last (4) · lengths (2) · sum

`sum`: the packets of a group XORed, the shorter ones followed by zeros; `lengths`: their lengths XORed; `first` and
`last`: four bytes of the group's first and last packet. docs/protocol/session.md, "Repair". Repair packets are those of
RFC 6363, "FEC Framework", the code is the simplest that there is.

Why: congestion control cannot know that a lost packet was lost by chance. At 40 ms and one in a thousand lost, it
leaves 12 Mbit/s of any line. A group loses two packets by chance in a hundredth of these cases, and mostly so where a
queue overflows: congestion is seen as before. What it may hide is bounded: who repairs more than one packet in a
hundred lets the losses show (BBR, draft-ietf-ccwg-bbr, tolerates two in a hundred).

A repaired packet is as genuine as any: QUIC decrypts it or drops it. The tag is seen by who is on the way; a forged
frame costs a look at 256 packets.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pnode.core.errors import BadPacket
from p2pnode.core.segments import split_untrusted
from p2pnode.nat.probes import PROBE, TAG_BYTES

__all__ = ["REPAIR", "RepairReceiver", "RepairSender", "repair_frames"]

REPAIR = 4  # the second byte; 0 to 3 are probes
_COUNT_AT = 2 + TAG_BYTES
_FIRST_AT, _LAST_AT, _LENGTHS_AT, _SUM_AT = _COUNT_AT + 1, _COUNT_AT + 5, _COUNT_AT + 9, _COUNT_AT + 11
_ID_AT, _ID_END = 9, 13  # of a packet with a short header: behind the connection id, protected, so as good as random

# Chosen by us.
GROUP = 16  # packets; a repair packet for each adds a sixteenth
# Packets that leave one by one: QUIC takes one for lost when the third behind it is acknowledged (RFC 9002, 6.1.1), and
# the repair packet comes with that third one.
SMALLEST = 4
DENSE_S = 0.03  # packets that took longer to become a group are no bulk, for which alone this is meant
LONGEST_GROUP = 64  # taken from others
AFTER_LOSS_S = 30.0  # repair packets are sent so long after the last loss that showed
BEGINNING_S = 30.0
FAR_S = 0.01  # of round trip: a window that is as good as full again after ten of them need not be guarded
HOPELESS = 0.02  # losses in packets that showed: more is no chance
LOOK_BACK = 1_000  # packets for which that is counted
KEPT = 256  # packets, the last that came
MOST_REPAIRED = 0.01  # of the packets that came
REPAIRS_AT_ONCE = 5.0


def repair_frames(tag: bytes, packets: Sequence[bytes]) -> list[bytes]:
    """Return the repair packets for a burst of packets with short headers, one for each group."""
    frames = []
    for start in range(0, len(packets), GROUP):
        group = packets[start : start + GROUP]
        if len(group) < SMALLEST:
            break
        total = lengths = 0
        for packet in group:
            total ^= int.from_bytes(packet, "little")
            lengths ^= len(packet)
        frames.append(
            b"".join((
                bytes((PROBE, REPAIR)), tag, bytes((len(group),)), group[0][_ID_AT:_ID_END], group[-1][_ID_AT:_ID_END],
                lengths.to_bytes(2, "big"), total.to_bytes(max(map(len, group)), "little"),
            ))
        )  # fmt: skip
    return frames


class RepairSender:
    """When repair packets are worth what they take: after losses, as long as these are few; and on a long way from the
    beginning, for the first loss ends the steepest growth of the window."""

    def __init__(self, now: float) -> None:
        self._began_at = now
        self._until = float("-inf")
        self._lost = self._lost_before = 0
        self._sent = self._sent_before = 0
        self._group: list[bytes] = []
        self._group_since = 0.0

    def frames(self, packets: Sequence[bytes], lost: int, rtt_s: float, tag: bytes, now: float) -> list[bytes]:
        """Return what goes behind packets that leave now. `lost`: packets so far, of all."""
        self._sent += len(packets)
        if lost != self._lost:
            self._lost = lost
            self._until = now + AFTER_LOSS_S
        begins = now < self._began_at + BEGINNING_S and rtt_s >= FAR_S
        if not (begins or now < self._until) or self._is_hopeless():
            return []
        if now - self._group_since > DENSE_S:
            self._group.clear()
        if not self._group:
            self._group_since = now
        self._group += packets
        if len(self._group) < SMALLEST:
            return []
        group, self._group = self._group, []
        return repair_frames(tag, group)

    def _is_hopeless(self) -> bool:
        sent = self._sent - self._sent_before
        if sent >= 2 * LOOK_BACK:
            self._sent_before += sent // 2
            self._lost_before += (self._lost - self._lost_before) // 2
        return self._lost - self._lost_before > HOPELESS * max(sent, LOOK_BACK)


class RepairReceiver:
    """The packets that came last, once there was a repair packet; and what is missing of a group."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._until = float("-inf")
        self._allowed = REPAIRS_AT_ONCE
        self.repaired = 0

    def keeps(self, now: float) -> bool:
        """Whether packets are kept; `keep` is to be called for each that comes."""
        if now < self._until:
            return True
        self._kept.clear()
        return False

    def keep(self, buffer: bytes, size: int) -> None:
        """Take packets that came together, each of `size` bytes or, the last, fewer."""
        kept = self._kept
        came = split_untrusted(buffer, size)
        self._allowed = min(REPAIRS_AT_ONCE, self._allowed + MOST_REPAIRED * len(came))
        kept += came
        if len(kept) > 2 * KEPT:
            del kept[:-KEPT]

    def missing_untrusted(self, frame: bytes, now: float) -> bytes | None:
        """Return the one packet that a group lacks; None when it lacks none, or more. Raise BadPacket: `bad_repair`."""
        count = frame[_COUNT_AT] if len(frame) > _SUM_AT + _ID_END else 0
        if not SMALLEST <= count <= LONGEST_GROUP:
            raise BadPacket("bad_repair")
        self._until = now + AFTER_LOSS_S
        there = self._others(count, frame[_FIRST_AT:_LAST_AT], frame[_LAST_AT:_LENGTHS_AT])
        if len(there) != count - 1 or self._allowed < 1:
            return None
        total = int.from_bytes(frame[_SUM_AT:], "little")
        length = int.from_bytes(frame[_LENGTHS_AT:_SUM_AT], "big")
        for packet in there:
            total ^= int.from_bytes(packet, "little")
            length ^= len(packet)
        if not _ID_END <= length <= len(frame) - _SUM_AT or total >> 8 * length:
            return None  # others than these were in the group
        self._allowed -= 1
        self.repaired += 1
        return total.to_bytes(length, "little")

    def _others(self, count: int, first: bytes, last: bytes) -> list[bytes]:
        """Return what came of a group: in order, for a burst is rarely reordered."""
        kept = self._kept
        ids = [packet[_ID_AT:_ID_END] for packet in kept[-KEPT:]]
        base = len(kept) - len(ids)
        start = ids.index(first) if first in ids else None
        end = ids.index(last) + 1 if last in ids else None
        if start is None and end is not None:
            start = max(0, end - count + 1)
        elif end is None and start is not None:
            end = start + count - 1
        if start is None or end is None:
            return []
        return kept[base + start : base + end]
