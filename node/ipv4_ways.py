"""How a host without an IPv4 address reaches IPv4 ones: by its network's NAT64, where there is one.

Looked for when the node starts and after each change of networks. The mux translates, so that to everything above the
host has IPv4, behind a router.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from p2pnode.core.address import Realm, Scope, realm_of, scope_of
from p2pnode.core.network import Network
from p2pnode.nat import UdpMux
from p2pnode.nat.nat64 import KNOWN_NAME, Nat64, prefix_of_answers

__all__ = ["Ipv4Ways"]

log = structlog.get_logger(__name__)

DNS_S = 1.0  # a resolver that is silent for longer holds up the start of a node; the next change of networks asks again
_OWN = (Scope.LOOPBACK, Scope.LINK_LOCAL, Scope.UNSPECIFIED)


class Ipv4Ways:
    """Of one node."""

    def __init__(
        self, network: Network, mux: UdpMux, changed: Callable[[], None], *, allow_documentation: bool
    ) -> None:
        """`changed`: called when `look_again` found another way."""
        self._network, self._mux, self._changed = network, mux, changed
        self._allow_documentation = allow_documentation

    async def look(self) -> bool:
        """Find the way; return whether it is another than before."""
        prefix = None
        if self._has_only_ipv6():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DNS_S):
                    found = await self._network.resolve(KNOWN_NAME, 1)
                    prefix = prefix_of_answers(address.ip for address in found if address.is_ipv6)
        before = self._mux.nat64
        if (before.prefix if before is not None else None) == prefix:
            return False
        log.info("nat64_changed", prefix=None if prefix is None else str(prefix))
        self._mux.nat64 = None if prefix is None else Nat64(prefix, is_public=self._is_public)
        return True

    async def look_again(self) -> None:
        if await self.look():
            self._changed()

    def _has_only_ipv6(self) -> bool:
        ips = [ip for interface in self._network.interfaces() for ip in interface.addresses]
        families = {":" in ip for ip in ips if scope_of(ip) not in _OWN}
        return families == {True}

    def _is_public(self, ip: str) -> bool:
        return realm_of(ip, allow_documentation=self._allow_documentation) is Realm.PUBLIC
