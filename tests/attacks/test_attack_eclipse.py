"""Attackers among a network's nodes (security.md E1, E2, K2): keys eclipsed, newcomers misled, lookups hindered."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.dht_network import DhtNode, make_network, stop_all

from p2pnode.core.address import Realm
from p2pnode.core.keys import NodeKey
from p2pnode.core.network_id import network_tag
from p2pnode.dht import SignedRecord
from p2pnode.dht.records import record_key
from p2pnode.simulations.harness.hostile import Behaviour, Gang, block_addresses, grind
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

PUBLIC = [Realm.PUBLIC]
SALT = b"presence/public"


def signed(key: NodeKey, node: DhtNode, seq: int) -> SignedRecord:
    wall = int(node.network.wall())
    return SignedRecord.sign(key, network_tag("public"), SALT, seq, wall + 900, b"version %d" % seq)


async def share_read(readers: list[DhtNode], record: SignedRecord) -> tuple[float, float, float]:
    """Let each read the record; return shares: read in this version, read in an older one, searched the region."""
    good = old = regions = 0
    for reader in readers:
        before = reader.dht.statistics().regions
        result = await reader.dht.get(record.public_key, record.salt, realms=PUBLIC)
        good += result.record == record
        old += result.record is not None and result.record.seq < record.seq
        regions += reader.dht.statistics().regions > before
    return good / len(readers), old / len(readers), regions / len(readers)


def eclipse(blocks: int, per_block: int, behaviour: Behaviour, nodes: int = 50) -> float:
    """Eclipse a key, publish a new version under it, read it everywhere; return the share that did."""
    share = 0.0

    async def main(world: VirtualWorld) -> None:
        nonlocal share
        honest = await make_network(world, nodes)
        await asyncio.sleep(60)
        author, victim = honest[3], NodeKey.generate(random.Random(1).randbytes)
        old = signed(victim, author, 1)
        await author.dht.put(old, realms=PUBLIC)
        gang = Gang(behaviour, old)
        keys = grind(random.Random(1), record_key(victim.public_raw, SALT), blocks * per_block, 1 / nodes)
        await gang.join(world, keys, block_addresses(blocks), [honest[0].contact])
        await asyncio.sleep(30)
        record = signed(victim, author, 2)
        put = await author.dht.put(record, realms=PUBLIC)
        holders = [n for n in honest if n.dht.storage.read(Realm.PUBLIC, record.key, world.loop.time()) == record]
        readers = [n for n in honest if n not in holders and n is not author]
        share, stale, regions = await share_read(readers, record)
        print(
            f"E1: {nodes} nodes, {blocks} x {per_block} ids ({behaviour.value}): {share:.1%} of {len(readers)} readers "
            f"found the record, {stale:.1%} an old one; {len(holders)} honest holders of {put.stored}; "
            f"{regions:.0%} searched the region"
        )
        await gang.stop()
        await stop_all(honest)

    run_virtual(main, seed=1, delay=lambda rng: rng.uniform(0.025, 0.075))
    return share


@pytest.mark.slow
@pytest.mark.parametrize(("blocks", "per_block", "behaviour"), [(1, 20, Behaviour.SILENT), (8, 4, Behaviour.OLD)])
def test_e1_a_key_surrounded_by_ground_ids_is_still_found(blocks: int, per_block: int, behaviour: Behaviour) -> None:
    """Ids nearer to the key than all others, from one or eight /24: 99 % of the readers find the newest record.

    With 20 ids in each of the eight, and 32 blocks: `p2pnode simulate eclipse`, in CI's slow part.
    """
    assert eclipse(blocks, per_block, behaviour) >= 0.99
