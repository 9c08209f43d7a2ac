"""Peers of the local network: what multicast announces becomes a contact only after it proved its key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine

import structlog

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import P2PError
from p2pnode.core.ids import PeerId
from p2pnode.core.network import Network
from p2pnode.dht import Dht, KnownContact
from p2pnode.events import LanPeerSeen
from p2pnode.lan import LanDiscovery, LanPeer

__all__ = ["LanPeers"]

log = structlog.get_logger(__name__)

MAX_PEERS = 256  # a busy office; 256 x 400 bytes. Beyond it the longest unseen goes
MAX_PROOFS = 16  # hellos under way at once: a forged announcement costs one, and waits its turn
MAX_WAITING_PER_SOURCE = 64  # forged announcements of one host leave room for those of others
MAX_ADDRESSES = 4  # per peer: a laptop has two interfaces and two families


class LanPeers:
    """Announces us, and turns announcements into proven contacts and `LanPeerSeen` events."""

    def __init__(
        self,
        *,
        enabled: bool,
        network: Network,
        peer_id: PeerId,
        name: str,
        network_tag: bytes,
        dht: Dht,
        own_addresses: Callable[[], dict[Realm, tuple[Address, ...]]],
        usable: Callable[[Address], bool],
        seen: Callable[[LanPeerSeen], None],
        spawn: Callable[[Coroutine[None, None, None]], object],
    ) -> None:
        """`enabled` False: nothing is sent or heard, and nobody is known."""
        self._own_addresses = own_addresses
        self._dht = dht
        self._usable = usable
        self._seen = seen
        self._spawn = spawn
        self._proofs = asyncio.Semaphore(MAX_PROOFS)
        self._waiting: dict[PeerId, str] = {}
        self._peers: dict[PeerId, tuple[Address, ...]] = {}
        self._discovery: LanDiscovery | None = None
        if enabled:
            self._discovery = LanDiscovery(
                network=network,
                peer_id=peer_id,
                name=name,
                addresses=self._announced,
                network_tag=network_tag,
                on_found=self._found,
            )

    def addresses(self, peer: PeerId) -> tuple[Address, ...]:
        """Where a proven peer was seen; empty for others."""
        return self._peers.get(peer, ())

    def all(self) -> dict[PeerId, tuple[Address, ...]]:
        return dict(self._peers)

    @property
    def active(self) -> bool:
        """Whether somebody may be found."""
        return self._discovery is not None

    async def start(self) -> None:
        """Join the multicast group; where the system has none, do without."""
        if self._discovery is None:
            return
        try:
            await self._discovery.start()
        except OSError as exc:
            log.warning("lan_discovery_off", why=str(exc))
            self._discovery = None

    def refresh(self) -> None:
        """Announce again: addresses or interfaces changed."""
        if self._discovery is not None:
            self._discovery.refresh()

    async def stop(self) -> None:
        if self._discovery is not None:
            await self._discovery.stop()

    def _announced(self) -> list[Address]:
        by_realm = self._own_addresses()
        wide = [*by_realm.get(Realm.PRIVATE, ()), *by_realm.get(Realm.PUBLIC, ())]
        return wide or list(by_realm.get(Realm.LOOPBACK, ()))

    def _found(self, found: LanPeer) -> None:
        source = found.source.ip
        if found.peer_id in self._waiting or len(self._waiting) >= MAX_PEERS:
            return
        if sum(ip == source for ip in self._waiting.values()) >= MAX_WAITING_PER_SOURCE:
            return
        self._waiting[found.peer_id] = source
        self._spawn(self._prove(found))

    async def _prove(self, found: LanPeer) -> None:
        try:
            async with self._proofs:
                addresses = [a for a in found.addresses[:MAX_ADDRESSES] if self._usable(a)]
                # At once: four silent ones in a row would hold a place for twelve seconds.
                answers = await asyncio.gather(*(self._answers(found, a) for a in addresses))
                proven = [a for a, answered in zip(addresses, answers, strict=True) if answered]
        finally:
            self._waiting.pop(found.peer_id, None)
        if not proven:
            return
        known = self._peers.pop(found.peer_id, ())
        self._peers[found.peer_id] = tuple(proven)
        if len(self._peers) > MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        if known != tuple(proven):
            self._seen(LanPeerSeen(found.peer_id, tuple(proven), found.name))
            await self._dht.bootstrap([KnownContact(found.peer_id, found.peer_id.node_id, a) for a in proven])

    async def _answers(self, found: LanPeer, address: Address) -> bool:
        with contextlib.suppress(P2PError):
            await self._dht.hello(address, expect=found.peer_id)
            return True
        log.info("lan_peer_unproven", peer=str(found.peer_id), address=str(address))
        return False
