"""One server process on loopback: authenticated find_node of ours beside that of plain `kademlia`, both on uvloop.

Both have 200 contacts in their table, the same clients with the same number of requests in flight, and take turns. The
first figure is requests per second; on two cores shared with the clients the honest one is the processor time of the
server process per request. Beside them a server of ours that only sends back what came: what sockets and loop cost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import uvloop
from dht_askers import ASKERS, WINDOW, ask
from kademlia.network import Server
from kademlia.node import Node
from table import Table

from p2pnode.core.address import Address
from p2pnode.core.keys import NodeKey
from p2pnode.core.real_network import RealNetwork
from p2pnode.dht import Dht, DhtSettings
from p2pnode.dht.overlay import Overlay
from p2pnode.nat.mux import UdpMux

RATIO_BAR = 1.5
CONTACTS = 200
SOCKETS = 8
SEED = 1
UNLIMITED = 1e9
SPAWN = get_context("spawn")

Ready = Callable[[Address, bytes], None]


# -- servers ------------------------------------------------------------------------------------------------------


def contacts() -> Iterator[tuple[NodeKey, str, int]]:
    """Return the contacts that both servers know: (key, IP, port)."""
    rng = random.Random(SEED)
    for number in range(CONTACTS):
        yield NodeKey.generate(rng.randbytes), f"127.0.{number}.1", 4747


async def serve_ours(ready: Ready) -> None:
    """The node's way of a datagram: socket, mux, DHT."""
    network = RealNetwork()
    mux = UdpMux(network)
    key = NodeKey.generate(random.Random(SEED + 1).randbytes)
    settings = DhtSettings(
        signature_rate=UNLIMITED, signature_burst=UNLIMITED, prefix_rate=UNLIMITED, prefix_burst=UNLIMITED
    )
    dht = Dht(key=key, network=network, settings=settings, send=mux.send)
    for other, ip, port in contacts():
        dht._members.seen(other.peer_id, Address(ip, port), Overlay.LOOPBACK_IPV4, network.monotonic())
    mux.on("dht", dht.datagram_received)
    await mux.open([Address("127.0.0.1", 0)])
    ready(mux.local[0], key.public_raw)


async def serve_kademlia(ready: Ready) -> None:
    server = Server(node_id=NodeKey.generate(random.Random(SEED + 1).randbytes).node_id)
    await server.listen(0, interface="127.0.0.1")
    for key, ip, port in contacts():
        server.protocol.router.add_contact(Node(key.node_id, ip, port))
    ready(Address(*server.transport.get_extra_info("sockname")), server.node.id)


async def serve_echo(ready: Ready) -> None:
    network = RealNetwork()
    mux = UdpMux(network)
    mux.on("dht", mux.send)
    await mux.open([Address("127.0.0.1", 0)])
    ready(mux.local[0], b"")


SERVERS: dict[str, Callable[[Ready], Awaitable[None]]] = {
    "ours": serve_ours,
    "kademlia": serve_kademlia,
    "echo": serve_echo,
}


def server_process(kind: str, pipe: Connection, profile: str) -> None:
    """Serve; answer each message on the pipe with our processor seconds, until it closes."""

    async def main() -> None:
        over = asyncio.Event()

        def asked() -> None:
            try:
                pipe.recv()
                pipe.send(time.process_time())
            except EOFError:
                over.set()

        await SERVERS[kind](lambda address, name: pipe.send((address, name)))
        asyncio.get_running_loop().add_reader(pipe.fileno(), asked)
        await over.wait()

    if not profile:
        uvloop.run(main())
        return
    import cProfile

    measured = cProfile.Profile()
    measured.enable()
    uvloop.run(main())
    measured.disable()
    measured.dump_stats(profile)


class ServerProcess:
    """A server in a process of its own."""

    def __init__(self, kind: str, profile: str = "") -> None:
        self._pipe, other = SPAWN.Pipe()
        self.process: BaseProcess = SPAWN.Process(target=server_process, args=(kind, other, profile), daemon=True)
        self.process.start()
        other.close()
        self.kind = kind
        self.address: Address
        self.name: bytes
        self.address, self.name = self._pipe.recv()

    def cpu_s(self) -> float:
        self._pipe.send(None)
        return float(self._pipe.recv())

    def stop(self) -> None:
        self._pipe.close()
        self.process.join(10)


# -- the comparison --------------------------------------------------------------------------------------------------


def client_process(kind: str, server: Address, name: bytes, pipe: Connection) -> None:
    """Prepare, say so, and ask for as many seconds as the pipe says, until it closes."""
    rng = random.Random(os.urandom(16))
    askers = [ASKERS[kind](server, name, rng) for _ in range(SOCKETS)]
    pipe.send(None)
    try:
        while True:
            pipe.send(ask(askers, pipe.recv()))
    except EOFError:
        pass


@dataclass
class Figures:
    """One run against one server."""

    per_second: float
    cpu_us: float
    lost: int


class Trial:
    """A server and its clients."""

    def __init__(self, server: ServerProcess, asking: str, clients: int) -> None:
        self._server = server
        self._pipes, self._clients = [], []
        for _ in range(clients):
            pipe, other = SPAWN.Pipe()
            process = SPAWN.Process(
                target=client_process, args=(asking, server.address, server.name, other), daemon=True
            )
            process.start()
            other.close()
            self._pipes.append(pipe)
            self._clients.append(process)
        for pipe in self._pipes:
            pipe.recv()
        self.runs: list[Figures] = []

    def run(self, seconds: float) -> None:
        before = self._server.cpu_s()
        for pipe in self._pipes:
            pipe.send(seconds)
        counts = [pipe.recv() for pipe in self._pipes]
        used = self._server.cpu_s() - before
        answered = sum(count.answered for count in counts)
        elapsed = max(count.seconds for count in counts)
        self.runs.append(Figures(answered / elapsed, used / answered * 1e6, sum(count.lost for count in counts)))

    def stop(self) -> None:
        for pipe, process in zip(self._pipes, self._clients, strict=True):
            pipe.close()
            process.join(10)

    def median(self) -> Figures:
        return Figures(
            statistics.median(run.per_second for run in self.runs),
            statistics.median(run.cpu_us for run in self.runs),
            sum(run.lost for run in self.runs),
        )


def compare(table: Table, rounds: int, seconds: float, clients: int, profile: str) -> None:
    kinds = ("kademlia", "ours", "echo")
    servers = {kind: ServerProcess(kind, profile if kind == "ours" else "") for kind in kinds}
    trials = {kind: Trial(servers[kind], kind, clients) for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            trials[kind].run(seconds)
    for kind in kinds:
        median = trials[kind].median()
        table.add(f"find_node per second, {kind}", median.per_second, "/s", None, f"{median.lost} lost")
        table.add(f"server's processor time per request, {kind}", median.cpu_us, "us", None)
    both = list(zip(trials["kademlia"].runs, trials["ours"].runs, strict=True))
    rate = statistics.median(ours.per_second / theirs.per_second for theirs, ours in both)
    cost = statistics.median(theirs.cpu_us / ours.cpu_us for theirs, ours in both)
    beside = f"{CONTACTS} contacts, {clients * SOCKETS} clients with {WINDOW} in flight, {rounds} x {seconds:g} s each"
    table.add("ours / kademlia, requests per second", rate, "x", RATIO_BAR, beside, least=True)
    table.add("ours / kademlia, requests per processor second", cost, "x", RATIO_BAR, least=True)
    for trial in trials.values():
        trial.stop()
    firsts = Trial(servers["ours"], "first", 1)
    firsts.run(60.0)
    table.add("first exchanges (signed) per second", firsts.median().per_second, "/s", None)
    table.add("server's processor time per first exchange", firsts.median().cpu_us, "us", None)
    firsts.stop()
    for server in servers.values():
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--clients", type=int, default=1, help="client processes (1: the other core of two)")
    parser.add_argument("--profile", default="", help="write a cProfile of our server here (slows it down)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    table = Table()
    compare(table, *((3, 1.0) if options.short else (7, 3.0)), options.clients, options.profile)
    sys.exit(table.finish(options.json))


if __name__ == "__main__":
    main()
