"""A small public network with homes behind routers, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.virtual_nat import router_of
from support.virtual_nodes import make_node, spec_of

from p2pnode import Address, Node, Session
from p2pnode.simulations.routers.kinds import RouterKind
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import Home, VirtualRouter

__all__ = ["ONE_WAY_S", "Street", "paths_after_calling_at_once", "reach", "street"]

ONE_WAY_S = 0.04  # 80 ms round trip between any two routers or public hosts


class Street:
    """Seven public nodes, and homes behind routers, one node in each."""

    def __init__(self, world: VirtualWorld, *, relay: bool = True, tls_port: int = 0, **settings: Any) -> None:
        """`relay`: whether the public nodes relay. `tls_port`: where the bootstrap nodes let in TLS links as well.
        `settings`: of all nodes."""
        self.world = world
        self.relay = relay
        self.tls_port = tls_port
        self.settings = settings
        self.public: list[Node] = []
        self.homes: list[Node] = []
        self.routers: list[VirtualRouter] = []

    async def open(self) -> None:
        for number in range(7):
            network = self.world.host(f"9.{number}.0.1")
            role = "bootstrap" if number < 3 else "peer"
            tcp = (Address("0.0.0.0", self.tls_port),) if self.tls_port and role == "bootstrap" else ()
            through = self.public[:1]
            node = make_node(network, number, through=through, role=role, relay=self.relay, tcp=tcp, **self.settings)
            await node.start()
            self.public.append(node)
        await asyncio.sleep(10)  # the four peers are dialled back and become servers

    async def home(self, kind: str) -> Node:
        """A node behind a router of its own, of a common kind at its hardest."""
        number = 20 + len(self.homes)
        router = router_of(self.world, kind, f"11.{number}.0.1")
        self.routers.append(router)
        return await self.move_in(router, "192.168.1.2")

    async def home_of(self, kind: RouterKind | str) -> Node:
        """A node in a home of any kind, behind a carrier's router where the kind has one."""
        number = 20 + len(self.homes)
        home = Home.build(self.world, kind, f"11.{number}.0.1", f"11.{number}.0.2")
        assert home.router is not None
        self.routers.append(home.router)
        return await self.start(home.host())

    async def move_in(self, router: VirtualRouter, ip: str) -> Node:
        return await self.start(router.host(ip))

    async def start(self, network: VirtualNetwork, **settings: Any) -> Node:
        """A node that joins through the bootstrap nodes."""
        specs = tuple(spec_of(node, self.tls_port) for node in self.public[:3])
        settings = {**self.settings, **settings}
        node = make_node(network, 20 + len(self.homes), bootstrap=specs, **settings)
        await node.start()
        self.homes.append(node)
        return node


@asynccontextmanager
async def street(
    world: VirtualWorld, *, relay: bool = True, tls_port: int = 0, **settings: Any
) -> AsyncIterator[Street]:
    """Opened; all is stopped afterwards."""
    made = Street(world, relay=relay, tls_port=tls_port, **settings)
    try:
        await made.open()
        yield made
    finally:
        for node in [*made.homes, *made.public]:
            await node.stop()


async def reach(world: VirtualWorld, caller: Node, callee: Node) -> tuple[Session, float]:
    """Connect by id alone; seconds include the lookup and an echoed byte."""
    started = world.loop.time()
    session = await caller.connect(callee.peer_id)
    await session.ping()
    return session, world.loop.time() - started


def paths_after_calling_at_once(kind: str, seed: int) -> list[str | None]:
    """Two behind routers of one kind call each other at the same moment; return the path at either end 8 s later."""

    async def main(world: VirtualWorld) -> list[str | None]:
        async with street(world) as there:
            a, b = await there.home_of(kind), await there.home_of(kind)
            await asyncio.sleep(30)
            await asyncio.gather(a.connect(b.peer_id), b.connect(a.peer_id))
            await asyncio.sleep(8)
            ends = a.session(b.peer_id), b.session(a.peer_id)
            return [None if end is None else end.path for end in ends]

    return run_virtual(main, delay=lambda rng: rng.uniform(0.02, 0.07), keep_trace=False, seed=seed)
