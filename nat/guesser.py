"""Guessed ports on sockets: does what `nat/guessing.py` says, one attempt at a time.

The check that comes through first ends it: its socket goes to the mux for that one address, so ICE and QUIC go on there
as with any candidate; all others are closed at once. The side that probes sends from the node's own socket, and learns
of its hit by the check that comes back. A socket that won lives as long as its ICE session, and three seconds more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable, Mapping
from functools import partial
from types import MappingProxyType

from p2pnode.core.address import Address
from p2pnode.core.network import DatagramSocket, Network
from p2pnode.nat.guessing import (
    ATTEMPT_S,
    OPEN_AFTER_S,
    GuessGate,
    GuessPlan,
    Role,
    Step,
    opening_steps,
    probing_steps,
)
from p2pnode.nat.ice import IceEndpoint, IceSession
from p2pnode.nat.mux import UdpMux

__all__ = ["Guesser"]

LINGER_S = 3.0  # the winner's socket after its session: QUIC says goodbye by it, and drains
LEFT_TO_OTHERS = 32  # sockets given back when the system allows no more
LATE_S = 0.1  # who was held up goes on from there: no burst makes up for it
LOOK_S = 0.2  # how often the side that waits looks whether the session has ended otherwise


class Guesser:
    """Makes attempts, one after the other."""

    def __init__(self, *, network: Network, mux: UdpMux, ice: IceEndpoint) -> None:
        self._network = network
        self._mux = mux
        self._ice = ice
        self._gate = GuessGate()
        self._turn = asyncio.Lock()
        self._counts: Counter[str] = Counter()

    def consents(self, peer: Hashable, *, stranger: bool) -> bool:
        """Whether we would guess with this peer now. `stranger`: it calls us, and we do not know it."""
        return self._gate.wait_s(peer, stranger=stranger, now=self._network.monotonic()) is not None

    async def run(self, session: IceSession, plan: GuessPlan, peer: Hashable, *, began: float, stranger: bool) -> bool:
        """Guess for an ICE session whose `connect` runs; return whether a check came through to an extra socket.

        `began`: when its ordinary checks did. Ends when an address answers the session, when it is closed, or after
        15 s; waits for its turn before.
        """
        await asyncio.sleep(self._gate.wait_s(peer, stranger=stranger, now=self._network.monotonic()) or 0.0)
        async with self._turn:
            now = self._network.monotonic()
            began = max(began, now - OPEN_AFTER_S)  # who had to wait for his turn begins at once
            if self._is_over(session) or not self._gate.begin(peer, stranger=stranger, now=now):
                return False
            try:
                return await self._attempt(session, plan, began)
            finally:
                self._gate.ended(stranger=stranger, began=now, now=self._network.monotonic())

    def statistics(self) -> Mapping[str, int]:
        """Return `attempts_` by role, `probes` sent, `sockets` opened, `won` (of the attempts with sockets)."""
        return MappingProxyType(dict(self._counts))

    async def _attempt(self, session: IceSession, plan: GuessPlan, began: float) -> bool:
        self._counts[f"attempts_{plan.role.value}"] += 1
        if plan.role is Role.PROBE:
            await self._probe(session, plan, began)
            return False
        sockets = _Sockets(self._network, self._mux, self._ice)
        try:
            return await self._open(session, plan, began, sockets)
        finally:
            sockets.close_losers()
            self._counts["sockets"] += sockets.opened
            self._counts["won"] += sockets.won.done()

    async def _probe(self, session: IceSession, plan: GuessPlan, began: float) -> None:
        check = session.guess()
        for step in probing_steps(plan, self._network.rng):
            late = await self._wait_until(began + step.at)
            if self._is_over(session):
                break
            if late > LATE_S:
                began += late
            self._counts["probes"] += 1
            self._ice.send(check, step.to)

    async def _open(self, session: IceSession, plan: GuessPlan, began: float, sockets: _Sockets) -> bool:
        check = session.guess()
        for step in opening_steps(plan):
            if not await self._goes_on(session, sockets, began + step.at):
                break
            await sockets.send(step, check)
        await self._goes_on(session, sockets, began + ATTEMPT_S)
        return sockets.won.done()

    async def _goes_on(self, session: IceSession, sockets: _Sockets, until: float) -> bool:
        """Wait; whether nothing has ended the attempt meanwhile."""
        while not sockets.won.done() and not self._is_over(session):
            left = until - self._network.monotonic()
            if left <= 0:
                return True
            await asyncio.wait((sockets.won,), timeout=min(LOOK_S, left))
        return False

    async def _wait_until(self, at: float) -> float:
        """Return how much later it is than that."""
        pause = at - self._network.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        return self._network.monotonic() - at

    @staticmethod
    def _is_over(session: IceSession) -> bool:
        return session.closed or bool(session.addresses_answered)


class _Sockets:
    """The extra sockets of one attempt."""

    def __init__(self, network: Network, mux: UdpMux, ice: IceEndpoint) -> None:
        self.opened = 0
        self.won: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
        self._network = network
        self._mux = mux
        self._ice = ice
        self._local = Address(next((each.ip for each in mux.local if not each.is_ipv6), "0.0.0.0"), 0)
        self._sockets: dict[int, DatagramSocket] = {}
        self._aims: dict[int, Address] = {}
        self._exhausted = False
        self._winner = -1

    async def send(self, step: Step, check: bytes) -> None:
        """Send by the step's socket, opened when it is used first, and anew where the step says so; where the system
        gives no more, there are fewer."""
        if self.won.done():
            return
        socket = self._sockets.get(step.socket)
        if socket is not None and step.renew and not self._exhausted:
            self._sockets.pop(step.socket).close()
            socket = None
        if socket is None:
            if self._exhausted:
                return
            try:
                socket = await self._network.open_udp(self._local, partial(self._take, step.socket))
            except OSError:
                self._exhausted = True
                self._give_back()
                return
            self.opened += 1
            if self.won.done():  # meanwhile
                socket.close()
                return
            self._sockets[step.socket], self._aims[step.socket] = socket, step.to
        socket.send(check, step.to)

    def _give_back(self) -> None:
        """Leave some to the rest of the program, which the system would refuse files and sockets as well."""
        for number in list(self._sockets)[-LEFT_TO_OTHERS:]:
            self._sockets.pop(number).close()
            del self._aims[number]

    def close_losers(self) -> None:
        for number, socket in self._sockets.items():
            if number != self._winner:
                socket.close()
        self._sockets.clear()

    def _take(self, number: int, data: bytes, source: Address) -> None:
        if number == self._winner:
            self._mux.received(data, source)
        elif not self.won.done() and source == self._aims.get(number):
            # Of any session: when both sides call at once, each may guess for its own.
            session = self._ice.session_of_check_untrusted(data)
            if session is not None:
                self._win(session, number, data, source)

    def _win(self, session: IceSession, number: int, data: bytes, source: Address) -> None:
        self._winner = number
        socket = self._sockets[number]
        self._mux.adopt(source, socket)

        def closed() -> None:
            asyncio.get_running_loop().call_later(LINGER_S, self._mux.release, source, socket)

        session.on_closed.append(closed)
        self.won.set_result(source)
        self.close_losers()
        session.afresh(source)
        self._mux.received(data, source)
