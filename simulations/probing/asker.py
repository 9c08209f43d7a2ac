"""A socket that asks STUN servers, and repeats what is not answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import DatagramSocket, Network
from p2pnode.simulations.probing.messages import ProbeRequest, parse_answer_untrusted, request
from p2pnode.simulations.probing.settings import ProbeSettings

__all__ = ["Answer", "Asker"]


@dataclass(frozen=True)
class Answer:
    """`mapped`: as whom the server saw the question; `source`: from where the answer came."""

    mapped: Address
    source: Address


class Asker:
    """One UDP socket. `others`: what arrived besides answers, with its source."""

    def __init__(self, network: Network, settings: ProbeSettings) -> None:
        self.others: list[tuple[bytes, Address]] = []
        self._network = network
        self._settings = settings
        self._waiting: dict[bytes, asyncio.Future[Answer]] = {}
        self._socket: DatagramSocket

    @classmethod
    async def open(cls, network: Network, settings: ProbeSettings, *, ip: str = "0.0.0.0") -> Asker:
        """Bind to a free port. Raise OSError."""
        made = cls(network, settings)
        made._socket = await network.open_udp(Address(ip, 0), made._received)
        return made

    @property
    def port(self) -> int:
        return self._socket.local.port

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes, to: Address) -> None:
        self._socket.send(data, to)

    async def ask(
        self, server: Address, change: int = 0, *, arriving_at: Asker | None = None, port: int = 0
    ) -> Answer | None:
        """Return the answer, None after `wait_s` of silence.

        `arriving_at`: another socket, at which the answer is expected because the server is asked to send it to `port`
        of our public address.
        """
        transaction_id = self._network.token_bytes(12)
        data = request(ProbeRequest(transaction_id, change, port))
        receiver = arriving_at or self
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        receiver._waiting[transaction_id] = future
        try:
            for _ in range(self._settings.tries):
                self._socket.send(data, server)
                done, _pending = await asyncio.wait((future,), timeout=self._settings.wait_s / self._settings.tries)
                if done:
                    return future.result()
            return None
        finally:
            del receiver._waiting[transaction_id]

    def _received(self, data: bytes, source: Address) -> None:
        try:
            transaction_id, mapped = parse_answer_untrusted(data)
        except BadPacket:
            if len(self.others) < 100:  # more than any probe sends
                self.others.append((data, source))
            return
        future = self._waiting.get(transaction_id)
        if future is not None and not future.done():
            future.set_result(Answer(mapped, source))
