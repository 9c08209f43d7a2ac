"""A presence stays findable as long as its author lives, while its holders come and go."""

from __future__ import annotations

import asyncio
import os

import pytest
from support.dht_network import make_network, start_node, stop_all
from support.virtual_nodes import make_node, network_of

from p2pnode import Node, PeerSpec
from p2pnode.core.address import Realm
from p2pnode.presence import presence_salt
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

PRESENCE = presence_salt(Realm.PUBLIC)
SESSION_S = 900.0
SERVERS = 24
MINUTES = 57 if os.environ.get("P2PNODE_DHT") == "full" else 17


@pytest.mark.long
def test_a_presence_is_found_while_its_holders_come_and_go() -> None:
    """Servers stay for 15 minutes on average and leave without a word, 5 % of the datagrams are lost: whoever asks
    finds the presences of three nodes that stay, never expired, in 99.9 % of the reads."""

    async def main(world: VirtualWorld) -> None:
        rng = world.rng
        servers = await make_network(world, SERVERS)
        known, gone = servers[:3], []
        spec = [
            PeerSpec(f"{n.key.peer_id}@{n.address}", peer=n.key.peer_id, hosts=((n.address.ip, n.address.port),))
            for n in known
        ]
        authors: list[Node] = []
        for number in range(3):
            author = make_node(world.host(f"9.{number}.0.1"), number, bootstrap=tuple(spec))
            await network_of(author).run(author.start())
            authors.append(author)
        await asyncio.sleep(20)
        found = reads = came = 0
        end = world.loop.time() + 60 * MINUTES
        while world.loop.time() < end:
            await asyncio.sleep(rng.expovariate(SERVERS / SESSION_S))
            leaving = servers.pop(rng.randrange(3, len(servers)))
            leaving.network.host.up = False
            gone.append(leaving)
            came += 1
            servers.append(await start_node(world, f"6.{came // 200}.{came % 200}.1", bootstrap=known))
            for author in authors:
                reader = rng.choice(servers)
                result = await reader.dht.get(author.key.public_raw, PRESENCE, realms=[Realm.PUBLIC])
                reads += 1
                found += result.record is not None and result.record.expires > reader.network.wall()
        print(f"{came} servers replaced in {MINUTES} minutes: {found} of {reads} reads found a presence that holds")
        assert found >= 0.999 * reads
        for author in authors:
            await network_of(author).run(author.stop())
        await stop_all([*servers, *gone])

    run_virtual(main, seed=3, delay=lambda rng: rng.uniform(0.025, 0.075), loss=0.05)
