"""A router that claims a port it has not opened, and a node that says it got through (C1). Virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.port_mapping import Town, believed, mapping_of, openings, published, town
from support.virtual_nodes import network_of

from p2pnode import Node
from p2pnode.core.address import Address
from p2pnode.dht.calls import Asked
from p2pnode.dht.messages import Answer, DialBack, DialBackAccepted, DialFor
from p2pnode.dht.wire import dialled_frame
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import VirtualRouter

OUTSIDE, OWN, VICTIM = "11.0.0.1", "192.168.1.2", "8.8.8.8"
HOUR_S = 3600.0


class Liar:
    """A node in league with a router: what it learns of the victim's checks, the router lets in; and it says that it
    sees the node at `claimed`. Nonces reach it as a helper, and from honest helpers that have it dial."""

    def __init__(self, node: Node, home: VirtualNetwork, claimed: str, *, delivers: bool = True) -> None:
        self.nonces = 0
        self._home, self._claimed, self._delivers = home, claimed, delivers
        engine = node.dht.protocol.engine
        self._honest = engine.dial_backs.handle
        service = engine._answerer._service
        respond = service.respond

        def seen_elsewhere(request: Any, *, source: Address, **more: Any) -> bytes:
            return respond(request, source=source._replace(ip=claimed) if source.ip == OUTSIDE else source, **more)

        engine.dial_backs.handle = self._handle  # type: ignore[method-assign]
        service.respond = seen_elsewhere  # type: ignore[assignment, method-assign]

    def _handle(self, request: DialBack | DialFor, asked: Asked, now: float, wall: float) -> Answer:
        about_home = asked.source.ip == OUTSIDE or (
            isinstance(request, DialFor) and Address.unpack_untrusted(request.address).ip in (OUTSIDE, VICTIM)
        )
        if not about_home:
            return self._honest(request, asked, now, wall)
        self.nonces += 1
        if self._delivers:
            frame, stranger = dialled_frame(request.nonce), Address("9.200.0.1", 40_000 + self.nonces)
            deliver = self._home.host.deliver
            asyncio.get_running_loop().call_later(0.05, deliver, frame, stranger, Address(OWN, 4747), None)
        return DialBackAccepted(asked.source._replace(ip=self._claimed).pack())


def lying_router(there: Town, claimed: str, port: int) -> VirtualRouter:
    """It grants `port` of `claimed`, and opens nothing."""
    router = there.router("port-restricted", "nat-pmp")
    assert router.services is not None
    grants = router.services._grants
    grants.external_ip = lambda _host: claimed  # type: ignore[method-assign]
    grants._port = lambda *_, **__: port  # type: ignore[method-assign]
    router.model.openings.at = lambda *_: None  # type: ignore[method-assign]
    router.model.openings.of = lambda *_: None  # type: ignore[method-assign]
    return router


@pytest.mark.parametrize(("claimed", "port"), [(VICTIM, 53), (OUTSIDE, 5000)])
def test_attack_c1_a_lying_router_and_a_lying_helper(claimed: str, port: int) -> None:
    """They say that a victim's address, or another customer's port of the shared address, is open for us. Nothing is
    published in an hour of checks, and nobody sends the victim anything."""

    async def main(world: VirtualWorld) -> tuple[int, int]:
        async with town(world) as there:
            victim = world.host(VICTIM)
            at_victim: list[bytes] = []
            await victim.open_udp(Address(VICTIM, port), lambda data, _source: at_victim.append(data))
            router = lying_router(there, claimed, port)
            network = router.host(OWN)
            liar = Liar(there.public[4], network, claimed)
            home = await there.move_in(network)
            checks = 0
            for _ in range(12):
                await asyncio.sleep(300)
                # As often as it likes, not only when the pauses grow to ten minutes:
                for each in home.reaching.port_mapping._ports:
                    each._role.check_at = 0.0
                    each._wake.set()
                    checks += 1
                assert not mapping_of(home).believed
                assert all(address.ip.startswith("192.168.") for address in home.addresses())
            assert await published(there.public[3], home) == ()
            assert at_victim == []
            return checks, liar.nonces

    checks, nonces = run_virtual(main, delay=0.04, keep_trace=False, until=2 * HOUR_S)
    print(f"C1: {claimed}:{port}: {checks} checks, {nonces} nonces in the hands of one liar of seven: never believed")
    assert nonces > checks / 2


def test_attack_c1_one_liar_keeps_nobody_from_his_port() -> None:
    """The router is honest; one of the seven nodes says that it sees us elsewhere, agrees to dial, and does not."""

    async def main(world: VirtualWorld) -> float:
        async with town(world) as there:
            router = there.router("port-restricted", "pcp")
            network = router.host(OWN)
            Liar(there.public[4], network, VICTIM, delivers=False)
            began = world.loop.time()
            home = await there.move_in(network)
            address = await believed(home)
            seconds = world.loop.time() - began
            assert address == openings(router)[0].external
            await asyncio.sleep(1000)  # it was checked once more
            assert mapping_of(home).believed
            return seconds

    times = [run_virtual(main, delay=0.04, keep_trace=False, seed=seed, until=2 * HOUR_S) for seed in range(3)]
    print(f"C1: beside a liar the port is believed {', '.join(f'{each:.1f}' for each in times)} s after the start")
    assert max(times) < 20


def test_attack_c1_a_port_that_was_ours() -> None:
    """It was proven; then the router gives it to somebody else and says nothing, and its liar says that it still works:
    withdrawn with the next check that is silent twice."""

    async def main(world: VirtualWorld) -> float:
        async with town(world) as there:
            router = there.router("port-restricted", "nat-pmp")
            network = router.host(OWN)
            home = await there.move_in(network)
            await believed(home)
            for node in there.public[3:5]:
                Liar(node, network, OUTSIDE)
            router.model.openings.at = lambda *_: None  # type: ignore[method-assign]
            router.model.openings.of = lambda *_: None  # type: ignore[method-assign]
            began = world.loop.time()
            while mapping_of(home).believed:
                await asyncio.sleep(10)
                assert world.loop.time() < began + 2 * HOUR_S
            assert network_of(home) is network
            return world.loop.time() - began

    seconds = run_virtual(main, delay=0.04, keep_trace=False, until=3 * HOUR_S)
    print(f"C1: withdrawn {seconds:.0f} s after it was given to somebody else, beside two liars")
    assert seconds < 2000
