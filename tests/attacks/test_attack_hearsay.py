"""Liars among those who answer a join (security.md E1, E2, K1): what they name is heard, and gains them nothing."""

from __future__ import annotations

import asyncio
import random
from itertools import count, islice

import pytest
from support.dht_network import DhtNode, make_network, stop_all

from p2pnode.core.address import Address, Realm
from p2pnode.core.ids import NodeId
from p2pnode.core.keys import NodeKey
from p2pnode.core.network_id import network_tag
from p2pnode.dht import DhtSettings, SignedRecord
from p2pnode.dht.contact import Contact
from p2pnode.dht.hearsay import NAMES_PER_TELLER, Hearsay
from p2pnode.dht.lookup import Lookup
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.records import record_key
from p2pnode.simulations.harness.hostile import Behaviour, Gang, block_addresses, grind
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

SALT = b"presence/public"
KEY = NodeId(bytes(20))
NEWCOMERS, BLOCKS, PER_BLOCK = 5, 8, 4


def somebody(rng: random.Random, number: int, head: bytes = b"") -> Contact:
    address = Address(f"5.{number // 250}.{number % 250}.1", 4747)
    return Contact(NodeId(head + rng.randbytes(20 - len(head))), address, Overlay.PUBLIC_IPV4)


def far_from(key: NodeId, world: VirtualWorld, ip: str) -> DhtNode:
    """Return a node of the other half: ids near the key are hearsay to it, and no neighbours."""
    rng = random.Random(ip)
    keys = (NodeKey.generate(rng.randbytes) for _ in count())
    own = next(own for own in keys if (own.node_id[0] ^ key[0]) & 0x80)
    return DhtNode(world.host(ip), own, DhtSettings(serve=frozenset(Realm)))


def test_e1_what_one_liar_named_leads_one_path_astray() -> None:
    """It named ids around the key while we joined; its own answer and theirs name more: the other path asks none."""
    rng = random.Random(1)
    own = NodeId(b"\xff" * 20)
    liar, heard = somebody(rng, 1), Hearsay(own, diverse=True)
    gang = [somebody(rng, 100 + n, bytes(4)) for n in range(60)]
    ids = {each.id for each in gang}
    honest = [somebody(rng, 1_000 + n, bytes([1 + n])) for n in range(100)]
    for contact in honest[:10]:
        heard.hear(contact.id, [somebody(rng, 2_000 + rng.randrange(10_000)) for _ in range(4)], [], 0.0)
    heard.hear(liar.id, gang[:24], [], 0.0)
    told = heard.closest(KEY, 20, 0.0)
    assert sum(each.contact.id in ids for each in told) == NAMES_PER_TELLER
    lookup = Lookup(KEY, own_id=own, ksize=20, alpha=6, max_queries=160, diverse=True, paths=2)
    lookup.add([liar, *honest[:19]])
    for contact, teller in told:
        lookup.hear(contact, teller)
    while not lookup.finished:
        for contact in lookup.next_queries():
            lookup.answered(contact, gang if contact is liar or contact.id in ids else honest[:20])
    asked = {lookup._by_id[contact.id].asked_by for contact in gang if contact.id in lookup._by_id}
    holders = [contact for contact in lookup.closest() if contact.id in ids]
    print(f"E1: of 60 ids of a liar {len(holders)} answered, all asked by path {asked}")
    assert len(asked) == 1
    assert not lookup.on_all_paths(holders)
    assert sum(contact in honest for contact in lookup.closest()) + len(holders) == 20


@pytest.mark.slow
def test_e1_a_liar_among_those_who_answer_a_join_hides_nothing() -> None:
    """One of two bootstrap nodes lies: it names ids ground around a key, in eight blocks, who return an old record, and
    whom no honest node knows. The first read of each newcomer finds the newest, as it does without the liar."""
    share = {}

    async def main(world: VirtualWorld) -> None:
        honest = await make_network(world, 30)
        await asyncio.sleep(30)
        victim, author = NodeKey.generate(random.Random(1).randbytes), honest[3]

        def signed(seq: int) -> SignedRecord:
            expires = int(author.network.wall()) + 900
            return SignedRecord.sign(victim, network_tag("public"), SALT, seq, expires, b"version %d" % seq)

        old, newest = signed(1), signed(2)
        await author.dht.put(newest, realms=[Realm.PUBLIC])
        gang, rng = Gang(Behaviour.OLD, old), random.Random(1)
        addresses = islice(block_addresses(BLOCKS), BLOCKS * PER_BLOCK)
        await gang.join(
            world, grind(rng, record_key(victim.public_raw, SALT), BLOCKS * PER_BLOCK, 1 / 30), addresses, []
        )
        await gang.join(world, [NodeKey.generate(rng.randbytes)], [Address("46.0.0.1", 4747)], [honest[0].contact])
        for lies in (False, True):
            good = named = 0
            for n in range(NEWCOMERS):
                newcomer = far_from(newest.key, world, f"6.{int(lies)}.{n}.1")
                await newcomer.open(f"6.{int(lies)}.{n}.1")
                second = gang.members[-1] if lies else honest[5]
                assert await newcomer.dht.bootstrap([honest[0].contact, second.contact]) == 2
                told = newcomer.dht._members.hearsay[Overlay.PUBLIC_IPV4].closest(newest.key, 200, world.loop.time())
                named += sum(each.contact.id in {node.key.node_id for node in gang.members} for each in told)
                result = await newcomer.dht.get(victim.public_raw, SALT, realms=[Realm.PUBLIC])
                good += result.record == newest
                await newcomer.close()
            share[lies] = good / NEWCOMERS
            print(
                f"E1: {'one of two bootstrap nodes lies' if lies else 'nobody lies'}: {share[lies]:.0%} of {NEWCOMERS} "
                f"first reads found the newest; {named} hostile names heard"
            )
        await gang.stop()
        await stop_all(honest)

    run_virtual(main, seed=1, delay=lambda rng: rng.uniform(0.025, 0.075))
    assert share == {False: 1.0, True: 1.0}
