"""The lookup machine, without any network."""

from __future__ import annotations

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId
from p2pnode.dht.contact import Contact
from p2pnode.dht.lookup import MAX_CANDIDATES, Lookup
from p2pnode.dht.overlay import Overlay

TARGET = NodeId(bytes(20))
OWN = NodeId(b"\xff" * 20)


def contact(distance: int, prefix: int | None = None) -> Contact:
    n = distance if prefix is None else prefix
    ip = f"{5 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.{distance % 250 + 1}"
    return Contact(NodeId(distance.to_bytes(20, "big")), Address(ip, 1000 + distance % 60_000), Overlay.PUBLIC_IPV4)


def lookup(ksize: int = 3, alpha: int = 2, max_queries: int = 100) -> Lookup:
    return Lookup(TARGET, own_id=OWN, ksize=ksize, alpha=alpha, max_queries=max_queries, diverse=True)


def test_a_query_leaves_as_soon_as_a_slot_is_free() -> None:
    """No rounds: each answer or failure lets the next query go, nearest first, and lateness two: for its slot, and
    since more may be silent; never more than twice alpha."""
    search = lookup(ksize=5)
    c = [contact(n) for n in range(1, 8)]
    search.add(c)
    assert search.next_queries() == c[:2]
    assert search.next_queries() == []
    search.late(c[0])
    assert search.next_queries() == c[2:4]
    search.failed(c[1])
    assert search.next_queries() == [c[4]]
    search.answered(c[2], [])
    assert search.next_queries() == [c[5]]
    several = lookup(ksize=20)
    c = [contact(n) for n in range(1, 20)]
    several.add(c)
    for one in several.next_queries():
        several.late(one)
    assert several.next_queries() == c[2:6]
    for one in c[2:6]:
        several.late(one)
    assert several.next_queries() == c[6:10]


def test_it_ends_when_the_nearest_that_are_not_late_answered() -> None:
    """A late contact is not waited for, but its answer counts while the lookup runs."""
    search = lookup()
    c = [contact(n) for n in range(1, 6)]
    search.add(c[:4])
    search.next_queries()
    search.late(c[0])
    search.answered(c[1], [c[4]])
    while queries := search.next_queries():
        assert not search.finished
        for query in queries:
            search.answered(query, [])
    assert search.finished
    assert search.closest() == c[1:4]
    search.answered(c[0], [])
    assert search.closest() == c[:3]
    assert (search.queried, search.late_count, search.hops) == (4, 1, 1)


def test_while_nobody_answered_late_ones_are_awaited() -> None:
    """A lookup whose only contact is late waits for it, and ends when it fails."""
    search = lookup()
    search.add([contact(1)])
    search.next_queries()
    search.late(contact(1))
    assert not search.finished
    search.failed(contact(1))
    assert search.finished
    assert search.closest() == []


def test_over_limit_prefixes_fill_only_what_diverse_ones_leave() -> None:
    """Near ids of one /24 take two places while others are there, and all of them when nobody else is."""
    search = lookup(ksize=4, alpha=10)
    crowd = [contact(n, prefix=1) for n in range(1, 6)]
    others = [contact(n) for n in (50, 60)]
    search.add(crowd + others)
    assert search.next_queries() == [crowd[0], crowd[1], *others]
    alone = lookup(ksize=4, alpha=10)
    alone.add(crowd)
    assert alone.next_queries() == crowd[:4]


def test_candidates_and_queries_are_bounded() -> None:
    """Endless hearsay is forgotten from the far end; queries stop at the limit."""
    search = lookup(ksize=3, alpha=3, max_queries=5)
    search.add(contact(n) for n in range(2000, 1000, -1))
    assert len(search._paths[0].candidates) == MAX_CANDIDATES == len(search._by_id) == len(search._addresses)
    asked = 0
    while queries := search.next_queries():
        for query in queries:
            asked += 1
            search.answered(query, [contact(1000 - asked)])
    assert asked == 5
    assert search.finished


def test_own_id_known_ids_and_second_ids_at_an_address_are_ignored() -> None:
    """Nobody sends us to ourselves, or twice to one address."""
    search = lookup()
    same_place = Contact(NodeId(b"\x07" * 20), contact(1).address, Overlay.PUBLIC_IPV4)
    own = Contact(OWN, Address("5.5.5.5", 5), Overlay.PUBLIC_IPV4)
    assert search.add([contact(1), contact(1), same_place, own]) == 1


def test_paths_are_told_apart() -> None:
    """An answer extends only the path that asked; a node is asked once; what answered counts for every path."""
    search = Lookup(TARGET, own_id=OWN, ksize=2, alpha=4, max_queries=100, diverse=True, paths=2)
    c = [contact(n) for n in range(10, 14)]
    liars = [contact(n) for n in (1, 2, 3, 4)]
    honest = contact(5)
    assert search.add(c) == 4
    assert search.next_queries() == c  # dealt out in turn: 10 and 12 to the first, 11 and 13 to the second
    search.answered(c[0], liars)
    search.answered(c[1], [honest])
    search.answered(c[2], [])
    search.answered(c[3], [])
    asked = search.next_queries()
    assert set(asked) == {liars[0], liars[1], honest}  # the crowd of liars cannot push the honest one out
    for each in asked:
        search.answered(each, [])
    assert search.finished
    assert search.queried == 7
    assert search.closest() == liars[:2]


def test_a_query_that_nearer_ones_pushed_out_holds_no_slot() -> None:
    """Once k nearer nodes are known, those under way to farther ones no longer keep the search from going on."""
    search = lookup(ksize=3, alpha=2)
    far = [contact(n) for n in (100, 101)]
    near = [contact(n) for n in (1, 2, 3)]
    search.add([*far, contact(102)])
    assert search.next_queries() == far
    search.answered(far[0], near)
    assert search.next_queries() == near[:2]
    assert search.next_queries() == []
