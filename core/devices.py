"""The value of a device record: which nodes belong to a user.

The record itself is a signed record of the DHT under the account key with salt `RECORD_SALT`; this module only reads
and writes its value. A listed node belongs to the user only if it signs the account back (its presence names the user),
so that nobody can list somebody else's node. Readers keep the highest `number` they saw: an older list would bring a
revoked device back (security.md, V3).

    offset  bytes   field
    0       1       version: 1, a list that was never changed, or 2
    1       0, 8    version 2: its number, 1 to 2^63 - 1, big endian: Unix milliseconds of the change, always rising
    1, 9    32 n    n node keys (Ed25519 public keys), n = 1..23, strictly ascending

Ascending order makes the value of a set of devices unique and duplicates impossible. The number is not the record's
`seq`: each device signs the record anew every few hours, also one that has not heard of the newest list.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId

__all__ = ["MAX_DEVICES", "RECORD_SALT", "DeviceList", "decode_devices_untrusted", "encode_devices"]

RECORD_SALT = b"devices"
MAX_DEVICES = 23  # chosen: 745 bytes of the 800 that a record holds, room for a later version's extra field
_KEY_BYTES = 32
_NUMBER_BYTES = 8


@dataclass(frozen=True, slots=True)
class DeviceList:
    """The devices of a user. `number`: which of two lists is newer; 0: never changed, the device speaks for itself."""

    number: int
    devices: tuple[PeerId, ...]

    def __contains__(self, device: PeerId) -> bool:
        return device in self.devices


def encode_devices(devices: Iterable[PeerId], number: int = 0) -> bytes:
    """Return the value for 1 to 23 devices in any order; a device named twice counts once. Raise ValueError."""
    keys = sorted({device.raw for device in devices})
    if not 1 <= len(keys) <= MAX_DEVICES:
        raise ValueError(f"a user has 1 to {MAX_DEVICES} devices, not {len(keys)}")
    if not 0 <= number < 2**63:
        raise ValueError("the number is an unsigned 63-bit number")
    head = b"\2" + number.to_bytes(_NUMBER_BYTES, "big") if number else b"\1"
    return head + b"".join(keys)


def decode_devices_untrusted(value: bytes) -> DeviceList:
    """Return the list, devices ascending by key. Raise BadPacket: `unknown_version`, `malformed`, `bad_key`."""
    if not value or value[0] not in (1, 2):
        raise BadPacket("unknown_version" if value else "malformed")
    start, number = 1, 0
    if value[0] == 2:
        start = 1 + _NUMBER_BYTES
        number = int.from_bytes(value[1:start], "big")
        if len(value) < start or not 0 < number < 2**63:
            raise BadPacket("malformed")
    count, rest = divmod(len(value) - start, _KEY_BYTES)
    if rest or not 1 <= count <= MAX_DEVICES:
        raise BadPacket("malformed")
    keys = [value[start + i * _KEY_BYTES : start + (i + 1) * _KEY_BYTES] for i in range(count)]
    if any(left >= right for left, right in itertools.pairwise(keys)):
        raise BadPacket("malformed")
    return DeviceList(number, tuple(PeerId.from_untrusted(key) for key in keys))
