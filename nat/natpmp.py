"""NAT-PMP, the host's side: the bytes. RFC 6886, "NAT Port Mapping Protocol (NAT-PMP)", section 3. Pure.

external address  request  version 0, opcode 0                                                  2 bytes
                  answer   0, 128, result u16, epoch u32, address 4 bytes                      12
map UDP           request  0, 1, reserved u16, inside port u16, wanted port u16, seconds u32   12
                  answer   0, 129, result u16, epoch u32, inside port, outside port, seconds   16
error             answer   0, opcode + 128, result u16, epoch u32                               8 or more
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from p2pnode.core.errors import BadPacket

__all__ = [
    "EXTERNAL",
    "MAP_UDP",
    "RESULTS",
    "SUCCESS",
    "VERSION",
    "NatPmpAnswer",
    "external_request",
    "map_request",
    "parse_answer_untrusted",
]

# Fixed by the specification
VERSION = 0
EXTERNAL, MAP_UDP = 0, 1
SUCCESS = 0
RESULTS = ("success", "unsupported-version", "not-authorized", "network-failure", "out-of-resources",
           "unsupported-opcode")  # fmt: skip
"""Names of the result codes, section 3.5."""
_ANSWER = 128
_MAX_BYTES = 1100  # of ours; no answer is longer than 16


@dataclass(frozen=True)
class NatPmpAnswer:
    """`epoch`: seconds since the gateway forgot everything. `external_ip`: only of an answer to EXTERNAL, None when it
    has none; the ports and `lifetime_s` only of one to MAP_UDP."""

    opcode: int
    result: int
    epoch: int
    external_ip: str | None = None
    internal_port: int = 0
    external_port: int = 0
    lifetime_s: int = 0


def external_request() -> bytes:
    """What is your outside address?"""
    return bytes((VERSION, EXTERNAL))


def map_request(internal_port: int, wanted_port: int, lifetime_s: int) -> bytes:
    """Map a UDP port of the sender's address; a lifetime of 0 deletes, then with `wanted_port` 0 (section 3.4)."""
    return struct.pack("!BBHHHI", VERSION, MAP_UDP, 0, internal_port, wanted_port, lifetime_s)


def parse_answer_untrusted(data: bytes) -> NatPmpAnswer:
    """Read an answer. Raise BadPacket: `malformed`, `no_answer`, `other_version`, `other_opcode`."""
    if not 8 <= len(data) <= _MAX_BYTES:
        raise BadPacket("malformed")
    if data[0] != VERSION:
        raise BadPacket("other_version")
    if data[1] < _ANSWER:
        raise BadPacket("no_answer")
    opcode = data[1] - _ANSWER
    result, epoch = struct.unpack_from("!HI", data, 2)
    if opcode not in (EXTERNAL, MAP_UDP):
        raise BadPacket("other_opcode")
    if result != SUCCESS:
        return NatPmpAnswer(opcode, result, epoch)
    if opcode == EXTERNAL:
        if len(data) < 12:
            raise BadPacket("malformed")
        ip = ipaddress.IPv4Address(data[8:12])
        return NatPmpAnswer(opcode, result, epoch, None if ip.is_unspecified else str(ip))
    if len(data) < 16:
        raise BadPacket("malformed")
    inside, outside, seconds = struct.unpack_from("!HHI", data, 8)
    if seconds and not outside:
        raise BadPacket("malformed")
    return NatPmpAnswer(opcode, result, epoch, None, inside, outside, seconds)
