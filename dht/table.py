"""The routing table of one overlay: kademlia's, with what does not hold up replaced.

Differences from `kademlia.routing`: only contacts that answered enter; only the bucket of our own id splits, so there
are at most 160 of ksize contacts each (the original's relaxed splitting made 30,570 buckets of 71 datagrams); the
three far buckets also remember *acquaintances*, verified contacts for whom there was no place: whoever knows more of
the far nodes needs a hop less (libtorrent's extended table), and nobody spends a ping on them; the
nearest are found exactly; one miss drops nobody; one id per IP and port; no clock is read.
Diversity (security.md S1) orders and never starves: a contact beyond 2 of its prefix in a bucket, or 10 in the table,
takes a free place, and gives it up to a diverse one.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator

from kademlia.node import Node
from kademlia.routing import KBucket, RoutingTable

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId
from p2pnode.dht.contact import Contact
from p2pnode.dht.density import SizeEstimate
from p2pnode.dht.limits import Diversity, any_crowded, crowded_among
from p2pnode.dht.nearest import Nearest
from p2pnode.dht.overlay import Overlay

__all__ = ["Bucket", "Table"]

ID_BITS = 160
MAX_BUCKETS = 160
PREFIX_PER_TABLE = 10
MISSES_TO_DROP = 3
FAR_S = 1.0  # the round trip of who was never measured
SUBSTITUTES = 5  # for the contacts of a bucket, that are worth a datagram
STALE_S = 600.0  # who was not heard for so long gives a place among many to somebody new
FAR_CONTACTS = 128  # contacts and acquaintances of the farthest bucket; the next has half as many, down to ksize


class Bucket(KBucket):
    """Contacts that share a number of leading bits with us; at most `ksize`, and as many replacements.

    `acquaintances`: others that answered us of late, at most `spare` of them (0 to 108).
    """

    nodes: OrderedDict[bytes, Contact]
    replacement_nodes: OrderedDict[bytes, Contact]

    def __init__(self, low: int, high: int, ksize: int) -> None:
        super().__init__(low, high, ksize, replacementNodeFactor=1)
        self.acquaintances: OrderedDict[bytes, Contact] = OrderedDict()
        self.spare = 0
        self.looked_up_at = float("-inf")
        self._crowded: bool | None = None

    def touch_last_updated(self) -> None:
        """The original reads the clock here; `looked_up_at` is set by the table instead."""

    def random_id(self, random_below: int) -> NodeId:
        """Return the id `random_below` places above the bucket's lowest (modulo its size)."""
        low, high = self.range
        return NodeId((low + random_below % (high - low + 1)).to_bytes(20, "big"))

    def all(self) -> list[Contact]:
        """Return contacts and acquaintances."""
        return [*self.nodes.values(), *self.acquaintances.values()] if self.acquaintances else [*self.nodes.values()]

    def changed(self) -> None:
        """`nodes` is another set."""
        self._crowded = None

    def has_crowd(self) -> bool:
        """Whether some block of addresses has more than its share of `nodes`."""
        if self._crowded is None:
            self._crowded = any_crowded([contact.prefix for contact in self.nodes.values()])
        return self._crowded

    def nearest_replacement(self) -> bytes:
        """Return the id of the replacement with the shortest round trip: for the id space all of a bucket are equal."""
        return min(self.replacement_nodes.values(), key=lambda contact: contact.rtt_s or FAR_S).id

    def remember(self, contact: Contact) -> None:
        """Keep for the day when a place becomes free; the newest 20."""
        self.replacement_nodes.pop(contact.id, None)
        self.replacement_nodes[contact.id] = contact
        while len(self.replacement_nodes) > self.max_replacement_nodes:
            self.replacement_nodes.popitem(last=False)


class Table(RoutingTable):
    """Verified contacts of one overlay, in at most 160 buckets."""

    buckets: list[Bucket]

    def __init__(self, node_id: NodeId, ksize: int, overlay: Overlay) -> None:
        self.overlay = overlay
        self._own = int.from_bytes(node_id, "big")
        self._diverse = overlay.is_public
        super().__init__(None, ksize, Node(node_id))

    def flush(self) -> None:
        self.buckets = [Bucket(0, 2**ID_BITS - 1, self.ksize)]
        self._by_id: dict[bytes, Contact] = {}
        self._acquaintances: dict[bytes, Contact] = {}
        self._by_address: dict[Address, Contact] = {}
        self._prefixes: Counter[bytes] = Counter()
        self._heavy = 0  # prefixes of which there are too many in the table
        self._nearest = Nearest(self.ksize)  # everybody
        self._neighbours: list[Contact] | None = None  # None: to be found out anew
        self.sizes = SizeEstimate()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Contact]:
        return iter(self._by_id.values())

    def everybody(self) -> list[Contact]:
        """Return contacts and acquaintances."""
        return [*self._by_id.values(), *self._acquaintances.values()]

    def find(self, node_id: bytes) -> Contact | None:
        """Return the contact or acquaintance with this id."""
        return self._by_id.get(node_id) or self._acquaintances.get(node_id)

    def get_bucket_for(self, node: Node) -> int:
        """Return the bucket's index: the number of leading bits shared with us, or the last bucket's."""
        shared: int = ID_BITS - (node.long_id ^ self._own).bit_length()
        return min(shared, len(self.buckets) - 1)

    def add_contact(self, node: Contact) -> bool:
        """Take in a contact that answered us just now. Return whether it is in a bucket."""
        if node.long_id == self._own:
            return False
        known = self._by_id.get(node.id)
        if known is node:
            self.buckets[self.get_bucket_for(node)].nodes.move_to_end(node.id)
            return True
        if known is not None:  # it moved: what it proved last holds
            self._remove(known, refill=False)
        other = self._by_address.get(node.address)
        if other is not None:  # one id per address: whoever answers there now is the one
            self._remove(other, refill=False)
        return self._insert(node)

    def remove_contact(self, node: Contact) -> None:
        """Drop it and let the nearest replacement in, by round trip."""
        if self._by_id.get(node.id) is node:
            self._remove(node, refill=True)
        else:
            self._forget(node.id)
            self.buckets[self.get_bucket_for(node)].replacement_nodes.pop(node.id, None)

    def missed(self, contact: Contact, *, cut_off: bool = False) -> None:
        """A request to it got no answer. The third miss in a row drops a contact, the first an acquaintance; while we
        are cut off from everybody, they become doubtful only."""
        contact.misses += 1
        if cut_off:
            return
        if contact.misses >= MISSES_TO_DROP or contact.id not in self._by_id:
            self.remove_contact(contact)

    def is_new_node(self, node: Node) -> bool:
        return node.id not in self._by_id

    def closest(self, target: bytes, count: int, exclude: bytes = b"") -> list[Contact]:
        """Return up to `count` of everybody, nearest to `target` (XOR) first, without the id `exclude`.

        `count`: at most ksize. Exact.
        """
        return self._nearest.closest(target, count, exclude)

    def closest_diverse(self, target: bytes, count: int, exclude: bytes = b"") -> list[Contact]:
        """Return `closest`, but beyond 2 of a prefix only who fills places that others leave (public realm)."""
        nearest = self._nearest.closest(target, count, exclude)
        if not self._diverse or not any_crowded([contact.prefix for contact in nearest]):
            return nearest
        goal = int.from_bytes(target, "big")
        present = Diversity()
        chosen: list[Contact] = []
        spare: list[Contact] = []
        # Everybody, sorted: 0.1 ms for a table of 300; only when the nearest are crowded.
        for contact in sorted(self.everybody(), key=lambda contact: contact.long_id ^ goal):
            if len(chosen) == count:
                break
            if contact.id != exclude:
                (spare if present.crowded(contact.prefix) else chosen).append(contact)
                present.count(contact.prefix)
        if len(chosen) < count:
            chosen = sorted(chosen + spare[: count - len(chosen)], key=lambda contact: contact.long_id ^ goal)
        return chosen

    def neighbours(self) -> list[Contact]:
        """Return the k nearest to our own id, nearest first: they hold what we hold."""
        return [*self._near()]

    def _near(self) -> list[Contact]:
        if self._neighbours is None:
            self._neighbours = self.closest(self.node.id, self.ksize)
        return self._neighbours

    def is_near(self, contact: Contact) -> bool:
        """Whether a contact, maybe dropped just now, is or was among the k nearest to us."""
        nearest = self._near()
        return len(nearest) < self.ksize or contact.long_id ^ self._own <= nearest[-1].long_id ^ self._own

    def estimated_size(self) -> float:
        """Estimate how many nodes the network has, from how near the nearest to our own id are; ourselves included.

        With u the k-th smallest of n uniform distances, (k - 1) / u is an unbiased estimate of n; its standard error is
        n / sqrt(k - 2): 24 % for k = 20. Exact while the table holds fewer than k. Up to date, but whoever grinds ids
        near ours moves it: see `robust_size`.
        """
        nearest = self._near()
        if len(nearest) < self.ksize:
            return len(nearest) + 1.0
        farthest: float = (nearest[-1].long_id ^ self._own) / 2**ID_BITS
        return 1.0 + (len(nearest) - 1) / farthest

    def robust_size(self) -> float:
        """Return the median of `estimated_size` and of what our searches told; exact for fewer than k nodes."""
        size = self.estimated_size()
        return size if size <= self.ksize else self.sizes.median(size)

    def radius_of(self, nodes: float) -> int:
        """Return the distance from any id within which so many nodes are to be expected."""
        return int(2**ID_BITS * min(1.0, nodes / self.estimated_size()))

    def thin_bucket(self, first: int) -> int | None:
        """Return the index, `first` or above, of the farthest bucket with less than a third of the contacts that it
        could have; None when there is none."""
        size = self.estimated_size()
        for index in range(first, len(self.buckets) - 1):
            if len(self.buckets[index].nodes) < min(self.ksize, size / 2 ** (index + 1)) / 3:
                return index
        return None

    def size_for(self, target: bytes) -> float:
        """Return the size by which ids near `target` are judged: what searches elsewhere told, if there were any."""
        return self.sizes.cautious(target) or self.estimated_size()

    def scattered(self, seed: int, count: int, named: Iterable[Contact], exclude: bytes) -> list[Contact]:
        """Return up to `count` (1 to 8) of everybody, from anywhere, beside those already `named` and the id
        `exclude`.

        `seed` (below 2^160) decides who; its first 20 bits do not matter. Never beyond 2 of a prefix in all (public
        realm).
        """
        chosen: list[Contact] = []
        taken = [*named]
        for turn in range(count):
            bits = 20 + turn * ID_BITS // count
            point = (seed << bits | seed >> ID_BITS - bits) % 2**ID_BITS  # rotated: other bits come first
            for contact in self._nearest.closest(point.to_bytes(20, "big"), 1, exclude):
                prefixes = [each.prefix for each in taken]
                if contact not in taken and not (self._diverse and crowded_among(prefixes, contact.prefix)):
                    taken.append(contact)
                    chosen.append(contact)
        return chosen

    def wants(self, node_id: bytes, now: float) -> bool:
        """Whether `add_contact` would make good use of this node: it is known, or there is a place for it among the
        contacts or their substitutes. In a large network that is mostly not so, and to have it proven would be a third
        of the datagrams of a first search. Acquaintances do not count: those whom we ask anyway are enough of them."""
        bucket = self.bucket_of(node_id)
        if bucket is self.buckets[-1] or len(bucket.nodes) < self.ksize or self.find(node_id) is not None:
            return True
        others = bucket.replacement_nodes
        if len(others) < SUBSTITUTES or self._heavy or bucket.has_crowd():
            return True
        oldest = next(iter(others.values()))
        return now - oldest.last_seen > STALE_S or any(c.misses or c.demerits for c in bucket.nodes.values())

    def bucket_of(self, target: bytes) -> Bucket:
        """Return the bucket to which an id belongs."""
        return self.buckets[self.get_bucket_for(Node(target))]

    def find_neighbors(self, node: Node, k: int | None = None, exclude: Node | None = None) -> list[Contact]:
        """The original's name for `closest`."""
        return self.closest(node.id, k or self.ksize, exclude.id if exclude is not None else b"")

    def looked_up(self, target: bytes, now: float) -> None:
        """A lookup for `target` begins: its bucket needs no refresh for a while."""
        self.bucket_of(target).looked_up_at = now

    def _insert(self, contact: Contact) -> bool:
        bucket = self.buckets[self.get_bucket_for(contact)]
        while len(bucket.nodes) >= self.ksize and bucket is self.buckets[-1] and len(self.buckets) < MAX_BUCKETS:
            self._split_last()
            bucket = self.buckets[self.get_bucket_for(contact)]
        if len(bucket.nodes) >= self.ksize:
            victim = self._replaceable(bucket, contact)
            if victim is None:
                bucket.remember(contact)
                self._acquaint(bucket, contact)
                return False
            self._remove(victim, refill=False)
            bucket.remember(victim)
            self._acquaint(bucket, victim)
        self._forget(contact.id)
        bucket.replacement_nodes.pop(contact.id, None)
        bucket.nodes[contact.id] = contact
        bucket.changed()
        self._by_id[contact.id] = contact
        self._by_address[contact.address] = contact
        self._enter(contact)
        self._prefixes[contact.prefix] += 1
        self._heavy += self._prefixes[contact.prefix] == PREFIX_PER_TABLE + 1
        return True

    def _acquaint(self, bucket: Bucket, contact: Contact) -> None:
        """Remember a contact without a place; the one heard longest ago makes room. At most two of a prefix."""
        if not bucket.spare or contact.misses or bucket.acquaintances.get(contact.id) is contact:
            return
        if self._diverse and self._crowded(bucket, contact):
            return
        bucket.acquaintances[contact.id] = self._acquaintances[contact.id] = contact
        self._enter(contact)
        if len(bucket.acquaintances) > bucket.spare:
            self._forget(next(iter(bucket.acquaintances)))

    def _forget(self, node_id: bytes) -> None:
        """Forget an acquaintance, if it is one."""
        contact = self._acquaintances.pop(node_id, None)
        if contact is not None:
            del self.buckets[self.get_bucket_for(contact)].acquaintances[node_id]
            self._leave(contact)

    def _enter(self, contact: Contact) -> None:
        self._nearest.add(contact)
        self._neighbours = None

    def _leave(self, contact: Contact) -> None:
        self._nearest.remove(contact)
        self._neighbours = None

    def _split_last(self) -> None:
        """Split the bucket that holds our own id: those that differ from us in the next bit stay behind."""
        last, shared = self.buckets[-1], len(self.buckets) - 1
        near = Bucket(*self._range(shared + 1, own_side=True), self.ksize)
        last.range = self._range(shared + 1, own_side=False)
        last.spare = max(0, (FAR_CONTACTS >> shared) - self.ksize)
        # A lookup before the split was most likely one for our own id.
        near.looked_up_at, last.looked_up_at = last.looked_up_at, float("-inf")
        self.buckets.append(near)
        for source, sink in ((last.nodes, near.nodes), (last.replacement_nodes, near.replacement_nodes)):
            for contact in [c for c in source.values() if ID_BITS - (c.long_id ^ self._own).bit_length() > shared]:
                del source[contact.id]
                sink[contact.id] = contact
        last.changed()

    def _range(self, bits: int, *, own_side: bool) -> tuple[int, int]:
        """Return the lowest and highest id that shares `bits` leading bits with us, or all but the last of them."""
        shift = ID_BITS - bits
        low = ((self._own >> shift) ^ (0 if own_side else 1)) << shift
        return low, low + (1 << shift) - 1

    def _replaceable(self, bucket: Bucket, newcomer: Contact) -> Contact | None:
        """Return who gives its place in a full bucket to `newcomer`, None when nobody must.

        Old live contacts stay (Kademlia section 4.1); who missed twice, or was caught lying, goes first.
        """
        for contact in bucket.nodes.values():
            if contact.misses >= MISSES_TO_DROP - 1 or contact.demerits > newcomer.demerits:
                return contact
        if not self._diverse:
            return None
        # Nearly always nobody has too much.
        if not (self._heavy or bucket.has_crowd()) or self._crowded(bucket, newcomer):
            return None
        present = Diversity(contact.prefix for contact in bucket.nodes.values())
        for contact in reversed(bucket.nodes.values()):
            if self._prefixes[contact.prefix] > PREFIX_PER_TABLE or present.over(contact.prefix):
                return contact
        return None

    def _crowded(self, bucket: Bucket, newcomer: Contact) -> bool:
        """Whether the bucket or the table has enough of its prefix."""
        if self._prefixes[newcomer.prefix] >= PREFIX_PER_TABLE:
            return True
        return crowded_among([contact.prefix for contact in bucket.all()], newcomer.prefix)

    def _remove(self, contact: Contact, *, refill: bool) -> None:
        bucket = self.buckets[self.get_bucket_for(contact)]
        del bucket.nodes[contact.id], self._by_id[contact.id]
        bucket.changed()
        self._leave(contact)
        if self._by_address.get(contact.address) is contact:
            del self._by_address[contact.address]
        self._heavy -= self._prefixes[contact.prefix] == PREFIX_PER_TABLE + 1
        self._prefixes[contact.prefix] -= 1
        if not self._prefixes[contact.prefix]:
            del self._prefixes[contact.prefix]
        while refill and bucket.replacement_nodes:
            replacement = bucket.replacement_nodes.pop(bucket.nearest_replacement())
            if replacement.address not in self._by_address:
                self._insert(replacement)
                break
