"""Probes: one small frame to a port of the requester's own address. Pure; the shell (`probing`) opens fresh sockets.

    asker --Probe(port, fresh, nonce)--> helper
    asker <-------------- 0x0A nonce --- helper      to the asker's observed IP at `port`, where another socket listens
    asker <------------- Probed(port) -- helper

From the helper's own socket: is a mapping that was made a while ago still alive? From a fresh port: what does the
router let in? The fresh port then answers STUN for some seconds: does a mapping depend on the port that is sent to? RFC
5780, section 7, has CHANGE-REQUEST and RESPONSE-PORT for this, of servers with two addresses; here any two nodes are
those.

C1: the frame of 17 bytes goes nowhere but to the IP address that the request, of a proven address and 80 bytes at
least, came from; limits per prefix and in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pnode.core.address import Address
from p2pnode.dht.calls import Asked
from p2pnode.dht.contact import pack_address
from p2pnode.dht.limits import Budget, PrefixBudgets, prefix_of
from p2pnode.dht.messages import Answer, Error, ErrorCode, Probe, Probed
from p2pnode.dht.wire import dialled_frame

if TYPE_CHECKING:
    from p2pnode.dht.engine import Engine

__all__ = ["FRESH_S", "MAX_FRESH", "Probes"]

PREFIX_RATE, PREFIX_BURST = 0.5, 40.0  # per /24 or /48: a netcheck asks one node for at most ten, within seconds
TOTAL_RATE, TOTAL_BURST = 10.0, 100.0
MAX_FRESH = 64  # sockets at once
FRESH_S = 15.0  # that a fresh port answers


class Probes:
    """What a node does for others. `open_fresh(frame, to, opened)`: set by the shell; sends the frame from a fresh
    port, then calls `opened` with its number, 0 when that failed. Must not raise."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._budgets = PrefixBudgets(Budget(TOTAL_RATE, TOTAL_BURST), PREFIX_RATE, PREFIX_BURST)
        self.fresh = 0
        """Fresh ports that are open now; the shell counts."""
        self.open_fresh: Callable[[bytes, Address, Callable[[int], None]], None] | None = None

    def handle(self, request: Probe, asked: Asked, now: float) -> Answer | None:
        """Return the answer, None when it comes later through the engine."""
        engine, observed = self._engine, pack_address(asked.source)
        if not asked.overlay.is_public or asked.overlay not in engine.members.serving or self.open_fresh is None:
            return Error(observed, ErrorCode.NOT_SERVING, 0)
        full = request.fresh and self.fresh >= MAX_FRESH
        if full or not self._budgets.take(prefix_of(asked.source.ip), now):
            return Error(observed, ErrorCode.BUSY, 0)
        frame, to = dialled_frame(request.nonce), asked.source._replace(port=request.port)
        if not request.fresh:
            engine.send(frame, to)
            return Probed(observed, 0)

        def opened(port: int) -> None:
            engine.answer(asked, Probed(observed, port) if port else Error(observed, ErrorCode.BUSY, 0))

        engine.counters.datagrams_out[frame[0]] += 1
        self.open_fresh(frame, to, opened)
        return None
