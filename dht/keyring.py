"""Pairwise keys: what two nodes agreed in a signed exchange, and use from then on.

Keys: X25519 of both ephemeral keys; HKDF-SHA256 (RFC 5869) with salt SHA-256(request) and info
"p2pnode/1/dht/keys" · network tag · requester's node id · answerer's node id · SHA-256(answer) gives 80 bytes: key and
key id of requester-to-answerer (32, 8), then of answerer-to-requester. Frames are ChaCha20-Poly1305 (RFC 8439) with
nonce = four zero bytes and the counter, and the 17 header bytes as associated data.

Both sides draw fresh ephemeral keys, so keys are new after a restart and no nonce repeats under one. New keys replace
old ones at the answerer only once a frame under them arrived: a replayed request changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.dht.contact import Contact
from p2pnode.dht.wire import MAX_DATAGRAM, SEALED, SEALED_OVERHEAD

__all__ = ["KEYS_BYTES", "Ciphers", "Ephemeral", "Keyring", "Session", "derive_keys"]

KEYS_LABEL = b"p2pnode/1/dht/keys"
KEYS_BYTES = 80  # key 32 and key id 8, both ways
WINDOW = 256  # counters below the highest that may still arrive: bursts of a lookup reorder by a few dozen
MAX_COUNTER = 2**48  # then new keys; a frame every microsecond takes nine years
MAX_PATHS = 4  # a peer's loopback, private and public address, and the one it had before
UNCONFIRMED_PER_PEER = 3  # a request, its repetition, and one more

CROSSING = 30.0  # s within which both sides may have agreed keys at once

# Ciphers of one node: OpenSSL takes 2.2 kB for each, 0.3 MB in all; making one anew takes 4 us. In 150 nodes that read
# and write 46 % are at hand, 36 % of half as many, 48 % of twice as many: what is missing costs 0.5 % of the time.
CIPHERS_AT_HAND = 128

_HEADER = bytes((SEALED,))
_NONCE_PREFIX = bytes(4)


class Ephemeral:
    """One side's X25519 key of one signed exchange (RFC 7748, section 6.1, "Curve25519"). `public`: 32 bytes."""

    __slots__ = ("_private", "public")

    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 random bytes, used once."""
        self._private = X25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def agree_untrusted(self, public: bytes) -> bytes:
        """Return the shared secret, 32 bytes. Raise BadPacket("bad_ephemeral") when `public` has small order."""
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as exc:
            raise BadPacket("bad_ephemeral") from exc

    @staticmethod
    def derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
        """Return HKDF's output (RFC 5869) of a shared secret, 80 bytes."""
        return HKDF(SHA256(), KEYS_BYTES, salt, info).derive(secret)


def derive_keys(
    secret: bytes, *, tag: bytes, requester: bytes, responder: bytes, request_hash: bytes, answer: bytes
) -> bytes:
    """Return 80 bytes: key 32 and key id 8 of requester to answerer, then of answerer to requester."""
    info = KEYS_LABEL + tag + requester + responder + hashlib.sha256(answer).digest()
    return Ephemeral.derive(secret, request_hash, info)


class Ciphers:
    """The ciphers of one node's keys used of late. A key of 32 bytes is a fiftieth of its cipher."""

    def __init__(self, limit: int = CIPHERS_AT_HAND) -> None:
        self._limit = limit
        self._by_key: OrderedDict[bytes, ChaCha20Poly1305] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_key)

    def __getitem__(self, key: bytes) -> ChaCha20Poly1305:
        cipher = self._by_key.get(key)
        if cipher is None:
            if len(self._by_key) >= self._limit:
                self._by_key.popitem(last=False)  # the oldest; if it is in use, it is soon made again
            cipher = self._by_key[key] = ChaCha20Poly1305(key)
        return cipher

    def forget(self, key: bytes) -> None:
        """The key is not to be used any more."""
        self._by_key.pop(key, None)


class Session:
    """Keys with one peer, both directions, and what we know of it.

    `paths`: addresses where the peer proved to receive, each with its entry in a table, if any: a peer on this machine
    has one in each realm. `answered_to`: where our signed answer went, None on the requester's side. `suspect`: the
    last call got no answer, so the next one is signed. `observed`: our own
    address as the peer last saw it, packed.
    """

    __slots__ = (
        "_ciphers", "_highest", "_open_key", "_seal_key", "_seen", "_sent", "answered_to", "confirmed", "created_at",
        "observed", "paths", "peer_id", "receive_id", "send_id", "suspect",
    )  # fmt: skip

    def __init__(self, peer_id: PeerId, keys: bytes, ciphers: Ciphers, *, initiator: bool, now: float) -> None:
        """`keys`: of `derive_keys`. `ciphers`: the keyring's."""
        self._ciphers = ciphers
        first, second = (keys[:40], keys[40:]) if initiator else (keys[40:], keys[:40])
        self._seal_key, self.send_id = first[:32], first[32:]
        self._open_key, self.receive_id = second[:32], second[32:]
        self.peer_id = peer_id
        self.created_at = now
        self.confirmed = False
        self.suspect = False
        self.answered_to: Address | None = None
        self.paths: dict[Address, Contact | None] = {}
        self.observed = b""
        self._sent = 0
        self._highest = 0
        self._seen = 0  # bit i: counter _highest - i arrived

    def prove(self, address: Address) -> None:
        """The peer proved to receive at this address."""
        if address not in self.paths:
            self.paths[address] = None
            if len(self.paths) > MAX_PATHS:
                del self.paths[next(iter(self.paths))]

    def forget(self) -> None:
        """It is over: nothing of it stays at hand."""
        self.paths.clear()
        self._ciphers.forget(self._seal_key)
        self._ciphers.forget(self._open_key)

    @property
    def exhausted(self) -> bool:
        return self._sent >= MAX_COUNTER

    def seal(self, text: bytes) -> bytes:
        """Return a 0x07 frame: type 1 · key id 8 · counter 8 · ciphertext and tag. `frame[1:17]` names it."""
        self._sent += 1
        counter = self._sent.to_bytes(8, "big")
        header = _HEADER + self.send_id + counter
        return header + self._ciphers[self._seal_key].encrypt(_NONCE_PREFIX + counter, text, header)

    def open_untrusted(self, frame: bytes) -> bytes:
        """Return the plaintext of a frame of 33 to 1,200 bytes under our receive id.

        Raise BadPacket: `replayed_counter`, `old_counter`, `bad_seal`; nothing changes then.
        """
        if not SEALED_OVERHEAD <= len(frame) <= MAX_DATAGRAM:
            raise BadPacket("bad_length")
        counter = int.from_bytes(frame[9:17], "big")
        behind = self._highest - counter
        if behind >= 0:
            if behind >= WINDOW:
                raise BadPacket("old_counter")
            if self._seen >> behind & 1:
                raise BadPacket("replayed_counter")
        try:
            text = self._ciphers[self._open_key].decrypt(_NONCE_PREFIX + frame[9:17], frame[17:], frame[:17])
        except InvalidTag as exc:
            raise BadPacket("bad_seal") from exc
        if behind < 0:
            self._seen = (self._seen << -behind | 1) & ((1 << WINDOW) - 1) if -behind < WINDOW else 1
            self._highest = counter
        else:
            self._seen |= 1 << behind
        return text


class Keyring:
    """All sessions, bounded: strangers that never confirm cannot push out those who did."""

    def __init__(
        self, *, max_sessions: int, max_unconfirmed: int, max_age: float, ciphers: int = CIPHERS_AT_HAND
    ) -> None:
        """`ciphers`: kept made, of the keys used of late."""
        self._max_sessions, self._max_unconfirmed, self._max_age = max_sessions, max_unconfirmed, max_age
        self.ciphers = Ciphers(ciphers)
        self._by_receive_id: dict[bytes, Session] = {}
        # The newest session and up to one before it (frames under way, or both sides asked at once).
        self._by_peer: OrderedDict[bytes, list[Session]] = OrderedDict()
        self._unconfirmed: OrderedDict[bytes, list[Session]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_receive_id)

    @property
    def peers(self) -> int:
        return len(self._by_peer)

    def find(self, receive_id: bytes) -> Session | None:
        """Return the session of an arriving frame."""
        return self._by_receive_id.get(receive_id)

    def for_sending(self, node_id: bytes, now: float) -> Session | None:
        """Return the session to ask this peer under, None when a signed exchange is due."""
        sessions = self._by_peer.get(node_id)
        if sessions is None:
            return None
        self._by_peer.move_to_end(node_id)
        session = sessions[0]
        if session.suspect or session.exhausted or now - session.created_at > self._max_age:
            return None
        return session

    def newest(self, node_id: bytes) -> Session | None:
        """Return the keys last agreed with this peer, however old, None when there are none."""
        sessions = self._by_peer.get(node_id)
        return sessions[0] if sessions else None

    def add_unconfirmed(self, session: Session) -> None:
        """Remember keys agreed with a requester, until it uses them or newer strangers push them out."""
        node_id = session.peer_id.node_id
        waiting = self._unconfirmed.setdefault(node_id, [])
        self._unconfirmed.move_to_end(node_id)
        waiting.append(session)
        self._by_receive_id[session.receive_id] = session
        if len(waiting) > UNCONFIRMED_PER_PEER:
            self._drop(waiting.pop(0))
        while len(self._unconfirmed) > self._max_unconfirmed:
            _, dropped = self._unconfirmed.popitem(last=False)
            for old in dropped:
                self._drop(old)

    def confirm(self, session: Session) -> bool:
        """The peer proved to have the keys: they are the ones to use from now on.

        Return whether it must have lost the ones before: they were good, and it is no crossing of both first requests.
        """
        node_id = session.peer_id.node_id
        waiting = self._unconfirmed.get(node_id)
        if waiting is not None and session in waiting:
            waiting.remove(session)
            if not waiting:
                del self._unconfirmed[node_id]
        session.confirmed = True
        self._by_receive_id[session.receive_id] = session
        sessions = self._by_peer.setdefault(node_id, [])
        self._by_peer.move_to_end(node_id)
        before = sessions[0] if sessions else session
        age = session.created_at - before.created_at
        lost = not before.suspect and CROSSING < age < 0.9 * self._max_age
        for address, contact in before.paths.items() if sessions else ():
            session.prove(address)  # new keys do not unprove what the same peer had proven
            session.paths[address] = contact
        sessions.insert(0, session)
        while len(sessions) > 2:
            self._drop(sessions.pop())
        while len(self._by_peer) > self._max_sessions:
            _, dropped = self._by_peer.popitem(last=False)
            for old in dropped:
                self._drop(old)
        return lost

    def touch(self, session: Session) -> None:
        """The peer of a confirmed session was heard."""
        session.suspect = False
        if session.peer_id.node_id in self._by_peer:
            self._by_peer.move_to_end(session.peer_id.node_id)

    def _drop(self, session: Session) -> None:
        self._by_receive_id.pop(session.receive_id, None)
        session.forget()
