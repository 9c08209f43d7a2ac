"""Asks the router for a port, so that strangers can dial this node: by IPv4 a mapping, by IPv6 a pinhole.

One `MappedPort` per address family whose socket listens on the network of its default gateway. Nothing waits for it:
a node is `ready` without, and publishes the address when it is proven.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from p2pnode.core.address import Address, Realm, realm_of
from p2pnode.core.envelope import signing_input
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import Gateway, Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht import Dht
from p2pnode.interfaces import advertised
from p2pnode.mapped_port import MappedPort, PortMappingStatus
from p2pnode.nat import pcp
from p2pnode.port_witnesses import PortWitnesses

__all__ = ["PortMapping"]

RELEASE_S = 1.0  # of the two seconds that leaving may take
_WILDCARDS = ("0.0.0.0", "::")


class PortMapping:
    """Of one node."""

    def __init__(
        self, *, enabled: bool, key: NodeKey, network: Network, dht: Dht, bound: Callable[[], Sequence[Address]],
        outside_ip: Callable[[bool], str | None], dialable: Callable[[bool], bool], allow_documentation: bool,
        changed: Callable[[], None],
    ) -> None:  # fmt: skip
        """`bound`: where our sockets are. `outside_ip`: how the public network's nodes see us, by IPv6 or not,
        where they agree. `dialable`: whether strangers can dial us by IPv6 or not, without a mapping.
        `changed`: `addresses` is another now."""
        self._enabled, self._key, self._network, self._dht = enabled, key, network, dht
        self._witnesses = PortWitnesses(dht, network)
        self._bound, self._outside_ip, self._dialable = bound, outside_ip, dialable
        self._allow_documentation, self._changed = allow_documentation, changed
        self._tasks = TaskSet()
        self._ports: list[MappedPort] = []
        self._looked = False

    # Life

    def start(self) -> None:
        if self._enabled:
            self._tasks.spawn(self._run())

    async def stop(self) -> None:
        """Give the ports back."""
        await self._tasks.cancel()
        ports, self._ports = self._ports, []
        releases = [asyncio.ensure_future(port.release()) for port in ports]
        if releases:
            _, late = await asyncio.wait(releases, timeout=RELEASE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*releases, return_exceptions=True)

    async def network_changed(self) -> None:
        """Our addresses are others now: what the old gateway gave is out of reach, the new one is asked."""
        if not self._enabled:
            return
        await self._tasks.cancel()
        ports, self._ports, self._looked = self._ports, [], False
        for port in ports:
            port.forget()
        self.start()

    def look(self) -> None:
        """Something was learnt: who is there, how we are seen."""
        for port in self._ports:
            port.look()

    def seen(self, own: Address) -> None:
        """A node sees us at `own`, which it did not say before."""
        for port in self._ports:
            port.seen(own)
        self.look()

    # What the node asks

    def addresses(self) -> tuple[Address, ...]:
        """Outside addresses that strangers can dial, proven."""
        return tuple(port.believed for port in self._ports if port.believed is not None)

    def status(self) -> tuple[PortMappingStatus, ...]:
        """One for each family that has a gateway; else one that says why there is none."""
        if not self._enabled:
            return (PortMappingStatus("off", "Switched off (--no-portmap)."),)
        if not self._looked:
            return (PortMappingStatus("searching", "Looking for the router."),)
        if not self._ports:
            return (PortMappingStatus("no-gateway", "No router that could open a port for this node's sockets."),)
        return tuple(port.status() for port in self._ports)

    # Parts

    async def _run(self) -> None:
        gateways = await self._network.gateways()
        self._ports = [port for gateway in gateways if (port := self._port_at(gateway)) is not None]
        self._looked = True
        await asyncio.gather(*(port.run() for port in self._ports))

    def _port_at(self, gateway: Gateway) -> MappedPort | None:
        """Return what is to be asked of a gateway; None where our socket is not on its network."""
        is_ipv6 = ":" in gateway.ip
        bound = next((each for each in self._bound() if each.is_ipv6 is is_ipv6), None)
        if bound is None:
            return None
        ours = {ip for interface in advertised(self._network.interfaces()) for ip in interface.addresses}
        local = self._public_ipv6(ours) if is_ipv6 else gateway.local
        if local is None or local not in ours or bound.ip not in (*_WILDCARDS, local):
            return None  # a VPN's or container's network, or listening elsewhere
        if not is_ipv6 and self._realm_of(local) is not Realm.PRIVATE:
            return None  # our own public address: there is nothing to translate
        return MappedPort(
            network=self._network,
            dht=self._dht,
            witnesses=self._witnesses,
            gateway=Gateway(gateway.ip, local),
            internal=Address(local, bound.port),
            nonce=lambda internal: self._nonce(gateway, internal),
            outside_ip=lambda: self._outside_ip(is_ipv6),
            has_contacts=lambda: any(each.is_ipv6 is is_ipv6 for each in self._dht.overlays(Realm.PUBLIC)),
            needed=lambda: not self._dialable(is_ipv6) and not (is_ipv6 and not self._dht.unreachable(is_ipv6=True)),
            allow_documentation=self._allow_documentation,
            changed=self._changed,
        )

    def _public_ipv6(self, ours: set[str]) -> str | None:
        """The pinhole is for the address that others see us at; there may be several."""
        public = sorted(ip for ip in ours if ":" in ip and self._realm_of(ip) is Realm.PUBLIC)
        seen = self._outside_ip(True)
        return seen if seen in public else public[0] if public else None

    def _realm_of(self, ip: str) -> Realm | None:
        return realm_of(ip, allow_documentation=self._allow_documentation)

    def _nonce(self, gateway: Gateway, internal: Address) -> bytes:
        """A signature of ours, hashed: nobody guesses it, and after a crash we can still renew what we had."""
        where = f"{gateway.ip} {internal}".encode()
        signature = self._key.sign(signing_input(b"p2pnode/1/port-mapping", b"pcp-nonce", where))
        return hashlib.sha256(signature).digest()[: pcp.NONCE_BYTES]
