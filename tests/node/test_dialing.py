"""Dialling begins with the first word of the lookup and follows its better ones."""

from __future__ import annotations

import asyncio
from typing import Any

from support.virtual_nodes import lan_of, make_node

from p2pnode import Address, Node, SessionClosed
from p2pnode.core.address import Realm
from p2pnode.dht import SignedRecord, record_key
from p2pnode.nat import Connection
from p2pnode.presence import Presence, presence_salt
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

ONE_WAY_S = 0.05
PRESENCE = presence_salt(Realm.PRIVATE)


def remember_only(node: Node, old: SignedRecord) -> None:
    """Have a node hold an older record than the one that it was given."""
    now, wall = node.network.monotonic(), node.network.wall()
    node.dht.storage._remove((Realm.PRIVATE, old.key))
    assert node.dht.storage.store(old, Realm.PRIVATE, b"abc", now, wall) is None


def old_presence(bob: Node, node: Node, *addresses: Address) -> SignedRecord:
    """What Bob published a minute before what `node` holds of him."""
    key = record_key(bob.key.public_raw, PRESENCE)
    held = node.dht.storage.read(Realm.PRIVATE, key, node.network.monotonic())
    assert held is not None
    value = Presence(addresses, bob.key.x25519_public, bob.user_id, "bob").encode()
    return SignedRecord.sign(bob.key, bob.tag, PRESENCE, held.seq - 60_000, held.expires - 60, value)


def test_v3_an_old_presence_heard_first_does_not_keep_a_caller_from_the_new_address() -> None:
    """Alice herself holds an old presence with eight dead addresses: she dials five of them at once, and Bob's new one
    a round trip later; the connect takes one round trip longer than with nothing wrong, not a time-out."""

    async def main(world: VirtualWorld) -> float:
        async with lan_of(world, 8) as nodes:
            alice, bob = nodes[3], nodes[5]
            dead = [Address(f"10.0.9.{i}", 4747) for i in range(8)]
            remember_only(alice, old_presence(bob, alice, *dead))
            started = world.loop.time()
            session = await alice.connect(bob.peer_id)
            took = world.loop.time() - started
            assert session.remote == bob.addresses()[0]
            assert session.trace is not None
            steps = [(step.step, step.at_s) for step in session.trace.steps if "started" in step.result]
            dialled = [(step.removeprefix("dial "), at) for step, at in steps if step.startswith("dial")]
            assert [at for _, at in dialled[:5]] == [0.0] * 5
            assert {address for address, _ in dialled[:5]} <= {str(address) for address in dead}
            assert dialled[5][0] == str(bob.addresses()[0])
            return took

    took = run_virtual(main, delay=ONE_WAY_S)
    print(f"connected after {took:.2f} s")
    assert took <= 4 * 2 * ONE_WAY_S + 0.05


def test_dialling_begins_before_the_lookup_has_ended() -> None:
    """With 40 nodes the first holder's answer starts the dial; the lookup goes on behind it."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 40) as nodes:
            bob = nodes[5]
            key = record_key(bob.key.public_raw, PRESENCE)
            stranger = next(n for n in nodes if n.dht.storage.get((Realm.PRIVATE, key)) is None)
            session = await stranger.connect(bob.peer_id)
            assert session.trace is not None
            steps = [step.step for step in session.trace.steps]
            ended = next(
                (i for i, step in enumerate(session.trace.steps) if "ended" in step.result), len(session.trace.steps)
            )
            assert steps.index(f"dial {bob.addresses()[0]}") < ended

    run_virtual(main, delay=lambda rng: rng.uniform(0.025, 0.075))


def test_two_dials_that_succeed_at_once_leave_one_connection() -> None:
    """Two addresses of one host answer in the same moment: the dial that is not needed is closed on both sides. Before,
    it stayed open, the other side made it the session, and closed the one that we used as a duplicate."""

    async def main(world: VirtualWorld) -> None:
        host = world.host("10.0.0.1")
        alice, bob = make_node(host, 1), make_node(host.host.network(), 2, listen=(Address("0.0.0.0", 4748),))
        await alice.start()
        await bob.start()
        addresses = [Address(ip, 4748) for ip in ("127.0.0.1", "10.0.0.1")]
        both, connect = asyncio.Barrier(2), alice.endpoint.connect

        async def busy(*arguments: Any, **options: Any) -> Connection:
            """As on a computer that has much to do: both are done when somebody looks."""
            connection = await connect(*arguments, **options)
            await both.wait()
            return connection

        alice.endpoint.connect = busy  # type: ignore[method-assign]
        session = await alice.connect(bob.peer_id, addresses=addresses)
        closed: list[str] = []
        alice.subscribe(lambda event: closed.append(event.reason) if isinstance(event, SessionClosed) else None)
        await asyncio.sleep(10)
        assert closed == []
        assert not session.closed
        assert [len(node.endpoint._connections) for node in (alice, bob)] == [1, 1]
        await session.ping()
        for node in (alice, bob):
            await node.stop()

    run_virtual(main, delay=0.01)
