"""The value of a device record: which nodes belong to a user.

The record itself is a signed record of the DHT under the account key with salt `RECORD_SALT`; this module only reads
and writes its value. A listed node belongs to the user only if it signs the account back (its presence names the user),
so that nobody can list somebody else's node. Readers keep the highest `seq` they saw: an older record would bring a
revoked device back (security.md, V3).

    offset  bytes   field
    0       1       version, 1
    1       32 n    n node keys (Ed25519 public keys), n = 1..23, strictly ascending

Ascending order makes the value of a set of devices unique and duplicates impossible.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId

__all__ = ["MAX_DEVICES", "RECORD_SALT", "decode_devices_untrusted", "encode_devices"]

RECORD_SALT = b"devices"
MAX_DEVICES = 23  # chosen: 737 bytes of the 800 that a record holds, room for a later version's extra field
_VERSION = 1
_KEY_BYTES = 32


def encode_devices(devices: Iterable[PeerId]) -> bytes:
    """Return the value for 1 to 23 devices in any order; a device named twice counts once. Raise ValueError."""
    keys = sorted({device.raw for device in devices})
    if not 1 <= len(keys) <= MAX_DEVICES:
        raise ValueError(f"a user has 1 to {MAX_DEVICES} devices, not {len(keys)}")
    return bytes([_VERSION]) + b"".join(keys)


def decode_devices_untrusted(value: bytes) -> tuple[PeerId, ...]:
    """Return the devices, ascending by key. Raise BadPacket: `unknown_version`, `malformed`, `bad_key`."""
    if not value or value[0] != _VERSION:
        raise BadPacket("unknown_version" if value else "malformed")
    count, rest = divmod(len(value) - 1, _KEY_BYTES)
    if rest or not 1 <= count <= MAX_DEVICES:
        raise BadPacket("malformed")
    keys = [value[1 + i * _KEY_BYTES : 1 + (i + 1) * _KEY_BYTES] for i in range(count)]
    if any(left >= right for left, right in itertools.pairwise(keys)):
        raise BadPacket("malformed")
    return tuple(PeerId.from_untrusted(key) for key in keys)
