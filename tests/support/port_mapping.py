"""A town of public nodes, and homes behind routers that open ports. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from support.virtual_nodes import make_node

from p2pnode import Node
from p2pnode.core.address import Address
from p2pnode.mapped_port import PortMappingStatus
from p2pnode.simulations.routers.kinds import PortProtocol, RouterKind, kind_named
from p2pnode.simulations.routers.openings import Opening
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld
from p2pnode.simulations.virtual.router import VirtualRouter

PUBLIC_NODES = 7


class Town:
    """Public nodes, and homes behind routers that open ports."""

    def __init__(self, world: VirtualWorld) -> None:
        self.world = world
        self.public: list[Node] = []
        self.homes: list[Node] = []

    async def open(self) -> None:
        for number in range(PUBLIC_NODES):
            node = make_node(self.world.host(f"9.{number}.0.1"), number, through=self.public[:1],
                             role="bootstrap" if number < 3 else "peer")  # fmt: skip
            await node.start()
            self.public.append(node)
        await asyncio.sleep(10)

    def router(self, name: str, *protocols: PortProtocol, **changes: Any) -> VirtualRouter:
        return VirtualRouter(self.world, opening_kind(name, *protocols, **changes), f"11.{len(self.homes)}.0.1")

    async def move_in(self, network: VirtualNetwork, **settings: Any) -> Node:
        node = make_node(network, 20 + len(self.homes), through=self.public[:3], **settings)
        self.homes.append(node)
        await node.start()
        return node


def opening_kind(name: str, *protocols: PortProtocol, **changes: Any) -> RouterKind:
    return replace(kind_named(name), ports="random", port_mapping=frozenset(protocols), **changes)


@asynccontextmanager
async def town(world: VirtualWorld) -> AsyncIterator[Town]:
    made = Town(world)
    try:
        await made.open()
        yield made
    finally:
        for node in [*made.homes, *made.public]:
            await node.stop()


def mapping_of(node: Node) -> PortMappingStatus:
    (status,) = node.status().port_mapping
    return status


def openings(router: VirtualRouter) -> list[Opening]:
    return router.model.openings.living(router.world.loop.now())


async def published(asker: Node, node: Node) -> tuple[Address, ...]:
    """The public addresses that somebody else finds under the node's key."""
    found = await asker.find(node.peer_id)
    return tuple(address for address in found.addresses if not address.ip.startswith("192.168."))


async def until(check: Callable[[], bool], timeout: float = 60.0) -> float:
    """Return the virtual seconds it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not check():
        assert loop.time() < began + timeout
        await asyncio.sleep(0.1)
    return loop.time() - began


async def believed(node: Node, timeout: float = 60.0) -> Address:
    await until(lambda: mapping_of(node).believed, timeout)
    return Address.parse(mapping_of(node).external or "")
