"""Blinded device ids, receipts of conversations, and reports made with them. Pure (docs/protocol/random.md).

A device has a secret that never leaves it; each week another key pair comes out of that, and the public key is the id
that reports attach to. A receipt is what both sides of a conversation sign at its start. A report is the other side's
signature of that receipt, announced under the other's id by the reporter's key: whoever had no conversation with a
device has no such signature, and there is one entry per topic and signer.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from p2pnode import AccountKey, BadPacket, PeerId, signing_input

__all__ = [
    "EPOCH_S",
    "LOBBY",
    "NONCE_BYTES",
    "REPORT_BYTES",
    "Receipt",
    "device_key",
    "epoch_of",
    "meeting_of",
    "read_report_untrusted",
    "report_value",
    "reports_topic",
]

# Fixed by this protocol.
EPOCH_S = 7 * 86_400  # of one blinded id; weeks since 1970, so a week begins on Thursday, 00:00 UTC
NONCE_BYTES = 16
LOBBY = hashlib.sha256(b"p2pnode/1/random-lobby").digest()[:20]
REPORT_VERSION = 1
REPORT_BYTES = 1 + 4 + 32 + 64
_DOMAIN = b"p2pnode/1/random"
_RECEIPT = b"receipt"
_DEVICE = b"p2pnode/1/random-device"
_MEETING = b"p2pnode/1/random-meeting"
_REPORTS = b"p2pnode/1/random-reports"


def epoch_of(at: float) -> int:
    """Return the number of the week of a moment (Unix seconds)."""
    return int(at // EPOCH_S)


def device_key(secret: bytes, epoch: int) -> AccountKey:
    """Return the key pair of one week: its seed is HMAC-SHA256(secret, "..random-device" || epoch, 4 bytes)."""
    return AccountKey(hmac.digest(secret, _DEVICE + epoch.to_bytes(4, "big"), "sha256"))


def meeting_of(one: tuple[PeerId, bytes], other: tuple[PeerId, bytes]) -> bytes:
    """Return the 32 bytes that name one conversation, from both throw-away ids and nonces, the smaller id first.

    Who does not know the nonces cannot tell from it whose conversation it was.
    """
    (low, low_nonce), (high, high_nonce) = sorted((one, other), key=lambda side: side[0].raw)
    return hashlib.sha256(_MEETING + low.raw + low_nonce + high.raw + high_nonce).digest()


def reports_topic(device: bytes, epoch: int) -> bytes:
    """Return the topic (20 bytes) under which reports against a blinded id are; nobody guesses it who never met it."""
    return hashlib.sha256(_REPORTS + epoch.to_bytes(4, "big") + device).digest()[:20]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What both sides sign. `at`: Unix seconds of the start. `one`, `other`: blinded ids, in any order."""

    at: int
    one: bytes
    other: bytes
    meeting: bytes

    @property
    def epoch(self) -> int:
        return epoch_of(self.at)

    def signing_input(self) -> bytes:
        """at 4 · smaller id 32 · greater id 32 · meeting 32, in the domain p2pnode/1/random."""
        low, high = sorted((self.one, self.other))
        return signing_input(_DOMAIN, _RECEIPT, self.at.to_bytes(4, "big") + low + high + self.meeting)

    def signed_by(self, device: bytes, signature: bytes) -> bool:
        """Whether a blinded id signed it. Raise BadPacket when that id is no key."""
        return PeerId.from_untrusted(device).verify(signature, self.signing_input())


def report_value(receipt: Receipt, signature: bytes) -> bytes:
    """Return what a reporter announces. `signature`: the receipt's, of the reported device."""
    return bytes((REPORT_VERSION,)) + receipt.at.to_bytes(4, "big") + receipt.meeting + signature


def read_report_untrusted(value: bytes, reporter: bytes, device: bytes, epoch: int, now: float) -> int:
    """Return when (Unix seconds) the conversation began that `reporter` reports `device` for. About 0.1 ms.

    `reporter`: the key that signed the entry. Raise BadPacket: `report_length`, `report_version`, `own_report`,
    `report_time` (another week, or the future), `bad_key`, `bad_signature`.
    """
    if len(value) != REPORT_BYTES:
        raise BadPacket("report_length")
    if value[0] != REPORT_VERSION:
        raise BadPacket("report_version")
    if reporter == device:
        raise BadPacket("own_report")
    at = int.from_bytes(value[1:5], "big")
    if epoch_of(at) != epoch or at > now + 600:
        raise BadPacket("report_time")
    if not Receipt(at, reporter, device, value[5:37]).signed_by(device, value[37:]):
        raise BadPacket("bad_signature")
    return at
