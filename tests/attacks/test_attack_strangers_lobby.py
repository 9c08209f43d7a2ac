"""Attacks on the lobby: people there who let every conversation come to nothing (X3, O1)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.strangers import Someone, lobby_of

from p2pnode import P2PError
from p2pnode.chat.strangers.mask import Mask
from p2pnode.chat.strangers.ports import throw_away_node
from p2pnode.chat.strangers.receipts import LOBBY, device_key, epoch_of
from p2pnode.chat.strangers.talk import Pipe
from p2pnode.chat.strangers.wire import RANDOM_PROTOCOL, Card
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


def mask_of(person: Someone) -> Mask:
    """The throw-away node that is in use."""
    assert person.strangers._mask is not None
    return person.strangers._mask


@asynccontextmanager
async def enemies(at: Someone, count: int, **handlers: Any) -> AsyncIterator[list[Any]]:
    """Nodes at one address that say in the lobby that they are free."""
    nodes = [throw_away_node(at.node, relay_only=False) for _ in range(count)]
    try:
        for node in nodes:
            node.handle(RANDOM_PROTOCOL, handlers["serve"])
            await node.start()
            if handlers.get("opened"):
                node.subscribe(handlers["opened"])  # type: ignore[attr-defined]
            await node.announce(LOBBY, b"\x01")
        yield nodes
    finally:
        for node in nodes:
            await node.stop()


@pytest.mark.long
def test_x3_who_hangs_up_at_once_keeps_nobody_from_others() -> None:
    """Liars in the lobby close each session as soon as it stands: their victims go on to others."""

    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 3) as (one, other, home):

            def opened(event: Any) -> None:
                if type(event).__name__ == "SessionOpened":
                    event.session.close("rude")

            async def serve(_session: Any, stream: Any) -> None:
                stream.reset(0)

            async with enemies(home, 3, serve=serve, opened=opened):
                await one.strangers.begin()
                await asyncio.sleep(30.0)
                await other.strangers.begin()
                found = await one.until("found", timeout=60.0)
                print(f"X3: met {found.seconds - 30:.1f} s after the other came")

    run_virtual(main, delay=0.03)


@pytest.mark.long
def test_x3_one_block_that_takes_every_seat_and_never_agrees_keeps_nobody_from_others() -> None:
    """Six nodes at one address ask everybody in the lobby without end, and answer everybody; then they are silent."""

    async def main(world: VirtualWorld) -> None:
        rng = random.Random(1)
        async with lobby_of(world, 3) as (one, other, home):

            def card(at: int) -> Card:
                return Card(1, at, device_key(rng.randbytes(32), epoch_of(at)).public_raw, rng.randbytes(16))

            async def serve(_session: Any, stream: Any) -> None:
                pipe = Pipe(stream)
                frame = await pipe.read()
                if isinstance(frame, Card):
                    await pipe.send(card(frame.at))
                    await pipe.read()

            async def pester(node: Any, victim: Someone) -> None:
                while True:
                    try:
                        session = await node.connect(mask_of(victim).node.peer_id, timeout=5.0)
                        pipe = Pipe(await session.open_stream(RANDOM_PROTOCOL))
                        await pipe.send(card(int(node.network.wall())))
                        while True:
                            await pipe.read()
                    except (P2PError, EOFError, OSError, AssertionError):
                        await asyncio.sleep(0.2)

            async with enemies(home, 6, serve=serve) as nodes:
                await one.strangers.begin()
                await asyncio.sleep(1.0)
                tasks = [asyncio.ensure_future(pester(node, one)) for node in nodes]
                await asyncio.sleep(30.0)
                await other.strangers.begin()
                tasks += [asyncio.ensure_future(pester(node, other)) for node in nodes]
                try:
                    found = await other.until("found", timeout=300.0)
                    print(f"X3: met after {found.seconds:.1f} s")
                    assert found.seconds < 60.0
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    run_virtual(main, delay=0.03)
