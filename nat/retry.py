"""Who may begin a handshake: limits on unproven connections, and Retry tokens.

A handshake costs us about 2 ms and 50 KiB before the other side has proven anything, not even its address. Up to a
limit everybody is served; above it the sender must first return a token (RFC 9000, section 8.1.2, "Address Validation
Using Retry Packets"), which costs us one AEAD and no memory; then limits by prefix mean something, as the address is
real. What comes by a relayed flow counts for that flow alone.

Differences from qh3: its tokens are RSA (1.6 ms each). Ours: nonce (12) · ChaCha20-Poly1305 of [issued at, ms (8) ·
length (1) · original destination connection id · length (1) · retry source connection id], with the packed address as
associated data. The key lives as long as the endpoint.
"""

from __future__ import annotations

import enum
import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.nat.path import Path

__all__ = ["AdmissionPolicy", "RetryTokens", "Verdict", "party_of"]

TOKEN_LIFETIME_S = 10.0  # a round trip, retransmissions included; a token admits its own address only
PER_FLOW = 4  # unproven connections by one relayed flow: its peer's own, who dials again when one got lost
MAX_TOKEN_BYTES = 12 + 8 + 2 + 20 + 20 + 16


def party_of(path: Path) -> object:
    """Return whose handshakes and connections count together: those of an address block, or of one relayed flow. The
    relay's address, which many peers come from, and its neighbours, says nothing of them."""
    return path.carrier if path.relayed else _prefix_of(path.remote)


@lru_cache(maxsize=4096)
def _prefix_of(address: Address) -> bytes:
    """Return what one party usually holds: the /24 of an IPv4 address (3 bytes), the /48 of an IPv6 one (6)."""
    packed = ipaddress.ip_address(address.ip.partition("%")[0]).packed
    return packed[:3] if len(packed) == 4 else packed[:6]


class RetryTokens:
    """Makes and checks tokens; keeps no state per client."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._aead = ChaCha20Poly1305(token_bytes(32))

    def make(self, source: Address, original_cid: bytes, retry_cid: bytes, now: float) -> bytes:
        """Return a token of at most 78 bytes for this address and these connection ids (up to 20 bytes each)."""
        plain = int(now * 1000).to_bytes(8, "big")
        plain += bytes((len(original_cid),)) + original_cid + bytes((len(retry_cid),)) + retry_cid
        nonce = self._token_bytes(12)
        return nonce + self._aead.encrypt(nonce, plain, source.pack())

    def read_untrusted(self, token: bytes, source: Address, now: float) -> tuple[bytes, bytes]:
        """Return (original destination cid, retry source cid). Raise BadPacket: `bad_token`, `old_token`."""
        if not 28 < len(token) <= MAX_TOKEN_BYTES:
            raise BadPacket("bad_token")
        try:
            plain = self._aead.decrypt(token[:12], token[12:], source.pack())
        except InvalidTag as exc:
            raise BadPacket("bad_token") from exc
        if now - int.from_bytes(plain[:8], "big") / 1000 > TOKEN_LIFETIME_S:
            raise BadPacket("old_token")
        split = 9 + plain[8]
        return plain[9:split], plain[split + 1 :]


class Verdict(enum.Enum):
    """What to do with a first packet."""

    ACCEPT = "accept"
    RETRY = "retry"
    DROP = "drop"
    DISPLACE = "displace"
    """Accept, and give up the oldest unproven one of the heaviest party for it."""


@dataclass
class AdmissionPolicy:
    """Counts unproven incoming connections by party (`party_of`). Memory: one counter per party that has one, at most
    `limit`."""

    retry_above: int
    """Unproven connections from which on a token is asked for."""
    limit: int
    """Unproven connections at which first packets are dropped."""
    per_prefix: int
    """Unproven connections per /24 or /48, enforced only above `retry_above`: one busy LAN is no attack."""

    def __post_init__(self) -> None:
        self._by_party: Counter[object] = Counter()
        self._total = 0

    @property
    def unproven(self) -> int:
        return self._total

    def judge(self, path: Path, *, has_token: bool) -> Verdict:
        """`has_token`: its token was valid, so the address is real."""
        own = self._by_party.get(party_of(path), 0)
        if path.relayed and own >= PER_FLOW:
            return Verdict.DROP
        if self._total < self.retry_above:
            return Verdict.ACCEPT
        if not has_token:
            return Verdict.RETRY
        if own >= self.per_prefix:
            return Verdict.DROP
        if self._total < self.limit:
            return Verdict.ACCEPT
        # Full: a few parties that open handshakes and never end them must not lock everybody else out.
        return Verdict.DISPLACE if own + 1 < max(self._by_party.values()) else Verdict.DROP

    def heaviest(self) -> object:
        """Return the party with the most unproven connections; None when there are none."""
        return max(self._by_party, key=self._by_party.__getitem__, default=None)

    def began(self, path: Path) -> None:
        self._total += 1
        self._by_party[party_of(path)] += 1

    def ended(self, path: Path) -> None:
        """Proven or gone; call exactly once per `began`."""
        self._total -= 1
        party = party_of(path)
        self._by_party[party] -= 1
        if self._by_party[party] <= 0:
            del self._by_party[party]
