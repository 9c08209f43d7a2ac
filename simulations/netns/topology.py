"""Hosts and routers: namespaces with interfaces, and what can be asked of them."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable
from typing import TypeVar

from p2pnode.simulations.netns.conntrack import forget_connections
from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.gateway import PortMapper
from p2pnode.simulations.netns.kinds import PUBLIC, NatKind
from p2pnode.simulations.netns.rules import ruleset
from p2pnode.simulations.netns.spaces import Space
from p2pnode.simulations.netns.wire_client import Counts, WireClient

__all__ = ["Host", "Router", "WireLine"]

T = TypeVar("T")

FIRST_HOST = 10
MAPPING_S = 30.0  # the shortest common life of an unused mapping; Linux itself has 30 s, and 120 s once answered


class Host:
    """A computer. `public_ip`: what others see, its own or its router's. `ip`: its own. `ipv6`: global, or None."""

    def __init__(
        self, name: str, space: Space, ip: str, *, ipv6: str | None = None, router: Router | None = None
    ) -> None:
        self.name = name
        self.space = space
        self.ip = ip
        self.ipv6 = ipv6
        self.router = router

    @property
    def kind(self) -> str:
        return self.router.kind.name if self.router is not None else PUBLIC

    @property
    def udp(self) -> bool:
        """Whether UDP passes between it and the wire."""
        return self.router is None or self.router.kind.udp

    @property
    def public_ip(self) -> str:
        return self.router.public_ip if self.router is not None else self.ip

    @property
    def public_ips(self) -> tuple[str, ...]:
        """All addresses under which the wire sees it."""
        return (self.public_ip, *([self.ipv6] if self.ipv6 is not None else []))

    @property
    def edge(self) -> Router | None:
        """The outermost router before it: two hosts with the same one reach each other without the wire."""
        return self.router.edge if self.router is not None else None

    @property
    def link(self) -> str:
        """The name of its link to the wire, or of its outermost router's."""
        return self.edge.name if self.edge is not None else self.name

    def run(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread inside: connections that it makes are this host's."""
        return self.space.run(function)

    def udp_socket(self, port: int = 0, ip: str = "0.0.0.0") -> socket.socket:
        """Return a bound UDP socket of this host."""
        return self.space.udp_socket(ip, port)


class WireLine:
    """A router's line to the wire: its public addresses, delay and loss. `up`: False for a dead line."""

    def __init__(
        self, wire: WireClient, ip: str, prefix: str | None, *, delay_s: float, loss: float, up: bool = True
    ) -> None:
        """`prefix`: the IPv6 network of the line, /48, as `2001:db8:1`."""
        self.wire = wire
        self.ip = ip
        self.prefix = prefix
        self.delay_s = delay_s
        self.loss = loss
        self.up = up

    @property
    def addresses(self) -> list[str]:
        return [self.ip, *([f"{self.prefix}::1"] if self.prefix else [])]

    def connect(self, space: Space, name: str) -> None:
        """Give a namespace `wan0`. Raise LabError."""
        self.wire.connect(space, name, self.addresses, delay_s=self.delay_s, loss=self.loss)
        if not self.up:
            self.wire.set(name, up=False)

    def renumber(self, space: Space, name: str, ip: str) -> None:
        """Exchange the IPv4 address. Raise LabError."""
        before = self.addresses
        self.ip = ip
        self.wire.readdress(space, name, before, self.addresses)


class Router:
    """A router: `wan0` on the wire or in a carrier's LAN, `lan0` (a bridge) with its hosts, translation in between."""

    def __init__(
        self, name: str, kind: NatKind, line: WireLine | Router, *, mapping_s: float, rng: random.Random
    ) -> None:
        """`line`: the wire, or the carrier's router in front. `mapping_s`: how long an unused mapping lives, seconds.

        Raise LabError.
        """
        self.name = name
        self.kind = kind
        self.line = line
        self.hosts: list[Host] = []
        self.port_mapper: PortMapper | None = None
        self._mapping_s = mapping_s
        self._rng = rng
        self._plugged = 0
        self.space = Space(ipv6=kind.ipv6)
        try:
            if isinstance(line, Router):
                self.wan_ip = line.plug(self.space, "wan0")
            else:
                line.connect(self.space, name)
                self.wan_ip = line.ip
            self.space.ip("link add lan0 type bridge", f"address add {self.lan_ip}/24 dev lan0", "link set lan0 up")
            if self._lan_prefix is not None:
                self.space.ip(f"address add {self._lan_prefix}::1/64 dev lan0 nodad")
            for name in ("iptables", "ip6tables"):
                # Otherwise a packet that is led back into the LAN (hairpin) stays in the bridge, which drops it.
                with contextlib.suppress(FileNotFoundError):  # the kernel's bridges do not filter
                    self.space.write(f"bridge/bridge-nf-call-{name}", "0")
            self.load()
            self.space.write("ipv4/ip_forward", "1")
            if kind.ipv6:
                self.space.write("ipv6/conf/all/forwarding", "1")
        except OSError as exc:
            self.space.close()
            raise LabError(f"The kernel refuses to make a router: {exc.strerror}.") from exc
        except LabError:
            self.space.close()
            raise

    @property
    def carrier(self) -> Router | None:
        """The router in front of it."""
        return self.line if isinstance(self.line, Router) else None

    @property
    def edge(self) -> Router:
        """The router that is on the wire."""
        return self.carrier.edge if self.carrier is not None else self

    @property
    def public_ip(self) -> str:
        """What others see."""
        return self.edge.wan_ip

    @property
    def lan_ip(self) -> str:
        """Its own address for its hosts."""
        return f"{self.kind.lan}.1"

    @property
    def _lan_prefix(self) -> str | None:
        """The /64 for the hosts, of the line's /48."""
        if not self.kind.ipv6 or isinstance(self.line, Router) or self.line.prefix is None:
            return None
        return f"{self.line.prefix}:1"

    def add_host(self, name: str) -> Host:
        """Connect another computer to the LAN."""
        space = Space(ipv6=self.kind.ipv6)
        host = Host(name, space, "", router=self)
        try:
            self.adopt(host)
        except LabError:
            space.close()
            raise
        return host

    def adopt(self, host: Host) -> None:
        """Connect a computer that has no cable: it gets an address here."""
        host.ip = self.plug(host.space, "eth0")
        host.ipv6 = None
        if self._lan_prefix is not None:
            host.ipv6 = f"{self._lan_prefix}::{self._plugged + FIRST_HOST - 1:x}"
            host.space.ip(f"address add {host.ipv6}/64 dev eth0 nodad", f"route add ::/0 via {self._lan_prefix}::1")
        host.router = self
        self.hosts.append(host)

    def release(self, host: Host) -> None:
        """Pull the cable of a computer: it has no network until another router adopts it."""
        host.space.ip("link delete eth0")
        self.hosts.remove(host)

    def plug(self, space: Space, interface: str) -> str:
        """Give a namespace an interface in the LAN; return its address. Raise LabError."""
        number = FIRST_HOST + self._plugged
        self._plugged += 1
        ip = f"{self.kind.lan}.{number}"
        self.space.ip(
            f"link add port{number} type veth peer name {interface} netns {space.path}",
            f"link set port{number} master lan0 up",
        )
        space.ip(
            f"address add {ip}/24 dev {interface}",
            f"link set {interface} up",
            f"route add default via {self.lan_ip}",
        )
        return ip

    def conntrack_count(self) -> int:
        """Return how many connections the router remembers now."""
        return int(self.space.read("netfilter/nf_conntrack_count"))

    def conntrack(self) -> list[str]:
        """Return the remembered connections as the kernel prints them; empty where it does not offer the list."""

        def read() -> list[str]:
            try:
                with open("/proc/thread-self/net/nf_conntrack") as file:
                    return file.read().splitlines()
            except FileNotFoundError:
                return []

        return self.space.run(read)

    def reboot(self) -> None:
        """Forget every mapping, as a router does that lost its power for a moment."""
        self.load()
        if self.port_mapper is not None:
            self.port_mapper.restart()
        self.space.run(forget_connections)

    def renumber(self, ip: str) -> None:
        """Take another public address, as many lines do every night; what was mapped is forgotten."""
        if isinstance(self.line, Router):
            raise LabError("Only a router on the wire can be renumbered.")
        self.line.renumber(self.space, self.name, ip)
        self.wan_ip = ip
        self.reboot()

    def counts(self) -> Counts:
        """Return what its link to the wire has carried."""
        line = self.edge.line
        assert isinstance(line, WireLine)  # noqa: S101 - the outermost router is on the wire
        return line.wire.counts(self.edge.name)

    def close(self) -> None:
        """Take it off the wire, with its hosts."""
        if self.port_mapper is not None:
            self.port_mapper.stop()
        for host in self.hosts:
            host.space.close()
        self.space.close()

    def load(self) -> None:
        """Load the rules of its kind, anew."""
        self.space.nft(ruleset(self.kind, self.wan_ip, self._mapping_s, self._rng))
        seconds = str(max(1, round(self._mapping_s)))
        self.space.write("netfilter/nf_conntrack_udp_timeout", seconds)
        self.space.write("netfilter/nf_conntrack_udp_timeout_stream", seconds)
