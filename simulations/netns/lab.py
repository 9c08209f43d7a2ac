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
from p2pnode.simulations.netns.kinds import PUBLIC, kind_named
from p2pnode.simulations.netns.nodes import LabNode
from p2pnode.simulations.netns.probing import ProbeServer, Verdict, probe
from p2pnode.simulations.netns.spaces import Space, check_possible, find_tool, setns
from p2pnode.simulations.netns.topology import MAPPING_S, Host, Router
from p2pnode.simulations.netns.wire_client import Counts, WireClient

__all__ = ["Lab", "LabSettings"]

T = TypeVar("T")

# Documentation networks (RFC 5737), used in turn so that addresses have different prefixes as they have in life
NETWORKS = ("203.0.113", "198.51.100", "192.0.2")
MAX_LINKS = 3 * 254
LEAVE_S = 1.5  # nodes may take 2 s to leave; nobody waits for a laboratory that ends
_PROBES = 8  # probes at a time: they wait most of the time


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
        self._links = 0
        self._prober: ProbeServer | None = None
        self._probe_hosts: list[Space] = []
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
        """Add a host with a public address of its own."""
        ip = self._next_ip(name)
        space = Space()
        try:
            self.wire.connect(space, name, [ip], delay_s=self.settings.delay_s, loss=self.settings.loss)
        except LabError:
            space.close()
            raise
        return self._add_host(Host(name, space, ip, ip, None))

    def router(self, name: str, kind: str) -> Router:
        """Add a router. Raise LabError for an unknown kind."""
        settings = self.settings
        made = Router(
            name,
            kind_named(kind),
            self._next_ip(name),
            self.wire,
            delay_s=settings.delay_s,
            loss=settings.loss,
            mapping_s=settings.mapping_s,
        )
        self.routers[name] = made
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
        lines = [node.bootstrap_line for node in made]
        for node in made:
            node.start("bootstrap", *_options("--bootstrap", (line for line in lines if line != node.bootstrap_line)))
        self._bootstrap_lines = lines
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

    def prove(self, hosts: Iterable[Host] | None = None) -> dict[str, Verdict]:
        """Probe what stands before each host (default: all), and compare with what it should be.

        Raise LabError when a router is not of the kind it is called; nothing may be concluded from it then. Losses are
        switched off meanwhile: a lost answer looks like a filter.
        """
        wanted = list(hosts if hosts is not None else self.hosts.values())
        with self._without_loss(), ThreadPoolExecutor(_PROBES) as pool:
            server = self._probe_server()
            for host, verdict in zip(wanted, pool.map(lambda host: self._probe(host, server), wanted), strict=True):
                _check(host, verdict)
                self.verdicts[host.name] = verdict
        return {host.name: self.verdicts[host.name] for host in wanted}

    def _probe(self, host: Host, server: ProbeServer) -> Verdict:
        round_trip_s = 4 * self.settings.delay_s
        return probe(host.udp_socket, host.ip, server.addresses, wait_s=3 * (round_trip_s + 0.2))

    def _probe_server(self) -> ProbeServer:
        if self._prober is None:
            ips = (self._next_ip("probe"), self._next_ip("probe"))
            space = Space()
            self._probe_hosts.append(space)
            self.wire.connect(space, "probe", ips, delay_s=self.settings.delay_s, loss=0.0)
            self._prober = ProbeServer(space.udp_socket, ips)
        return self._prober

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

    def _next_ip(self, name: str) -> str:
        self._check_name(name)
        if self._links >= MAX_LINKS:
            raise LabError(f"The laboratory has room for {MAX_LINKS} public addresses.")
        number, network = divmod(self._links, len(NETWORKS))
        self._links += 1
        return f"{NETWORKS[network]}.{number + 1}"

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
        for space in (*(host.space for host in self.hosts.values()), *self._probe_hosts):
            space.close()


def _options(name: str, values: Iterable[str]) -> list[str]:
    return [part for value in values for part in (name, value)]


def _check(host: Host, verdict: Verdict) -> None:
    kind = kind_named(host.kind)
    found = (verdict.nat, verdict.mapping, verdict.filtering)
    if found != (kind.is_router, kind.mapping, kind.filtering) or verdict.public.ip != host.public_ip:
        raise LabError(
            f"The router of {host.name} is not {kind.name}: mapping {verdict.mapping}, filtering {verdict.filtering},"
            f" seen as {verdict.public}.",
            verdict=verdict,
        )


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
