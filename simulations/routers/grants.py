"""What port-mapping protocols may do with a router: find out, open, close. One set of rules for all three of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from p2pnode.core.address import Address
from p2pnode.simulations.routers.openings import Opening
from p2pnode.simulations.routers.router import RouterModel
from p2pnode.simulations.routers.words import Protocol

__all__ = ["LINE_IS_DEAD", "NO_ROOM", "TAKEN", "Grants"]

LINE_IS_DEAD = "line_is_dead"
NO_ROOM = "no_room"
TAKEN = "taken"
_TRIES = 64


class Grants:
    """Opens ports of one router for those who ask."""

    def __init__(self, router: RouterModel, rng: random.Random) -> None:
        self.router = router
        self._rng = rng

    def external_ip(self, host_ip: str) -> str | None:
        """Return the outside IPv4 address that a host's openings get; None when the line is dead."""
        return self.router.outside_ip_of(host_ip) if self.router.kind.line else None

    def epoch(self, now: float) -> int:
        """Whole seconds since the router forgot everything. RFC 6886, section 3.6; RFC 6887, section 8.5."""
        return int(now - self.router.started_at)

    def open(
        self,
        now: float,
        protocol: Protocol,
        internal: Address,
        wanted_port: int,
        lifetime_s: int,
        *,
        by: str,
        only_wanted: bool = False,
        nonce: bytes = b"",
        description: str = "",
        enabled: bool = True,
    ) -> Opening | str:
        """Open a port, or renew what is open for this inside address. Return it, or why not.

        `wanted_port`: 0 leaves the choice to the router. `only_wanted`: rather fail (TAKEN) than give another one.
        `lifetime_s`: 0 for ever (UPnP only; the others delete by 0 and never come here with it).
        """
        router = self.router
        own = router.openings.of(now, protocol, internal)
        if internal.is_ipv6:
            external = internal  # a pinhole in the firewall: nothing is translated
        else:
            ip = self.external_ip(internal.ip)
            if ip is None:
                return LINE_IS_DEAD
            port = self._port(now, protocol, internal, ip, wanted_port or internal.port, own, only_wanted=only_wanted)
            if port is None:
                return TAKEN
            external = Address(ip, port)
        expires_at = now + lifetime_s if lifetime_s else math.inf
        made = Opening(protocol, internal, external, expires_at, by, nonce, description, enabled)
        return made if router.openings.add(made) else NO_ROOM

    def close(self, opening: Opening) -> None:
        """Close what is open."""
        self.router.openings.remove(opening)

    def of_host(self, now: float, host_ip: str, protocol: Protocol | None) -> list[Opening]:
        """Return what a host has open, of one protocol or both."""
        return [
            each
            for each in self.router.openings.living(now)
            if each.internal.ip == host_ip and protocol in (None, each.protocol)
        ]

    def _port(
        self,
        now: float,
        protocol: Protocol,
        internal: Address,
        ip: str,
        wanted: int,
        own: Opening | None,
        *,
        only_wanted: bool,
    ) -> int | None:
        is_free = self._free(now, protocol, internal, ip)
        if only_wanted:
            return wanted if is_free(wanted) else None
        if own is not None:
            return own.external.port  # RFC 6886, section 3.3: a renewal keeps its port
        implicit = self.router.table(protocol).external_of(now, internal)
        if implicit is not None and implicit.ip == ip:
            return implicit.port  # RFC 6887, section 11.3: what remotes see already stays true
        low, high = self.router.kind.port_range
        candidates = [wanted, *(self._rng.randint(low, high) for _ in range(_TRIES))]
        return next((port for port in candidates if is_free(port)), None)

    def _free(self, now: float, protocol: Protocol, internal: Address, ip: str) -> Callable[[int], bool]:
        def is_free(port: int) -> bool:
            external = Address(ip, port)
            opening = self.router.openings.at(now, protocol, external)
            if opening is not None and opening.internal != internal:
                return False
            return not self.router.table(protocol).is_taken(now, external, internal)

        return is_free
