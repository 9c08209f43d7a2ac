"""One attempt to connect: a handshake, and a fresh one beside it when that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from p2pnode.nat.connection import Connection

__all__ = ["first_proven"]

# s. After its Initials were acknowledged a client repeats datagrams that the server has had, which credits none of
# them against amplification: a first flight of which too much was lost is never repeated (docs/libraries.md). Longer
# than two round trips of the slowest links, and a repetition.
STALLED_S = 2.0


async def first_proven(begin: Callable[[], Connection], *, early: bool) -> Connection:
    """Return the connection of `begin` once it is proven (`early`: once its server is), or a second one before it.

    Raise what the first raises. When cancelled, and after any error, all that was begun is the caller's to end.
    """
    first = begin()
    waits = {asyncio.ensure_future(_wait(first, early)): first}
    try:
        done, pending = await asyncio.wait(waits, timeout=STALLED_S)
        if not done and first.transport.heard_authentic:
            second = begin()
            waits[asyncio.ensure_future(_wait(second, early))] = second
            pending = set(waits)
        while pending and all(wait.exception() for wait in done):
            more, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        chosen = next((wait for wait in waits if wait in done and wait.exception() is None), next(iter(waits)))
        await chosen
        return waits[chosen]
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _wait(connection: Connection, early: bool) -> None:
    if early:
        await asyncio.shield(connection.server_proven)
    if not early or connection.closed:
        await asyncio.shield(connection.proven)
