"""The one interface to the world: sockets, clocks, chance, threads.

Nothing else in the package opens a socket, reads a clock, draws a random number or starts a thread (named exceptions:
uvicorn, SQLite's file, the home directory). `core.real_network` implements it on asyncio; `simulations.virtual` under
virtual time, with the same unmodified node on top. Timers and tasks are asyncio's own: `loop.call_at`,
`asyncio.sleep` and `asyncio.timeout` follow `monotonic()` in both worlds.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from p2pnode.core.address import Address

__all__ = [
    "Cancel",
    "DatagramHandler",
    "DatagramSocket",
    "Gateway",
    "Interface",
    "MulticastSocket",
    "Network",
    "SegmentsHandler",
    "TcpStream",
]

T = TypeVar("T")
DatagramHandler = Callable[[bytes, Address], None]
"""Called for each datagram with its bytes and source. Must not raise."""
SegmentsHandler = Callable[[bytes, int, Address], None]
"""Called for datagrams that came together from one source: their bytes in a row, how many bytes each has (the last one:
as many or fewer), and the source. Must not raise."""
Cancel = Callable[[], None]
"""Ends a subscription; calling it twice is harmless."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface that is up. `addresses`: canonical IP texts without prefix length."""

    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gateway:
    """The router of a default route: its address on our side (with its zone when link-local), and ours toward it."""

    ip: str
    local: str


class DatagramSocket(Protocol):
    """A bound UDP socket."""

    @property
    def local(self) -> Address:
        """Where it is bound; `0.0.0.0` or `::` when to all."""

    @property
    def dropped(self) -> int:
        """Datagrams that the system refused to send (buffer full, no route); never an exception."""

    def send(self, data: bytes, to: Address) -> None:
        """Send one datagram, now or never. Never raises, never blocks."""

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        """Send datagrams in order, as `send` each; in fewer system calls where those are equally long."""

    def close(self) -> None:
        """Close at once; no handler call follows."""


class MulticastSocket(Protocol):
    """A socket in a multicast group on every interface that is up."""

    def send(self, data: bytes) -> None:
        """Send one datagram to the group on every joined interface. Never raises."""

    def refresh(self) -> None:
        """Join on interfaces that came since."""

    def close(self) -> None: ...


class TcpStream(Protocol):
    """A TCP connection as a pair of asyncio-like halves."""

    @property
    def remote(self) -> Address: ...

    async def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes, b"" at the end. Raise OSError when the connection broke."""

    async def write(self, data: bytes) -> None:
        """Send all of `data`, waiting while the other side is slow. Raise OSError."""

    def close(self) -> None: ...


class Network(ABC):
    """What a node needs from the world. One instance per node (in simulations: per host)."""

    rng: random.Random
    """For jitter and sampling; never for anything that an attacker must not guess."""

    @abstractmethod
    def monotonic(self) -> float:
        """Seconds; the event loop's clock."""

    @abstractmethod
    def wall(self) -> float:
        """Seconds since 1970 UTC; may be wrong or jump."""

    @abstractmethod
    def token_bytes(self, count: int) -> bytes:
        """Unguessable bytes."""

    @abstractmethod
    async def open_udp(
        self, local: Address, handler: DatagramHandler, many: SegmentsHandler | None = None, *, whole: bool = False
    ) -> DatagramSocket:
        """`many`: gets what the system hands over together, where it can; without, each datagram comes to `handler`.
        `whole`: nothing is sent in fragments, nor fragmented on its way; what is too large is dropped.

        Bind. Port 0: any free one. IPv6 sockets never carry IPv4. Raise OSError (EADDRINUSE, EADDRNOTAVAIL...)."""

    @abstractmethod
    async def open_multicast(self, group: Address, handler: DatagramHandler) -> MulticastSocket:
        """Join `group` on every interface, sharing its port with other programs. Own datagrams may come back."""

    @abstractmethod
    async def connect_tcp(self, to: Address, *, local_port: int = 0, resets: bool = False) -> TcpStream:
        """Raise OSError. `local_port`: to connect from, which other connections may use as well (0: any). `resets`:
        closing it resets it, so that the same two ends can be connected again at once."""

    @abstractmethod
    async def listen_tcp(self, local: Address, handler: Callable[[TcpStream], None]) -> Cancel:
        """Raise OSError."""

    @abstractmethod
    def interfaces(self) -> list[Interface]:
        """The interfaces that are up now, loopback included."""

    @abstractmethod
    def watch_interfaces(self, changed: Callable[[], None]) -> Cancel:
        """Call `changed` after addresses or default routes came or went.

        At the system's word (Linux), else polled every few seconds, addresses only.
        """

    @abstractmethod
    async def gateways(self) -> list[Gateway]:
        """The routers of the default routes, at most one per address family; empty when unknown."""

    @abstractmethod
    async def resolve(self, host: str, port: int) -> list[Address]:
        """Look a host name up; an IP address is returned as it is. Empty when unknown."""

    @abstractmethod
    async def run_blocking(self, function: Callable[..., T], *args: object) -> T:
        """Run a blocking function outside the loop (virtual: at once, in it) and return its result."""
