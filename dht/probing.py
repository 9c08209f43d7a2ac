"""The shell of `probes`: sockets of fresh ports, which answer whoever asked for them for some seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import DatagramSocket, Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht.contact import KnownContact, unpack_address_untrusted
from p2pnode.dht.messages import Probe, Probed
from p2pnode.dht.probes import FRESH_S
from p2pnode.dht.protocol import DhtProtocol

__all__ = ["ProbeResult", "Probing"]

log = structlog.get_logger(__name__)

MAX_ANSWERS = 8  # of one fresh port
Answerer = Callable[[bytes, Address], bytes | None]
"""Given a datagram and its source, what to answer; None for nothing."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`observed`: as whom the helper saw us; `port`: the fresh port that it sent from, 0 when it was its own socket."""

    observed: Address
    port: int


class Probing:
    """Of one node. `answer`: what a fresh port says to a question, STUN's; None: nothing."""

    def __init__(self, protocol: DhtProtocol, network: Network) -> None:
        self._protocol, self._network = protocol, network
        self._probes = protocol.engine.probes
        self._probes.open_fresh = self._open_fresh
        self._tasks = TaskSet()
        self.answer: Answerer | None = None

    async def stop(self) -> None:
        await self._tasks.cancel()

    async def ask(
        self, helper: KnownContact, port: int, nonce: bytes, *, fresh: bool, timeout: float
    ) -> ProbeResult | None:
        """Have `helper` send a frame to `port` of our address as it sees it; None: it did not agree."""
        request = Probe(port, fresh, nonce)
        answer = (await self._protocol.request(helper.address, helper.node_id, request, timeout)).answer
        if not isinstance(answer, Probed) or bool(answer.port) != fresh:
            return None
        try:
            return ProbeResult(unpack_address_untrusted(answer.observed), answer.port)
        except BadPacket:
            return None

    def _open_fresh(self, frame: bytes, to: Address, opened: Callable[[int], None]) -> None:
        self._probes.fresh += 1  # before the task runs: many requests may come in one turn of the loop
        self._tasks.spawn(self._serve(frame, to, opened))

    async def _serve(self, frame: bytes, to: Address, opened: Callable[[int], None]) -> None:
        port = _FreshPort(to.ip, self)
        try:
            port.socket = await self._network.open_udp(Address("::" if to.is_ipv6 else "0.0.0.0", 0), port.received)
            try:
                port.socket.send(frame, to)
                opened(port.socket.local.port)
                await asyncio.sleep(FRESH_S)
            finally:
                port.socket.close()
        except OSError as exc:
            log.debug("dht_probe_failed", reason=exc.strerror)
            opened(0)
        finally:
            self._probes.fresh -= 1


class _FreshPort:
    """Answers one IP address, a few times."""

    def __init__(self, ip: str, probing: Probing) -> None:
        self._ip = ip
        self._probing = probing
        self._left = MAX_ANSWERS
        self.socket: DatagramSocket

    def received(self, data: bytes, source: Address) -> None:
        if source.ip != self._ip or not self._left or self._probing.answer is None:
            return
        answer = self._probing.answer(data, source)
        if answer is not None:
            self._left -= 1
            self.socket.send(answer, source)
