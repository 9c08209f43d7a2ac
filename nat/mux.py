"""One UDP socket per address family, shared by STUN, DHT, relay and QUIC, sorted by first byte.

    0x00-0x03                STUN, with the magic cookie 0x2112A442 at bytes 4 to 8 (RFC 8489, section 5)
    0x04-0x0A                DHT, rendezvous, dial-back
    0x0B-0x0F                relay, networks (node.other_network, core.sealed_network)
    0x40-0x7F, 0xC0-0xFF     QUIC (RFC 9000: the fixed bit is set)
    rest                     dropped and counted

Like RFC 9443, "Multiplexing Scheme Updates for QUIC", but for DHT and relay, which take a part of the range that it
leaves to ZRTP.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from p2pnode.core.address import Address
from p2pnode.core.errors import InvalidConfigError, P2PError, PortInUseError
from p2pnode.core.network import DatagramHandler, DatagramSocket, Network, SegmentsHandler
from p2pnode.core.segments import split_untrusted
from p2pnode.nat.nat64 import Nat64

__all__ = ["Kind", "MuxStatistics", "UdpMux", "kind_of"]

Kind = Literal["stun", "dht", "relay", "quic"]
STUN_COOKIE = bytes.fromhex("2112A442")
STUN_HEADER_BYTES = 20


# Linux says the second where IPv6 is compiled in but switched off
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def _kind_by_byte(byte: int) -> Kind | None:
    if byte <= 0x03:
        return "stun"
    if byte <= 0x0A:
        return "dht"
    if byte <= 0x0F:
        return "relay"
    return "quic" if byte & 0x40 else None


_KINDS = tuple(_kind_by_byte(byte) for byte in range(256))
_IS_QUIC = bytes(kind == "quic" for kind in _KINDS)


def kind_of(data: bytes) -> Kind | None:
    """Return whose datagram this is, None when nobody's."""
    if not data:
        return None
    kind = _KINDS[data[0]]
    if kind == "stun" and (len(data) < STUN_HEADER_BYTES or data[4:8] != STUN_COOKIE):
        return None
    return kind


@dataclass(frozen=True)
class MuxStatistics:
    """Datagrams and bytes by kind; `dropped` by reason: `unknown_kind`, `no_handler`, `no_socket`, `not_sent`."""

    datagrams_in: Mapping[str, int]
    datagrams_out: Mapping[str, int]
    bytes_in: Mapping[str, int]
    bytes_out: Mapping[str, int]
    dropped: Mapping[str, int]


class UdpMux:
    """The node's UDP sockets."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._handlers: dict[Kind, DatagramHandler] = {}
        self._many: SegmentsHandler | None = None
        self._sockets: dict[bool, DatagramSocket] = {}
        self._beside: dict[Address, DatagramSocket] = {}
        self.instead: Callable[[bytes, Address], None] | None = None
        """Where UDP does not pass: takes a copy of what goes to an address that has no socket or link of its own."""
        self.nat64: Nat64 | None = None
        """How IPv4 addresses are reached by the IPv6 socket; None: by the IPv4 one."""
        self._refused_by_closed = 0
        self._closed = False
        self._datagrams_in: Counter[str] = Counter()
        self._datagrams_out: Counter[str] = Counter()
        self._bytes_in: Counter[str] = Counter()
        self._bytes_out: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    async def open(self, addresses: Sequence[Address]) -> None:
        """Bind one socket per family; all or none, but that `::` or `0.0.0.0` is left out on a machine without that
        family, as long as another address works.

        Raise PortInUseError; InvalidConfigError when an address is not this machine's or a family comes twice;
        P2PError for what else the system refuses.
        """
        if not addresses or len({address.is_ipv6 for address in addresses}) < len(addresses) or self._sockets:
            raise InvalidConfigError("Listen on one address per family (IPv4, IPv6), once.")
        self._closed = False
        missing: P2PError | None = None
        for address in addresses:
            try:
                self._sockets[address.is_ipv6] = await self._network.open_udp(
                    address, self.received, self.received_many
                )
            except OSError as exc:
                error = _error_of(exc, address)
                if exc.errno in _NO_FAMILY and address.ip in ("::", "0.0.0.0"):
                    missing = error
                    continue
                self.close()
                raise error from exc
            except BaseException:
                self.close()
                raise
        if not self._sockets and missing is not None:
            raise missing

    def on(self, kind: Kind, handler: DatagramHandler, many: SegmentsHandler | None = None) -> None:
        """Set who gets the datagrams of this kind. The handlers must not raise.

        `many`: for QUIC only, gets those that came together; without, they go to `handler` one by one.
        """
        self._handlers[kind] = handler
        if kind == "quic":
            self._many = many

    def send(self, data: bytes, to: Address) -> None:
        """Send from the socket of the address's family. Never raises; counts."""
        if self.instead is not None and to not in self._beside:
            self.instead(data, to)
        if self.nat64 is not None and to not in self._beside:
            to = self.nat64.outward(to)
        socket = self._socket_for(to)
        if socket is None:
            self._dropped["no_socket"] += 1
            return
        kind = (_KINDS[data[0]] if data else None) or "unknown"
        self._datagrams_out[kind] += 1
        self._bytes_out[kind] += len(data)
        socket.send(data, to)

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        """Send datagrams of one kind, of at least a byte each, in order. Never raises; counts."""
        if self.instead is not None and to not in self._beside:
            for data in datagrams:
                self.instead(data, to)
        if self.nat64 is not None and to not in self._beside:
            to = self.nat64.outward(to)
        socket = self._socket_for(to)
        if socket is None or not datagrams:
            self._dropped["no_socket"] += len(datagrams)
            return
        kind = _KINDS[datagrams[0][0]] or "unknown"
        self._datagrams_out[kind] += len(datagrams)
        self._bytes_out[kind] += sum(map(len, datagrams))
        socket.send_many(datagrams, to)

    def _socket_for(self, to: Address) -> DatagramSocket | None:
        socket = self._beside.get(to) if self._beside else None
        if socket is not None or ("%" in to.ip and to.is_link):
            return socket  # a link that has ended leads nowhere
        return self._sockets.get(":" in to.ip)

    def adopt(self, address: Address, socket: DatagramSocket) -> None:
        """Send to `address` by this socket from now on, until it is released; `received` is its handler.

        So a hole that only one socket has goes for ICE and QUIC alike. The one that was there before is closed.
        """
        if (before := self._beside.get(address)) is not None:
            self.release(address, before)
        self._beside[address] = socket

    def release(self, address: Address, socket: DatagramSocket) -> None:
        """Close a socket that was adopted for `address`; harmless when it was before."""
        if self._beside.get(address) is socket:
            del self._beside[address]
            self._refused_by_closed += socket.dropped
            socket.close()

    def let_go(self, address: Address, socket: DatagramSocket) -> None:
        """Send to `address` by UDP again; the adopted socket goes on receiving until its owner closes it."""
        if self._beside.get(address) is socket:
            del self._beside[address]
            self._refused_by_closed += socket.dropped

    def send_by_udp(self, data: bytes, to: Address) -> None:
        """Send one datagram by the node's own UDP socket, whatever was adopted: to see whether UDP passes."""
        to = to if self.nat64 is None else self.nat64.outward(to)
        socket = self._sockets.get(to.is_ipv6)
        if socket is not None:
            socket.send(data, to)

    @property
    def local(self) -> list[Address]:
        """Where the sockets are bound; ip `0.0.0.0` or `::` when to all."""
        return [socket.local for socket in self._sockets.values()]

    def statistics(self) -> MuxStatistics:
        dropped = Counter(self._dropped)
        not_sent = self._refused_by_closed + sum(socket.dropped for socket in self._sockets.values())
        if not_sent:
            dropped["not_sent"] = not_sent
        return MuxStatistics(
            datagrams_in=MappingProxyType(dict(self._datagrams_in)),
            datagrams_out=MappingProxyType(dict(self._datagrams_out)),
            bytes_in=MappingProxyType(dict(self._bytes_in)),
            bytes_out=MappingProxyType(dict(self._bytes_out)),
            dropped=MappingProxyType(dict(dropped)),
        )

    def close(self) -> None:
        """Close the sockets; no handler is called afterwards. Twice is harmless."""
        self._closed = True
        for address, socket in list(self._beside.items()):
            self.release(address, socket)
        sockets, self._sockets = self._sockets, {}
        for socket in sockets.values():
            self._refused_by_closed += socket.dropped
            socket.close()

    def received(self, data: bytes, source: Address) -> None:
        """Take a datagram of one of the sockets. Never raises."""
        if self.nat64 is not None:
            source = self.nat64.inward(source)
        kind = kind_of(data)
        if kind is None:
            self._dropped["unknown_kind"] += 1
            return
        self._datagrams_in[kind] += 1
        self._bytes_in[kind] += len(data)
        handler = self._handlers.get(kind)
        if handler is None:
            self._dropped["no_handler"] += 1
        else:
            handler(data, source)

    def received_many(self, buffer: bytes, size: int, source: Address) -> None:
        """Take datagrams that came together: all of QUIC's go on as they are, others one by one. Never raises."""
        firsts = buffer[::size]
        if self._many is None or not all(firsts.translate(_IS_QUIC)):
            for data in split_untrusted(buffer, size):
                if not self._closed:  # by the handler of one before
                    self.received(data, source)
            return
        if self.nat64 is not None:
            source = self.nat64.inward(source)
        self._datagrams_in["quic"] += len(firsts)
        self._bytes_in["quic"] += len(buffer)
        self._many(buffer, size, source)


def _error_of(exc: OSError, address: Address) -> P2PError:
    if exc.errno == errno.EADDRINUSE:
        return PortInUseError(
            f"UDP port {address.port} is in use by another program; choose another with --listen.", address=str(address)
        )
    if exc.errno in _NO_FAMILY:
        return InvalidConfigError(f"{address.ip} is not an address of this machine.", address=str(address))
    if exc.errno in (errno.EACCES, errno.EPERM):
        return InvalidConfigError(
            f"The system does not allow UDP port {address.port}; choose one above 1023.", address=str(address)
        )
    return P2PError(f"The system refuses to listen on {address} ({exc.strerror}).", address=str(address))
