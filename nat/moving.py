"""What a connection does when it changes its path: it follows the other side, or takes the one that `Paths` chose."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pnode.core.address import Address
from p2pnode.nat.budget import Following
from p2pnode.nat.path import Path
from p2pnode.nat.paths import Paths
from p2pnode.nat.probes import PATH_KEY_BYTES
from p2pnode.nat.repair import RepairReceiver, RepairSender
from p2pnode.nat.transport import Transport, TransportError

if TYPE_CHECKING:
    import asyncio

    from p2pnode.core.network import Network
    from p2pnode.nat.quic import QuicEndpoint

__all__ = ["Moving"]

# Chosen by us; seconds
SILENCE_S = 1.0  # so long nothing may be heard, soon after use, until a ping asks for a word
ANSWER_S = 0.4  # the same, of who has written
LATE_S = 0.2  # or two and a half round trips: a ping should be answered by then
BEHIND_S = 0.25  # or a round trip and a half: the side that was dialled asks later, and mostly need not
RELAYED_SILENCE_S = 3.0  # the same at any time, of a relayed path: no consent checks watch it
REVIVE_EVERY_S = 0.2  # or a round trip and a half


class Moving:
    """Mixed into `Driver`, which sets what is declared here."""

    transport: Transport
    network: Network
    initiator: bool
    proven: asyncio.Future[None]
    bytes_received: int
    bytes_sent: int
    last_used_at: float
    _endpoint: QuicEndpoint
    _heard_at: float
    _pinged_at: float
    _asked_at: float
    _keep_alive_s: float
    _released: bool

    def _begin_on(self, path: Path, now: float) -> None:
        self.path = path
        """The way that its packets take now."""
        self.first_path = path
        """Where the handshake proved both sides."""
        self._following = Following(now)
        self._paths: Paths | None = None
        self._doubted_at: float | None = None
        self._revived_at = now
        self._waits_since: float | None = None
        self._repairing = RepairSender(now)
        self._repairs = RepairReceiver()
        self.on_moved: Callable[[Path, Path], None] | None = None
        """Called with the path before and the new one, each time that it changes."""
        self.on_silent: Callable[[], None] | None = None
        """Called when nothing is acknowledged for a while (`paths`): time to look for further paths."""

    @property
    def closed(self) -> bool:
        raise NotImplementedError

    def _ping(self) -> None:
        raise NotImplementedError

    def _fire_early(self) -> None:
        raise NotImplementedError

    def _process(self) -> None:
        raise NotImplementedError

    def datagram_received(self, data: bytes) -> None:
        raise NotImplementedError

    def _schedule_flush(self) -> None:
        raise NotImplementedError

    @property
    def in_doubt(self) -> bool:
        """Whether what was sent stays unacknowledged, so that QUIC probes, or nothing was heard since `doubt`."""
        unheard = self._doubted_at is not None and self._heard_at <= self._doubted_at
        return (unheard or self._unanswered) and not self.closed

    def doubt(self) -> None:
        """Our network has changed, or the other side does not hear us: send something by each path, to be answered."""
        if self.closed or not self.proven.done():
            return
        now = self.network.monotonic()
        if not self.in_doubt:
            self._doubted_at = now
        self._ping()
        self._fire_early()
        self._schedule_flush()
        if self._paths is not None:
            self._paths.unanswered(now)

    def _ping_at(self, now: float) -> float:
        """When a ping is due. A router whose line gets another address tells nobody inside, and who only listens has
        nothing that could stay unacknowledged: so silence is asked about, soon after use, then ever less often until
        the keep-alive; a relayed path, from which the other side cannot follow us either, all the time. Who writes
        expects a word sooner."""
        rtt_s = self.transport.rtt_s or 0.0
        if self.last_used_at <= self._heard_at:
            self._waits_since = None
            most = min(self._keep_alive_s, RELAYED_SILENCE_S) if self.path.relayed else self._keep_alive_s
            silence_s = min(most, max(SILENCE_S, 3 * rtt_s, 0.75 * (self._heard_at - self.last_used_at)))
            # Both sides know the same silence. Asked by one, it is over for both: for half of the packets.
            behind_s = 0.0 if self.initiator else max(BEHIND_S, 1.5 * rtt_s)
            return max(self._heard_at, self._pinged_at) + silence_s + behind_s
        if self._waits_since is None:
            self._waits_since = now
        return max(self._waits_since, self._pinged_at) + max(ANSWER_S, 3 * rtt_s)

    @property
    def _unanswered(self) -> bool:
        """Whether QUIC probes, or a ping was not answered in time. QUIC's timer begins anew with each packet that is
        sent (RFC 9002, section 6.2.1, "Computing PTO"): for who writes all the time it never fires."""
        late_at = self._late_at
        return self.transport.probing or (late_at is not None and self.network.monotonic() >= late_at)

    @property
    def _late_at(self) -> float | None:
        """When the answer to a ping is late; None: there was one."""
        if self._asked_at <= self._heard_at:
            return None
        return self._asked_at + max(LATE_S, 2.5 * (self.transport.rtt_s or 0.0))

    def revive(self) -> None:
        """Something came through after all: what stays unacknowledged goes again now, not when QUIC's timer, doubled
        each time, says so."""
        now = self.network.monotonic()
        if not self.transport.probing or not self.proven.done() or self.closed:
            return
        if now - self._revived_at >= max(REVIVE_EVERY_S, 1.5 * (self.transport.rtt_s or 0.0)):
            self._revived_at = now
            self._fire_early()

    def call_for_paths(self) -> None:
        if self.on_silent is not None:
            self._endpoint.call(self.on_silent)

    def _send_repairs(self, datagrams: list[bytes], now: float) -> None:
        """What the other side makes a lost one of these packets from; not by a relay, whose frames have no room."""
        tag = None if self._paths is None or self.path.relayed else self._paths.their_tag
        transport = self.transport
        if tag is None or transport.rtt_s is None or not transport.window_matters:
            return
        frames = self._repairing.frames(datagrams, transport.lost, transport.rtt_s, tag, now)
        if frames:
            self.bytes_sent += sum(map(len, frames))
            self.path.send_many(frames)

    def repair_received_untrusted(self, frame: bytes, path: Path) -> None:
        """Take a repair packet. Raise BadPacket."""
        if path == self.path and (data := self._repairs.missing_untrusted(frame, self.network.monotonic())):
            self.datagram_received(data)

    @property
    def remote(self) -> Address:
        """Where its packets go now; the relay when they are relayed."""
        return self.path.remote

    @property
    def path_tag(self) -> bytes | None:
        return None if self._paths is None else self._paths.key.tag

    @property
    def known_paths(self) -> list[Path]:
        """The one in use and those that may take over."""
        return [self.path] if self._paths is None else self._paths.all

    @property
    def spare_paths(self) -> list[Path]:
        """Those of them that have answered of late."""
        paths = self._paths
        return [] if paths is None else [p for p in paths.all if p != self.path and paths.is_validated(p)]

    def add_path(self, path: Path, *, doubt: bool = False) -> None:
        """Probe a path to the other side; it takes over when it is better than the one in use, or when that dies.

        `doubt`: the one in use may have died just now; it is probed as well.
        """
        if self._paths is not None and not self.closed:
            self._paths.add(path, doubt=doubt)

    def remove_path(self, path: Path) -> None:
        """This path leads nowhere any more."""
        if self._paths is not None and not self.closed:
            self._paths.remove(path)

    def _open_paths(self) -> Paths:
        """Both sides are proven: from now on there may be several."""
        self._paths = Paths(self, self.network.token_bytes(PATH_KEY_BYTES))
        self._endpoint.paths_opened(self._paths)
        if self.path != self.first_path:
            self._paths.moved()
        return self._paths

    @property
    def _knows_packets(self) -> bool:
        """Whether a packet that can be decrypted is the other side's. For a client, once the server has proven its key:
        through two routers the acceptance may already take another way than the handshake."""
        return self.proven.done() or (self.initiator and self.transport.handshake_done)

    def datagram_from_elsewhere(self, data: bytes, path: Path) -> None:
        """Take a genuine packet that came by another path, and follow the other side if it has moved there.

        RFC 9000, section 9.3, "Responding to Connection Migration": only by the packet that was sent last, for a relay,
        or who was on the way, can hand over later what it held back. Difference: no PATH_CHALLENGE, since qh3 knows of
        one path only; instead a new path gets at most ten packets, probes included, and three times what comes by it
        until it answers a probe; if it does not, or by a packet, the connection goes back. Never raises.
        """
        now = self.network.monotonic()
        try:
            genuine, latest = False, False
            if self._knows_packets and not self.closed:
                genuine, latest = self.transport.receive_genuine(data, now)
        except TransportError:
            self._endpoint.dropped("quic_error")
            return
        if not genuine:
            self._endpoint.dropped("other_address")
            return
        self.bytes_received += len(data)
        self._heard_at = now
        if latest and (self._paths is None or self._paths.heard(path)):
            self.move_to(path)
        self._process()
        if not self._released:
            self._schedule_flush()

    def move_to(self, path: Path) -> None:
        """Send by `path` from now on, by which the other side was heard with proof; at most once a second."""
        if path != self.path and self._knows_packets and self._following.move(self.network.monotonic()):
            self.take_path(path)

    def path_answered(self, path: Path) -> None:
        """A probe was answered there: the other side wants packets at that address."""
        if path == self.path:
            self._following.answered()
            self.revive()

    def take_path(self, path: Path) -> None:
        """Send by `path` from now on, and what is unacknowledged at once."""
        before, self.path = self.path, path
        self._endpoint.moved += 1
        if self._paths is not None:
            if self._paths.is_validated(path):
                self._following.answered()
            self._paths.moved()
        self._fire_early()
        if self.on_moved is not None:
            self._endpoint.call(self.on_moved, before, path)
