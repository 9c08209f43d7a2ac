"""ICE candidates and parameters: what an offer or an answer tells the other side for its checks.

Layout, docs/protocol/ice.md: a MessagePack array of

    0   username fragment   str, 4 to 32 characters of A-Z a-z 0-9 + /
    1   password            str, 22 to 64 of the same
    2   candidates          array of at most 10 bins: kind (1: 0 host, 1 srflx, 2 prflx) · address (6 or 18)
    3   guess               bin, 0 or 8: consent to guessed ports, and the own router's rule (nat/guessing.py)

RFC 8445, "Interactive Connectivity Establishment (ICE)". Differences: no foundations, components or related addresses
(one component on one socket, and an own private address is nobody's business who was not told it as a candidate);
priorities are derived from kind and family on both sides instead of being sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import msgspec

from p2pnode.core.address import Address, Realm, Scope, realm_of
from p2pnode.core.errors import BadPacket
from p2pnode.nat.guessing import TERMS_BYTES, GuessTerms

__all__ = ["MAX_CANDIDATES", "CandidateKind", "IceCandidate", "IceParameters", "may_check"]

CandidateKind = Literal["host", "srflx", "prflx"]

# Fixed by the specification: RFC 8445, section 5.1.2.2, "Guidelines for Choosing Type and Local Preferences"
_TYPE_PREFERENCE = {"host": 126, "prflx": 110, "srflx": 100}
# Chosen by us
MAX_CANDIDATES = 10  # security.md C1: what one offer can make us send to
MAX_ENCODED_BYTES = 400
_ICE_CHARS = r"^[A-Za-z0-9+/]+\Z"  # not $, which lets a newline follow
_KINDS: tuple[CandidateKind, ...] = get_args(CandidateKind)


class _Wire(msgspec.Struct, array_like=True, frozen=True):
    # Later versions may append fields; the offer around this is signed, so nobody else does.
    ufrag: Annotated[str, msgspec.Meta(min_length=4, max_length=32, pattern=_ICE_CHARS)]
    password: Annotated[str, msgspec.Meta(min_length=22, max_length=64, pattern=_ICE_CHARS)]
    candidates: Annotated[
        list[Annotated[bytes, msgspec.Meta(min_length=7, max_length=19)]], msgspec.Meta(max_length=MAX_CANDIDATES)
    ]
    guess: Annotated[bytes, msgspec.Meta(max_length=TERMS_BYTES)] = b""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)


@dataclass(frozen=True, slots=True)
class IceCandidate:
    """An address at which a node may be reached.

    `kind`: `host` (of an interface), `srflx` (as others see it), `prflx` (learnt from a check).
    """

    address: Address
    kind: CandidateKind

    @property
    def priority(self) -> int:
        """RFC 8445, section 5.1.2.1, "Recommended Formula"; IPv6 before IPv4 (fewer NATs in between)."""
        preference = 65_535 if self.address.is_ipv6 else 65_534
        return (_TYPE_PREFERENCE[self.kind] << 24) + (preference << 8) + 255


@dataclass(frozen=True, slots=True)
class IceParameters:
    """One side's credentials and candidates. Travels sealed only: who knows the password can join the checks.

    `guess`: on what terms ports may be guessed, None: not at all.
    """

    ufrag: str
    password: str
    candidates: tuple[IceCandidate, ...]
    guess: GuessTerms | None = None

    def encode(self) -> bytes:
        """At most 400 bytes. Raise ValueError for more than 10 candidates or malformed credentials."""
        packed = [bytes((_KINDS.index(each.kind),)) + each.address.pack() for each in self.candidates]
        data = _encoder.encode(_Wire(self.ufrag, self.password, packed, self.guess.encode() if self.guess else b""))
        if self.decoded_equal(data) and len(data) <= MAX_ENCODED_BYTES:
            return data
        raise ValueError("these ICE parameters cannot be sent")

    def decoded_equal(self, data: bytes) -> bool:
        """Whether `data` reads as these parameters."""
        try:
            return IceParameters.decode_untrusted(data) == self
        except BadPacket:
            return False

    @classmethod
    def decode_untrusted(cls, data: bytes) -> IceParameters:
        """Read `encode`'s form. Raise BadPacket: `malformed`, `bad_address`."""
        if len(data) > MAX_ENCODED_BYTES:
            raise BadPacket("malformed")
        try:
            wire = _decoder.decode(data)
        except (ValueError, RecursionError) as exc:  # msgspec's own errors, and UnicodeDecodeError, which it lets out
            raise BadPacket("malformed") from exc
        candidates = []
        for packed in wire.candidates:
            if packed[0] >= len(_KINDS):
                raise BadPacket("malformed")
            candidates.append(IceCandidate(Address.unpack_untrusted(packed[1:]), _KINDS[packed[0]]))
        if len({each.address for each in candidates}) < len(candidates):
            raise BadPacket("malformed")
        return cls(wire.ufrag, wire.password, tuple(candidates), GuessTerms.decode_untrusted(wire.guess))

    def __repr__(self) -> str:
        return f"IceParameters({self.ufrag}, {len(self.candidates)} candidates)"


def may_check(address: Address, *, own_loopback: bool, allow_documentation: bool) -> bool:
    """Whether checks may go to an address that the other side named.

    Never to multicast, reserved and the like; to loopback only when we offered a loopback address ourselves, so that no
    offer makes us knock at services of our own machine; never to link-local IPv6, which means nothing without a zone.
    """
    if address.port == 0 or (address.is_ipv6 and address.scope is Scope.LINK_LOCAL):
        return False
    realm = realm_of(address.ip, allow_documentation=allow_documentation)
    return realm is not None and (realm is not Realm.LOOPBACK or own_loopback)
