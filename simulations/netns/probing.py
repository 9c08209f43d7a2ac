"""What a router does, found by asking: mapping and filtering tests with four STUN addresses.

RFC 5780, "NAT Behavior Discovery Using STUN", sections 4.3 "Determining NAT Mapping Behavior" and 4.4 "Determining NAT
Filtering Behavior". The encoding here is the laboratory's own on purpose: it judges the node's.

Differences: all mapping tests leave at once, and the verdict compares all three; both filtering tests leave at once
from a fresh port; one more test tells whether a host reaches itself through its public address (hairpin).
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.kinds import ADDRESS, ADDRESS_AND_PORT, INDEPENDENT

__all__ = ["ProbeServer", "Verdict", "probe"]

# Fixed by the specification (RFC 8489, section 5; RFC 5780, section 7)
_COOKIE = 0x2112A442
_REQUEST, _RESPONSE = 0x0001, 0x0101
_CHANGE_REQUEST, _XOR_MAPPED_ADDRESS = 0x0003, 0x0020
CHANGE_IP, CHANGE_PORT = 4, 2

# Chosen by us
PORTS = (3478, 3479)
_TRIES = 3
_HAIRPIN = b"p2pnode lab hairpin"

OpenSocket = Callable[[], socket.socket]


@dataclass(frozen=True)
class Verdict:
    """What was found. `public`: the address that others see; `port_kept`: its port is the private one."""

    public: Address
    nat: bool
    mapping: str
    filtering: str
    port_kept: bool
    hairpin: bool


def encode_request(transaction: bytes, change: int = 0) -> bytes:
    """Return a binding request; `change`: bits of CHANGE-REQUEST. 20 bytes, 28 with `change`."""
    body = struct.pack("!HHI", _CHANGE_REQUEST, 4, change) if change else b""
    return struct.pack("!HHI", _REQUEST, len(body), _COOKIE) + transaction + body


def encode_response(transaction: bytes, source: Address) -> bytes:
    """Return the binding response for an IPv4 source, 32 bytes."""
    packed = int.from_bytes(socket.inet_aton(source.ip), "big") ^ _COOKIE
    value = struct.pack("!BBHI", 0, 1, source.port ^ _COOKIE >> 16, packed)
    return (
        struct.pack("!HHI", _RESPONSE, 12, _COOKIE) + transaction + struct.pack("!HH", _XOR_MAPPED_ADDRESS, 8) + value
    )


def parse_request_untrusted(data: bytes) -> tuple[bytes, int]:
    """Return transaction id and change bits. Raise BadPacket("malformed")."""
    if len(data) not in (20, 28) or struct.unpack_from("!HHI", data) != (_REQUEST, len(data) - 20, _COOKIE):
        raise BadPacket("malformed")
    if len(data) == 20:
        return data[8:20], 0
    kind, size, change = struct.unpack_from("!HHI", data, 20)
    if (kind, size) != (_CHANGE_REQUEST, 4):
        raise BadPacket("malformed")
    return data[8:20], change & (CHANGE_IP | CHANGE_PORT)


def parse_response_untrusted(data: bytes) -> tuple[bytes, Address]:
    """Return transaction id and mapped address. Raise BadPacket("malformed")."""
    if len(data) != 32 or struct.unpack_from("!HHI", data) != (_RESPONSE, 12, _COOKIE):
        raise BadPacket("malformed")
    kind, size, _, family, port, packed = struct.unpack_from("!HHBBHI", data, 20)
    if (kind, size, family) != (_XOR_MAPPED_ADDRESS, 8, 1):
        raise BadPacket("malformed")
    return data[8:20], Address(socket.inet_ntoa((packed ^ _COOKIE).to_bytes(4, "big")), port ^ _COOKIE >> 16)


class ProbeServer:
    """Answers from two addresses and two ports each, on a thread of its own."""

    def __init__(self, bind: Callable[[str, int], socket.socket], ips: tuple[str, str]) -> None:
        """`bind`: opens a UDP socket in the server's namespace."""
        self.addresses = {(i, j): Address(ip, port) for i, ip in enumerate(ips) for j, port in enumerate(PORTS)}
        self._sockets = {place: bind(*address) for place, address in self.addresses.items()}
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        places = {made: place for place, made in self._sockets.items()}
        while True:
            for ready in select.select([self._stopped, *places], [], [])[0]:
                if ready is self._stopped:
                    return
                data, (ip, port) = ready.recvfrom(2048)
                try:
                    transaction, change = parse_request_untrusted(data)
                except BadPacket:
                    continue
                i, j = places[ready]
                answering = self._sockets[i ^ bool(change & CHANGE_IP), j ^ bool(change & CHANGE_PORT)]
                answering.sendto(encode_response(transaction, Address(ip, port)), (ip, port))

    def close(self) -> None:
        """End the thread."""
        self._stop.close()
        self._thread.join()
        for made in (*self._sockets.values(), self._stopped):
            made.close()


def probe(
    open_socket: OpenSocket, own_ip: str, servers: Mapping[tuple[int, int], Address], *, wait_s: float
) -> Verdict:
    """Find out what stands between `open_socket`'s host and the servers. Raise LabError when nothing answers.

    `servers`: by (number of the ip, number of the port), as `ProbeServer.addresses`. `wait_s`: how long silence is
    waited for before it counts; well above a round trip.
    """
    with open_socket() as mapping, open_socket() as filtering:
        first, second = _Questions(mapping, wait_s), _Questions(filtering, wait_s)
        seen = [first.ask(servers[place]) for place in ((0, 0), (1, 0), (1, 1))]
        second.ask(servers[0, 0])
        first.wait()
        second.wait()
        mapped = [first.answers.get(transaction) for transaction in seen]
        if mapped[0] is None or mapped[1] is None or mapped[2] is None or not second.answers:
            raise LabError("The laboratory's probe got no answer: its network does not work.")
        anybody = second.ask(servers[0, 0], CHANGE_IP | CHANGE_PORT)
        same_ip = second.ask(servers[0, 0], CHANGE_PORT)
        second.wait()
        hairpin = _hairpin(filtering, mapping, mapped[0], wait_s)
        own = Address(own_ip, mapping.getsockname()[1])
    return Verdict(
        public=mapped[0],
        nat=mapped[0] != own,
        mapping=_word(mapped[0] == mapped[1] == mapped[2], mapped[1] == mapped[2]),
        filtering=_word(anybody in second.answers, same_ip in second.answers),
        port_kept=mapped[0].port == own.port,
        hairpin=hairpin,
    )


def _word(for_all: bool, for_one_address: bool) -> str:
    return INDEPENDENT if for_all else ADDRESS if for_one_address else ADDRESS_AND_PORT


class _Questions:
    """Requests from one socket, repeated until answered or `wait_s` is over."""

    def __init__(self, made: socket.socket, wait_s: float) -> None:
        self.answers: dict[bytes, Address] = {}
        self._socket = made
        self._wait_s = wait_s
        self._open: dict[bytes, tuple[bytes, Address]] = {}
        self._number = 0

    def ask(self, server: Address, change: int = 0) -> bytes:
        """Prepare a request; return its transaction id."""
        self._number += 1
        transaction = self._number.to_bytes(12, "big")
        self._open[transaction] = (encode_request(transaction, change), server)
        return transaction

    def wait(self) -> None:
        """Send what is prepared and collect the answers."""
        for _ in range(_TRIES):
            for data, server in self._open.values():
                self._socket.sendto(data, server)
            deadline = time.monotonic() + self._wait_s / _TRIES
            while self._open and (left := deadline - time.monotonic()) > 0:
                if select.select([self._socket], [], [], left)[0]:
                    self._receive()
        self._open.clear()

    def _receive(self) -> None:
        data, _ = self._socket.recvfrom(2048)
        try:
            transaction, mapped = parse_response_untrusted(data)
        except BadPacket:
            return
        if self._open.pop(transaction, None) is not None:
            self.answers[transaction] = mapped


def _hairpin(sender: socket.socket, receiver: socket.socket, public: Address, wait_s: float) -> bool:
    """Whether a packet to the host's own public address comes back in. The receiver has sent nothing there."""
    sender.sendto(_HAIRPIN, public)
    deadline = time.monotonic() + wait_s / _TRIES
    while (left := deadline - time.monotonic()) > 0:
        if select.select([receiver], [], [], left)[0] and receiver.recvfrom(2048)[0] == _HAIRPIN:
            return True
    return False
