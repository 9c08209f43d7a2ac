"""Ports that hosts asked the router to open: explicit mappings, with a lease, kept apart from those that packets make.

RFC 6887, section 2.2 "Explicit dynamic mapping"; the same table serves NAT-PMP, PCP and UPnP, so that they respect each
other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from p2pnode.core.address import Address
from p2pnode.simulations.routers.words import Protocol

__all__ = ["Opening", "Openings"]

# Chosen by us: real routers have 32 to a few hundred entries.
OPENINGS_MAX = 128


@dataclass
class Opening:
    """`expires_at`: inf for a permanent one. `by`: the protocol that asked. `nonce`: PCP's proof of ownership."""

    protocol: Protocol
    internal: Address
    external: Address
    expires_at: float
    by: str
    nonce: bytes = b""
    description: str = ""
    enabled: bool = True

    def remaining(self, now: float) -> int:
        """Whole seconds left, 0 for ever."""
        return 0 if self.expires_at == math.inf else max(1, round(self.expires_at - now))


class Openings:
    """All of one router, in the order in which they were made."""

    def __init__(self) -> None:
        self._by_external: dict[tuple[Protocol, Address], Opening] = {}
        self._by_internal: dict[tuple[Protocol, Address], Opening] = {}

    def add(self, opening: Opening) -> bool:
        """Enter one, in place of what had the same inside or outside address. False when there is no room."""
        for old in (self._by_external.get((opening.protocol, opening.external)),
                    self._by_internal.get((opening.protocol, opening.internal))):  # fmt: skip
            if old is not None:
                self.remove(old)
        if len(self._by_external) >= OPENINGS_MAX:
            return False
        self._by_external[opening.protocol, opening.external] = opening
        self._by_internal[opening.protocol, opening.internal] = opening
        return True

    def remove(self, opening: Opening) -> None:
        """Take one away; harmless when it is gone."""
        if self._by_external.get((opening.protocol, opening.external)) is opening:
            del self._by_external[opening.protocol, opening.external]
            del self._by_internal[opening.protocol, opening.internal]

    def at(self, now: float, protocol: Protocol, external: Address) -> Opening | None:
        """Return what an outside address was opened for."""
        return self._living(now, self._by_external.get((protocol, external)))

    def of(self, now: float, protocol: Protocol, internal: Address) -> Opening | None:
        """Return what was opened for an inside address."""
        return self._living(now, self._by_internal.get((protocol, internal)))

    def living(self, now: float) -> list[Opening]:
        """Return all."""
        return [each for each in list(self._by_external.values()) if self._living(now, each) is not None]

    def clear(self) -> None:
        """Forget all, as a restart does."""
        self._by_external.clear()
        self._by_internal.clear()

    def __bool__(self) -> bool:
        return bool(self._by_external)

    def _living(self, now: float, opening: Opening | None) -> Opening | None:
        if opening is not None and now >= opening.expires_at:
            self.remove(opening)
            return None
        return opening
