"""Entries of a room's logs: what a member's device signs (docs/protocol/rooms.md). No I/O.

Each device has one log per room, numbered from 1; an entry names its predecessor and the newest entries of others that
its author had seen, by hash: so nothing can be changed, left out or put before what it answers to.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from p2pnode import BadPacket, NodeKey, PeerId, UserId, clean_name, decode_devices_untrusted, signing_input
from p2pnode.chat.devices.wire import MAX_LIST_BYTES, list_holds
from p2pnode.chat.places import RoomId
from p2pnode.chat.protocol import MAX_TEXT_BYTES, is_device_of

__all__ = [
    "COVER_BYTES", "HASH_BYTES", "KEY_BYTES", "MAX_DEPTH", "MAX_ENTRY_BYTES", "MAX_LINKS", "MAX_MARKS", "MAX_ROOM_NAME",
    "MAX_SEQ", "NO_HASH", "NO_ROOM", "TEXT_KIND",
    "Add", "Body", "Create", "Devices", "Entry", "Join", "Link", "Mark", "Out", "Rekey", "Role", "Signed", "Text",
    "commitment", "kind_of", "label", "open_text", "read_untrusted", "seal_text", "sign",
]  # fmt: skip

# Fixed by this protocol.
HASH_BYTES = 16  # of SHA-256: whoever finds two entries of one hash has done 2^64 work to be shown as one who forks
KEY_BYTES = 32
COVER_BYTES = 8
NONCE_BYTES = 12
MAX_LINKS = 16
MAX_SEQ = 20_000  # entries of a device in a room
MAX_DEPTH = 2**31 - 1
MAX_ROOM_NAME = 24  # `#NAME~abcdef` is typed as a name of 32
MAX_MARKS = 64  # devices of one user, and room to spare
MAX_SEALED = NONCE_BYTES + MAX_TEXT_BYTES + 16
MAX_ENTRY_BYTES = 18_000
NO_ROOM = bytes(32)  # of the entry that makes a room: its hash is the room's id
NO_HASH = bytes(HASH_BYTES)
_DOMAIN = b"p2pnode/1/room"
_SIGNATURE_BYTES = 64

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Cover = Annotated[bytes, msgspec.Meta(max_length=COVER_BYTES)]
Name = Annotated[str, msgspec.Meta(max_length=32)]
Seq = Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ)]


class Link(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The newest entry of a device that the author had seen and nobody had answered to."""

    device: Key
    seq: Seq
    hash: Hash


class Mark(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Of a device, what counts: the entries up to this one."""

    device: Key
    seq: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]


class Create(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """First entry of all. Its author's user owns the room. `key`: the commitment to the first key."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ROOM_NAME)]
    open: bool
    user: Key
    proof: Signature
    own_name: Name
    key: Key


class Join(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """First entry of a device, and of one that comes back. `proof`: its account's signature, as in Hello."""

    user: Key
    proof: Signature
    own_name: Name


class Add(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=3):
    """An owner invites a user, or vouches for one who came into an open room by itself."""

    user: Key


class Out(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=4):
    """A user leaves, or an owner removes one. `marks`: what counts of its devices. `key`: the commitment to a new key,
    empty where there is none. `covers`: who else is out that the new key is not for (`Roll.cover`)."""

    user: Key
    marks: Annotated[list[Mark], msgspec.Meta(max_length=MAX_MARKS)]
    key: Annotated[bytes, msgspec.Meta(max_length=32)]
    covers: Cover = b""


class Rekey(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=5):
    """An owner begins a new epoch: whoever left cannot read on. `covers`: who that is, as far as the author knew."""

    key: Key
    covers: Cover = b""


class Text(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=6):
    """A message. `epoch`: the entry that began it. `sealed`: nonce, then the text under the epoch's key."""

    epoch: Hash
    sealed: Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES + 17, max_length=MAX_SEALED)]


class Role(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=7):
    """An owner makes a member an owner; or (`owner` False) one steps down itself."""

    user: Key
    owner: bool


class Devices(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=8):
    """A member's numbered list of devices (docs/protocol/devices.md): those that it does not name are out.

    `signature`: the account's; empty where the network's record told it, which counts from an owner only. `marks`: what
    counts of the devices that are out; heeded from the user's own devices and from owners.
    """

    user: Key
    value: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_LIST_BYTES)]
    signature: Annotated[bytes, msgspec.Meta(max_length=64)]
    marks: Annotated[list[Mark], msgspec.Meta(max_length=MAX_MARKS)]


TEXT_KIND = 6
Body = Create | Join | Add | Out | Rekey | Text | Role | Devices
_KINDS: dict[type, int] = {Create: 1, Join: 2, Add: 3, Out: 4, Rekey: 5, Text: TEXT_KIND, Role: 7, Devices: 8}


class Entry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """`depth`: one more than the greatest of `previous` and `links`. `sent_at`: Unix milliseconds, by the author."""

    room: Key
    device: Key
    seq: Seq
    previous: Hash
    links: Annotated[list[Link], msgspec.Meta(max_length=MAX_LINKS)]
    depth: Annotated[int, msgspec.Meta(ge=1, le=MAX_DEPTH)]
    sent_at: Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
    body: Body


@dataclass(frozen=True, slots=True)
class Signed:
    """An entry with its author's signature. `raw`: as it travels. `id`: its hash."""

    entry: Entry
    raw: bytes
    id: bytes
    room: RoomId
    covered: bytes

    @property
    def device(self) -> PeerId:
        return PeerId.from_untrusted(self.entry.device)

    @property
    def order(self) -> tuple[int, bytes]:
        """Its place among all entries of a room: after what it answers to, and the same on every device."""
        return self.entry.depth, self.id

    def check_untrusted(self) -> None:
        """Check the signature, and that the author's account vouches for it where it says so. About 0.2 ms.

        Raise BadPacket: `bad_key`, `bad_signature`, `bad_proof`, `bad_list_signature`.
        """
        entry, device = self.entry, PeerId.from_untrusted(self.entry.device)
        if not device.verify(self.raw[-_SIGNATURE_BYTES:], self.covered):
            raise BadPacket("bad_signature")
        if isinstance(entry.body, Create | Join):
            if not is_device_of(UserId.from_untrusted(entry.body.user), device, entry.body.proof):
                raise BadPacket("bad_proof")
        elif isinstance(entry.body, Add | Out | Role):
            UserId.from_untrusted(entry.body.user)
        elif isinstance(entry.body, Devices):
            user, listed = UserId.from_untrusted(entry.body.user), entry.body
            if listed.signature and not list_holds(user, listed.value, listed.signature):
                raise BadPacket("bad_list_signature")


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def kind_of(body: Body) -> int:
    """Return the number of its kind on the wire."""
    return _KINDS[type(body)]


def sign(key: NodeKey, entry: Entry) -> Signed:
    """Return the entry as its author gives it away."""
    payload = _encoder.encode(entry)
    covered = signing_input(_DOMAIN, b"entry", payload)
    return _signed(entry, payload + key.sign(covered), covered)


def read_untrusted(raw: bytes) -> Signed:
    """Read an entry; `Signed.check_untrusted` is still due. Raise BadPacket: `too_long`, `malformed`, `no_number`, and
    those of a list of devices."""
    if len(raw) > MAX_ENTRY_BYTES:
        raise BadPacket("too_long")
    payload = raw[:-_SIGNATURE_BYTES]
    try:
        entry = _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, ValueError) as exc:
        raise BadPacket("malformed") from exc
    body, first = entry.body, entry.seq == 1
    devices = {link.device for link in entry.links} | {entry.device}
    right = (
        len(devices) == len(entry.links) + 1
        and first == (entry.previous == NO_HASH)
        and (isinstance(body, Create | Join) if first else not isinstance(body, Create))
        and isinstance(body, Create) == (entry.room == NO_ROOM) == (entry.depth == 1)
        and not (isinstance(body, Create) and entry.links)
        and not (isinstance(body, Out) and len(body.key) not in (0, KEY_BYTES))
        and not (isinstance(body, Out | Rekey) and len(body.covers) not in (0, COVER_BYTES))
        and not (isinstance(body, Devices) and len(body.signature) not in (0, _SIGNATURE_BYTES))
    )
    if not right:
        raise BadPacket("malformed")
    if isinstance(body, Devices) and not decode_devices_untrusted(body.value).number:
        raise BadPacket("no_number")
    return _signed(entry, raw, signing_input(_DOMAIN, b"entry", payload))


def _signed(entry: Entry, raw: bytes, covered: bytes) -> Signed:
    digest = hashlib.sha256(covered).digest()
    room = RoomId(digest if entry.room == NO_ROOM else entry.room)
    return Signed(entry, raw, digest[:HASH_BYTES], room, covered)


def label(name: str) -> str:
    """Return the name under which a room is shown and typed: one word, whatever its owner called it."""
    word = "".join("_" if char in '#~/\\:"<>@ ' else char for char in clean_name(name))[:MAX_ROOM_NAME]
    return word if word and not word.isdigit() else f"room{word}"[:MAX_ROOM_NAME]


def commitment(key: bytes) -> bytes:
    """Return what an entry says of a key that it does not tell: SHA-256."""
    return hashlib.sha256(signing_input(_DOMAIN, b"key", key)).digest()


def seal_text(key: bytes, nonce: bytes, room: RoomId, device: PeerId, text: str) -> bytes:
    """Return a text as `Text.sealed`. `nonce`: 12 random bytes: a key serves far fewer than 2^32 texts."""
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, text.encode(), room.raw + device.raw)


def open_text(key: bytes, room: RoomId, device: PeerId, sealed: bytes) -> str:
    """The inverse of `seal_text`. Raise BadPacket: `bad_seal`."""
    try:
        plain = ChaCha20Poly1305(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], room.raw + device.raw)
        return plain.decode()
    except (InvalidTag, UnicodeDecodeError) as exc:
        raise BadPacket("bad_seal") from exc
