"""Dialling a caller back: if one of its published addresses works, neither router matters."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from p2pnode.core.address import Address, Scope
from p2pnode.core.errors import P2PError
from p2pnode.core.ids import PeerId
from p2pnode.nat import QuicEndpoint
from p2pnode.sessions import SessionTable
from p2pnode.trace import Trace

__all__ = ["dial_back"]

MAX_DIALLED_BACK = 4  # a caller's published addresses that we dial


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
        for next_done in asyncio.as_completed(tries):
            with contextlib.suppress(P2PError):
                connection = await next_done
                if blocked(peer):
                    connection.close(reason="refused")
                    return
                trace = Trace(clock())
                trace.add(clock(), f"dial back {connection.remote}", "both keys proven")
                sessions.adopt(connection, trace)
                return
    finally:
        for task in tries:
            task.cancel()
        await asyncio.gather(*tries, return_exceptions=True)
