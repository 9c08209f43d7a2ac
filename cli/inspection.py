"""What a running node tells the chat of its sessions and of itself (`chat.inspecting.Inspector`)."""

from __future__ import annotations

from p2pnode import Node, PeerId
from p2pnode.chat import OwnDetails, PathDetails

__all__ = ["NodeInspector"]

STEPS = 12  # the last ones of a trace: a screen's worth


class NodeInspector:
    """Asks a `Node`; each call is a snapshot."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def path(self, peer: PeerId) -> PathDetails | None:
        """Return what is known of the session with `peer`, None when there is none."""
        session = self._node.session(peer)
        if session is None:
            return None
        why = self._node.reaching.explain(session)
        return PathDetails(
            session.path,
            str(session.remote),
            session.rtt_s,
            why.reason.value,
            why.text,
            session.bytes_sent,
            session.bytes_received,
            tuple((step.at_s, step.step, step.result) for step in session.trace.steps[-STEPS:]),
        )

    def own(self) -> OwnDetails:
        """Return what is known of this node."""
        node = self._node
        mappings = node.reaching.port_mapping.status()
        best = next((m for m in mappings if m.believed), mappings[0] if mappings else None)
        sessions = node.sessions()
        return OwnDetails(
            node.reaching.nat.value,
            tuple(str(address) for address in node.addresses()),
            best.state if best is not None else "off",
            len(sessions),
            sum(session.path == "relay" for session in sessions),
        )
