"""Which public addresses the laboratory gives out. Pure."""

from __future__ import annotations

from p2pnode.simulations.netns.errors import LabError

__all__ = ["PublicAddresses"]

# The test network of amateur radio (44.128.0.0/16, AMPRNet), which is never routed. Not documentation networks (RFC
# 5737): miniupnpd opens no ports when the router's own address is one of those, and there are three, while each line
# has a /24 of its own here: nodes count strangers by /24, and in life few lines share one.
NETWORKS = 256
PER_NETWORK = 254


class PublicAddresses:
    """Counts. No address comes twice."""

    def __init__(self) -> None:
        self._given = 0
        self._prefixes = 0

    def next_ip(self) -> str:
        """Return an IPv4 address. Raise LabError when all are given."""
        number, network = divmod(self._given, NETWORKS)
        if number >= PER_NETWORK:
            raise LabError(f"The laboratory has room for {PER_NETWORK * NETWORKS} public addresses.")
        self._given += 1
        return f"44.128.{network}.{number + 1}"

    def next_prefix(self) -> str:
        """Return an IPv6 network, /48, without the colons behind: what one line gets (RFC 3849)."""
        self._prefixes += 1
        return f"2001:db8:{self._prefixes:x}"
