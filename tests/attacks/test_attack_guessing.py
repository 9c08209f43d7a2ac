"""Attacks on guessed ports: C1. See docs/security.md and docs/reach.md."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace

import pytest
from support.street import ONE_WAY_S, Street, street

from p2pnode import Node, NoPathError, P2PError
from p2pnode.core.address import Address
from p2pnode.dht.messages import Deliver
from p2pnode.nat import GuessTerms, IceCandidate
from p2pnode.reachability import NatKind
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

VICTIM = Address("77.1.0.1", 53)
PACKETS_BEFORE_ANSWER = 10


class Wire:
    """Counts what goes over the public network to whom."""

    def __init__(self, world: VirtualWorld) -> None:
        self.to: Counter[str] = Counter()
        self.seconds: dict[str, Counter[int]] = {}
        self._world = world
        world.loss = self._seen

    def _seen(self, source: Address, to: Address, data: bytes) -> float:
        self.to[to.ip] += 1
        if data[:2] == b"\0\1":
            self.seconds.setdefault(source.ip, Counter())[int(self._world.loop.time())] += 1
        return 0.0


def lie(node: Node, *, nat: NatKind, victim: Address = VICTIM) -> None:
    """Have a node tell a victim's address as its own outside one, and this kind of NAT."""
    signalling = node.reaching.signalling
    honest = signalling._own_side

    def own_side() -> object:
        return replace(honest(), nat=nat, candidates=(IceCandidate(victim, "srflx"),), published=())

    signalling._own_side = own_side  # type: ignore[assignment]


def attempts(node: Node) -> int:
    counts = node.reaching._guessing._guesser.statistics()
    return sum(count for name, count in counts.items() if name.startswith("attempts"))


async def two(there: Street, caller: str, callee: str) -> tuple[Node, Node]:
    a, b = await there.home_of(caller), await there.home_of(callee)
    await asyncio.sleep(5)
    return a, b


@pytest.mark.parametrize(
    ("liar", "target", "said"),
    [
        ("port-restricted", "symmetric", NatKind.ENDPOINT_INDEPENDENT),  # draws 256 sockets' packets
        ("symmetric", "port-restricted", NatKind.ADDRESS_AND_PORT_DEPENDENT),  # draws 1,400 probes
    ],
)
@pytest.mark.parametrize("liar_calls", [True, False], ids=["liar-calls", "liar-is-called"])
def test_c1_an_offer_that_aims_the_guessing_at_a_victim(
    liar: str, target: str, said: NatKind, liar_calls: bool
) -> None:
    """Guesses go to where rendezvous nodes see the peer, whatever it says: the victim draws the ten packets of ICE."""

    async def main(world: VirtualWorld) -> int:
        async with street(world, relay=False) as there:
            a, b = await two(there, liar, target)
            lie(a, nat=said)
            wire = Wire(world)
            caller, callee = (a, b) if liar_calls else (b, a)
            with contextlib.suppress(P2PError):
                await caller.connect(callee.peer_id)
            assert attempts(b) == 1
            return wire.to[VICTIM.ip]

    drawn = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"C1: the victim drew {drawn} packets")
    assert drawn <= PACKETS_BEFORE_ANSWER


@pytest.mark.parametrize("liars", [1, 2])
def test_c1_a_rendezvous_node_that_lies_for_its_accomplice(liars: int) -> None:
    """One of the callee's four that says the victim's address is outvoted; two silence the guessing."""

    async def main(world: VirtualWorld) -> tuple[int, int]:
        async with street(world, relay=False) as there:
            a, b = await two(there, "port-restricted", "symmetric")
            ways = {contact.node_id for contact in b.reaching.rendezvous}
            for node in [n for n in there.public if n.peer_id.node_id in ways][:liars]:
                corrupt(node)
            wire = Wire(world)
            with contextlib.suppress(P2PError):
                await a.connect(b.peer_id)
            return wire.to[VICTIM.ip], attempts(b)

    drawn, tried = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"C1: {liars} of 4 rendezvous nodes lie: {drawn} packets to the victim, {tried} attempts")
    assert drawn == 0


def corrupt(node: Node) -> None:
    """Have a rendezvous node say that everybody is at the victim's address."""
    engine = node.dht._engine
    honest = engine.call

    def call(address: Address, node_id: object, request: object, **more: object) -> object:
        if isinstance(request, Deliver) and request.seen:
            request = Deliver(request.sender, request.blob, VICTIM.pack())
        return honest(address, node_id, request, **more)  # type: ignore[arg-type]

    engine.call = call  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("silent", ["caller", "callee"])
def test_c1_no_guess_without_the_peers_consent(silent: str) -> None:
    """Who does not sign terms is not guessed with: a dozen packets each, and the reason."""

    async def main(world: VirtualWorld) -> int:
        async with street(world, relay=False) as there:
            a, b = await two(there, "symmetric", "port-restricted")
            peer = a if silent == "caller" else b

            async def refuse(*_: object, **__: object) -> GuessTerms | None:
                return None

            peer.reaching._guessing.terms = refuse  # type: ignore[method-assign]
            wire = Wire(world)
            with pytest.raises(NoPathError, match="symmetric NAT"):
                await a.connect(b.peer_id)
            assert attempts(a) == attempts(b) == 0
            return max(wire.to[router.outside_ips[0]] for router in there.routers)

    packets = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"C1: {packets} packets to either router without consent, signalling and keep-alives included")
    assert packets <= 64


def test_c1_one_attempt_at_a_time() -> None:
    """Four hard peers call at once: a hundred probes in a second, not four hundred; all get through in turn."""

    async def main(world: VirtualWorld) -> tuple[int, int]:
        async with street(world, relay=False) as there:
            easy = await there.home_of("port-restricted")
            hard = [await there.home_of("symmetric-sequential") for _ in range(4)]
            await asyncio.sleep(5)
            easy.prefer_when(lambda _peer: True)
            wire = Wire(world)
            results = await asyncio.gather(*(each.connect(easy.peer_id) for each in hard), return_exceptions=True)
            through = sum(not isinstance(each, BaseException) for each in results)
            return max(wire.seconds[there.routers[0].outside_ips[0]].values()), through

    most, through = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"C1: at most {most} STUN requests in a second, {through} of 4 through")
    assert most <= 150
    assert through == 4


def test_c1_one_attempt_per_peer_in_20_seconds() -> None:
    """A stranger that calls again and again and never answers: an attempt in 20 s."""

    async def main(world: VirtualWorld) -> int:
        async with street(world, relay=False) as there:
            a, b = await two(there, "symmetric", "port-restricted")
            lie(a, nat=NatKind.ADDRESS_AND_PORT_DEPENDENT)
            router = there.routers[0]
            until = world.loop.time() + 60
            world.loss = lambda source, _to, data: float(source.ip in router.outside_ips and data[:2] == b"\0\1")
            while world.loop.time() < until:
                with contextlib.suppress(P2PError):
                    await a.connect(b.peer_id, timeout=2.0)
                await asyncio.sleep(0.1)
            return attempts(b)

    made = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"C1: {made} attempts in a minute")
    assert 1 <= made <= 3
