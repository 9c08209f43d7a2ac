"""What a node is told at construction. `node.config` reads these from files, environment and command line."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pnode.core.address import Address
from p2pnode.peerspec import DEFAULT_PORT, PeerSpec

__all__ = ["DEFAULT_PORT", "NodeSettings"]


@dataclass(frozen=True)
class NodeSettings:
    """Settings of one node; safe defaults."""

    name: str = ""
    """Self-chosen name, shown to others; at most 32 characters, already cleaned."""
    network_id: str = "public"
    """Nodes of different networks never talk."""
    network_secret: str = field(default="", repr=False)
    """What the members of a private network share; empty: the network is public."""
    lookup_paths: int = 2
    """Node-disjoint paths of a lookup, 1 to 8: one liar leads at most one of them astray."""
    listen: tuple[Address, ...] = (Address("0.0.0.0", DEFAULT_PORT), Address("::", DEFAULT_PORT))
    """Where the UDP sockets are bound, at most one per address family."""
    listen_explicit: bool = False
    """False: when the port is taken, any other will do; True: it is an error."""
    tcp: tuple[Address, ...] = ()
    """Where to let in TLS links (nodes that UDP does not reach), besides the UDP port's number where we are public."""
    proxy: str = field(default="", repr=False)
    """HTTP proxy for TLS links, `http://[USER:PASSWORD@]HOST:PORT`; empty: none."""
    no_proxy: str = ""
    """Hosts and domains that are dialled without it, separated by commas."""
    bootstrap: tuple[PeerSpec, ...] = ()
    """Nodes to join through, `ID@HOST:PORT`."""
    lan: bool = True
    """Discover peers by multicast."""
    portmap: bool = True
    """Ask the home router for a port."""
    relay_only: bool = False
    """Tell no peer an address of ours: nothing is published but rendezvous nodes, and sessions go through relays."""
    relay: bool = True
    """Relay for others where this node is public, within limits."""
    relay_bandwidth: int = 4_000_000
    """Bytes per second that are relayed for all others together; one address block gets a quarter at most."""
    record_file: str = ""
    """SQLite file in which records stored for others survive a restart; empty: in memory only."""
    guest: bool = False
    """Serve nobody in the DHT: for nodes that live for minutes."""
    role: str = "peer"
    """`peer` or `bootstrap` (serves the DHT in every realm from the start)."""
    idle_timeout: float = 300.0
    """Seconds without application traffic after which a session is closed."""
    allow_documentation: bool = False
    """Treat documentation networks as public; for laboratories."""
    presence_lifetime: float = 900.0
    """Seconds a published presence is valid."""
    presence_refresh: float = 300.0
    """Seconds between refreshes of the presence."""
    join_timeout: float = 2.0
    """Seconds that `start` waits for a first answer before it says that the node is alone."""

    def __post_init__(self) -> None:
        if self.role not in ("peer", "bootstrap"):
            raise ValueError(f"role is peer or bootstrap, not {self.role!r}")
        if not 0 < self.presence_refresh < self.presence_lifetime:
            raise ValueError("presence_refresh must be positive and shorter than presence_lifetime")
        if not 1 <= self.lookup_paths <= 8:
            raise ValueError("lookup_paths is 1 to 8")
        if self.relay_bandwidth < 100_000:
            raise ValueError("relay_bandwidth is at least 100,000 bytes per second; relay=False relays nothing")
        if self.relay_only and self.role == "bootstrap":
            raise ValueError("a bootstrap node has to be reached: it cannot be relay_only")
        if self.guest and self.role == "bootstrap":
            raise ValueError("a bootstrap node serves: it cannot be a guest")
        if self.idle_timeout <= 0:
            raise ValueError("idle_timeout must be positive")
