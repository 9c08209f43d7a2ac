"""What a node says about the network that it is in. Part of `node.Node`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pnode.core.tasks import TaskSet
from p2pnode.dht import KnownContact
from p2pnode.joining import Joiner
from p2pnode.mailing import Mailing
from p2pnode.nat import UdpMux
from p2pnode.netcheck_report import NetcheckReport
from p2pnode.owning import Owning
from p2pnode.peerspec import PeerSpec
from p2pnode.reaching import Reaching
from p2pnode.settings import NodeSettings
from p2pnode.topics import Topical

if TYPE_CHECKING:
    from p2pnode.netcheck import Netcheck

__all__ = ["Measuring"]


class Measuring(Topical, Mailing, Owning):
    """`Node` sets what is declared here."""

    settings: NodeSettings
    mux: UdpMux
    reaching: Reaching
    _joiner: Joiner
    _tasks: TaskSet
    _netcheck: Netcheck | None = None

    def ways_in(self, count: int = 8) -> tuple[PeerSpec, ...]:
        """Return nodes through which another node of this machine can join: those named to us, and `count` others that
        we know, drawn at random from the most dependable. Not this node itself."""
        known = [contact for contact in self.dht.known_contacts()[: 5 * count] if contact.peer_id is not None]
        drawn = self.network.rng.sample(known, min(count, len(known)))
        return (*self.settings.bootstrap, *(_spec(contact) for contact in drawn))

    async def netcheck(self) -> NetcheckReport:
        """Find out what stands between this node and the world: seven seconds, a hundred datagrams. Raise P2PError."""
        if self._netcheck is None:
            from p2pnode.netcheck import Netcheck  # loaded by the few nodes that are asked

            self._netcheck = Netcheck(
                network=self.network,
                dht=self.dht,
                life=self.reaching.mapping_life,
                allow_documentation=self.settings.allow_documentation,
                portmap=self.settings.portmap,
                bound=lambda: self.mux.local,
                known_addresses=self._joiner.known_addresses,
                spawn=self._tasks.spawn,
            )
        return await self._netcheck.run()


def _spec(contact: KnownContact) -> PeerSpec:
    text = f"{contact.peer_id}@{contact.address}"
    return PeerSpec(text, peer=contact.peer_id, hosts=((contact.address.ip, contact.address.port),))
