"""Joining: many at the same moment, and several bootstrap nodes."""

from __future__ import annotations

import asyncio

import pytest
from support.dht_network import DhtNode, make_network, make_node, stop_all

from p2pnode.core.address import Realm
from p2pnode.dht.overlay import Overlay
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


def nearest(nodes: list[DhtNode], target: bytes, count: int) -> set[bytes]:
    goal = int.from_bytes(target, "big")
    ids = (node.key.node_id for node in nodes if node.key.node_id != target)
    return set(sorted(ids, key=lambda node_id: int.from_bytes(node_id, "big") ^ goal)[:count])


@pytest.mark.long
def test_eighty_nodes_that_join_at_once_through_one_find_each_other() -> None:
    """Each knows its own neighbourhood first, and the bootstrap node; a minute later every search ends at the true
    nearest, whoever searches."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 80)
        await asyncio.sleep(60)
        wrong = 0
        for node in nodes[::5]:
            for target in nodes[1::10]:
                if target is node:
                    continue
                found = await node.dht.lookup(target.key.node_id, realm=Realm.PUBLIC)
                wrong += target.key.node_id not in {contact.id for contact in found[:1]}
                others = nearest([each for each in nodes if each is not node], target.key.node_id, 3)
                wrong += not others <= {contact.id for contact in found}
        assert wrong == 0
        await stop_all(nodes)

    run_virtual(main, delay=0.04)


def test_three_bootstrap_nodes_cost_one_search() -> None:
    """Each is asked, one search takes in what all say; the count of those that answered is right."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 40)
        await asyncio.sleep(60)
        newcomer, dead = make_node(world, "5.250.0.1"), make_node(world, "5.250.0.2")
        await dead.open("5.250.0.2")
        await dead.close()
        await newcomer.open("5.250.0.1")
        joined = [newcomer.dht.bootstrap([node.contact]) for node in (*nodes[:3], dead)]
        assert await asyncio.gather(*joined) == [1, 1, 1, 0]
        asked = newcomer.dht.statistics().datagrams_out["signed_request"]
        print(f"{asked} nodes asked for the first time")
        assert asked <= 40
        known = {contact.id for contact in newcomer.dht._members.tables[Overlay.PUBLIC_IPV4]}
        assert nearest(nodes, newcomer.key.node_id, 8) <= known
        await stop_all([*nodes, newcomer])

    run_virtual(main, delay=0.04)
