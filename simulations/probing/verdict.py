"""What a probe found about the routers before a host. Whatever it could not find out is `unknown` or None."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from p2pnode.core.address import Address
from p2pnode.nat.behaviour import PRESERVING, UNKNOWN

__all__ = ["Verdict"]


@dataclass(frozen=True)
class Verdict:
    """What was found. Times in seconds."""

    own: Address | None = None
    """Where the probe's first socket was bound."""
    public: Address | None = None
    """That socket as the first server saw it."""
    udp: bool | None = None
    """Whether any server answered over UDP."""
    nat: bool | None = None
    """Whether the public address is another than the own one."""
    mapping: str = UNKNOWN
    """Of UDP; INDEPENDENT, ADDRESS, ADDRESS_AND_PORT or UNKNOWN. A host without NAT counts as INDEPENDENT."""
    filtering: str = UNKNOWN
    """Of UDP; the same words."""
    allocation: str = UNKNOWN
    """PRESERVING, SEQUENTIAL, RANDOM or UNKNOWN."""
    step: int | None = None
    """The usual distance between two public ports that were opened one after the other; with SEQUENTIAL only."""
    public_ips: tuple[str, ...] = ()
    """All public IPv4 addresses under which the host was seen: more than one means arbitrary pooling."""
    hairpin: bool | None = None
    """Whether the host reaches another of its sockets through the public address."""
    hairpin_source: str | None = None
    """`external` or `internal`: which address of the sender such a packet carries."""
    lifetime_s: tuple[float, float] | None = None
    """A mapping was still alive after the first of these times of silence, and dead after the second (inf: longer)."""
    inbound_refresh: bool | None = None
    """Whether packets from outside alone keep a mapping alive."""
    tcp: tuple[int, ...] | None = None
    """Ports of the server that were reached over TCP; None when that was not tried."""
    tcp_blocked: tuple[int, ...] = ()
    """Ports of the server that were not."""
    ipv6: str = UNKNOWN
    """`none`, `open`, `firewalled` or UNKNOWN."""
    ipv6_filtering: str = UNKNOWN
    """As `filtering`."""
    routers: int | None = None
    """How many translating routers in a row, as far as a port-mapping protocol lets it be seen: 2 means at least 2."""
    nat_pmp: bool | None = None
    pcp: bool | None = None
    upnp: bool | None = None
    """Whether the gateway answers this port-mapping protocol; None when it was not asked."""

    @property
    def port_kept(self) -> bool | None:
        """Whether the public port is the private one."""
        return None if self.allocation == UNKNOWN else self.allocation == PRESERVING

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types. Addresses as text, an open end of `lifetime_s` as None."""
        data = asdict(self)
        for name in ("own", "public"):
            address = getattr(self, name)
            data[name] = None if address is None else str(address)
        if self.lifetime_s is not None:
            data["lifetime_s"] = [None if value == float("inf") else round(value, 3) for value in self.lifetime_s]
        return {**data, "port_kept": self.port_kept}
