"""PCP, the host's side: the bytes of MAP and ANNOUNCE. RFC 6887, "Port Control Protocol (PCP)". Pure.

    request  version 2, opcode, reserved u16, lifetime u32, client address 16                 24 bytes, section 7.1
    answer   2, opcode | 128, reserved, result, lifetime u32, epoch u32, reserved 12          24, section 7.2
    MAP      nonce 12, protocol, reserved 3, inside port u16, outside port u16, address 16    36, section 11.1

IPv4 addresses are written IPv4-mapped. We send no options, and skip those of an answer.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket

__all__ = [
    "ANNOUNCE",
    "MAP",
    "NONCE_BYTES",
    "RESULTS",
    "SUCCESS",
    "VERSION",
    "PcpAnswer",
    "announce_request",
    "map_request",
    "parse_answer_untrusted",
]

# Fixed by the specification
VERSION = 2
NONCE_BYTES = 12
ANNOUNCE, MAP = 0, 1
SUCCESS = 0
MAX_BYTES = 1100  # section 7, "Common Request and Response Header Format"
RESULTS = (
    "success", "unsupp-version", "not-authorized", "malformed-request", "unsupp-opcode", "unsupp-option",
    "malformed-option", "network-failure", "no-resources", "unsupp-protocol", "user-ex-quota",
    "cannot-provide-external", "address-mismatch", "excessive-remote-peers",
)  # fmt: skip
"""Names of the result codes, section 7.4."""
_ANSWER = 0x80
_UDP = 17
_HEADER, _MAP_ANSWER = 24, 60


@dataclass(frozen=True)
class PcpAnswer:
    """`lifetime_s`: of the mapping; of an error: for how long it will stay so. `epoch`: seconds since the gateway
    forgot everything. Of a MAP answer only: `nonce`, `internal_port`, `external` (None: the gateway names none)."""

    opcode: int
    result: int
    lifetime_s: int
    epoch: int
    nonce: bytes = b""
    internal_port: int = 0
    external: Address | None = None


def announce_request(client_ip: str) -> bytes:
    """Are you there, and since when? Section 14.1."""
    return struct.pack("!BBHI", VERSION, ANNOUNCE, 0, 0) + _packed(client_ip)


def map_request(internal: Address, wanted: Address | None, lifetime_s: int, nonce: bytes) -> bytes:
    """Map a UDP port of ours, the address that this will be sent from. `wanted`: the outside address to give us if it
    can be. `lifetime_s` 0 deletes. Section 11.1."""
    outside = _packed(wanted.ip) if wanted is not None else _packed("::" if internal.is_ipv6 else "0.0.0.0")
    return (
        struct.pack("!BBHI", VERSION, MAP, 0, lifetime_s)
        + _packed(internal.ip)
        + nonce
        + struct.pack("!B3xHH", _UDP, internal.port, wanted.port if wanted is not None else 0)
        + outside
    )


def parse_answer_untrusted(data: bytes) -> PcpAnswer:
    """Read an answer to ANNOUNCE or MAP. Raise BadPacket: `malformed`, `no_answer`, `other_version`, `other_opcode`."""
    if not _HEADER <= len(data) <= MAX_BYTES or len(data) % 4:
        raise BadPacket("malformed")
    if data[0] != VERSION:
        raise BadPacket("other_version")
    if not data[1] & _ANSWER:
        raise BadPacket("no_answer")
    opcode, result = data[1] & ~_ANSWER, data[3]
    lifetime, epoch = struct.unpack_from("!II", data, 4)
    if opcode == ANNOUNCE or (opcode == MAP and result != SUCCESS and len(data) < _MAP_ANSWER):
        return PcpAnswer(opcode, result, lifetime, epoch)
    if opcode != MAP:
        raise BadPacket("other_opcode")
    if len(data) < _MAP_ANSWER or data[36] != _UDP:
        raise BadPacket("malformed")
    inside, outside = struct.unpack_from("!HH", data, 40)
    packed = ipaddress.IPv6Address(data[44:60])
    ip = packed.ipv4_mapped or packed
    external = None if ip.is_unspecified or not outside else Address(str(ip), outside)
    return PcpAnswer(opcode, result, lifetime, epoch, data[24:36], inside, external)


def _packed(ip: str) -> bytes:
    return ipaddress.IPv6Address(ip if ":" in ip else f"::ffff:{ip}").packed
