"""T2: relays that forget, refuse, grant what they do not keep; C1: answers whose relays are victims."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from support.street import ONE_WAY_S, Street, reach, street
from support.transfer import Receiver, send_file

from p2pnode import Node, P2PError
from p2pnode.core.address import Address
from p2pnode.core.keys import NodeKey
from p2pnode.dht import KnownContact
from p2pnode.offer import RelayHint
from p2pnode.relay_table import RelaySettings, RelayTable
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

VICTIMS = Address("77.1.0.2", 53), Address("77.2.0.2", 53)


def forwards_nothing(node: Node) -> None:
    """It answers the DHT, grants flows, and drops what comes by them."""
    node.mux.on("relay", lambda _data, _source: None)


def those_asked_first_lie(there: Street, liars: int) -> list[Node]:
    """The first so many relays that grant a flow forward nothing from then on."""
    found: list[Node] = []
    for node in there.public:
        granting: Any = node.dht.on_relay

        def grant(*asked: Any, node: Node = node, granting: Any = granting) -> Any:
            if node not in found and len(found) < liars:
                found.append(node)
                forwards_nothing(node)
            return granting(*asked)

        node.dht.on_relay = grant
    return found


def test_t2_a_relay_that_grants_and_forwards_nothing_costs_a_call_little() -> None:
    """The first of the two that are chosen: the call goes by the second, a second later."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home("symmetric"), await there.home("symmetric")
            await asyncio.sleep(5)
            liars = those_asked_first_lie(there, 1)
            session, seconds = await reach(world, a, b)
            assert session.remote not in liars[0].addresses()
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"T2: the first relay forwards nothing: {seconds:.2f} s")
    assert seconds <= 2.5


def test_t2_who_calls_again_gets_other_relays() -> None:
    """Both that were chosen forward nothing: the next call goes by another."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home("symmetric"), await there.home("symmetric")
            await asyncio.sleep(5)
            liars = those_asked_first_lie(there, 2)
            with pytest.raises(P2PError):
                await a.connect(b.peer_id, timeout=5)
            assert len(liars) == 2
            session, seconds = await reach(world, a, b)
            assert session.path == "relay"
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"T2: both relays forward nothing: the next call takes {seconds:.2f} s")
    assert seconds <= 2.5


@pytest.mark.parametrize("how", ["forgets", pytest.param("refuses", marks=pytest.mark.slow)])
def test_t2_relay_forgets_its_flows_while_a_file_flows(how: str) -> None:
    """It was restarted, and grants anew or relays no more: the same session goes on, the hash is equal."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home("symmetric"), await there.home("symmetric")
            await asyncio.sleep(5)
            session, _ = await reach(world, a, b)
            await asyncio.sleep(3)
            receiver = Receiver(world, b)
            content = world.rng.randbytes(3_000_000)
            sending = asyncio.ensure_future(send_file(session, content))
            for part in (1, 2):
                await receiver.reached(part * 1_000_000)
                relay = next(node for node in there.public if session.remote in node.addresses())
                relay.reaching.pathways.relaying.table = RelayTable(
                    RelaySettings(enabled=how == "forgets"), random.Random(part).randbytes
                )
            async with asyncio.timeout(60):
                await receiver.done.wait()
            await sending
            assert receiver.has(content)
            assert a.session(b.peer_id) is session
            return receiver.gap

    gap = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"T2: a relay {how} twice: longest time without a byte {gap:.2f} s")
    assert gap <= 5


def test_c1_answers_whose_relays_are_victims_draw_few_packets() -> None:
    """Three answers to each of two callers name two victims: neither gets more than ten packets of a caller in 12 s."""

    async def main(world: VirtualWorld) -> Counter[Address]:
        async with street(world) as there:
            liar = await there.home("symmetric")
            callers = [await there.home("symmetric") for _ in range(2)]
            await asyncio.sleep(5)
            keys = [NodeKey.generate(random.Random(n).randbytes).peer_id for n in range(2)]
            hints = tuple(
                RelayHint(KnownContact(None, key.node_id, at), 0.0) for key, at in zip(keys, VICTIMS, strict=True)
            )
            dialing = liar.reaching.pathways.dialing
            dialing.choose = lambda *_args, **_options: hints  # type: ignore[method-assign]
            dialing._open_flow = lambda *_: asyncio.sleep(0)  # type: ignore[assignment]
            own_side = liar.reaching.signalling._own_side
            liar.reaching.signalling._own_side = lambda: replace(own_side(), candidates=(), published=())
            drawn: Counter[Address] = Counter()

            def look(_source: Address, to: Address, data: bytes) -> float:
                drawn[to] += to in VICTIMS
                return 0.0

            world.loss = look
            began = world.loop.time()
            for caller in callers:
                for _ in range(3):
                    with pytest.raises(P2PError):
                        await caller.connect(liar.peer_id, timeout=1.5)
            assert world.loop.time() - began < 12
            return drawn

    drawn = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"C1: victims named as relays in answers to two callers, three times each, draw {drawn[VICTIMS[0]]} packets")
    assert 0 < max(drawn[each] for each in VICTIMS) <= 2 * 10
