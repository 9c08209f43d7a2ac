"""What a node's network id and secret come to: key, tag, the sealed wire, the settings of its DHT."""

from __future__ import annotations

from p2pnode.core.address import Realm
from p2pnode.core.network import Network
from p2pnode.core.network_id import network_tag, private_network_key
from p2pnode.core.sealed_network import SealedNetwork
from p2pnode.dht import DhtSettings
from p2pnode.settings import NodeSettings

__all__ = ["Membership"]


class Membership:
    """Which network a node belongs to."""

    def __init__(self, settings: NodeSettings, network: Network) -> None:
        """Derives the key: 0.1 s for the first node of a private network in this process."""
        self._settings = settings
        self.key = private_network_key(settings.network_id, settings.network_secret)
        """Of a private network; b"" in a public one."""
        self.tag = network_tag(settings.network_id, self.key)
        self.wire: Network = SealedNetwork(network, self.key) if self.key else network
        """All sockets are opened through this: in a private network nothing leaves unsealed."""
        self.announced_name = "" if self.key else settings.name
        """Announcements can be read by the whole LAN: those of a private network hold no name."""

    @property
    def foreign(self) -> int:
        """Datagrams that no member of our private network sealed."""
        return self.wire.foreign if isinstance(self.wire, SealedNetwork) else 0

    def _serves(self) -> frozenset[Realm]:
        if self._settings.relay_only or self._settings.guest:
            return frozenset()  # who serves is in others' tables, its id beside its address
        return frozenset(Realm) if self._settings.role == "bootstrap" else frozenset({Realm.LOOPBACK, Realm.PRIVATE})

    def dht_settings(self) -> DhtSettings:
        settings = self._settings
        return DhtSettings(
            network_id=settings.network_id,
            network_key=self.key,
            paths=settings.lookup_paths,
            record_file=settings.record_file,
            serve=self._serves(),
            dial_back=not settings.relay_only,
            guest=settings.guest,
            allow_documentation=settings.allow_documentation,
        )
