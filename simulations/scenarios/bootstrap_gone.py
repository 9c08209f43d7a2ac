"""Every bootstrap node is killed, then rendezvous nodes too: do open sessions, new connects and restarted peers go on?

The same as `p2pnode lab bootstrap-gone`, with one step more: the nodes that forward offers to a peer die as well.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from p2pnode import AccountKey, Node, NodeKey, NodeSettings, PeerSpec
from p2pnode.core.address import Address
from p2pnode.core.errors import P2PError
from p2pnode.simulations.harness.scenario import NetworkSettings, Run, Scenario
from p2pnode.simulations.routers.kinds import kind_named
from p2pnode.simulations.virtual import VirtualNetwork
from p2pnode.simulations.virtual.router import VirtualRouter

__all__ = ["SCENARIO", "Settings"]

PORT = 4747
BOOTSTRAP, PUBLIC = 3, 8
SETTLE_S = 15.0  # the public peers are dialled back and become servers; everybody meets more than bootstrap nodes
REACHED_S = 60.0  # a rendezvous node that died is replaced within 40 s
HOMES = ("port-restricted", "fullcone", "port-restricted", "address-restricted", "port-restricted")


class Settings(NetworkSettings, frozen=True, kw_only=True):
    """Of `bootstrap-gone`: 80 ms round trip without loss, as in the laboratory."""

    delay_min_ms: Annotated[float, Meta(ge=0, le=60_000, description="least one-way delay of a datagram")] = 40.0
    delay_max_ms: Annotated[float, Meta(ge=0, le=60_000, description="greatest one-way delay, uniform between")] = 40.0
    loss: Annotated[float, Meta(ge=0, le=1, description="share of datagrams lost")] = 0.0


class Street:
    """Public nodes, and homes with a node each."""

    def __init__(self, run: Run[Settings], folder: Path) -> None:
        self.run, self.folder = run, folder
        self.servers: list[PeerSpec] = []
        self.nodes: list[tuple[VirtualNetwork, Node]] = []

    async def public(self, number: int) -> Node:
        ip = f"9.{number}.0.1"
        node = await self.start(self.run.world.host(ip), "bootstrap" if number < BOOTSTRAP else "peer", f"p{number}")
        if number < BOOTSTRAP:
            self.servers.append(PeerSpec(f"{node.peer_id}@{ip}:{PORT}", peer=node.peer_id, hosts=((ip, PORT),)))
        return node

    async def home(self, number: int, kind: str) -> Node:
        router = VirtualRouter(self.run.world, kind_named(kind), *(f"20.{number}.0.{n}" for n in range(1, 5)))
        return await self.start(router.host(router.next_inside_ip()), "peer", f"h{number}")

    async def start(self, network: VirtualNetwork, role: str, name: str, node: Node | None = None) -> Node:
        """Start a node on a host; with `node`: the same one again, after it was stopped."""
        made = Node(
            key=node.key if node else NodeKey.generate(self.run.rng.randbytes),
            account=node.account if node else AccountKey.generate(self.run.rng.randbytes),
            settings=NodeSettings(
                listen=(Address("0.0.0.0", PORT),), listen_explicit=True, lan=False, role=role,
                bootstrap=tuple(self.servers), name=name,
            ),
            network=network, state_path=self.folder / f"{name}.json",
        )  # fmt: skip
        await network.run(made.start())
        self.nodes.append((network, made))
        return made

    def kill(self, nodes: list[Node]) -> None:
        """Their machines are gone, without a word."""
        for network, node in self.nodes:
            if node in nodes:
                network.host.up = False

    async def stop(self) -> None:
        await asyncio.gather(*(network.run(node.stop()) for network, node in self.nodes))


async def run(run: Run[Settings]) -> None:
    """An open session, a new connect, a warm start, a connect to who started so, and one past dead rendezvous nodes."""
    with tempfile.TemporaryDirectory() as folder:
        street = Street(run, Path(folder))
        run.progress.phase("starting nodes", BOOTSTRAP + PUBLIC + len(HOMES))
        everybody = []
        for number in range(BOOTSTRAP + PUBLIC):
            everybody.append(await street.public(number))
            run.progress.advance()
        await asyncio.sleep(SETTLE_S)
        homes = []
        for number, kind in enumerate(HOMES):
            homes.append(await street.home(number, kind))
            run.progress.advance()
        a, b, c, d, e = homes
        await asyncio.sleep(SETTLE_S)
        session = await a.connect(b.peer_id)
        street.kill(everybody[:BOOTSTRAP])
        run.figure("ping_s", await session.ping())
        run.require(a.session(b.peer_id) is session, "the open session did not outlive the bootstrap nodes")
        await _connect(run, a, c, "connect_s")
        again = await _restart(run, street, d)
        await _connect(run, a, again, "reached_again_s")
        forwarding = {contact.address for contact in e.reaching.rendezvous}
        street.kill([node for node in everybody if forwarding & set(node.addresses())])
        run.note(f"{len(forwarding)} rendezvous nodes of a peer were killed.")
        await _connect(run, a, e, "past_dead_rendezvous_s")
        await street.stop()


async def _restart(run: Run[Settings], street: Street, node: Node) -> Node:
    """Stop a peer and start it from what it remembers."""
    network = next(network for network, each in street.nodes if each is node)
    street.nodes.remove((network, node))
    await network.run(node.stop())
    began = run.world.loop.time()
    again = await street.start(network, "peer", node.settings.name, node)
    run.figure("rejoin_s", run.world.loop.time() - began)
    run.require(bool(again.dht.realms()), "the restarted peer is alone: it remembered nobody who still lives")
    return again


async def _connect(run: Run[Settings], a: Node, b: Node, figure: str) -> None:
    """Connect until it works; seconds from the first try to an echoed byte."""
    began = run.world.loop.time()
    while True:
        try:
            session = await a.connect(b.peer_id)
            await session.ping()
        except P2PError as error:
            if run.world.loop.time() < began + REACHED_S:
                continue
            run.require(False, f"{figure}: {error.code}: {error.message}")
            return
        run.figure(figure, run.world.loop.time() - began)
        run.note(f"{figure}: path {session.path}.")
        return


SCENARIO = Scenario(
    name="bootstrap-gone",
    summary="All bootstrap nodes die, then a peer's rendezvous nodes: who is still reached, and how soon?",
    run=run,
    settings=Settings,
    nodes=BOOTSTRAP + PUBLIC + len(HOMES),
    nodes_min=BOOTSTRAP + PUBLIC + len(HOMES),
    nodes_max=BOOTSTRAP + PUBLIC + len(HOMES),
)
