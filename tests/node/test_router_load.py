"""What connecting costs the router in front of us: entries in its connection table, in virtual time."""

import asyncio

import pytest
from support.street import ONE_WAY_S, reach, street
from support.virtual_nodes import make_node

from p2pnode.simulations.virtual import VirtualWorld, run_virtual

ASKED = 8  # a read ends with five holders; six questions are under way at a time
RENDEZVOUS = 3


@pytest.mark.long
def test_a_connect_leaves_few_entries_in_the_routers_table() -> None:
    """Its lookup's questions, its peer's rendezvous nodes and the peer: no socket and no candidate more. A minute later
    only the peers are left of them. `benchmarks/router_load.py` does it with 50 peers."""

    async def main(world: VirtualWorld) -> tuple[list[int], int, int]:
        async with street(world) as there:
            for number in range(9):
                node = make_node(world.host(f"9.{50 + number}.0.1"), 60 + number, through=there.public[:1])
                await node.start()
                there.public.append(node)
            peers = [await there.home_of("port-restricted") for _ in range(3)]
            host = await there.home_of("port-restricted")
            router = there.routers[-1]
            await asyncio.sleep(40)
            before, costs = router.sessions, list[int]()
            for peer in peers:
                held = router.sessions
                session, _ = await reach(world, host, peer)
                assert session.path == "punched"
                costs.append(router.sessions - held)
                await asyncio.sleep(40)
            await asyncio.sleep(60)
            return costs, before, router.sessions

    costs, before, after = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"entries: {before} before, {costs} more by each connect, {after} a minute after")
    assert max(costs) <= ASKED + RENDEZVOUS + 1
    assert after <= before + len(costs) + ASKED  # the node may be asking something of its own
