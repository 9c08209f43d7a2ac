"""The routing table: exact nearest, bounded, slow to forget."""

from __future__ import annotations

import random
from collections import Counter

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId
from p2pnode.dht.contact import Contact
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.table import Table

OWN = NodeId(bytes(20))


def contact(node_id: bytes, n: int) -> Contact:
    return Contact(NodeId(node_id), Address(f"5.{n // 250}.{n % 250}.1", 1 + n), Overlay.PUBLIC_IPV4)


def test_closest_is_exact_for_any_target() -> None:
    """For random tables and targets the answer is the true k nearest, in order (kademlia misses 19 %)."""
    rng = random.Random(1)
    for _ in range(20):
        own = NodeId(rng.randbytes(20))
        table = Table(own, 20, Overlay.PUBLIC_IPV4)
        for n in range(400):
            near = bytearray(own)
            near[rng.randrange(4)] ^= 1 << rng.randrange(8)
            table.add_contact(contact(bytes(near[:4]) + rng.randbytes(16) if n % 2 else rng.randbytes(20), n))
        for _ in range(50):
            target = own[:2] + rng.randbytes(18) if rng.random() < 0.3 else rng.randbytes(20)
            goal = int.from_bytes(target, "big")
            expected = sorted(table.everybody(), key=lambda c: c.long_id ^ goal)[:20]
            assert table.closest(target, 20) == expected
            assert expected[0] not in table.closest(target, 20, expected[0].id)


def test_acquaintances_are_bounded_diverse_and_leave_at_the_first_miss() -> None:
    """Who finds no place in a far bucket is remembered: at most 108, 44 and 12, two of a prefix; a miss ends it."""
    rng = random.Random(2)
    table = Table(OWN, 20, Overlay.PUBLIC_IPV4)
    for n in range(3000):
        table.add_contact(contact(rng.randbytes(20), n))
    assert [len(bucket.acquaintances) for bucket in table.buckets][:4] == [108, 44, 12, 0]
    assert len(table.everybody()) == len(table) + 108 + 44 + 12
    prefixes = Counter(c.prefix for bucket in table.buckets[:1] for c in bucket.acquaintances.values())
    assert max(prefixes.values()) <= 2
    one = next(iter(table.buckets[0].acquaintances.values()))
    assert table.find(one.id) is one
    table.missed(one)
    assert table.find(one.id) is None
    other = next(iter(table.buckets[0].acquaintances.values()))
    loser = next(iter(table.buckets[0].nodes.values()))
    for _ in range(3):
        table.missed(loser)  # a place becomes free
    table.add_contact(other)
    assert len(table.everybody()) == len({c.id for c in table.everybody()})


def test_a_newcomer_is_wanted_where_there_is_a_place_for_it() -> None:
    """Among the nearest always; where all places are taken, once somebody was not heard for ten minutes, or missed."""
    rng = random.Random(3)
    table = Table(OWN, 20, Overlay.PUBLIC_IPV4)
    far, middle, near = b"\xff" * 20, b"\x10" + bytes(19), bytes(19) + b"\x01"
    assert table.wants(far, 0.0)
    for n in range(6000):
        each = contact(rng.randbytes(20), n)
        each.last_seen = 100.0
        table.add_contact(each)
    known = next(iter(table.buckets[0].nodes.values()))
    assert [table.wants(node_id, 200.0) for node_id in (far, middle, near, known.id)] == [False, False, True, True]
    assert table.wants(far, 701.0)
    assert table.wants(middle, 701.0)
    table.missed(known)
    assert table.wants(far, 200.0)


def test_room_among_acquaintances_makes_no_newcomer_wanted() -> None:
    """They would need a third datagram each: those whom we ask anyway become acquaintances for nothing."""
    rng = random.Random(4)
    table = Table(OWN, 20, Overlay.PUBLIC_IPV4)
    for n in range(80):
        each = contact(rng.randbytes(20), n)
        each.last_seen = 100.0
        table.add_contact(each)
    far = table.buckets[0]
    assert len(far.nodes) == 20
    assert 5 <= len(far.acquaintances) < far.spare
    assert not table.wants(b"\xff" * 20, 200.0)


def test_full_bucket_keeps_oldest_live_contact() -> None:
    """A newcomer to a full bucket waits as a replacement, and comes in when a contact missed three times."""
    table = Table(OWN, 4, Overlay.PUBLIC_IPV4)
    old = [contact(b"\xff" + bytes([n]) * 19, n) for n in range(4)]
    assert all(table.add_contact(c) for c in old)
    newcomer = contact(b"\xfe" + bytes(19), 9)
    assert not table.add_contact(newcomer)
    for misses in (1, 2):
        table.missed(old[0])
        assert old[0].misses == misses
        assert table.find(old[0].id) is old[0]
    table.missed(old[0])
    assert table.find(old[0].id) is None
    assert table.find(newcomer.id) is newcomer


def test_a_free_place_goes_to_the_replacement_with_the_shortest_round_trip() -> None:
    """For the id space all of a bucket are equal, so the nearer machine is the better contact."""
    table = Table(OWN, 4, Overlay.PUBLIC_IPV4)
    members = [contact(b"\xff" + bytes([n]) * 19, n) for n in range(4)]
    waiting = [contact(b"\xfe" + bytes([n]) * 19, 10 + n) for n in range(4)]
    for each, rtt_s in zip(waiting, (0.2, 0.02, 0.3), strict=False):
        each.measured(rtt_s)
    for each in (*members, *waiting):
        table.add_contact(each)
    table.remove_contact(members[0])
    assert table.find(waiting[1].id) is waiting[1]
    table.remove_contact(members[1])
    assert table.find(waiting[0].id) is waiting[0]


def test_a_moved_contact_is_one_contact() -> None:
    """An id proven at a new address replaces its old entry, and a new id at an address replaces the old id."""
    table = Table(OWN, 20, Overlay.PUBLIC_IPV4)
    table.add_contact(contact(b"\x80" * 20, 1))
    moved = contact(b"\x80" * 20, 2)
    table.add_contact(moved)
    assert list(table) == [moved]
    other = Contact(NodeId(b"\x81" * 20), moved.address, Overlay.PUBLIC_IPV4)
    table.add_contact(other)
    assert list(table) == [other]


def test_buckets_partition_the_id_space() -> None:
    """After many splits every id belongs to exactly one bucket, and contacts are where their range says."""
    rng = random.Random(2)
    own = NodeId(rng.randbytes(20))
    table = Table(own, 3, Overlay.PUBLIC_IPV4)
    for n in range(300):
        table.add_contact(contact(own[: n % 6] + rng.randbytes(20 - n % 6), n))
    assert sum(high - low + 1 for low, high in (b.range for b in table.buckets)) == 2**160
    for index, bucket in enumerate(table.buckets):
        assert all(bucket.range[0] <= c.long_id <= bucket.range[1] for c in bucket.nodes.values())
        member = bucket.random_id(rng.getrandbits(160))
        assert table.get_bucket_for(contact(member, 1)) == index


def test_own_id_never_enters() -> None:
    """We are not our own contact."""
    table = Table(OWN, 20, Overlay.PUBLIC_IPV4)
    assert not table.add_contact(contact(OWN, 1))
    assert len(table) == 0


def test_closest_is_exact_while_contacts_come_and_go() -> None:
    """What is remembered between two questions never shows: ids side by side, ground ones, after each change."""
    rng = random.Random(3)
    table = Table(OWN, 20, Overlay.PUBLIC_IPV4)
    ground = [bytes(10) + rng.randbytes(2) + bytes(4) + n.to_bytes(4, "big") for n in range(60)]
    ids = ground + [rng.randbytes(20) for _ in range(300)]
    rng.shuffle(ids)
    for n, node_id in enumerate(ids):
        table.add_contact(contact(node_id, n))
        if n % 3 == 2:
            table.missed(rng.choice(table.everybody()))
        for target in (rng.randbytes(20), rng.choice(ground)):
            goal = int.from_bytes(target, "big")
            expected = sorted(table.everybody(), key=lambda c: c.long_id ^ goal)
            assert table.closest(target, 20) == expected[:20]
            assert table.closest(target, 3, expected[1].id if len(expected) > 1 else b"") == [
                *expected[:1],
                *expected[2:4],
            ]
