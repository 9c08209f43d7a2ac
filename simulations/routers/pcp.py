"""PCP, the router's side: MAP and ANNOUNCE. RFC 6887, "Port Control Protocol (PCP)".

    request  version 2, opcode, reserved u16, lifetime u32, client address 16                 24 bytes, section 7.1
    answer   2, opcode | 128, reserved, result, lifetime u32, epoch u32, reserved 12          24, section 7.2
    MAP      nonce 12, protocol, reserved 3, inside port u16, outside port u16, address 16    36, section 11.1
    option   code, reserved, length u16, data padded to 4                                     section 7.3

IPv4 addresses are IPv4-mapped. Not offered: PEER (answered by UNSUPP_OPCODE), FILTER and THIRD_PARTY (UNSUPP_OPTION),
all of which a server may lack. For IPv6 hosts MAP opens a pinhole in the firewall.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.simulations.routers.grants import LINE_IS_DEAD, NO_ROOM, Grants
from p2pnode.simulations.routers.words import Protocol

__all__ = ["VERSION", "Pcp"]

# Fixed by the specification
VERSION = 2
MAX_BYTES = 1100  # section 7 "Common Request and Response Header Format"
_ANSWER = 0x80
_ANNOUNCE, _MAP = 0, 1
_PREFER_FAILURE = 2
_MANDATORY = 0x80  # options below must be understood
(_SUCCESS, _UNSUPP_VERSION, _NOT_AUTHORIZED, _MALFORMED, _UNSUPP_OPCODE, _UNSUPP_OPTION, _MALFORMED_OPTION,
 _NETWORK_FAILURE, _NO_RESOURCES, _UNSUPP_PROTOCOL, _QUOTA, _CANNOT_PROVIDE, _ADDRESS_MISMATCH) = range(13)  # fmt: skip
_PROTOCOLS: dict[int, Protocol] = {6: "tcp", 17: "udp"}

# Chosen by us, within section 15: how long a client should wait after errors that pass, and after those that do not
_SHORT_ERROR_S, _LONG_ERROR_S = 30, 1800
_LEASE_MIN_S = 120  # section 15, "Mapping Lifetime": a server may raise what it is asked for


class _RefusalError(Exception):
    def __init__(self, result: int, seconds: int = _LONG_ERROR_S) -> None:
        super().__init__(result)
        self.result = result
        self.seconds = seconds


@dataclass(frozen=True)
class _MapRequest:
    nonce: bytes
    protocol: int
    inside: int
    outside: int
    outside_ip: bytes


class Pcp:
    """Answers requests; holds nothing but what the router holds."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants

    def answer_untrusted(self, now: float, data: bytes, source: Address) -> bytes | None:
        """Return the answer to a host's request, None for an answer. Raise BadPacket for what is too short to answer.

        Section 8.2 "Receiving and Processing a Request".
        """
        if len(data) < 2:
            raise BadPacket("malformed")
        if data[1] & _ANSWER:
            return None
        opcode = data[1]
        if data[0] != VERSION:
            return self._header(now, opcode, _UNSUPP_VERSION, _LONG_ERROR_S)
        if len(data) < 24 or len(data) > MAX_BYTES or len(data) % 4:
            return self._refused(now, data, opcode, _RefusalError(_MALFORMED))
        try:
            if _client(data) != source.ip:
                raise _RefusalError(_ADDRESS_MISMATCH)
            if opcode == _ANNOUNCE:
                _options(data, 24)
                return self.announcement(now)
            if opcode != _MAP:
                raise _RefusalError(_UNSUPP_OPCODE)
            return self._map(now, data, source)
        except _RefusalError as refusal:
            return self._refused(now, data, opcode, refusal)

    def announcement(self, now: float) -> bytes:
        """Return what tells the epoch: the answer to ANNOUNCE, also sent unasked after a restart (section 14.1)."""
        return self._header(now, _ANNOUNCE, _SUCCESS, 0)

    def _map(self, now: float, data: bytes, source: Address) -> bytes:
        """Section 11.3 "Processing a MAP Request"."""
        if len(data) < 60:
            raise _RefusalError(_MALFORMED)
        seconds = int.from_bytes(data[4:8], "big")
        inside, outside = struct.unpack_from("!HH", data, 40)
        asked = _MapRequest(data[24:36], data[36], inside, outside, data[44:60])
        options = _options(data, 60)
        if seconds == 0:
            return self._delete(now, data, asked, source)
        if asked.protocol not in _PROTOCOLS:
            raise _RefusalError(_UNSUPP_PROTOCOL)
        if asked.inside == 0:
            raise _RefusalError(_UNSUPP_PROTOCOL if asked.protocol == 0 else _MALFORMED)
        protocol, internal = _PROTOCOLS[asked.protocol], Address(source.ip, asked.inside)
        own = self._grants.router.openings.of(now, protocol, internal)
        if own is not None and own.nonce and own.nonce != asked.nonce:
            raise _RefusalError(_NOT_AUTHORIZED)
        only_wanted = _PREFER_FAILURE in options
        if only_wanted and not self._wanted_is_possible(asked, source):
            raise _RefusalError(_CANNOT_PROVIDE)
        granted = max(_LEASE_MIN_S, min(seconds, self._grants.router.kind.mapping_lease_max_s))
        opening = self._grants.open(
            now, protocol, internal, asked.outside, granted, by="pcp", nonce=asked.nonce, only_wanted=only_wanted
        )
        if isinstance(opening, str):
            if opening == LINE_IS_DEAD:
                raise _RefusalError(_NETWORK_FAILURE, _SHORT_ERROR_S)
            raise _RefusalError(_NO_RESOURCES if opening == NO_ROOM else _CANNOT_PROVIDE, _SHORT_ERROR_S)
        return self._header(now, _MAP, _SUCCESS, granted) + _map_data(asked, opening.external)

    def _delete(self, now: float, data: bytes, asked: _MapRequest, source: Address) -> bytes:
        """Section 15.1 "Lifetime Processing for the MAP Opcode": deleting what is not there succeeds."""
        if asked.protocol == 0 and asked.inside:
            raise _RefusalError(_MALFORMED)
        if asked.protocol and asked.protocol not in _PROTOCOLS:
            raise _RefusalError(_UNSUPP_PROTOCOL)
        for opening in self._grants.of_host(now, source.ip, _PROTOCOLS.get(asked.protocol)):
            if asked.inside in (0, opening.internal.port):
                if opening.nonce and opening.nonce != asked.nonce:
                    raise _RefusalError(_NOT_AUTHORIZED)
                self._grants.close(opening)
        return self._header(now, _MAP, _SUCCESS, 0) + data[24:60]

    def _wanted_is_possible(self, asked: _MapRequest, source: Address) -> bool:
        """Whether the outside address that is wanted is ours; all zeroes for any."""
        wanted = _unpack(asked.outside_ip)
        return wanted in ("::", "0.0.0.0", self._grants.external_ip(source.ip), source.ip)

    def _refused(self, now: float, data: bytes, opcode: int, refusal: _RefusalError) -> bytes:
        """An error repeats the request's data. Section 8.2."""
        rest = data[24:MAX_BYTES]
        return self._header(now, opcode, refusal.result, refusal.seconds) + rest + bytes(-len(rest) % 4)

    def _header(self, now: float, opcode: int, result: int, seconds: int) -> bytes:
        return struct.pack("!BBBBII12x", VERSION, _ANSWER | opcode, 0, result, seconds, self._grants.epoch(now))


def _client(data: bytes) -> str:
    return _unpack(data[8:24])


def _unpack(packed: bytes) -> str:
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def _pack(ip: str) -> bytes:
    return ipaddress.ip_address(f"::ffff:{ip}" if ":" not in ip else ip).packed


def _map_data(asked: _MapRequest, external: Address) -> bytes:
    return asked.nonce + struct.pack("!B3xHH", asked.protocol, asked.inside, external.port) + _pack(external.ip)


def _options(data: bytes, at: int) -> set[int]:
    """Return the codes of the options. Raise _RefusalError. Section 7.3 "Options"."""
    found: set[int] = set()
    while at < len(data):
        if at + 4 > len(data):
            raise _RefusalError(_MALFORMED_OPTION)
        code, length = data[at], int.from_bytes(data[at + 2 : at + 4], "big")
        at += 4 + length + -length % 4
        if at > len(data) or code in found:
            raise _RefusalError(_MALFORMED_OPTION)
        if code == _PREFER_FAILURE:
            if length:
                raise _RefusalError(_MALFORMED_OPTION)
        elif code < _MANDATORY:
            raise _RefusalError(_UNSUPP_OPTION)
        found.add(code)
    return found
