"""Which of two QUIC packets was sent later? From their numbers, beneath header protection. Pure.

qh3 tells that a packet is genuine and new, but not its number. A relay can hold a packet back for hours: new, genuine,
and no sign that the other side is there now. Only a packet with the highest number is (RFC 9000, section 9.3,
"Responding to Connection Migration").

A packet carries the lower bytes of its number, two from qh3. Both packets were decrypted, each when its number was near
the highest one then, so the lower bytes are compared as in RFC 9000, A.3, "Sample Packet Number Decoding Algorithm":
less than half of their range apart. The key of header protection never changes (RFC 9001, section 6).
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from p2pnode.nat.headers import CID_BYTES

__all__ = ["HEAD_BYTES", "PacketOrder"]

_NUMBER_AT = 1 + CID_BYTES
_SAMPLE_AT = _NUMBER_AT + 4
HEAD_BYTES = _SAMPLE_AT + 16
"""What is looked at of a packet with a short header: first byte, connection id, number, sample."""


class PacketOrder:
    """The key of one direction of one connection."""

    def __init__(self, cipher: str, key: bytes) -> None:
        """`cipher`: `aes-128-ecb`, `aes-256-ecb` or `chacha20` (RFC 9001, section 5.4)."""
        self._aes, self._key = cipher.startswith("aes"), key

    def later(self, one: bytes, other: bytes) -> bool:
        """Whether `one` was sent after `other`; both decrypted packets with short headers, or their first
        `HEAD_BYTES`."""
        first, first_bytes = self._number(one)
        second, second_bytes = self._number(other)
        bits = 8 * min(first_bytes, second_bytes)
        return 0 < (first - second) % (1 << bits) < 1 << (bits - 1)

    def _number(self, packet: bytes) -> tuple[int, int]:
        """Return the bytes of the number that it carries, and how many they are (RFC 9001, section 5.4.1)."""
        sample = packet[_SAMPLE_AT:HEAD_BYTES]
        if self._aes:
            mask = Cipher(algorithms.AES(self._key), modes.ECB()).encryptor().update(sample)  # noqa: S305 - RFC 9001
        else:
            mask = Cipher(algorithms.ChaCha20(self._key, sample), None).encryptor().update(bytes(5))
        length = 1 + ((packet[0] ^ mask[0]) & 3)
        protected = packet[_NUMBER_AT : _NUMBER_AT + length]
        return int.from_bytes(bytes(a ^ b for a, b in zip(protected, mask[1:], strict=False)), "big"), length
