"""What a node answers to a proven request: contacts, records, stores. Pure; the engine authenticates and sends."""

from __future__ import annotations

from p2pnode.core.address import Address, Realm
from p2pnode.core.ids import NodeId
from p2pnode.dht.contact import CONTACT4_BYTES, CONTACT6_BYTES, Contact, pack_address
from p2pnode.dht.limits import prefix_of
from p2pnode.dht.members import Members
from p2pnode.dht.messages import (
    MAX_PAGE_ENTRIES,
    Announce,
    Answer,
    Error,
    ErrorCode,
    FindNode,
    Get,
    ListTopic,
    Nodes,
    Pong,
    Put,
    Request,
    Stored,
    TopicPage,
    Value,
    encode,
)
from p2pnode.dht.overlay import WANTS_BOTH, Overlay
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.storage import RecordStorage
from p2pnode.dht.tokens import PutTokens
from p2pnode.dht.topic_entries import Shard
from p2pnode.dht.topics import TopicStorage

__all__ = ["Service"]

FAR_ONES = 4  # contacts from anywhere, for a newcomer
OTHER_FAMILY = 4  # contacts of the other address family, for who asks for them
NODES_OVERHEAD = 40  # array, kind, observed 20, token 10, two binary headers of 3


class Service:
    """Answers requests from tables and storage."""

    def __init__(
        self, members: Members, storage: RecordStorage, topics: TopicStorage, tokens: PutTokens, settings: DhtSettings
    ) -> None:
        self._members, self.storage, self._topics, self._tokens = members, storage, topics, tokens
        self._ksize = settings.ksize

    def respond(
        self, request: Request, *, requester: NodeId, source: Address, overlay: Overlay, flags: int, room: int,
        now: float, wall: float,
    ) -> bytes:  # fmt: skip
        """Return the encoded answer, at most `room` bytes (33 at least). `overlay`: where the requester was seen;
        `flags`: its own."""
        observed = pack_address(source)
        wants_both = bool(flags & WANTS_BOTH)
        if isinstance(request, FindNode):
            ipv4, ipv6 = self._contacts(request.target, requester, overlay, wants_both, room - NODES_OVERHEAD)
            payload = encode(Nodes(observed, self._tokens.issue(observed, request.target, now), ipv4, ipv6))
        elif isinstance(request, Get):
            payload = self._value(request, requester, observed, overlay, wants_both, room, now)
        elif isinstance(request, Put):
            payload = encode(self._put(request, source, observed, overlay, now, wall))
        elif isinstance(request, Announce):
            payload = encode(self._announce(request, source, observed, overlay, now, wall))
        elif isinstance(request, ListTopic):
            payload = self._page(request, observed, overlay.realm, room, now)
        else:
            payload = encode(Pong(observed))
        if len(payload) > room:
            return encode(Error(observed, ErrorCode.UNPROVEN, 0))
        return payload

    def _contacts(
        self, target: bytes, requester: NodeId, overlay: Overlay, wants_both: bool, room: int
    ) -> tuple[bytes, bytes]:
        contacts = self._members.tables[overlay].closest_diverse(target, self._ksize, requester)
        if wants_both:
            others = self._members.tables[overlay.other_family].closest(target, OTHER_FAMILY, requester)
            contacts = contacts[: self._ksize - len(others)] + others
        if target == requester:
            contacts = self._with_far_ones(contacts, requester, overlay, room)
        if len(contacts) * CONTACT6_BYTES > room:
            contacts = _fitting(contacts, room)
        packed = [contact.packed for contact in contacts]
        together = b"".join(packed)
        if len(together) == CONTACT4_BYTES * len(packed):
            return together, b""
        ipv4 = b"".join([entry for entry in packed if len(entry) == CONTACT4_BYTES])
        return ipv4, b"".join([entry for entry in packed if len(entry) == CONTACT6_BYTES])

    def _with_far_ones(self, contacts: list[Contact], requester: NodeId, overlay: Overlay, room: int) -> list[Contact]:
        """Who joins hears from each of us of a few nodes elsewhere: together they let it search the whole network."""
        table = self._members.tables[overlay]
        seed = int.from_bytes(table.node.id, "big") ^ int.from_bytes(requester, "big")
        far = table.scattered(seed, FAR_ONES, contacts, requester)
        if sum(len(contact.packed) for contact in (*contacts, *far)) > room:
            contacts = contacts[: self._ksize - len(far)]
        return contacts + far

    def _value(
        self, request: Get, requester: NodeId, observed: bytes, overlay: Overlay, wants_both: bool, room: int,
        now: float,
    ) -> bytes:  # fmt: skip
        record = self.storage.read(overlay.realm, request.key, now)
        token = self._tokens.issue(observed, request.key, now)
        bare = encode(Value(observed, token, record, b"", b""))
        # Empty binaries have 2 bytes of header, ours at most 3.
        ipv4, ipv6 = self._contacts(request.key, requester, overlay, wants_both, room - len(bare) - 2)
        if not ipv4 and not ipv6:
            return bare
        return encode(Value(observed, token, record, ipv4, ipv6))

    def _put(self, request: Put, source: Address, observed: bytes, overlay: Overlay, now: float, wall: float) -> Answer:
        if overlay not in self._members.serving:
            return Error(observed, ErrorCode.NOT_SERVING, 0)
        if not self._tokens.check(request.token, observed, request.record.key, now):
            return Error(observed, ErrorCode.BAD_TOKEN, 0)
        refusal = self.storage.store(request.record, overlay.realm, prefix_of(source.ip), now, wall)
        if refusal is not None:
            return Error(observed, refusal[0], refusal[1])
        return Stored(observed)

    def _announce(
        self, request: Announce, source: Address, observed: bytes, overlay: Overlay, now: float, wall: float
    ) -> Answer:
        if overlay not in self._members.serving:
            return Error(observed, ErrorCode.NOT_SERVING, 0)
        shard = Shard.of(request.topic, request.depth, request.entry.public_key)
        if not self._tokens.check(request.token, observed, shard.key, now):
            return Error(observed, ErrorCode.BAD_TOKEN, 0)
        refusal = self._topics.store(shard, request.entry, overlay.realm, prefix_of(source.ip), now, wall)
        if refusal is not None:
            return Error(observed, refusal[0], refusal[1])
        return Stored(observed)

    def _page(self, request: ListTopic, observed: bytes, realm: Realm, room: int, now: float) -> bytes:
        """Return as many entries as fit; when there are some and none fits, more than `room` bytes."""
        page = self._topics.page(realm, request.shard, request.nonce, request.after, MAX_PAGE_ENTRIES, now)
        left = room - len(encode(TopicPage(observed, page.held, page.split, True, ())))
        count = 0
        for entry in page.entries:
            left -= len(encode(entry))
            if left < 0:
                break
            count += 1
        entries = tuple(page.entries[: max(count, 1)])
        more = page.more or len(entries) < len(page.entries)
        return encode(TopicPage(observed, page.held, page.split, more, entries))


def _fitting(contacts: list[Contact], room: int) -> list[Contact]:
    """Return the nearest contacts that fit into `room` bytes."""
    chosen: list[Contact] = []
    for contact in contacts:
        room -= len(contact.packed)
        if room < 0:
            break
        chosen.append(contact)
    return chosen
