"""The laboratory: a topology of real hosts and routers with real nodes, gone without a trace when it ends.

    with Lab() as lab:
        boot = lab.bootstrap(3)
        alice = lab.join("alice", lab.home("a", "port-restricted"))
        bob = lab.join("bob", lab.home("b", "symmetric"))
        alice.ready(), bob.ready()
        answer = alice.connect(bob)
        assert lab.wire.answered(alice.host.public_ip, bob.host.public_ip)

Cleaning up does not depend on this process: namespaces end with the last descriptor, every process inside is killed by
the kernel when ours ends (PR_SET_PDEATHSIG), and the files are removed by a janitor that waits for our end.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.gateway import PortMapper
from p2pnode.simulations.netns.kinds import PUBLIC, NatKind, kind_named
from p2pnode.simulations.netns.nodes import LabNode
from p2pnode.simulations.netns.probes import Verdict
from p2pnode.simulations.netns.proof import Prover
from p2pnode.simulations.netns.public_addresses import PublicAddresses
from p2pnode.simulations.netns.spaces import Space, check_possible, find_tool, setns
from p2pnode.simulations.netns.topology import MAPPING_S, Host, Router, WireLine
from p2pnode.simulations.netns.wire_client import Counts, WireClient

__all__ = ["Lab", "LabSettings"]

T = TypeVar("T")

LEAVE_S = 1.5  # nodes may take 2 s to leave; nobody waits for a laboratory that ends


@dataclass(frozen=True)
class LabSettings:
    """How the laboratory's internet behaves."""

    seed: int = 1
    """Which packets are lost. Real processes and kernels stay what they are: runs differ."""
    delay_s: float = 0.020
    """One-way delay of each link, seconds; a packet crosses two."""
    loss: float = 0.0
    """Share of packets that each link loses, 0 to 1."""
    mapping_s: float = MAPPING_S
    """Seconds that an unused mapping lives in a router."""
    pcap: Path | None = None
    """Where all packets between links are written, in tcpdump's format."""

    def __post_init__(self) -> None:
        if not 0 <= self.delay_s <= 10 or not 0 <= self.loss < 1 or not 1 <= self.mapping_s <= 86_400:
            raise ValueError("delay_s is 0 to 10, loss 0 to 1, mapping_s 1 to 86,400")


class Lab:
    """One laboratory. Use it as a context manager."""

    def __init__(self, settings: LabSettings = LabSettings()) -> None:
        """Raise LabError when this machine cannot, with what is missing."""
        check_possible()
        self.settings = settings
        self.hosts: dict[str, Host] = {}
        self.routers: dict[str, Router] = {}
        self.nodes: dict[str, LabNode] = {}
        self.verdicts: dict[str, Verdict] = {}
        self._bootstrap_lines: list[str] = []
        self._addresses = PublicAddresses()
        self._rng = random.Random(settings.seed)
        self._prober: Prover | None = None
        self._open = contextlib.ExitStack()
        try:
            self.directory = Path(tempfile.mkdtemp(prefix="p2pnode-lab-"))
            self._open.callback(_end_janitor, _janitor(self.directory), self.directory)
            self._open.callback(shutil.rmtree, self.directory, ignore_errors=True)
            # A process is killed when the *thread* that started it ends, so one thread starts all and lives as long.
            self._spawner = ThreadPoolExecutor(1, thread_name_prefix="lab-spawner")
            self._open.callback(self._spawner.shutdown)
            self._home_space = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._open.callback(os.close, self._home_space)
            self._open.callback(self._close_spaces)
            self.wire = WireClient(self.spawn, seed=settings.seed, pcap=settings.pcap)
            self._open.callback(self.wire.close)
            self._open.callback(self._end_nodes)
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process and remove every file. Twice is harmless."""
        self._open.close()

    # Topology

    def public(self, name: str) -> Host:
        """Add a host with public addresses of its own, IPv4 and IPv6."""
        self._check_name(name)
        line = self._line(kind_named(PUBLIC))
        space = Space(ipv6=True)
        try:
            line.connect(space, name)
        except LabError:
            space.close()
            raise
        return self._add_host(Host(name, space, line.ip, ipv6=line.addresses[1]))

    def router(self, name: str, kind: str, *, carrier: Router | None = None) -> Router:
        """Add a router. Raise LabError for an unknown kind.

        `carrier`: the router before it; without, one that needs such a router gets its own, `NAME-carrier`.
        """
        self._check_name(name)
        known = kind_named(kind, carriers=True)
        if known.carrier and carrier is None:
            carrier = self.router(f"{name}-carrier", known.carrier)
        made = Router(
            name,
            known,
            self._line(known) if carrier is None else carrier,
            mapping_s=self.settings.mapping_s,
            rng=self._rng,
        )
        self.routers[name] = made
        if known.port_mapping:
            made.port_mapper = PortMapper(made, self.directory, self.spawn, len(self.routers))
        return made

    def behind(self, router: Router, name: str) -> Host:
        """Add a host to a router's LAN."""
        self._check_name(name)
        return self._add_host(router.add_host(name))

    def home(self, name: str, kind: str) -> Host:
        """Add a host behind a router of its own (`NAME-router`), or a public host when the kind is `public`."""
        if kind_named(kind).name == PUBLIC:
            return self.public(name)
        return self.behind(self.router(f"{name}-router", kind), name)

    def move(self, host: Host, router: Router) -> None:
        """Carry a host from its router's LAN to another's, or plug it into the same again: its address is another."""
        if host.router is None:
            raise LabError(f"The laboratory's host {host.name} has no router to leave.")
        host.router.release(host)
        router.adopt(host)

    def renumber(self, router: Router) -> None:
        """Give a router another public address and let it forget what it mapped, as lines do every night."""
        router.renumber(self._addresses.next_ip())

    def set_loss(self, loss: float, name: str | None = None) -> None:
        """Change the share of packets that links lose: of all links, or of one host's or router's."""
        self.wire.set(name, loss=loss)

    def set_delay(self, delay_s: float, name: str | None = None) -> None:
        """Change the one-way delay of links."""
        self.wire.set(name, delay_s=delay_s)

    def set_up(self, up: bool, name: str) -> None:
        """Plug a link in or out."""
        self.wire.set(name, up=up)

    def counts(self, host: Host) -> Counts:
        """Return what the link of a host (or of its router) has carried so far; subtract an earlier answer."""
        return self.wire.counts(host.link)

    def quic_seen(self, one: Host, other: Host) -> bool:
        """Whether the wire carried QUIC between two hosts' public addresses, both ways between the same two ports."""
        return any(self.wire.answered(a, b, "quic") for a in one.public_ips for b in other.public_ips)

    def tcp_bytes(self, one: Host, other: Host) -> int:
        """Return the bytes of TCP that the wire carried between two hosts' public addresses, both ways together, in
        connections that both ends sent data in; 0: there is none."""
        if one.public_ip == other.public_ip:
            return 0
        flows = {
            (flow.source, flow.destination): flow
            for flow in self.wire.flows(one.public_ip, other.public_ip, tcp=True)
            if flow.delivered and flow.kinds["data"]
        }
        return sum(flow.bytes for flow in flows.values() if flow.reverse in flows)

    def tcp_punched(self, one: Host, other: Host) -> bool:
        """Whether both of two hosts opened such a connection, from the same two ports: no router lets in a SYN that
        nobody asked for."""
        flows = self.wire.flows(one.public_ip, other.public_ip, tcp=True)
        opened = {(flow.source, flow.destination) for flow in flows if flow.kinds["syn"] and flow.kinds["data"]}
        return any(flow.reverse in opened for flow in flows if (flow.source, flow.destination) in opened)

    def relay_seen(self, host: Host) -> bool:
        """Whether the wire carried relay frames of a host's and for it, which where UDP is blocked are inside TLS."""
        counts = self.counts(host)
        if not host.udp:
            return self.tcp_seen(host)
        return counts.sent["udp:0b"] > 0 and counts.received["udp:0c"] > 0

    def tcp_seen(self, host: Host) -> bool:
        """Whether the wire carried TCP both ways between a host and anybody."""
        counts = self.counts(host)
        return counts.sent["tcp"] > 0 and counts.received["tcp"] > 0

    # Nodes

    def node(self, name: str, host: Host) -> LabNode:
        """Make an identity on a host, without starting it."""
        if name in self.nodes:
            raise LabError(f"The laboratory has a node {name} already.")

        def spawn(argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
            return self.spawn(argv, start_new_session=True, **options)  # a Ctrl-C on the terminal is ours alone

        made = LabNode(name, host, self.directory / name, spawn)
        self.nodes[name] = made
        return made

    def bootstrap(self, count: int = 3) -> list[LabNode]:
        """Start bootstrap nodes boot1, boot2, ... on public hosts, all at once, each knowing the others."""
        made = [self.node(f"boot{i}", self.public(f"boot{i}")) for i in range(1, count + 1)]
        lines = {node: f"{node.bootstrap_line},tcp:{node.host.public_ip}:443" for node in made}
        for node in made:
            others = (line for other, line in lines.items() if other is not node)
            node.start("bootstrap", "--tcp", "443", *_options("--bootstrap", others))
        self._bootstrap_lines = list(lines.values())
        return made

    def join(self, name: str, host: Host, *arguments: str) -> LabNode:
        """Start a peer that knows the bootstrap nodes."""
        made = self.node(name, host)
        made.start("join", name, "--headless", *_options("--bootstrap", self._bootstrap_lines), *arguments)
        return made

    @property
    def bootstrap_lines(self) -> tuple[str, ...]:
        """What `bootstrap` nodes hand out."""
        return tuple(self._bootstrap_lines)

    def spawn(self, argv: list[str], *, space: Space | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start a process inside a namespace; the kernel kills it when this process ends, in whatever way."""
        # The shell closes a gap: had we died before the kernel was told, nobody would kill the process.
        check = ["/bin/sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]
        command = [find_tool("setpriv"), "--pdeathsig", "KILL", *check, *argv]

        def start() -> subprocess.Popen[bytes]:
            if space is None:
                return subprocess.Popen(command, **options)  # noqa: S603 - our own programs, no shell
            space.enter()
            try:
                return subprocess.Popen(command, **options)  # noqa: S603 - as above
            finally:
                setns(self._home_space)

        return self._spawner.submit(start).result()

    # Proof

    def prove(self, hosts: Iterable[Host] | None = None, *, tries: int = 3) -> dict[str, Verdict]:
        """Probe what stands before each host (default: all), and compare with what it should be.

        `tries`: how often, with longer waits each time, before a wrong verdict counts: a busy machine answers late.
        Raise LabError when a network is not of the kind it is called; nothing may be concluded from it then. Losses are
        switched off meanwhile: a lost answer looks like a filter.
        """
        wanted = list(hosts if hosts is not None else self.hosts.values())
        if self._prober is None:
            ips = self._addresses.next_ip(), self._addresses.next_ip()
            self._prober = Prover(self.wire, ips, self._addresses.next_prefix(), delay_s=self.settings.delay_s)
        with self._without_loss():
            self.verdicts.update(self._prober.prove(wanted, tries=tries))
        return {host.name: self.verdicts[host.name] for host in wanted}

    @contextlib.contextmanager
    def _without_loss(self) -> Iterator[None]:
        if self.settings.loss == 0:
            yield
            return
        self.set_loss(0.0)
        try:
            yield
        finally:
            self.set_loss(self.settings.loss)

    # Inside

    def _add_host(self, host: Host) -> Host:
        self.hosts[host.name] = host
        return host

    def _check_name(self, name: str) -> None:
        if name in self.hosts or name in self.routers:
            raise LabError(f"The laboratory has a host or router {name} already.")

    def _line(self, kind: NatKind) -> WireLine:
        """Make a line to the wire with addresses that nobody has."""
        return WireLine(
            self.wire,
            self._addresses.next_ip(),
            self._addresses.next_prefix() if kind.ipv6 else None,
            delay_s=self.settings.delay_s,
            loss=self.settings.loss,
            up=kind.line,
        )

    def _end_nodes(self) -> None:
        """Let all leave at once, then kill who has not."""
        for node in self.nodes.values():
            node.terminate()
        deadline = time.monotonic() + LEAVE_S
        for node in self.nodes.values():
            node.stop(max(0.0, deadline - time.monotonic()))

    def _close_spaces(self) -> None:
        if self._prober is not None:
            self._prober.close()
        for router in self.routers.values():
            router.close()
        for host in self.hosts.values():
            host.space.close()


def _options(name: str, values: Iterable[str]) -> list[str]:
    return [part for value in values for part in (name, value)]


def _janitor(directory: Path) -> subprocess.Popen[bytes]:
    """Start what removes `directory` when our end of the pipe closes, also by a crash. No Ctrl-C reaches it.

    Twice: a process that is being killed may write meanwhile. A line on the pipe means that nothing is left to do.
    """
    script = 'read -r _ && exit; rm -rf -- "$1"; sleep 0.3; rm -rf -- "$1"'
    return subprocess.Popen(  # noqa: S603 - a constant script
        ["/bin/sh", "-c", script, "p2pnode-lab-janitor", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end_janitor(janitor: subprocess.Popen[bytes], directory: Path) -> None:
    janitor.communicate(b"" if directory.exists() else b"done\n")
