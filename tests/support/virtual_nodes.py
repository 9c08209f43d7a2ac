"""Real nodes in virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from p2pnode import AccountKey, Address, Node, NodeKey, NodeSettings, PeerSpec
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld


def spec_of(node: Node, tls_port: int = 0) -> PeerSpec:
    """`ID@HOST:PORT` of a running node, with `tcp:HOST:PORT` if it has a port for TLS."""
    address = node.addresses()[0]
    tcp = ((address.ip, tls_port),) if tls_port else ()
    text = f"{node.peer_id}@{address}" + "".join(f",tcp:{ip}:{port}" for ip, port in tcp)
    return PeerSpec(text, peer=node.peer_id, hosts=((address.ip, address.port),), tcp_hosts=tcp)


def network_of(node: Node) -> VirtualNetwork:
    """The network that a node was given: its host and process."""
    assert isinstance(node.network, VirtualNetwork)
    return node.network


def make_node(
    network: VirtualNetwork,
    number: int,
    *,
    through: list[Node] | None = None,
    state_path: Path | None = None,
    **settings: Any,
) -> Node:
    """A node whose keys depend on its number only. LAN discovery is off unless asked for."""
    rng = random.Random(f"node {number}")
    defaults: dict[str, Any] = {
        "lan": False,
        "listen": (Address("0.0.0.0", 4747),),
        "listen_explicit": True,
        "bootstrap": tuple(spec_of(node) for node in through or []),
        "name": f"node{number}",
    }
    return Node(
        key=NodeKey.generate(rng.randbytes),
        account=AccountKey.generate(rng.randbytes),
        settings=NodeSettings(**{**defaults, **settings}),
        network=network,
        state_path=state_path,
    )


@asynccontextmanager
async def lan_of(world: VirtualWorld, count: int, **settings: Any) -> AsyncIterator[list[Node]]:
    """`count` started nodes on one LAN, each joined through the first; all stopped afterwards.

    Each is started inside its process, so it can be suspended and killed.
    """
    nodes: list[Node] = []
    try:
        for number in range(count):
            network = world.host(f"10.0.0.{number + 1}")
            node = make_node(network, number, through=nodes[:1], **settings)
            await network.run(node.start())
            nodes.append(node)
        yield nodes
    finally:
        for node in nodes:
            await network_of(node).run(node.stop())
