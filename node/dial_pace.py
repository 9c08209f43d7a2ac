"""How many dials one public IP address gets while nobody there turns out to be the peer that was meant. Pure.

Presences, hints of hall members and offers name addresses that may be a victim's: each dial sends up to six datagrams
of 1,200 bytes, and a frame that tells of 64 members could name 256 ports of one host (security.md C1).
"""

from __future__ import annotations

from collections import OrderedDict

from p2pnode.core.address import Address, Scope

__all__ = ["DialPace"]

# Chosen by us: a friend who is offline is tried about once a minute at two or three addresses; a server that runs 16
# nodes is reached at once, and each success gives its dial back.
BURST = 16.0
RATE = 0.1  # per second
MAX_IPS = 1024  # about 200 bytes each; the one that was dialled longest ago is forgotten


class DialPace:
    """One token bucket per public IP address; others are our own networks."""

    def __init__(self) -> None:
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: Address, now: float) -> bool:
        """Whether `address` may be dialled now (monotonic seconds); counted when so."""
        if address.scope is not Scope.PUBLIC:
            return True
        level, at = self._levels.pop(address.ip, (BURST, now))
        level = min(BURST, level + (now - at) * RATE)
        allowed = level >= 1.0
        self._levels[address.ip] = (level - 1.0 if allowed else level, now)
        if len(self._levels) > MAX_IPS:
            self._levels.popitem(last=False)
        return allowed

    def reached(self, address: Address) -> None:
        """The wanted peer answered there: nobody is bothered."""
        self._levels.pop(address.ip, None)

    def __len__(self) -> int:
        return len(self._levels)
