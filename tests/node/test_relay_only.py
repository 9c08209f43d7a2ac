"""A node that tells no peer an address of its own: found by id, reached through relays, either side calling."""

import asyncio
from collections.abc import Sequence

import pytest
from support.offer_vectors import make_offer
from support.street import ONE_WAY_S, Street, reach, street
from support.virtual_nat import router_of
from support.virtual_nodes import make_node, network_of

from p2pnode import Node, NoPathError, P2PTimeoutError, PeerNotFoundError
from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId
from p2pnode.dht import KnownContact
from p2pnode.meetings import OwnSide
from p2pnode.offer import RelayHint
from p2pnode.reachability import NatKind
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


async def hidden_home(there: Street, kind: str | None, know: Sequence[Node] = ()) -> Node:
    """A relay-only node behind a router, or on a public host (None). `know`: see `who_knows`."""
    number = 20 + len(there.homes)
    if kind is None:
        network = there.world.host(f"12.{number}.0.1")
    else:
        network = router_of(there.world, kind, f"12.{number}.0.1").host("192.168.1.2")
    node = make_node(network, number, through=there.public[:3], relay_only=True)
    if know:
        who_knows(node, know)
    await node.start()
    there.homes.append(node)
    return node


@pytest.mark.parametrize("kind", ["port-restricted", None], ids=["home", "public"])
def test_a_hidden_node_is_reached_through_relays_only(kind: str | None) -> None:
    """Both call directions: path `relay`, within 1.5 s, and not one datagram between the two."""

    async def main(world: VirtualWorld) -> list[float]:
        async with street(world) as there:
            hidden, open_home = await hidden_home(there, kind), await there.home("fullcone")
            await asyncio.sleep(5)
            found = await open_home.find(hidden.peer_id)
            assert found.online
            assert found.addresses == ()
            between: list[str] = []
            carried = {"12.20.0.1": 0, "11.21.0.1": 0}
            send = world.carry

            def watch(*arguments: object, **options: object) -> object:
                text = repr([each for each in arguments if isinstance(each, Address)])
                there_are = [ip for ip in carried if f"'{ip}'" in text]
                for ip in there_are:
                    carried[ip] += 1
                if len(there_are) == 2:
                    between.append(text)
                return send(*arguments, **options)  # type: ignore[arg-type]

            world.carry = watch  # type: ignore[method-assign, assignment]
            figures = []
            for caller, callee in ((open_home, hidden), (hidden, open_home)):
                session, seconds = await reach(world, caller, callee)
                assert session.path == "relay", session.trace.steps
                assert "--relay-only" in caller.reaching.explain(session).text
                figures.append(seconds)
                await asyncio.sleep(20)
                assert session.path == "relay"
                assert await session.ping() > 0
                session.close()
                await asyncio.sleep(1)
            assert between == []
            assert min(carried.values()) > 100
            return figures

    figures = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"called {figures[0]:.2f} s, calling {figures[1]:.2f} s")
    assert max(figures) <= 1.5


def test_who_knows_the_address_learns_nothing_there() -> None:
    """A direct handshake with the node's key at its address gets no answer; it is in nobody's table."""

    async def main(world: VirtualWorld) -> None:
        async with street(world) as there:
            hidden, other = await hidden_home(there, None), there.public[4]
            await asyncio.sleep(40)
            at = Address(network_of(hidden).interfaces()[-1].addresses[0], 4747)
            with pytest.raises((NoPathError, P2PTimeoutError, PeerNotFoundError)):
                await other.endpoint.connect(hidden.peer_id, at, timeout=3)
            for node in there.public:
                assert all(contact.address.ip != at.ip for contact in node.dht.known_contacts())
            assert hidden.addresses() == ()
            assert hidden.status().role == "client"

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_two_hidden_nodes_meet_at_a_relay_that_both_know() -> None:
    """A relay that only the other side names is not asked: it may be the peer's own, and see the address."""

    async def main(world: VirtualWorld) -> None:
        async with street(world) as there:
            one, other = await hidden_home(there, "port-restricted"), await hidden_home(there, "symmetric")
            await asyncio.sleep(5)
            session, _ = await reach(world, one, other)
            assert session.path == "relay"
            stranger = RelayHint(KnownContact(None, NodeId(bytes(20)), Address("13.0.0.1", 4747)), 0.001)
            own = one.reaching.pathways.dialing
            assert own.choose(other.peer_id, OwnSide((), (), NatKind.UNKNOWN), make_offer(relays=(stranger,))) == ()

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def who_knows(node: Node, some: Sequence[Node]) -> Node:
    """As in a large network: of its public nodes it has met some only. Searches reach all."""
    ids = {each.peer_id.node_id for each in some}
    candidates = node.dht.rendezvous_candidates
    node.dht.rendezvous_candidates = lambda *a, **b: [c for c in candidates(*a, **b) if c.node_id in ids]  # type: ignore[method-assign]
    node.reaching.pathways.dialing._contacts = lambda: [c for c in node.dht.known_contacts() if c.node_id in ids]
    return node


@pytest.mark.parametrize("kinds", [("port-restricted", "symmetric"), ("symmetric", None)], ids=["homes", "public"])
def test_two_hidden_nodes_who_know_no_relay_in_common_find_one(kinds: tuple[str | None, str | None]) -> None:
    """Both ask the network for the nodes nearest to a key made of their ids, and take these: either side calling."""

    async def main(world: VirtualWorld) -> list[float]:
        async with street(world) as there:
            one = await hidden_home(there, kinds[0], know=there.public[:3])
            other = await hidden_home(there, kinds[1], know=there.public[3:])
            await asyncio.sleep(5)
            assert not set(one.reaching.rendezvous) & set(other.reaching.rendezvous)
            figures = []
            for caller, callee in ((one, other), (other, one)):
                session, seconds = await reach(world, caller, callee)
                assert session.path == "relay", session.trace.steps
                figures.append(seconds)
                await asyncio.sleep(20)
                assert len(session.connection.spare_paths) == 1
                session.close()
                await asyncio.sleep(1)
            return figures

    figures = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print("seconds: " + " ".join(f"{each:.2f}" for each in figures))
    assert max(figures) <= 1.5


def test_a_public_node_is_called_through_our_rendezvous_nodes() -> None:
    """It keeps none itself; dialling it would show it our address."""

    async def main(world: VirtualWorld) -> None:
        async with street(world) as there:
            hidden = await hidden_home(there, "port-restricted")
            await asyncio.sleep(5)
            session, _ = await reach(world, hidden, there.public[4])
            assert session.path == "relay"

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
