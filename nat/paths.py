"""The paths beneath one connection: probes in and out, moves. `path_choice` decides; this is its thin shell.

QUIC's own packets may come by any known path; they are taken, whichever is in use. A genuine packet by another path
than that means that the other side has moved: the side that accepted the connection follows at once; its initiator only
where it does not know the path (a router was restarted), else it probes and decides, so two sides never chase each
other. Neither is led to where all probes of late went unanswered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from p2pnode.core.errors import BadPacket
from p2pnode.nat.path import Path
from p2pnode.nat.path_choice import PathChoice
from p2pnode.nat.probes import PATH_KEY_BYTES, PathKey, ProbeFrame, parse_probe_untrusted
from p2pnode.nat.repair import REPAIR

if TYPE_CHECKING:
    from p2pnode.nat.moving import Moving

__all__ = ["Paths"]


# Unacknowledged for so long: not the loss of a few packets; further paths are wanted. A relay is only asked anew, which
# is cheap: it may have lost us.
CALL_AFTER_S, CALL_RELAY_AFTER_S = 0.5, 0.2


class Paths:
    """Of one proven connection; before that it has one path only."""

    def __init__(self, host: Moving, token: bytes) -> None:
        """`token`: 32 unguessable bytes."""
        assert len(token) == PATH_KEY_BYTES  # noqa: S101 - the caller draws them
        self.key = PathKey(token)
        self._host = host
        self._network = host.network
        self._loop = asyncio.get_running_loop()
        self._theirs: PathKey | None = None
        self._choice = PathChoice(host.first_path, self._network.monotonic(), chooses=host.initiator)
        self._timer: asyncio.TimerHandle | None = None
        self._silent_since: float | None = None
        self._calling: asyncio.TimerHandle | None = None
        self._closed = False

    def __contains__(self, path: Path) -> bool:
        return path in self._choice

    @property
    def all(self) -> list[Path]:
        return self._choice.paths

    def rtt_s(self, path: Path) -> float | None:
        """Of its probes, seconds."""
        return self._choice.rtt_s(path)

    def is_validated(self, path: Path) -> bool:
        """Whether the other side answered a probe there: it wants packets at that address (C1)."""
        return self._choice.has_answered(path)

    def key_received(self, raw: bytes) -> None:
        """The other side's key, on the control stream. The first one counts."""
        if self._theirs is None:
            self._theirs = PathKey(raw)
            self._tick()

    @property
    def their_tag(self) -> bytes | None:
        """What frames for the other side bear; None: it has not told its key."""
        return None if self._theirs is None else self._theirs.tag

    def datagram_received_untrusted(self, data: bytes, path: Path) -> None:
        """Take a datagram that bears our tag. Raise BadPacket."""
        if data[1] == REPAIR:
            self._host.repair_received_untrusted(data, path)
        else:
            self.frame_received_untrusted(parse_probe_untrusted(data), path)

    def add(self, path: Path, *, doubt: bool = False) -> None:
        """Probe a path that may work; it takes over when it is better. `doubt`: the present one may be dead."""
        now = self._network.monotonic()
        self._choice.add(path, now)
        self._look_back(now)
        if doubt:
            self._choice.doubt(now)
        self._tick()

    def remove(self, path: Path) -> None:
        """It leads nowhere any more."""
        if path == self._host.path:
            self._choice.doubt(self._network.monotonic())
        self._choice.remove(path)
        self._tick()

    def moved(self) -> None:
        """The connection has moved to `host.path`."""
        self._choice.moved(self._host.path, self._network.monotonic())
        self._arm()

    def unanswered(self, since: float | None) -> None:
        """Packets are unacknowledged since then and QUIC probes; None: all is well."""
        self._silent_since = since
        if since is None:
            self._choice.trust()
            if self._calling is not None:
                self._calling.cancel()
                self._calling = None
            return
        now = self._network.monotonic()
        if self._calling is None and not self._closed:
            after_s = CALL_RELAY_AFTER_S if self._host.path.relayed else CALL_AFTER_S
            self._calling = self._loop.call_at(since + after_s, self._call)
        if not self._choice.suspect:
            self._choice.doubt(now)
            self._tick()

    def _call(self) -> None:
        if self._host.in_doubt:
            self._host.call_for_paths()
        else:
            self._calling = None

    def heard(self, path: Path) -> bool:
        """A genuine packet came by `path`, another than the one in use. Return whether to follow."""
        now = self._network.monotonic()
        if self._choice.has_failed(path) and not path.relayed:  # a relay's is proven; it may have paired late
            return False
        follows = path not in self._choice or not self._host.initiator
        if follows:
            self._choice.learn(path, now)
            self._look_back(now)
        else:
            self._choice.doubt(now)
        self._tick()
        return follows

    def frame_received_untrusted(self, frame: ProbeFrame, path: Path) -> None:
        """Take a frame that bears our tag. Raise BadPacket: `bad_mac`, `other_way`, `unasked_answer`, `many_paths`."""
        if not self.key.accepts(frame):
            raise BadPacket("bad_mac")
        if frame.relayed != path.relayed:
            raise BadPacket("other_way")
        now = self._network.monotonic()
        if frame.is_answer:
            if not self._choice.answered(path, frame.number, now):
                raise BadPacket("unasked_answer")
            self._host.path_answered(path)
            self._tick()
            return
        if self._theirs is not None:
            if not self._choice.learn(path, now):
                raise BadPacket("many_paths")
            self._look_back(now)
            path.send(self._theirs.frame(frame.number, is_answer=True, relayed=path.relayed))
            self._tick()

    def close(self) -> None:
        self._closed = True
        for handle in (self._timer, self._calling):
            if handle is not None:
                handle.cancel()
        self._timer = self._calling = None

    def _look_back(self, now: float) -> None:
        """There is a choice now: was the only path silent before?"""
        if self._host.in_doubt and self._silent_since is not None:
            self._choice.doubt(now, for_s=now - self._silent_since)

    def _tick(self) -> None:
        """Send the probes that are due, and move where that is better."""
        if self._closed:
            return
        now = self._network.monotonic()
        if self._theirs is not None:
            for path in self._choice.due(now):
                number = self._network.token_bytes(8)
                self._choice.sent(path, number, now)
                path.send(self._theirs.frame(number, is_answer=False, relayed=path.relayed))
        chosen = self._choice.choose(now)
        if chosen != self._host.path:
            self._host.take_path(chosen)
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._choice.next_at()
        if at is not None and self._theirs is not None and not self._closed:
            self._timer = self._loop.call_at(max(at, self._network.monotonic() + 0.001), self._fired)

    def _fired(self) -> None:
        self._timer = None
        self._tick()
