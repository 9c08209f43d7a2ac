"""What a node says about the network that it is in. Part of `node.Node`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pnode.core.tasks import TaskSet
from p2pnode.joining import Joiner
from p2pnode.mailing import Mailing
from p2pnode.nat import UdpMux
from p2pnode.netcheck_report import NetcheckReport
from p2pnode.reaching import Reaching
from p2pnode.settings import NodeSettings
from p2pnode.topics import Topical

if TYPE_CHECKING:
    from p2pnode.netcheck import Netcheck

__all__ = ["Measuring"]


class Measuring(Topical, Mailing):
    """`Node` sets what is declared here."""

    settings: NodeSettings
    mux: UdpMux
    reaching: Reaching
    _joiner: Joiner
    _tasks: TaskSet
    _netcheck: Netcheck | None = None

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
