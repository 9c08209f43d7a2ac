"""Snapshots of a node for people and programs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pnode.core.address import Address, Realm, Scope
from p2pnode.core.ids import PeerId
from p2pnode.links import LinkKind
from p2pnode.mapped_port import PortMappingStatus
from p2pnode.read_back import PublishedRecord
from p2pnode.relay_table import RelayStatistics

if TYPE_CHECKING:
    from p2pnode.node import Node

__all__ = ["FlowBudget", "LinkStatus", "NodeStatus", "Ready", "node_status", "resident_bytes"]


@dataclass(frozen=True)
class Ready:
    """The outcome of `Node.start`.

    `addresses`: those others can use. `bootstrap`: `ID@HOST:PORT` to hand out, None without an address.
    `peers`: nodes that answered. `seconds`: since `start` was called. `alone`: nobody answered yet.
    """

    addresses: tuple[str, ...]
    bootstrap: str | None
    peers: int
    seconds: float
    alone: bool

    def waiting_sentence(self) -> str:
        """Say what a node that is alone waits for, and what to type on another machine."""
        if not self.addresses:
            return "This computer has no network; waiting until it has one."
        if all(Address.parse(a).scope is Scope.LOOPBACK for a in self.addresses):
            where = "This node is reachable on this computer only; in another terminal type"
        else:
            where = "Nobody else is known yet and nobody answers on this network; on another machine type"
        return f"{where}: p2pnode join --bootstrap {self.bootstrap}"

    @classmethod
    def of(cls, node: Node) -> Ready:
        addresses = tuple(str(a) for a in node.addresses())
        peers = sum(node.dht.statistics().contacts.values())
        return cls(
            addresses,
            f"{node.peer_id}@{addresses[0]}" if addresses else None,
            peers,
            node.network.monotonic() - node.started_at,
            peers == 0,
        )


@dataclass(frozen=True)
class FlowBudget:
    """What it costs to stay reachable. `kept`: flows kept alive, one to each rendezvous node. `keep_alive_s`: how often
    at least each is used. `mapping_lifetime_s`: how long the router remembers a quiet one, None where that is not
    measured. `datagrams_per_hour`: both ways."""

    kept: int
    keep_alive_s: float
    mapping_lifetime_s: float | None
    datagrams_per_hour: int


@dataclass(frozen=True)
class LinkStatus:
    """A TLS link (docs/protocol/links.md). `peer`: at the far end, None while it has not proven itself to us in a
    session. `where`: HOST:PORT of its TCP. `stands_for`: the far end as sessions name it. `proxied`: by an HTTP proxy.
    Bytes are those inside TLS; `dropped`: datagrams that there was no room for."""

    kind: LinkKind
    peer: PeerId | None
    where: str
    stands_for: Address
    proxied: bool
    age_s: float
    bytes_sent: int
    bytes_received: int
    dropped: int


@dataclass(frozen=True)
class NodeStatus:
    """`role`: `server` serves the DHT in every realm it is in, `client` not in the public one. `nat`: `none`,
    `endpoint-independent`, `address-dependent`, `address-and-port-dependent`, `udp-blocked` or `unknown`. `peers`:
    open sessions."""

    peer_id: str
    user_id: str
    role: str
    nat: str
    addresses: tuple[str, ...]
    peers: int
    routing_table: int
    records: int
    uptime_s: float
    rss_bytes: int
    seen_as: tuple[str, ...]
    """Our addresses as others see them, believed; without port where it differs by destination."""
    rendezvous: tuple[str, ...]
    """Addresses of the nodes that forward calls to us."""
    flows: FlowBudget
    clock_skew_s: float | None
    """How far our clock is ahead of that of a node which refused us for it; None when none did."""
    published: tuple[PublishedRecord, ...]
    """How many of the nodes nearest to each of our records held it when it was last read back."""
    port_mapping: tuple[PortMappingStatus, ...]
    """Ports that routers were asked for, one for each address family, and whether they are believed."""
    relay: RelayStatistics
    """What this node relays for others."""
    relayed_sessions: int
    """Our own sessions that go through a relay now."""
    relayed_bytes: int
    """Of our own sessions, through relays, both directions, since the start."""
    links: tuple[LinkStatus, ...]
    """All TLS links."""


def node_status(node: Node) -> NodeStatus:
    """Take a snapshot."""
    statistics = node.dht.statistics()
    client = Realm.PUBLIC in node.dht.realms() and Realm.PUBLIC not in node.dht.serving
    return NodeStatus(
        str(node.peer_id),
        str(node.user_id),
        "client" if client else "server",
        node.reaching.nat.value,
        tuple(str(a) for a in node.addresses()),
        len(node.sessions()),
        sum(statistics.contacts.values()),
        statistics.records,
        node.network.monotonic() - node.started_at,
        resident_bytes(),
        node.reaching.seen_as(),
        tuple(str(contact.address) for contact in node.reaching.rendezvous),
        node.reaching.flow_budget(),
        statistics.clock_offset_s,
        node.publisher.published() if node.publisher is not None else (),
        node.reaching.port_mapping.status(),
        node.reaching.pathways.relaying.statistics(),
        sum(session.connection.path.relayed for session in node.sessions()),
        node.reaching.pathways.relaying.usage_of_all(),
        _links(node),
    )


def _links(node: Node) -> tuple[LinkStatus, ...]:
    """Take a snapshot of all TLS links, ours first."""
    now = node.network.monotonic()
    direct = {s.remote: s.peer for s in node.sessions() if not s.connection.path.relayed}
    return tuple(
        LinkStatus(
            kind, link.peer or direct.get(link.address), link.where, link.address, link.proxied, now - link.began_at,
            link.bytes_sent, link.bytes_received, link.dropped,
        )
        for kind, links in node.links.all_links().items()
        for link in links
    )  # fmt: skip


def resident_bytes() -> int:
    """Return this process's resident memory in bytes; the peak where the system tells no current value."""
    try:
        with open("/proc/self/statm", "rb") as file:
            import resource

            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
