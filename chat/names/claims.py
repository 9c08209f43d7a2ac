"""Claims: what stands under the topic of a name. Pure.

The entry of a topic is signed by its device (docs/protocol/dht.md, "Topics"); the claim in it says whose device that
is, and bears the account's proof. Nothing makes a name anybody's: who claims it longest can lie about that.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Annotated

import msgspec

from p2pnode import BadPacket, PeerId, TopicMember, UserId, clean_name
from p2pnode.chat.protocol import Key, is_device_of

__all__ = ["MAX_SHOWN", "Claim", "claimed", "encode_claim", "folded", "read_claim_untrusted", "topic_of"]

# Fixed by this protocol.
VERSION = 1
_TOPIC = "p2pnode/name/"
MAX_SHOWN = 50  # claimants of one name that are shown; contacts and their contacts first


class _Wire(msgspec.Struct, array_like=True, frozen=True):
    # No forbid_unknown_fields: later versions append fields.
    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    user: Key
    proof: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
    since: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)


@dataclass(frozen=True, slots=True)
class Claim:
    """`user` claims the name, by `device`, as it says since `since` (Unix seconds); renewed `age_s` seconds ago."""

    user: UserId
    device: PeerId
    since: int
    age_s: float


def folded(name: str) -> str:
    """Return the form under which a name is claimed: alike for those that look or sound the same when typed; may be
    empty."""
    return " ".join(unicodedata.normalize("NFKC", clean_name(name)).casefold().split())


def topic_of(name: str) -> str:
    """Return the topic of a name; `folded(name)` is not empty."""
    return _TOPIC + folded(name)


def encode_claim(user: UserId, proof: bytes, since: int) -> bytes:
    """Return the value of the entry, about 110 bytes. `proof`: as in Hello."""
    return _encoder.encode(_Wire(VERSION, user.raw, proof, since))


def read_claim_untrusted(member: TopicMember) -> Claim:
    """Read an entry. Raise BadPacket: `malformed`, `bad_key`, `bad_proof`."""
    try:
        wire = _decoder.decode(member.value)
    except (msgspec.DecodeError, RecursionError, ValueError) as exc:
        raise BadPacket("malformed") from exc
    user = UserId.from_untrusted(wire.user)
    if not is_device_of(user, member.peer, wire.proof):
        raise BadPacket("bad_proof")
    return Claim(user, member.peer, wire.since, member.age_s)


def claimed(members: tuple[TopicMember, ...]) -> list[tuple[UserId, list[Claim]]]:
    """Return the users who claim a name and their devices' claims, oldest claim first; what is not true is left out.
    About 0.1 ms for each member."""
    by_user: dict[UserId, list[Claim]] = {}
    for member in members:
        try:
            claim = read_claim_untrusted(member)
        except BadPacket:
            continue
        by_user.setdefault(claim.user, []).append(claim)
    return sorted(by_user.items(), key=lambda item: min(claim.since for claim in item[1]))
