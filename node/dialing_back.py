"""Dialling a caller back: if one of its published addresses works, neither router matters."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

from p2pnode.core.address import Address, Scope
from p2pnode.core.errors import P2PError
from p2pnode.core.ids import PeerId
from p2pnode.nat import CloseCode, CloseReason, Connection, QuicEndpoint
from p2pnode.sessions import SessionTable
from p2pnode.trace import Trace

__all__ = ["dial_back", "give_up"]

MAX_DIALLED_BACK = 4  # a caller's published addresses that we dial


async def give_up(dials: Iterable[asyncio.Task[Connection]]) -> None:
    """Cancel dials that are not needed any more, and close what one of them brought all the same.

    A dial that was done already is not cancelled: its connection is proven, and the other side may have made it the
    session. Nobody would ever use or close it here, while the other side closes the one that we use as a duplicate.
    """
    dials = list(dials)
    for task in dials:
        task.cancel()
    for result in await asyncio.gather(*dials, return_exceptions=True):
        if isinstance(result, Connection) and not result.closed:
            result.abandon(CloseReason(CloseCode.CANCELLED, "cancelled", "local"))


async def dial_back(
    peer: PeerId, addresses: Sequence[Address], spend: Callable[[Address], bool], *, endpoint: QuicEndpoint,
    sessions: SessionTable, usable: Callable[[Address], bool], blocked: Callable[[PeerId], bool],
) -> None:  # fmt: skip
    """Dial them at once; the first connection becomes a session, unless the user has blocked the peer meanwhile.
    `spend`: as in `QuicEndpoint.connect` (C1): many callers may name one victim. Never raises."""
    tries = [
        asyncio.ensure_future(endpoint.connect(peer, address, spend=spend))
        for address in addresses[:MAX_DIALLED_BACK]
        if address.scope is not Scope.LOOPBACK and usable(address)
    ]
    clock = endpoint.network.monotonic
    try:
        while tries:
            done, _ = await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
            first = next(task for task in tries if task in done)
            tries.remove(first)
            with contextlib.suppress(P2PError):
                connection = first.result()
                if blocked(peer):
                    connection.close(reason="refused")
                    return
                trace = Trace(clock())
                trace.add(clock(), f"dial back {connection.remote}", "both keys proven")
                sessions.adopt(connection, trace)
                return
    finally:
        await give_up(tries)
