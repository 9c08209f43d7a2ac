"""How the router before us hands out ports: a fresh socket asks several STUN servers one right after the other.

Every answer tells the public port of a mapping that was made just now, so their order shows a sequence, and its end the
next port. Only asked where ports differ by destination: once as soon as that is known, so that no call waits for it,
and every ten minutes at most. Where there is a sequence, its end is asked for with each call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from p2pnode.core.address import Address
from p2pnode.core.errors import P2PError
from p2pnode.core.network import Network
from p2pnode.nat import GuessTerms, StunClient, terms_of
from p2pnode.reachability import NatKind

__all__ = ["DEPENDENT", "PortSampler"]

DEPENDENT = (NatKind.ADDRESS_DEPENDENT, NatKind.ADDRESS_AND_PORT_DEPENDENT)
SERVERS = 4
ANSWER_S = 0.5  # the offer waits for it: two tries on most lines
AGAIN_S = 600.0
RETRY_S = 30.0  # after a sample that told nothing
MAX_PORTS = 16  # of earlier samples; a router that takes them from a narrow range shows it with few


class PortSampler:
    """Asks, and remembers."""

    def __init__(
        self, network: Network, *, local_ip: Callable[[], str], servers: Callable[[], Sequence[Address]]
    ) -> None:
        """`servers()`: IPv4 STUN servers, the best first, each at an IP address of its own."""
        self._network = network
        self._local_ip = local_ip
        self._servers = servers
        self._ports: deque[int] = deque(maxlen=MAX_PORTS)
        self._unordered = False
        self._again_at = float("-inf")
        self._asking: asyncio.Future[GuessTerms] | None = None

    def stop(self) -> None:
        """Ask no longer."""
        if self._asking is not None:
            self._asking.cancel()

    def forget(self) -> None:
        """Our network is another one."""
        self._ports.clear()
        self._unordered = False
        self._again_at = float("-inf")

    def look(self, nat: NatKind) -> None:
        """Ask beforehand, if it is time to."""
        if nat in DEPENDENT and self._network.monotonic() >= self._again_at:
            self._ask_shared()

    async def terms(self, nat: NatKind, seen: Sequence[int]) -> GuessTerms:
        """Return what the other side should know of our ports. `seen`: public ports of the node's own socket of late.

        At once, but for a router that hands ports out in sequence, or is not known yet: half a second at most.
        """
        if nat not in DEPENDENT:
            return GuessTerms()
        if self._unordered:
            self.look(nat)
            terms = GuessTerms()
        else:
            terms = await asyncio.shield(self._ask_shared())
        return terms if terms.sequential else terms_of((), [*self._ports, *seen])

    def _ask_shared(self) -> asyncio.Future[GuessTerms]:
        if self._asking is None:
            self._again_at = self._network.monotonic() + RETRY_S
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(self._asked)
        return self._asking

    def _asked(self, task: asyncio.Future[GuessTerms]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # retrieved: who asked may have given up

    async def _ask(self) -> GuessTerms:
        servers = self._servers()[:SERVERS]
        client: StunClient | None = None

        def received(data: bytes, source: Address) -> None:
            if client is not None:
                client.datagram_received(data, source)

        try:
            socket = await self._network.open_udp(Address(self._local_ip(), 0), received)
        except OSError:
            return GuessTerms()
        client = StunClient(self._network, socket.send)
        try:
            answers = await asyncio.gather(
                *(client.query(server, timeout=ANSWER_S) for server in servers), return_exceptions=True
            )
        finally:
            socket.close()
        samples = [(socket.local.port, each) for each in answers if isinstance(each, Address)]
        for each in answers:
            if isinstance(each, BaseException) and not isinstance(each, P2PError):
                raise each
        self._ports.extend(public.port for _, public in samples)
        terms = terms_of(samples, self._ports)
        if len(samples) > 2:
            self._unordered = not terms.sequential
            self._again_at = self._network.monotonic() + AGAIN_S
        return terms
