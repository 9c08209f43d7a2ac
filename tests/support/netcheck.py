"""A node in a home of any kind, and public nodes that help it find out which."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from support.virtual_nodes import make_node

from p2pnode import Address, Node, PeerSpec
from p2pnode.simulations.routers.kinds import RouterKind
from p2pnode.simulations.virtual import VirtualWorld
from p2pnode.simulations.virtual.router import Home

__all__ = ["Checked", "checked"]

LISTEN = (Address("0.0.0.0", 4747), Address("::", 4747))


@dataclass
class Checked:
    """`home`: whose network is checked."""

    world: VirtualWorld
    helpers: list[Node]
    home: Node
    place: Home


def spec(node: Node) -> PeerSpec:
    """Where to join through, in both families."""
    hosts = tuple((address.ip, address.port) for address in node.addresses())
    return PeerSpec(str(node.peer_id), peer=node.peer_id, hosts=hosts)


@asynccontextmanager
async def checked(
    world: VirtualWorld, kind: RouterKind | str, *, helpers: int = 5, settle_s: float = 3.0
) -> AsyncIterator[Checked]:
    """Public nodes of both families, and a node in a home of a kind that has joined through them."""
    nodes: list[Node] = []
    try:
        for number in range(helpers):
            network = world.host(f"9.{number}.0.1", f"2a00:9:{number}::1")
            through = tuple(spec(node) for node in nodes[:1])
            nodes.append(make_node(network, number, bootstrap=through, role="bootstrap", listen=LISTEN))
            await nodes[-1].start()
        place = Home.build(world, kind, "11.1.0.1", "11.1.0.2", prefix6="2a00:11:1::/64")
        home = make_node(place.host(), 100, bootstrap=tuple(spec(node) for node in nodes[:3]), listen=LISTEN)
        nodes.append(home)
        await home.start()
        await asyncio.sleep(settle_s)
        yield Checked(world, nodes[:-1], home, place)
    finally:
        for node in reversed(nodes):
            await node.stop()
