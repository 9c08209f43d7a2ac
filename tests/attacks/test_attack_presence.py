"""V3: a node replays an old presence and an old device record. Whole nodes, in virtual time.

Bob's only other holder is hostile and answers with what it kept; a reader that has seen the newer record is not fooled,
while running and after a restart; a reader without memory shows that the attack itself works.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.virtual_nodes import make_node

from p2pnode import Address, Node, NodeKey, PeerNotFoundError
from p2pnode.core.address import Realm
from p2pnode.core.devices import encode_devices
from p2pnode.core.ids import NodeId
from p2pnode.dht import SignedRecord, record_key
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

LOST = NodeKey(b"l" * 32, bytes(32)).peer_id  # a revoked device
PRESENCE = b"presence/private"


@asynccontextmanager
async def running(node: Node) -> AsyncIterator[Node]:
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


@asynccontextmanager
async def three(world: VirtualWorld, home: Path) -> AsyncIterator[tuple[Node, Node, Node]]:
    """Mallory (whom all join through), Bob, and Alice who remembers on disk."""
    mallory = make_node(world.host("10.0.0.66"), 66)
    async with running(mallory):
        bob = make_node(world.host("10.0.0.2"), 2, through=[mallory])
        async with running(bob):
            alice = make_node(world.host("10.0.0.1"), 1, through=[mallory], state_path=home / "alice")
            async with running(alice):
                yield mallory, bob, alice


def kept(node: Node, public_key: bytes, salt: bytes) -> SignedRecord:
    """What a node holds for others."""
    record = node.dht.storage.read(Realm.PRIVATE, record_key(public_key, salt), node.network.monotonic())
    assert record is not None
    return record


def answer_with(mallory: Node, old: SignedRecord) -> list[NodeId]:
    """Make a node answer questions for this key with the old record for ever; return the list of times it did."""
    honest = mallory.dht.storage.read
    lies: list[NodeId] = []

    def read(realm: Realm, key: bytes, now: float) -> SignedRecord | None:
        if key == old.key:
            lies.append(old.key)
            return old
        return honest(realm, key, now)

    mallory.dht.storage.read = read  # type: ignore[method-assign]  # it is hers to change
    return lies


async def restarted(node: Node) -> Node:
    """The same node again, on the same host, from what it has on disk: its DHT storage is empty."""
    await node.stop()
    again = Node(
        key=node.key, account=node.account, settings=node.settings, network=node.network, state_path=node.state._path
    )
    await again.start()
    return again


def test_attack_v3_old_presence_is_not_believed_also_after_a_restart(tmp_path: Path) -> None:
    """Bob said goodbye; the replayed older presence fools nobody who knows, and his next one is believed at once."""

    async def main(world: VirtualWorld) -> None:
        async with three(world, tmp_path) as (mallory, bob, alice):
            assert (await alice.find(bob.peer_id)).online
            old = kept(mallory, bob.peer_id.raw, PRESENCE)
            await bob.stop()
            assert not (await alice.find(bob.peer_id)).online
            lies = answer_with(mallory, old)

            result = await mallory.dht.put(old, realms=[Realm.PRIVATE])
            assert result.refused == {"lower_seq": 1}  # Alice holds the goodbye herself
            assert not (await alice.find(bob.peer_id)).online

            again = await restarted(alice)
            before = len(lies)
            with pytest.raises(PeerNotFoundError):
                await again.find(bob.peer_id)
            assert len(lies) > before

            async with running(make_node(world.host("10.0.0.9"), 9, through=[mallory])) as newcomer:
                fooled = await newcomer.find(bob.peer_id)
                assert fooled.addresses == (Address("10.0.0.2", 4747),)

            async with running(make_node(world.host("10.0.0.22"), 2, through=[mallory])):
                found = await again.find(bob.peer_id)
                assert found.addresses == (Address("10.0.0.22", 4747),)
            await again.stop()

    run_virtual(main)


def test_attack_v3_revoked_device_does_not_come_back_also_after_a_restart(tmp_path: Path) -> None:
    """Bob's account listed a device that was lost since; the replayed list fools nobody who knows the newer one."""

    async def main(world: VirtualWorld) -> None:
        async with three(world, tmp_path) as (mallory, bob, alice):
            wall = world.host().wall()
            old = SignedRecord.sign(
                bob.account,
                bob.tag,
                salt=b"devices",
                seq=int((wall - 3600) * 1000),
                expires=int(wall) + 3600,
                value=encode_devices(sorted([bob.peer_id, LOST])),
            )
            assert await alice.find_user(bob.user_id) == (bob.peer_id,)
            bob.network.host.up = False
            lies = answer_with(mallory, old)
            with pytest.raises(PeerNotFoundError, match="outdated"):
                await alice.find_user(bob.user_id)

            again = await restarted(alice)
            before = len(lies)
            with pytest.raises(PeerNotFoundError, match="outdated"):
                await again.find_user(bob.user_id)
            assert len(lies) > before

            async with running(make_node(world.host("10.0.0.9"), 9, through=[mallory])) as newcomer:
                assert set(await newcomer.find_user(bob.user_id)) == {bob.peer_id, LOST}

            bob.network.host.up = True
            await again.stop()

    run_virtual(main)
