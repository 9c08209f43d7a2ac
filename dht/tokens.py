"""Two kinds of stateless tokens, both keyed BLAKE2b: proof that somebody receives at an address.

*Retry tokens* go to unproven senders of signed requests when we are over budget (as QUIC's Retry, RFC 9000, section
8.1.2): bound to IP and port, good for 60 s. *Put tokens* come with every answer about a key and allow a store under
it: bound to IP and key, good for one to two hours (as mainline's BEP 5, "Tokens", which says ten: ours last until the
author's next search, so that what is refreshed meanwhile goes straight to its holders).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from p2pnode.core.errors import BadPacket

__all__ = ["PUT_TOKEN_BYTES", "PUT_TOKEN_LIFE", "RETRY_TOKEN_BYTES", "PutTokens", "RetryTokens"]

RETRY_TOKEN_BYTES = 24  # 4 of time, 20 of MAC
PUT_TOKEN_BYTES = 8  # guessing one takes 2^63 tries within two hours
RETRY_LIFE = 60.0
PUT_TOKEN_LIFE = 3_600.0  # at least; at most twice that


class RetryTokens:
    """Tokens for (IP, port)."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._secret = token_bytes(32)

    def issue(self, packed_address: bytes, now: float) -> bytes:
        stamp = (int(now) & 0xFFFFFFFF).to_bytes(4, "big")
        return stamp + self._mac(stamp + packed_address)

    def check_untrusted(self, token: bytes, packed_address: bytes, now: float) -> None:
        """Raise BadPacket: `bad_token`, `old_token`."""
        stamp = token[:4]
        if len(token) != RETRY_TOKEN_BYTES or not hmac.compare_digest(token[4:], self._mac(stamp + packed_address)):
            raise BadPacket("bad_token")
        age = (int(now) - int.from_bytes(stamp, "big")) & 0xFFFFFFFF
        if age > RETRY_LIFE:
            raise BadPacket("old_token")

    def _mac(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=20, key=self._secret, person=b"p2pnode/retry").digest()


class PutTokens:
    """Tokens for (IP, key), under a secret that changes every hour."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._current = self._previous = token_bytes(32)
        self._rotate_at: float | None = None

    def issue(self, packed_address: bytes, key: bytes, now: float) -> bytes:
        """`packed_address`: with port, which is not part of the token: a NAT may change it."""
        self._rotate(now)
        return _put_mac(self._current, packed_address, key)

    def check(self, token: bytes, packed_address: bytes, key: bytes, now: float) -> bool:
        self._rotate(now)
        return any(
            hmac.compare_digest(token, _put_mac(secret, packed_address, key))
            for secret in (self._current, self._previous)
        )

    def _rotate(self, now: float) -> None:
        if self._rotate_at is None:
            self._rotate_at = now + PUT_TOKEN_LIFE
        elif now >= self._rotate_at:
            stale = now >= self._rotate_at + PUT_TOKEN_LIFE  # nobody asked for a whole period: the old one is too old
            self._previous = self._token_bytes(32) if stale else self._current
            self._current = self._token_bytes(32)
            # From when it was due, not from now: else what was given out just after the last one lives for three.
            self._rotate_at = now + PUT_TOKEN_LIFE if stale else self._rotate_at + PUT_TOKEN_LIFE


def _put_mac(secret: bytes, packed_address: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(packed_address[:-2] + key, digest_size=PUT_TOKEN_BYTES, key=secret).digest()
