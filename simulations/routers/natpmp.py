"""NAT-PMP, the router's side. RFC 6886, "NAT Port Mapping Protocol (NAT-PMP)", section 3.

Requests and answers, all big endian:

    external address  request  version 0, opcode 0                                                    2 bytes
                      answer   0, 128, result u16, epoch u32, address 4 bytes                        12
    map (1 UDP, 2 TCP) request 0, opcode, reserved u16, inside port u16, wanted port u16, seconds u32  12
                      answer   0, opcode + 128, result u16, epoch u32, inside port, port, seconds    16
    error             answer   0, opcode + 128, result u16, epoch u32                                 8 (more with 3, 4)

A lifetime of 0 deletes; with inside port 0 everything of that protocol that the host has.
"""

from __future__ import annotations

import ipaddress
import struct

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.simulations.routers.grants import LINE_IS_DEAD, Grants
from p2pnode.simulations.routers.words import Protocol

__all__ = ["ANNOUNCE_GROUP", "CLIENT_PORT", "SERVER_PORT", "VERSION", "NatPmp"]

# Fixed by the specification
SERVER_PORT, CLIENT_PORT = 5351, 5350
ANNOUNCE_GROUP = "224.0.0.1"
VERSION = 0
_ANSWER = 128
_EXTERNAL, _UDP, _TCP = 0, 1, 2
_SUCCESS, _UNSUPPORTED_VERSION, _NETWORK_FAILURE, _NO_RESOURCES, _UNSUPPORTED_OPCODE = 0, 1, 3, 4, 5
_PROTOCOLS: dict[int, Protocol] = {_UDP: "udp", _TCP: "tcp"}


class NatPmp:
    """Answers requests; holds nothing but what the router holds."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants

    def answer_untrusted(self, now: float, data: bytes, source: Address) -> bytes | None:
        """Return the answer to a host's request; None for what is no request. Raise BadPacket when it is too short."""
        if len(data) < 2:
            raise BadPacket("malformed")
        version, opcode = data[0], data[1]
        if version != VERSION:
            return self._error(now, 0, _UNSUPPORTED_VERSION)
        if opcode >= _ANSWER:
            return None
        if opcode == _EXTERNAL:
            return self.external_address(now, source.ip)
        if opcode not in _PROTOCOLS:
            return self._error(now, opcode, _UNSUPPORTED_OPCODE)
        if len(data) < 12:
            raise BadPacket("malformed")
        inside, wanted, seconds = struct.unpack_from("!HHI", data, 4)
        if seconds == 0:
            return self._delete(now, opcode, Address(source.ip, inside))
        if inside == 0:
            raise BadPacket("malformed")
        return self._map(now, opcode, Address(source.ip, inside), wanted, seconds)

    def external_address(self, now: float, host_ip: str) -> bytes:
        """Return the answer that tells the outside address: also announced after a restart (section 3.2.1)."""
        ip = self._grants.external_ip(host_ip)
        result = _SUCCESS if ip is not None else _NETWORK_FAILURE
        packed = ipaddress.IPv4Address(ip or "0.0.0.0").packed
        return struct.pack("!BBHI", VERSION, _ANSWER | _EXTERNAL, result, self._grants.epoch(now)) + packed

    def _map(self, now: float, opcode: int, internal: Address, wanted: int, seconds: int) -> bytes:
        granted = min(seconds, self._grants.router.kind.mapping_lease_max_s)
        opening = self._grants.open(now, _PROTOCOLS[opcode], internal, wanted, granted, by="nat-pmp")
        if isinstance(opening, str):
            result = _NETWORK_FAILURE if opening == LINE_IS_DEAD else _NO_RESOURCES
            return self._mapped(now, opcode, result, internal.port, 0, 0)
        return self._mapped(now, opcode, _SUCCESS, internal.port, opening.external.port, granted)

    def _delete(self, now: float, opcode: int, internal: Address) -> bytes:
        """Section 3.4 "Destroying a Mapping": deleting what is not there succeeds."""
        protocol = _PROTOCOLS[opcode]
        for opening in self._grants.of_host(now, internal.ip, protocol):
            if internal.port in (0, opening.internal.port):
                self._grants.close(opening)
        return self._mapped(now, opcode, _SUCCESS, internal.port, 0, 0)

    def _mapped(self, now: float, opcode: int, result: int, inside: int, outside: int, seconds: int) -> bytes:
        return struct.pack(
            "!BBHIHHI", VERSION, _ANSWER | opcode, result, self._grants.epoch(now), inside, outside, seconds
        )

    def _error(self, now: float, opcode: int, result: int) -> bytes:
        return struct.pack("!BBHI", VERSION, _ANSWER | opcode, result, self._grants.epoch(now))
