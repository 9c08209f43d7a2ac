"""Who gets whom, who is chosen how often: the parts without a network."""

from __future__ import annotations

import random

import pytest

from p2pnode import Address, NodeKey, PeerId
from p2pnode.chat.database import Database
from p2pnode.chat.strangers import judging
from p2pnode.chat.strangers.lobby import KEPT, MAX_BLOCKS, MAX_TRIED, Acquaintances, Candidates, Patience
from p2pnode.chat.strangers.receipts import EPOCH_S, device_key, epoch_of
from p2pnode.chat.strangers.seat import Seat
from p2pnode.chat.strangers.store import StrangerStore
from p2pnode.simulations.virtual import run_virtual

NOW = 1_700_000_000.0


def peers(count: int, seed: int = 1) -> list[PeerId]:
    """Ids in their order."""
    rng = random.Random(seed)
    return sorted((NodeKey.generate(rng.randbytes).peer_id for _ in range(count)), key=lambda peer: peer.raw)


def test_free_seat_goes_to_the_first_and_all_others_are_told_at_once() -> None:
    own, one, other = peers(3)
    seat = Seat(own)
    assert seat.asked_by(one) == "take"
    assert seat.asked_by(other) == "taken"
    assert not seat.ask(other)
    seat.leave(one, ours=False)
    assert seat.asked_by(other) == "take"


def test_of_two_that_ask_each_other_one_question_counts() -> None:
    low, high = peers(2)
    seats = {low: Seat(low), high: Seat(high)}
    assert seats[low].ask(high)
    assert seats[high].ask(low)
    assert seats[low].asked_by(high) == "crossing"
    assert seats[high].asked_by(low) == "take"
    seats[high].leave(low, ours=True)  # its own question was declined: the seat stays with whom it was given to
    assert seats[high].taken == low
    assert seats[low].answered(high)


def test_who_waits_gets_the_seat_when_the_question_comes_to_nothing() -> None:
    own, asked, waiting, late = peers(4)
    seat = Seat(own)
    assert seat.ask(asked)
    assert seat.asked_by(waiting) == "wait"
    assert seat.asked_by(late) == "wait"
    assert seat.given(waiting) is None
    seat.leave(asked, ours=True)
    assert seat.given(waiting) is True
    assert seat.given(late) is False
    busy = Seat(late)
    assert busy.ask(own)
    assert busy.asked_by(asked) == "wait_briefly"  # a smaller id does not wait for long
    busy.forget(asked)
    assert busy.given(asked) is False


@pytest.mark.parametrize("seed", range(20))
def test_any_circle_of_questions_ends_with_pairs(seed: int) -> None:
    """Each of 30 asks one other, all at once. In whatever order answers come, nobody waits for ever, and everybody's
    partner is his."""
    rng = random.Random(seed)
    everybody = peers(30, seed)
    seats = {peer: Seat(peer) for peer in everybody}
    asks = {peer: rng.choice([other for other in everybody if other != peer]) for peer in everybody}
    for peer, asked in asks.items():
        assert seats[peer].ask(asked)
    waiting: dict[PeerId, int] = {}  # how often it will look again
    todo = list(everybody)
    for _ in range(20_000):
        if not todo:
            break
        peer = todo.pop(rng.randrange(len(todo)))
        asked = asks[peer]
        if peer in waiting:
            given = seats[asked].given(peer)
        else:
            verdict = seats[asked].asked_by(peer)
            given = None if verdict.startswith("wait") else verdict == "take"
            waiting[peer] = 20 if verdict == "wait_briefly" else 20_000
        if given is None and waiting[peer]:
            waiting[peer] -= 1
            todo.append(peer)
            continue
        seats[asked].forget(peer)
        if not given:
            seats[peer].leave(asked, ours=True)
        elif not seats[peer].answered(asked):  # its seat was given to somebody else meanwhile
            seats[asked].leave(peer, ours=False)
    assert not todo
    assert all(seat.asking is None for seat in seats.values())
    pairs = [(peer, seat.taken) for peer, seat in seats.items() if seat.taken is not None]
    assert pairs
    assert all(seats[other].taken == peer for peer, other in pairs)


def test_candidates_are_others_and_those_tried_are_left_alone_for_a_while() -> None:
    own, one, other = peers(3)
    candidates = Candidates(own)
    rng = random.Random(1)
    candidates.listed([own, one, other, one])
    assert {candidates.choose(0.0, rng), candidates.choose(0.0, rng)} == {one, other}
    candidates.listed([own, one, other])
    assert candidates.choose(0.5, rng) is None  # both are under way
    candidates.tried(one, "taken", 0.5)
    assert candidates.choose(2.0, rng) is None
    assert candidates.choose(3.0, rng) == one
    candidates.tried(one, "taken", 3.0)
    candidates.tried(other, "unasked", 3.0)
    assert candidates.choose(3.0, rng) == other
    candidates.tried(other, "unasked", 3.0)
    candidates.listed([one])
    assert candidates.choose(4.0, rng) is None  # who is not listed any more has gone
    for number in range(MAX_TRIED + 100):
        candidates.tried(NodeKey.generate(random.Random(number).randbytes).peer_id, "failed", 0.0)
    assert len(candidates._not_before) == MAX_TRIED


def test_last_partners_are_not_met_again_within_a_minute() -> None:
    met = Acquaintances()
    for number in range(KEPT + 1):
        met.met(bytes([number]) * 32, 0.0)
    assert not met.just_met(bytes(32), 1.0)  # the oldest of nine
    assert met.just_met(bytes([KEPT]) * 32, 59.0)
    assert not met.just_met(bytes([KEPT]) * 32, 61.0)


def test_who_wastes_the_seat_is_left_alone_for_a_while_but_no_lan() -> None:
    patience, one, neighbour = Patience(), Address("8.8.8.1", 1), Address("8.8.8.200", 2)
    patience.wasted(one, 5.5, 0.0)
    assert not patience.is_lost(neighbour, 0.0)
    patience.wasted(neighbour, 5.5, 5.0)
    assert patience.is_lost(one, 5.0)
    assert not patience.is_lost(Address("8.8.9.1", 1), 5.0)
    assert not patience.is_lost(one, 60.0)
    patience.wasted(Address("10.0.0.1", 1), 1_000.0, 0.0)
    assert not patience.is_lost(Address("10.0.0.1", 1), 0.0)
    for number in range(2 * MAX_BLOCKS):
        patience.wasted(Address(f"9.{number % 200}.{number // 200}.1", 1), 1.0, 0.0)
    assert len(patience._left) == MAX_BLOCKS


def test_ten_reports_are_a_third_at_most_and_nobody_is_shut_out() -> None:
    assert judging.weight_of(0.0) == judging.weight_of(1.0) == 1.0
    assert judging.weight_of(3.0) == 0.5
    assert judging.weight_of(10.0) < 1 / 3
    assert judging.weight_of(1_000.0) == judging.LEAST


def test_reports_age() -> None:
    """In full for a day, nothing after a week."""
    counted = [judging.strength_of([NOW - days * 86_400], NOW) for days in (0.0, 0.9, 1.0, 4.0, 7.0, 20.0)]
    assert counted == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.0, 0.0])


def test_lots_are_the_same_for_all_and_as_frequent_as_their_weight() -> None:
    rng = random.Random(1)
    drawn = sum(judging.is_drawn(rng.randbytes(32), 10.0, NOW + n * judging.SLOT_S) for n in range(4_000))
    share = drawn / 4_000
    print(f"a device with 10 reports is drawn in {share:.3f} of all slots")
    assert 0.14 < share < 0.23
    device, start = rng.randbytes(32), NOW - NOW % judging.SLOT_S
    assert len({judging.is_drawn(device, 10.0, start + second) for second in range(300)}) == 1
    assert judging.is_drawn(device, 1.0, NOW)


def test_board_counts_a_reporter_once_and_is_bounded() -> None:
    board = judging.Board()
    device, reporter = bytes(32), bytes([1]) * 32
    assert board.add(device, {reporter: NOW}) == {reporter: NOW}
    assert board.add(device, {reporter: NOW + 5.0}) == {}
    assert board.strength(device, NOW) == 1.0
    board.add(device, {number.to_bytes(32, "big"): NOW for number in range(1_000)})
    assert board.reports(device) == judging.MAX_REPORTS
    for number in range(judging.MAX_DEVICES + 100):
        board.add(number.to_bytes(32, "big"), {reporter: NOW})
    assert len(board._seen) == judging.MAX_DEVICES


def test_weekly_ids_have_nothing_in_common_and_need_the_secret() -> None:
    secret, week = bytes(range(32)), epoch_of(NOW)
    assert epoch_of(NOW + EPOCH_S) == week + 1
    ids = {device_key(some, each).public_raw for some in (secret, bytes(32)) for each in (week, week + 1)}
    assert len(ids) == 4
    assert device_key(secret, week).public_raw in ids


def test_secret_and_reports_outlive_a_restart_stale_ones_do_not() -> None:
    async def main(_world: object) -> None:
        database = await Database.open(None)
        store = StrangerStore(database)
        first = await store.load(b"s" * 32, NOW)
        assert first.secret == b"s" * 32
        await store.report(b"d" * 32, b"r" * 32, int(NOW), b"value")
        store.saw(b"d" * 32, {b"o" * 32: NOW - 3 * 86_400, b"r" * 32: NOW})
        kept = await StrangerStore(database).load(b"x" * 32, NOW + 86_400)
        assert kept.secret == b"s" * 32
        assert kept.made == [(b"d" * 32, int(NOW), b"value")]
        kept = await StrangerStore(database).load(b"x" * 32, NOW + 86_400)  # what may be written later is there now
        assert kept.seen == {b"d" * 32: {b"r" * 32: NOW, b"o" * 32: NOW - 3 * 86_400}}
        late = await StrangerStore(database).load(b"x" * 32, NOW + 8 * 86_400)
        assert late.seen == {}
        assert late.made == []
        await database.close()

    run_virtual(main)
