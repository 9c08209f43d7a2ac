"""Where the routers before us show us: for those who call, whose first packets go there ahead of our answer. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from p2pnode.core.address import Address
from p2pnode.reachability import Reflexive

__all__ = ["outside_addresses"]


def outside_addresses(
    verdicts: Mapping[bool, Reflexive],
    *,
    bound: Sequence[Address],
    own: Collection[Address],
    mapped: Collection[Address],
) -> tuple[Address, ...]:
    """Return what a presence says of it: one address of each family at most.

    `verdicts`: by family (True: IPv6), of those in which nobody can dial us; `bound`: our sockets; `own`: addresses
    that are published anyway; `mapped`: ports that a router has opened for everybody: who calls needs no other there.
    Where the port differs by destination our socket's stands for it: it is wrong, but what goes there opens the
    caller's router for our IP address, and does not change with every destination.
    """
    found = []
    for is_ipv6, seen in verdicts.items():
        if any(address.is_ipv6 is is_ipv6 for address in mapped):
            continue
        port = next((local.port for local in bound if local.is_ipv6 is is_ipv6), 0)
        at = seen.address or (Address(seen.ip, port) if seen.ip is not None and port else None)
        if at is not None and at not in own:
            found.append(at)
    return tuple(found)
