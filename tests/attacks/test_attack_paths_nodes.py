"""C1: whole nodes, whose checks somebody on the path has copied, or whom many callers send to one victim."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from support.street import ONE_WAY_S, reach, street

from p2pnode import Node, P2PError
from p2pnode.core.address import Address
from p2pnode.core.keys import NodeKey
from p2pnode.dht import KnownContact
from p2pnode.meetings import OwnSide
from p2pnode.nat import IceCandidate, IceSession
from p2pnode.offer import Offer, RelayHint
from p2pnode.reachability import NatKind
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

VICTIM = Address("77.1.0.1", 53)
CHECK = b"\x00\x01"


def test_c1_a_copied_check_does_not_move_a_session() -> None:
    """A check of the peer, seen once, comes again from somebody's address: the session does not go there."""

    async def main(world: VirtualWorld) -> None:
        async with street(world) as there:
            a, b = await there.home("fullcone"), await there.home("port-restricted")
            await asyncio.sleep(5)
            checks: list[tuple[bytes, Address]] = []

            def look(_source: Address, to: Address, data: bytes) -> float:
                if to.ip == "11.20.0.1" and data[:2] == CHECK and data[20:22] == b"\x00\x06":
                    checks.append((data, to))
                return 0.0

            world.loss = look
            session, _ = await reach(world, a, b)
            assert session.path == "punched"
            await asyncio.sleep(10)
            thief = await world.host("9.99.0.1").open_udp(Address("0.0.0.0", 9), lambda _data, _source: None)
            at = session.connection.remote
            got = []
            thief.send(*checks[-1])
            for _ in range(30):
                await asyncio.sleep(0.05)
                got.append(session.connection.remote)
            thief.close()
            await session.ping()
            assert set(got) == {at}

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_c1_many_offers_that_name_one_victim_draw_what_one_does() -> None:
    """Six callers publish a victim's address, have it as candidate, and name it as their relay: ten packets within
    twelve seconds, whoever asked for them."""

    async def main(world: VirtualWorld) -> tuple[int, Counter[int]]:
        async with street(world) as there:
            callee = await there.home("port-restricted")
            liars = [await there.home("fullcone") for _ in range(6)]
            await asyncio.sleep(5)
            drawn: Counter[int] = Counter()
            begin = world.loop.time()

            def look(_source: Address, to: Address, data: bytes) -> float:
                if to == VICTIM:
                    drawn[data[0]] += 1
                return 0.0

            world.loss = look
            for number, liar in enumerate(liars):
                aim(liar, number)
            calls = [asyncio.ensure_future(liar.connect(callee.peer_id)) for liar in liars]
            await asyncio.sleep(11.5)
            assert world.loop.time() - begin < 12
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            return drawn.total(), drawn

    total, by_kind = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"C1: six offers drew {total} packets to one victim: {dict(by_kind)}")
    assert total <= 10


@pytest.mark.parametrize("answers", [True, False], ids=["answers", "silent"])
def test_c1_a_presence_that_shows_a_victim_as_its_router(answers: bool) -> None:
    """Whoever looks the liar up and calls sends ten packets there at most, and connects all the same."""

    async def main(world: VirtualWorld) -> tuple[int, int]:
        async with street(world) as there:
            caller, liar = await there.home("port-restricted"), await there.home("port-restricted")
            victims = (VICTIM, Address("77.1.0.2", 53))
            await asyncio.sleep(5)
            liar.publisher._outside = lambda: victims
            liar.publisher.wake()
            await asyncio.sleep(5)
            assert (await caller.find(liar.peer_id)).outside == victims
            if not answers:
                liar.dht.on_deliver = lambda *_: None
            drawn: Counter[Address] = Counter()

            def look(_source: Address, to: Address, data: bytes) -> float:
                drawn[to] += to in victims
                return 0.0

            world.loss = look
            if answers:
                session, _ = await reach(world, caller, liar)
                assert session.path == "punched"
            else:
                with pytest.raises(P2PError):
                    await caller.connect(liar.peer_id)
            return drawn[victims[0]], drawn[victims[1]]

    drawn = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"C1: a presence that shows two victims drew {drawn} packets")
    assert max(drawn) <= 10


def aim(node: Node, number: int) -> None:
    """Have a node tell a victim's address as its own, and as its relay's."""
    signalling = node.reaching.signalling
    honest = signalling._own_side
    relay = NodeKey(bytes([100 + number]) * 32, bytes([100 + number]) * 32).peer_id

    def own_side() -> OwnSide:
        hint = RelayHint(KnownContact(relay, relay.node_id, VICTIM), 0.0)
        candidates = (IceCandidate(VICTIM, "srflx"),)
        return replace(honest(), candidates=candidates, published=(VICTIM,), relays=(hint,))

    signalling._own_side = own_side
    node.reaching.pathways.dialing.start = lambda *_args, **_options: asyncio.ensure_future(asyncio.sleep(0))  # type: ignore[assignment,misc]


def test_k1_no_relay_that_a_peer_names_is_at_home() -> None:
    """An offer's relays at private and loopback addresses are not asked; public ones are."""

    async def main(world: VirtualWorld) -> list[str]:
        async with street(world) as there:
            node = await there.home("port-restricted")
            dialing = node.reaching.pathways.dialing
            relay = NodeKey(bytes([99]) * 32, bytes([99]) * 32).peer_id
            ips = ("192.168.1.77", "10.1.2.3", "127.0.0.1", "9.3.0.1")
            chosen = []
            for ip in ips:
                hint = RelayHint(KnownContact(relay, relay.node_id, Address(ip, 53)), 0.0)
                offer = Offer(bytes(16), 0, bytes(32), b"", (), NatKind.UNKNOWN, (hint,))
                own = replace(node.reaching._own_side(), relays=())
                chosen += [each.contact.address.ip for each in dialing.choose(relay, own, offer)]
            return chosen

    assert run_virtual(main, delay=ONE_WAY_S, keep_trace=False) == ["9.3.0.1"]


class Endless(dict[bytes, IceSession]):
    """An attacker's ICE sessions: as many as he likes."""

    def __len__(self) -> int:
        return 0


@pytest.mark.slow
def test_o1_offers_of_one_peer_without_end_leave_room_for_others() -> None:
    """It has a session, and makes a new offer each second, all of whose checks it goes on answering."""

    async def main(world: VirtualWorld) -> tuple[int, str]:
        async with street(world) as there:
            victim, attacker = await there.home("port-restricted"), await there.home("fullcone")
            other = await there.home("port-restricted")
            await asyncio.sleep(5)
            session, _ = await reach(world, attacker, victim)
            attacker.reaching._ice._sessions = Endless()
            found = await attacker.find(victim.peer_id)
            offers = []
            for _ in range(75):
                punch = attacker.reaching.punch(found, lambda _path, _why, _spend: None)
                offers.append(asyncio.ensure_future(punch))
                await asyncio.sleep(1)
            held = victim.reaching._ice.statistics().sessions
            await session.ping()
            by, _ = await reach(world, other, victim)
            for offer in offers:
                offer.cancel()
            await asyncio.gather(*offers, return_exceptions=True)
            return held, by.path

    held, path = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"O1: 75 offers of one peer hold {held} ICE sessions; another's call is {path}")
    assert held <= 32
    assert path == "punched"
