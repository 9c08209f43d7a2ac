"""Find peers on the local network with no server at all: multicast DNS service discovery.

A thin shell of sockets and one timer around `lan_machine`. What it finds is hearsay: whoever uses it asks the peer for
its key before anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from p2pnode.core.address import Address
from p2pnode.core.ids import PeerId
from p2pnode.core.network import MulticastSocket, Network
from p2pnode.lan_machine import LanMachine, LanPeer
from p2pnode.lan_wire import GROUP, Announcement

__all__ = ["LanDiscovery", "LanPeer"]

Known = Sequence[tuple[PeerId, Address]]


class LanDiscovery:
    """Announces a node on every interface and reports others of the same network.

    `addresses`: asked before each announcement for what others can dial, best first (8 are used); while it returns
    none, only questions are sent. Loopback addresses are of use to nodes of this machine only: give them when there is
    nothing else. `known`: up to three peers as a way into a larger network. `on_found`: called in the loop with each
    peer that is new, changed, or was not reported for a while; must not raise.
    """

    def __init__(
        self,
        *,
        network: Network,
        peer_id: PeerId,
        addresses: Callable[[], Sequence[Address]],
        network_tag: bytes,
        on_found: Callable[[LanPeer], None],
        name: str = "",
        known: Callable[[], Known] = tuple,
    ) -> None:
        self._network = network
        self._on_found = on_found
        self._socket: MulticastSocket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._own_ips: frozenset[str] = frozenset()
        self._machine = LanMachine(
            peer_id,
            network_tag,
            lambda: Announcement(peer_id, network_tag, 0, name, tuple(addresses()), tuple(known())),
            network.rng,
        )

    async def start(self) -> None:
        """Join the group, announce and ask. Raise OSError where the system has no multicast. Harmless when started."""
        if self._socket is None:
            self._socket = await self._network.open_multicast(GROUP, self._receive)
            self._begin()

    async def stop(self) -> None:
        """Say goodbye and leave the group. Harmless when not started."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._socket.send(self._machine.goodbye())
            self._socket.close()
            self._socket = None

    def refresh(self) -> None:
        """Announce and ask anew, on new interfaces too: our addresses changed."""
        if self._socket is not None:
            self._socket.refresh()
            self._begin()

    def peers(self) -> Mapping[PeerId, LanPeer]:
        """Return who announced itself lately and did not say goodbye; unproven."""
        return self._machine.peers()

    def statistics(self) -> Mapping[str, int]:
        """Return counters of what was heard, said and dropped by reason."""
        return self._machine.statistics()

    def _begin(self) -> None:
        self._own_ips = frozenset(ip for each in self._network.interfaces() for ip in each.addresses)
        self._machine.start(self._network.monotonic())
        self._tick()

    def _tick(self) -> None:
        if self._socket is not None:
            for datagram in self._machine.tick(self._network.monotonic()):
                self._socket.send(datagram)
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._machine.next_at()
        if at is not None and self._socket is not None:
            self._timer = asyncio.get_running_loop().call_at(at, self._tick)

    def _receive(self, data: bytes, source: Address) -> None:
        before = self._machine.next_at()
        found = self._machine.receive(data, source, self._network.monotonic(), self._own_ips)
        if self._machine.next_at() != before:
            self._arm()
        if found is not None:
            self._on_found(found)
