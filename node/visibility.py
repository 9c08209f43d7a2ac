"""Whether others can see that this node is here. Part of `node.Node`.

An invisible node says goodbye as if it stopped and does not take it back: no presence, no announcement on the LAN, no
answer to handshakes and offers, so nobody can open a session with it. It still asks the DHT and serves it, fetches what
waits for it, and opens sessions itself: those it connects to see it. Nodes of the DHT that it asks see its address and
its key, as they do of everybody; it is not anonymous.
"""

from __future__ import annotations

from collections.abc import Callable

from p2pnode.core.ids import PeerId
from p2pnode.lan_peers import LanPeers
from p2pnode.nat import Connection, QuicEndpoint
from p2pnode.nat.path import Path
from p2pnode.publisher import Publisher
from p2pnode.reaching import Reaching
from p2pnode.sessions import SessionTable
from p2pnode.settings import NodeSettings

__all__ = ["Visible"]


class Visible:
    """`Node` sets what is declared here."""

    settings: NodeSettings
    endpoint: QuicEndpoint
    reaching: Reaching
    publisher: Publisher | None
    _sessions: SessionTable
    _lan: LanPeers
    _stopping: bool
    _blocked: Callable[[PeerId], bool]
    _invisible = False

    @property
    def invisible(self) -> bool:
        return self._invisible

    async def set_invisible(self, invisible: bool) -> None:
        """Leave everybody's sight, or come back into it. Before `start`, the node begins so. Takes some seconds at most
        (the goodbyes)."""
        if invisible == self._invisible or self._stopping:
            return
        self._invisible = self.reaching.signalling.deaf = invisible
        publisher = self.publisher
        if publisher is None:
            return  # not started
        if not invisible:
            publisher.resume()
            await self._lan.start()
            return
        await self.reaching.signalling.stop()  # who called us just now is not dialled back
        self._sessions.close_those(lambda _peer: True, "stopping")
        await self._lan.stop()
        await publisher.unpublish()

    def refuse_when(self, blocked: Callable[[PeerId], bool]) -> None:
        """Close sessions with peers for which `blocked` says True, from now on."""
        self._blocked = blocked
        self._sessions.close_those(blocked, "refused")

    def _is_blocked(self, peer: PeerId) -> bool:
        return self._blocked(peer)

    def _accepts(self, path: Path) -> bool:
        """Whether a stranger's first packet is looked at; who is hidden behind a relay has that way in only."""
        return not self._invisible and (path.relayed or not self.settings.relay_only)

    def _refused(self, connection: Connection) -> bool:
        """Close a connection that was proven just now, if we take nothing from its peer."""
        refused = self._blocked(connection.peer)
        if refused:
            connection.close(reason="refused")
        return refused
