"""The presence value: what a node publishes about itself under its own key.

A DHT record of the node key with salt `presence/<realm>`, signed once per realm, so that a private address never
enters the public DHT. MessagePack array; layout in docs/protocol/presence.md. A value with neither addresses nor
rendezvous nodes says "offline": it keeps the user's id, so that an offline device still names its account. A node that
nobody can dial publishes its rendezvous nodes, and is reached through them; where its router shows it tells a caller
where to send first packets, so that his own router is open when the node answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

from p2pnode.core.address import Address, Realm, realm_of
from p2pnode.core.clean import clean_name
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId, PeerId, UserId
from p2pnode.dht import KnownContact

__all__ = ["FindResult", "Presence", "presence_salt"]

VERSION = 1
MAX_ADDRESSES = 8
MAX_RENDEZVOUS = 4
MAX_OUTSIDE = 2  # one of each family
NODE_ID_BYTES = 20


def presence_salt(realm: Realm) -> bytes:
    """Return the record salt for a realm: b"presence/loopback", b"presence/private" or b"presence/public"."""
    return b"presence/" + realm.value.encode()


class _Wire(msgspec.Struct, array_like=True, frozen=True):
    # No forbid_unknown_fields: later versions append fields (relays); signed by the author anyway.
    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    addresses: Annotated[list[Annotated[bytes, msgspec.Meta(max_length=18)]], msgspec.Meta(max_length=MAX_ADDRESSES)]
    x25519: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    user: Annotated[bytes, msgspec.Meta(max_length=32)]
    name: Annotated[str, msgspec.Meta(max_length=64)]
    capabilities: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    rendezvous: Annotated[
        list[Annotated[bytes, msgspec.Meta(max_length=NODE_ID_BYTES + 18)]], msgspec.Meta(max_length=MAX_RENDEZVOUS)
    ] = []  # absent before it was appended
    outside: Annotated[list[Annotated[bytes, msgspec.Meta(max_length=18)]], msgspec.Meta(max_length=MAX_OUTSIDE)] = []
    run: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)


@dataclass(frozen=True)
class Presence:
    """What a node says of itself in one realm. Neither addresses nor rendezvous nodes: offline.

    `rendezvous`: at most 4 nodes that forward offers to it, best first; only their node ids are known (`peer_id` None).
    `outside`: where its router shows it, one address of each family at most; nobody can dial it there unasked.
    `run`: when the process began that says so, Unix milliseconds; 0: it does not say.
    """

    addresses: tuple[Address, ...]
    x25519: bytes
    user: UserId | None
    name: str = ""
    capabilities: int = 0
    rendezvous: tuple[KnownContact, ...] = ()
    outside: tuple[Address, ...] = ()
    run: int = 0

    @property
    def online(self) -> bool:
        return bool(self.addresses or self.rendezvous)

    def encode(self) -> bytes:
        """Below 550 bytes with 8 addresses, a name of 64 bytes and 4 rendezvous nodes, all IPv6."""
        fields = (
            VERSION,
            [a.pack() for a in self.addresses[:MAX_ADDRESSES]],
            self.x25519,
            self.user.raw if self.user else b"",
            self.name,
            self.capabilities,
            [contact.node_id + contact.address.pack() for contact in self.rendezvous[:MAX_RENDEZVOUS]],
            [a.pack() for a in self.outside[:MAX_OUTSIDE]],
        )
        return _encoder.encode((*fields, self.run) if self.run else fields)

    @classmethod
    def decode_untrusted(cls, data: bytes, realm: Realm, *, allow_documentation: bool = False) -> Presence:
        """Read a value of `realm`; addresses and rendezvous nodes of other realms are left out.

        Raise BadPacket: `malformed`, `bad_address`, `bad_key`.
        """
        try:
            wire = _decoder.decode(data)
        except (msgspec.DecodeError, RecursionError, ValueError) as exc:
            raise BadPacket("malformed") from exc
        addresses = [Address.unpack_untrusted(packed) for packed in wire.addresses]
        outside = [Address.unpack_untrusted(packed) for packed in wire.outside]
        user = None
        if wire.user:
            key = UserId.from_untrusted(wire.user)
            assert isinstance(key, UserId)  # noqa: S101 - narrows the type; from_untrusted returns its own class
            user = key
        usable = [a for a in addresses if realm_of(a.ip, allow_documentation=allow_documentation) is realm]
        through = [
            contact
            for contact in map(_contact_untrusted, wire.rendezvous)
            if realm_of(contact.address.ip, allow_documentation=allow_documentation) is realm
        ]
        if (addresses or wire.rendezvous) and not usable and not through:
            raise BadPacket("bad_address")
        return cls(
            tuple(dict.fromkeys(usable)),
            wire.x25519,
            user,
            clean_name(wire.name),
            wire.capabilities,
            tuple(dict.fromkeys(through)),
            tuple(a for a in outside if realm_of(a.ip, allow_documentation=allow_documentation) is realm),
            wire.run,
        )


def _contact_untrusted(packed: bytes) -> KnownContact:
    """Node id 20, address 4 or 16, port 2. Raise BadPacket("bad_address")."""
    address = Address.unpack_untrusted(packed[NODE_ID_BYTES:])
    return KnownContact(None, NodeId(packed[:NODE_ID_BYTES]), address)


@dataclass(frozen=True)
class FindResult:
    """What the network knows of a peer.

    `state`: `online`, `last_seen` (there a moment ago, perhaps not any more), `offline`. `evidence`: what says so:
    `session`, `session_lost`, `goodbye`, `record` (its own, found now), `notice` (its own, told by its holders), `lan`;
    `age_s`: seconds since the peer itself did that; `holders`: nodes that returned the record; `last_seen`: unix
    seconds, when the peer was surely there, None when nobody knows.

    `addresses`: nearest realm first. `hops`: longest chain
    of referrals in the lookup. `seconds`: duration of the lookup. `rendezvous`: nodes that forward offers to it, which
    are sealed to `x25519` (32 bytes, empty when unknown). `outside`: where its router shows it. `queried`: nodes asked;
    `late`: those of them that did not answer in their usual time.
    """

    peer: PeerId
    online: bool
    age_s: float
    addresses: tuple[Address, ...]
    name: str
    user: UserId | None
    hops: int
    seconds: float
    x25519: bytes = b""
    rendezvous: tuple[KnownContact, ...] = ()
    queried: int = 0
    late: int = 0
    state: str = ""
    evidence: str = ""
    holders: int = 0
    last_seen: float | None = None
    outside: tuple[Address, ...] = ()
