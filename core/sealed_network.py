"""The network of a private network's member: every UDP datagram leaves sealed under the network's key.

    0x0F · nonce 12 · ChaCha20-Poly1305 ciphertext of the datagram, with 16 bytes of tag; associated data 0x0F

What does not open is dropped before anything looks at it: not a byte of a stranger's reaches STUN, DHT or QUIC, and a
stranger reads none of theirs. Replayed datagrams open; nonces, counters and transaction ids inside take care of them.
Only the frames of `OPEN_KIND` pass as they are: with them nodes tell that they are of different networks.

Multicast and TCP pass as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from p2pnode.core.address import Address
from p2pnode.core.network import (
    Cancel,
    DatagramHandler,
    DatagramSocket,
    Gateway,
    Interface,
    MulticastSocket,
    Network,
    SegmentsHandler,
    TcpStream,
)
from p2pnode.core.network_id import network_subkey
from p2pnode.core.segments import split_untrusted

__all__ = ["OPEN_KIND", "SEAL_OVERHEAD", "SealedNetwork", "sealing"]

T = TypeVar("T")

OPEN_KIND = 0x0E
SEALED_KIND = b"\x0f"
NONCE_BYTES = 12
SEAL_OVERHEAD = 1 + NONCE_BYTES + 16  # 1,200 bytes become 1,229; with IPv6's headers 1,277 of the 1,280 that all carry


class SealedNetwork(Network):
    """`inner`, with sealed datagrams. `foreign` counts what did not open."""

    def __init__(self, inner: Network, key: bytes) -> None:
        """`key`: `private_network_key`."""
        self._inner = inner
        self.rng = inner.rng
        self._aead = ChaCha20Poly1305(network_subkey(key, "datagrams", 32))
        # Counted from a random start: all members seal under one key, and two processes' runs of nonces hardly ever
        # meet (1,000 processes with 2^32 datagrams each: 2^-44), unlike random ones.
        self._nonce = int.from_bytes(inner.token_bytes(NONCE_BYTES), "big")
        self.foreign = 0

    def seal(self, data: bytes) -> bytes:
        """Return the datagram as it travels."""
        if data[:1] == _OPEN:
            return data
        self._nonce = (self._nonce + 1) & _NONCE_MASK
        nonce = self._nonce.to_bytes(NONCE_BYTES, "big")
        return SEALED_KIND + nonce + self._aead.encrypt(nonce, data, SEALED_KIND)

    def open_untrusted(self, data: bytes) -> bytes | None:
        """Return what a member sealed, None for everything else."""
        if data[:1] == _OPEN:
            return data
        if len(data) <= SEAL_OVERHEAD or data[:1] != SEALED_KIND:
            return None
        nonce = data[1 : 1 + NONCE_BYTES]
        try:
            return self._aead.decrypt(nonce, data[1 + NONCE_BYTES :], SEALED_KIND)
        except InvalidTag:
            return None

    async def open_udp(
        self, local: Address, handler: DatagramHandler, many: SegmentsHandler | None = None, *, whole: bool = False
    ) -> DatagramSocket:
        made = _SealedSocket(self, handler, many)
        together = None if many is None else made.received_many
        made.socket = await self._inner.open_udp(local, made.received, together, whole=whole)
        return made

    def monotonic(self) -> float:
        return self._inner.monotonic()

    def wall(self) -> float:
        return self._inner.wall()

    def token_bytes(self, count: int) -> bytes:
        return self._inner.token_bytes(count)

    async def open_multicast(self, group: Address, handler: DatagramHandler) -> MulticastSocket:
        return await self._inner.open_multicast(group, handler)

    async def connect_tcp(self, to: Address, *, local_port: int = 0, resets: bool = False) -> TcpStream:
        return await self._inner.connect_tcp(to, local_port=local_port, resets=resets)

    async def listen_tcp(self, local: Address, handler: Callable[[TcpStream], None]) -> Cancel:
        return await self._inner.listen_tcp(local, handler)

    def interfaces(self) -> list[Interface]:
        return self._inner.interfaces()

    def watch_interfaces(self, changed: Callable[[], None]) -> Cancel:
        return self._inner.watch_interfaces(changed)

    async def gateways(self) -> list[Gateway]:
        return await self._inner.gateways()

    async def resolve(self, host: str, port: int) -> list[Address]:
        return await self._inner.resolve(host, port)

    async def run_blocking(self, function: Callable[..., T], *args: object) -> T:
        return await self._inner.run_blocking(function, *args)


def _is_run(datagrams: list[bytes]) -> bool:
    """Whether all but the last, which may be shorter, are equally long."""
    size = len(datagrams[0])
    return len(datagrams[-1]) <= size and all(len(data) == size for data in datagrams[:-1])


def sealing(network: Network) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes | None]]:
    """Return what seals a datagram as this network's sockets do, and what opens it; as it is in a public one."""
    if isinstance(network, SealedNetwork):
        return network.seal, network.open_untrusted
    return _as_it_is, _as_it_is


def _as_it_is(data: bytes) -> bytes:
    return data


_OPEN = bytes([OPEN_KIND])
_NONCE_MASK = (1 << 8 * NONCE_BYTES) - 1


class _SealedSocket:
    """A UDP socket that seals what it sends."""

    socket: DatagramSocket

    def __init__(self, network: SealedNetwork, handler: DatagramHandler, many: SegmentsHandler | None) -> None:
        self._network = network
        self._handler = handler
        self._many = many
        self._closed = False

    def received(self, data: bytes, source: Address) -> None:
        opened = self._network.open_untrusted(data)
        if opened is None:
            self._network.foreign += 1
        else:
            self._handler(opened, source)

    def received_many(self, buffer: bytes, size: int, source: Address) -> None:
        """What was sealed together stays together, unless a stranger's is among it or one has another size."""
        opened = [self._network.open_untrusted(data) for data in split_untrusted(buffer, size)]
        genuine = [data for data in opened if data is not None]
        self._network.foreign += len(opened) - len(genuine)
        if self._many is not None and len(genuine) > 1 and _is_run(genuine):
            self._many(b"".join(genuine), len(genuine[0]), source)
            return
        for data in genuine:
            if not self._closed:  # by the handler of one before
                self._handler(data, source)

    @property
    def local(self) -> Address:
        return self.socket.local

    @property
    def dropped(self) -> int:
        return self.socket.dropped

    def send(self, data: bytes, to: Address) -> None:
        self.socket.send(self._network.seal(data), to)

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        self.socket.send_many([self._network.seal(data) for data in datagrams], to)

    def close(self) -> None:
        self._closed = True
        self.socket.close()
