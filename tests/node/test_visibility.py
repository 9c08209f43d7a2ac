"""An invisible node looks as if it had stopped, and still reaches others."""

from __future__ import annotations

import asyncio

import pytest
from support.virtual_nat import router_of
from support.virtual_nodes import make_node, network_of

from p2pnode import Node, P2PError
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

KINDS = ["public", "port-restricted"]


async def _town(world: VirtualWorld, kind: str) -> list[Node]:
    """Five bootstrap nodes, a friend, and somebody behind a router of `kind`."""
    nodes: list[Node] = []
    for number in range(7):
        if number == 6 and kind != "public":
            network = router_of(world, kind, "11.6.0.1").host("192.168.1.2")
        else:
            network = world.host(f"9.{number}.0.1")
        nodes.append(make_node(network, number, through=nodes[:2], role="bootstrap" if number < 5 else "peer"))
        await network.run(nodes[-1].start())
    await asyncio.sleep(20)
    return nodes


@pytest.mark.parametrize("kind", KINDS)
def test_an_invisible_node_cannot_be_seen_or_reached_and_reaches_others(kind: str) -> None:
    """Not by its presence, nor by those who remember it; who is called by it has a session; coming back is seen."""

    async def main(world: VirtualWorld) -> None:
        nodes = await _town(world, kind)
        friend, shy = nodes[5], nodes[6]
        await (await friend.connect(shy.peer_id)).ping()
        assert (await friend.find(shy.peer_id)).online
        known = (await nodes[4].find(shy.peer_id)).addresses
        await network_of(shy).run(shy.set_invisible(True))
        await asyncio.sleep(2)
        assert friend.session(shy.peer_id) is None
        for seconds in (0, 400, 1_000):  # neither a refresh nor an expiry tells
            await asyncio.sleep(seconds)
            for other in (friend, nodes[4]):
                try:
                    assert not (await other.find(shy.peer_id)).online
                except P2PError as exc:
                    assert exc.code == "peer_not_found"
                with pytest.raises(P2PError):
                    await other.connect(shy.peer_id, addresses=known, timeout=5.0)
        await (await shy.connect(friend.peer_id)).ping()
        assert friend.session(shy.peer_id) is not None
        await network_of(shy).run(shy.set_invisible(False))
        await asyncio.sleep(5)
        assert (await nodes[3].find(shy.peer_id)).online
        await (await nodes[3].connect(shy.peer_id)).ping()
        for node in nodes:
            await network_of(node).run(node.stop())

    run_virtual(main)


def test_a_node_that_begins_invisible_is_never_published() -> None:
    """Its account's devices are, so that letters can be left for it."""

    async def main(world: VirtualWorld) -> None:
        nodes = await _town(world, "public")
        network = world.host("9.9.0.1")
        shy = make_node(network, 9, through=nodes[:2])
        await shy.set_invisible(True)
        await network.run(shy.start())
        await asyncio.sleep(30)
        with pytest.raises(P2PError) as caught:
            await nodes[5].find(shy.peer_id)
        assert caught.value.code == "peer_not_found"
        assert shy.publisher is not None
        assert [record.what for record in shy.publisher.published()] == ["devices"]
        for node in (*nodes, shy):
            await network_of(node).run(node.stop())

    run_virtual(main)


def test_blocking_ends_also_the_connection_that_waits_behind_a_session() -> None:
    """Both sides dialled at once, and one connection stayed for a while in case the other fails: it must not take over
    when the session of somebody blocked is closed."""

    async def main(world: VirtualWorld) -> None:
        nodes = await _town(world, "port-restricted")
        friend, shy = nodes[5], nodes[6]
        await (await friend.connect(shy.peer_id)).ping()
        shy.refuse_when(lambda peer: peer == friend.peer_id)
        await asyncio.sleep(2)
        assert (shy.session(friend.peer_id), friend.session(shy.peer_id)) == (None, None)
        for node in nodes:
            await network_of(node).run(node.stop())

    run_virtual(main)
