"""Which public addresses the laboratory gives out. Pure."""

from __future__ import annotations

from p2pnode.simulations.netns.errors import LabError

__all__ = ["PublicAddresses"]

# Documentation networks (RFC 5737), used in turn so that addresses have different prefixes as they have in life
NETWORKS = ("203.0.113", "198.51.100", "192.0.2")
# miniupnpd opens no ports when the router's own address is one of those. This is the test network of amateur radio
# (44.128.0.0/16, AMPRNet), which is never routed.
ROUTABLE_NETWORKS = tuple(f"44.128.{i}" for i in range(3))
PER_NETWORK = 254


class PublicAddresses:
    """Counts. No address comes twice."""

    def __init__(self) -> None:
        self._given = {False: 0, True: 0}
        self._prefixes = 0

    def next_ip(self, *, routable: bool = False) -> str:
        """Return an IPv4 address. `routable`: not from a documentation network. Raise LabError when all are given."""
        networks = ROUTABLE_NETWORKS if routable else NETWORKS
        number, network = divmod(self._given[routable], len(networks))
        if number >= PER_NETWORK:
            raise LabError(f"The laboratory has room for {PER_NETWORK * len(networks)} public addresses.")
        self._given[routable] += 1
        return f"{networks[network]}.{number + 1}"

    def next_prefix(self) -> str:
        """Return an IPv6 network, /48, without the colons behind: what one line gets (RFC 3849)."""
        self._prefixes += 1
        return f"2001:db8:{self._prefixes:x}"
