"""Guessed ports: order, pace, arithmetic, limits."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import statistics

import pytest

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.nat.guessing import (
    ATTEMPT_S,
    HIGH,
    LOW,
    MAX_PEERS,
    MEET_AIMS,
    PROBES,
    RENEW_S,
    SOCKETS,
    GuessGate,
    GuessPlan,
    GuessTerms,
    Role,
    guessed_ports,
    opening_steps,
    probing_steps,
    role_of,
    terms_of,
)
from p2pnode.nat.ice_agent import Transaction
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

HARD_IP = "203.0.113.9"
EASY = Address("198.51.100.7", 4747)
ANY = GuessTerms()
IN_STEPS = GuessTerms(next_port=20_000, step=2)


def mapped(*ports: int) -> list[tuple[int, Address]]:
    return [(40_000, Address(HARD_IP, port)) for port in ports]


@pytest.mark.parametrize("terms", [ANY, IN_STEPS, GuessTerms(low=1024, high=2047), GuessTerms(65_535, 1)])
def test_terms_travel_in_8_bytes(terms: GuessTerms) -> None:
    """Written and read alike; no bytes are no consent."""
    assert len(terms.encode()) == 8
    assert GuessTerms.decode_untrusted(terms.encode()) == terms
    assert GuessTerms.decode_untrusted(b"") is None


@pytest.mark.parametrize(
    "data",
    [
        bytes(7), bytes(9),
        bytes.fromhex("0000 0001 0000 0000"),  # a step from nowhere
        bytes.fromhex("4e20 0000 0000 0000"),  # a next port without a step
        bytes.fromhex("4e20 0021 0000 0000"),  # more than 32 apart
        bytes.fromhex("0000 0000 0000 07ff"), bytes.fromhex("0000 0000 07ff 0400"),
    ],
)  # fmt: skip
def test_terms_that_make_no_sense_are_refused(data: bytes) -> None:
    with pytest.raises(BadPacket, match="malformed"):
        GuessTerms.decode_untrusted(data)


@pytest.mark.parametrize(
    ("samples", "seen", "right"),
    [
        (mapped(20_000, 20_001, 20_002, 20_003), (5,), GuessTerms(20_004, 1)),
        (mapped(20_000, 20_002, 20_004), (), GuessTerms(20_006, 2)),
        (mapped(20_000, 20_001, 20_007, 20_008), (), GuessTerms(20_009, 1)),  # somebody else's in between
        (mapped(20_000, 20_001), (), ANY),  # too few to tell
        (mapped(9_000, 60_000, 31_000, 1_500), (), ANY),
        (mapped(4_000, 4_900, 4_300), (4_600, 4_150), GuessTerms(low=3_775, high=5_125)),  # a carrier's block
        (mapped(65_533, 65_534, 65_535), (), ANY),  # it ends here
    ],
)
def test_rule_of_a_router(samples: list[tuple[int, Address]], seen: tuple[int, ...], right: GuessTerms) -> None:
    """A sequence with its next port, a narrow range, or nothing."""
    assert terms_of(samples, seen) == right


def test_both_sides_find_fitting_roles() -> None:
    """Whoever is hard opens sockets, unless both are: then sequences meet. Without consent nobody does anything."""
    fitting = {(Role.OPEN, Role.PROBE), (Role.PROBE, Role.OPEN), (Role.MEET, Role.MEET), (None, None)}
    found = set()
    for hard, their_hard in itertools.product((False, True), repeat=2):
        for own, theirs in itertools.product((None, ANY, IN_STEPS), repeat=2):
            roles = (
                role_of(hard=hard, own=own, their_hard=their_hard, theirs=theirs),
                role_of(hard=their_hard, own=theirs, their_hard=hard, theirs=own),
            )
            assert roles in fitting
            assert roles == (None, None) or (own is not None and theirs is not None)
            found.add(roles)
    assert found == fitting


def test_no_port_is_tried_twice() -> None:
    """Neither with a rule nor without; all are ports that routers give out."""
    for terms in (ANY, IN_STEPS, GuessTerms(low=4_000, high=4_511), GuessTerms(65_000, 32)):
        ports = list(itertools.islice(guessed_ports(terms, random.Random(1)), PROBES))
        assert len(ports) == len(set(ports)) == PROBES
        assert 1024 <= min(ports) <= max(ports) <= 65_535


def test_a_sequence_is_met_by_the_first_probes() -> None:
    """Wherever in the next 448 ports the row of 64 sockets begins: at most 16 probes."""
    for began in range(448):
        row = {20_000 + 2 * (began + i) for i in range(64)}
        probes = itertools.takewhile(lambda port, row=row: port not in row, guessed_ports(IN_STEPS, random.Random(1)))
        assert len(list(probes)) < 16


def test_a_narrow_range_gets_two_of_three_probes() -> None:
    """A carrier's block of 1,024 ports with 256 mappings: half of the attempts need 4 probes."""
    rng = random.Random(2)
    counts = []
    for _ in range(200):
        mappings = set(rng.sample(range(30_000, 31_024), SOCKETS))
        guesses = guessed_ports(GuessTerms(low=29_900, high=31_100), rng)
        counts.append(1 + next(i for i, port in enumerate(guesses) if port in mappings))
    print(f"probes until the first hit: median {statistics.median(counts)}, most {max(counts)}")
    assert statistics.median(counts) <= 6


def test_arithmetic_of_1400_probes_against_256_mappings() -> None:
    """99.6 % of attempts hit; the mean of (P + 1) / (N + 1) = 251 probes."""
    rng = random.Random(3)
    counts = []
    for _ in range(400):
        mappings = set(rng.sample(range(1024, 65_536), SOCKETS))
        hits = (i for i, port in enumerate(itertools.islice(guessed_ports(ANY, rng), PROBES), 1) if port in mappings)
        counts.append(next(hits, 0))
    missed = counts.count(0) / len(counts)
    mean = statistics.mean(count for count in counts if count)
    print(f"missed {missed:.2%}, mean {mean:.0f} probes")
    assert missed <= 0.015
    assert 215 <= mean <= 285


def test_probes_are_paced_and_end() -> None:
    """1,400, a hundred in a second, to the one IP address only."""
    plan = GuessPlan(Role.PROBE, Address(HARD_IP, 0), ANY, ANY)
    steps = list(probing_steps(plan, random.Random(1)))
    assert len(steps) == 1400
    assert {step.to.ip for step in steps} == {HARD_IP}
    assert {step.socket for step in steps} == {0}
    times = [step.at for step in steps]
    assert times == sorted(times)
    for second in range(15):
        assert sum(second <= round(at - times[0], 6) < second + 1 for at in times) <= 100


@pytest.mark.parametrize("own", [ANY, IN_STEPS])
def test_sockets_all_send_to_the_one_address(own: GuessTerms) -> None:
    """256 of them, twice each, never more than 32 at once but for the repetition's row."""
    steps = opening_steps(GuessPlan(Role.OPEN, EASY, own, ANY))
    assert {step.to for step in steps} == {EASY}
    assert {step.socket for step in steps} == set(range(SOCKETS))
    assert len(steps) == 2 * SOCKETS
    assert {step.socket for step in steps if step.renew} == set(range(SOCKETS))
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert max(sum(other.at == step.at for other in steps) for step in steps[::32]) <= 32


def test_fresh_sockets_meet_ports_that_were_probed_in_vain() -> None:
    """A mapping is met by a probe while it lives, or meets a port that was probed before it: by 6 s all but 5 % are."""
    rng = random.Random(1)
    missed = 0
    for _ in range(200):
        probed = {step.to.port: step.at for step in probing_steps(GuessPlan(Role.PROBE, EASY, ANY, ANY), rng)}
        hits = []
        for step in opening_steps(GuessPlan(Role.OPEN, EASY, ANY, ANY)):
            at = probed.get(rng.randint(LOW, HIGH), math.inf)
            ends = ATTEMPT_S if step.renew else step.at + RENEW_S
            if at < ends:
                hits.append(max(at, step.at))
        missed += min(hits, default=math.inf) > 6.0
    print(f"{missed / 2:.1f} % of random pairs take more than 6 s")
    assert missed <= 10


def test_two_sequences_meet_if_as_many_ports_were_used_as_thought() -> None:
    """Of 64 sockets in a row one has the port that the other side aims at: up to 47, 63, 95, 127 others in between."""
    plan = GuessPlan(Role.MEET, Address(HARD_IP, 0), IN_STEPS, GuessTerms(30_000, 1))
    steps = opening_steps(plan)
    for turn, most in enumerate((47, 63, 95, 127)):
        row = range(turn * 64, turn * 64 + 64)
        aims = {step.to for step in steps if step.socket in row}
        assert aims == {Address(HARD_IP, 30_000 + MEET_AIMS[turn] - 1)}
        for used in range(most - 47, most + 1):  # by others, on the other side, since it looked
            assert any(number + 1 + used == MEET_AIMS[turn] for number in row)
    assert opening_steps(GuessPlan(Role.MEET, Address(HARD_IP, 0), ANY, GuessTerms(65_530, 1))) == []


def test_gate_one_per_peer_in_20_seconds() -> None:
    """Who called is remembered within bounds."""
    gate = GuessGate()
    assert gate.begin("a", stranger=False, now=0.0)
    assert gate.wait_s("a", stranger=False, now=19.9) is None
    assert not gate.begin("a", stranger=False, now=19.9)
    assert gate.begin("b", stranger=False, now=1.0)
    assert gate.begin("a", stranger=False, now=20.0)
    for number in range(2 * MAX_PEERS):
        gate.begin(number, stranger=False, now=100.0)
    assert len(gate._began) == MAX_PEERS


def test_gate_gives_strangers_half_of_the_time() -> None:
    """After an attempt of theirs as long a pause; contacts do not wait for it. A pause above 5 s is a no."""
    gate = GuessGate()
    assert gate.begin("c", stranger=True, now=30.0)
    gate.ended(stranger=True, began=30.0, now=40.0)
    assert gate.wait_s("d", stranger=True, now=44.0) is None
    assert gate.wait_s("d", stranger=True, now=46.0) == 4.0
    assert not gate.begin("d", stranger=True, now=46.0)
    assert gate.begin("e", stranger=False, now=46.0)
    assert gate.begin("d", stranger=True, now=50.0)


def test_a_hit_right_after_an_ordinary_check_is_answered_by_another() -> None:
    """A check that just left by the node's own socket went nowhere; the winner's socket must not wait for its turn."""

    async def main(world: VirtualWorld) -> list[float]:
        sent: list[float] = []
        request = bytes(20)
        check = Transaction(request, EASY, b"key", (0.1, 0.2, 5.0), lambda _data, _to: sent.append(world.loop.time()))
        running = asyncio.ensure_future(check.run())
        await asyncio.sleep(0.31)  # the third one left 10 ms ago, the next turn is seconds away
        check.repeat()
        assert len(sent) == 3
        check.afresh()
        check.repeat()
        assert len(sent) == 4
        await asyncio.sleep(0.15)
        running.cancel()
        return sent

    assert len(run_virtual(main)) == 5  # its turns begin anew
