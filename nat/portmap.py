"""When to ask a router for a port: granted, renewed, lost, asked again. Pure; protocols: `natpmp`, `pcp`, `upnp`.

- renewed at half of the lifetime, then at half of what is left (RFC 6886, section 3.3; RFC 6887, section 11.2.1);
- asked anew at once when the router's epoch shows that it has forgotten everything (RFC 6887, section 8.5);
- a refusal is asked again after 30 s, 2, 10 and 60 minutes; where nobody answers at all, after 10 and 60.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.core.address import Address

__all__ = ["Epoch", "Grant", "Lease", "MappingPlan", "MappingRefusedError"]

# RFC 6886, section 3.3, recommends two hours; UPnP routers have a list that people read, and no epoch
LIFETIME_S = 7200
LIFETIME_MAX_S = 86_400  # no renewal is later than in 12 hours, whatever the router grants
RENEW_MIN_S = 30.0  # a router that grants seconds is not asked more often
REFUSED_S = (30.0, 120.0, 600.0, 3600.0)
SILENT_S = (600.0, 3600.0)
HINT_PAUSE_S = 10.0  # announcements are multicast, and can be forged: one renewal in this time


class MappingRefusedError(Exception):
    """`reason`: the protocol's word for it, or `silent`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Grant:
    """What a router gave: outside address (ip None: it does not say) and port, for how long; inf for ever."""

    ip: str | None
    port: int
    lifetime_s: float


@dataclass(frozen=True)
class Lease:
    """A grant and the monotonic time at which it ends."""

    grant: Grant
    expires_at: float


class Epoch:
    """Notices that a router has forgotten everything, by its clock. RFC 6887, section 8.5; with the same rule for
    NAT-PMP, whose own (RFC 6886, section 3.6) differs by a margin only."""

    def __init__(self) -> None:
        self._server: int | None = None
        self._client = 0.0

    def seen(self, now: float, seconds: int) -> bool:
        """Take the epoch of an answer; return whether the router lost its state since the last one."""
        lost = self.contradicts(now, seconds)
        self._server, self._client = seconds, now
        return lost

    def contradicts(self, now: float, seconds: int) -> bool:
        """The same, without believing it."""
        if self._server is None:
            return False
        if seconds + 1 < self._server:
            return True
        server, client = seconds - self._server, now - self._client
        return client + 2 < server - server / 16 or server + 2 < client - client / 16


class MappingPlan:
    """Of one inside address. `due_at`: when to ask, inf for never."""

    def __init__(self, now: float) -> None:
        self.lease: Lease | None = None
        self.due_at = now
        self.restarts = 0
        self._failures = 0
        self._hinted_at = float("-inf")

    def granted(self, grant: Grant, now: float) -> bool:
        """Take a grant; return whether it is another outside address than before."""
        before = self.lease.grant if self.lease is not None else None
        lifetime = min(grant.lifetime_s, LIFETIME_MAX_S)
        self.lease = Lease(grant, now + lifetime)
        self.due_at = now + max(RENEW_MIN_S, lifetime / 2)
        self._failures = 0
        return before is None or (before.ip, before.port) != (grant.ip, grant.port)

    def failed(self, now: float, *, silent: bool) -> None:
        """It was refused, or nobody answered."""
        if self.lease is not None and now < self.lease.expires_at:
            left = self.lease.expires_at - now
            self.due_at = min(now + max(RENEW_MIN_S, left / 2), self.lease.expires_at)
            return
        self.lease = None
        pauses = SILENT_S if silent else REFUSED_S
        self.due_at = now + pauses[min(self._failures, len(pauses) - 1)]
        self._failures += 1

    def restarted(self, now: float) -> None:
        """The router's answer shows that it knows nothing of us any more."""
        self.restarts += 1
        self.due_at = now

    def hinted(self, now: float) -> bool:
        """Somebody says that the router was restarted; return whether to look, by asking again now."""
        if now - self._hinted_at < HINT_PAUSE_S:
            return False
        self._hinted_at = self.due_at = now
        return True

    def wanted_port(self, internal: Address) -> int:
        """Which outside port to ask for: the one that we have, else our own."""
        return self.lease.grant.port if self.lease is not None else internal.port
