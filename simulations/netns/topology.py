"""Hosts and routers: namespaces with interfaces, and what can be asked of them."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import TypeVar

from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.kinds import NatKind
from p2pnode.simulations.netns.spaces import Space
from p2pnode.simulations.netns.wire_client import Counts, WireClient

__all__ = ["Host", "Router"]

T = TypeVar("T")

LAN = "192.168.1"  # behind every router the same, as in life: private addresses of two homes collide
FIRST_HOST = 10
MAPPING_S = 30.0  # the shortest common life of an unused mapping; Linux itself has 30 s, and 120 s once answered

# Fixed by the kernel (nfnetlink_conntrack.h)
_NETLINK_NETFILTER = 12
_CT_DELETE = (1 << 8) | 2
_REQUEST_ACK = 1 | 4


class Host:
    """A computer. `public_ip`: what others see, its own or its router's. `ip`: its own."""

    def __init__(self, name: str, space: Space, ip: str, public_ip: str, router: Router | None) -> None:
        self.name = name
        self.space = space
        self.ip = ip
        self.public_ip = public_ip
        self.router = router

    @property
    def kind(self) -> str:
        return self.router.kind.name if self.router is not None else "public"

    @property
    def link(self) -> str:
        """The name of its link to the wire, or of its router's."""
        return self.router.name if self.router is not None else self.name

    def run(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread inside: connections that it makes are this host's."""
        return self.space.run(function)

    def udp_socket(self, port: int = 0, ip: str = "0.0.0.0") -> socket.socket:
        """Return a bound UDP socket of this host."""
        return self.space.udp_socket(ip, port)


class Router:
    """A home router: `wan0` on the wire, `lan0` (a bridge) with its hosts, translation in between."""

    def __init__(
        self,
        name: str,
        kind: NatKind,
        public_ip: str,
        wire: WireClient,
        *,
        delay_s: float,
        loss: float,
        mapping_s: float,
    ) -> None:
        """`mapping_s`: seconds that an unused mapping lives. Raise LabError."""
        self.name = name
        self.kind = kind
        self.public_ip = public_ip
        self.hosts: list[Host] = []
        self._mapping_s = mapping_s
        self._wire = wire
        self.space = Space()
        try:
            wire.connect(self.space, name, [public_ip], delay_s=delay_s, loss=loss)
            self.space.ip("link add lan0 type bridge", f"address add {LAN}.1/24 dev lan0", "link set lan0 up")
            self._load()
            self.space.write("ipv4/ip_forward", "1")
        except OSError as exc:
            self.space.close()
            raise LabError(f"The kernel refuses to make a router: {exc.strerror}.") from exc
        except LabError:
            self.space.close()
            raise

    def add_host(self, name: str) -> Host:
        """Connect another computer to the LAN."""
        number = FIRST_HOST + len(self.hosts)
        ip = f"{LAN}.{number}"
        space = Space()
        try:
            self.space.ip(
                f"link add port{number} type veth peer name eth0 netns {space.path}",
                f"link set port{number} master lan0 up",
            )
            space.ip(f"address add {ip}/24 dev eth0", "link set eth0 up", f"route add default via {LAN}.1")
        except LabError:
            space.close()
            raise
        host = Host(name, space, ip, self.public_ip, self)
        self.hosts.append(host)
        return host

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
        self._load()
        self.space.run(_forget_connections)

    def counts(self) -> Counts:
        """Return what its link to the wire has carried."""
        return self._wire.counts(self.name)

    def close(self) -> None:
        """Take it off the wire, with its hosts."""
        for host in self.hosts:
            host.space.close()
        self.space.close()

    def _load(self) -> None:
        self.space.nft(self.kind.rules(self._mapping_s))
        seconds = str(max(1, round(self._mapping_s)))
        self.space.write("netfilter/nf_conntrack_udp_timeout", seconds)
        self.space.write("netfilter/nf_conntrack_udp_timeout_stream", seconds)


def _forget_connections() -> None:
    """Flush the connection table of the namespace that the thread is in (what `conntrack -F` does)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        netlink.settimeout(10)
        netlink.send(struct.pack("=IHHII", 20, _CT_DELETE, _REQUEST_ACK, 1, 0) + bytes(4))
        answer = netlink.recv(4096)
    number = -struct.unpack_from("=i", answer, 16)[0]
    if number:
        raise LabError(f"The kernel keeps the router's connections: {os.strerror(number)}.")
