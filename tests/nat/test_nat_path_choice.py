"""Which path carries packets: the pure choice, step by step."""

from __future__ import annotations

from collections.abc import Sequence

from p2pnode.core.address import Address
from p2pnode.nat import Path, PathKind
from p2pnode.nat.path_choice import FIRST_PROBES_S, MAX_PATHS, SPARE_EVERY_S, STAY_S, PathChoice


class Wire:
    """A carrier that leads nowhere."""

    def __init__(self, kind: PathKind) -> None:
        self.kind: PathKind = kind
        self.peer = None

    def send(self, data: bytes, to: Address) -> None:
        raise AssertionError("the choice sends nothing")

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        raise AssertionError("the choice sends nothing")


MUX = Wire("mux")
DIRECT, OTHER = (Path(Address("192.0.2.1", port), MUX) for port in (1, 2))
RELAY, SPARE = (Path(Address("198.51.100.1", port), Wire("relay")) for port in (1, 2))


class Clock:
    """Runs a choice: probes are answered after each path's round trip; None: never."""

    def __init__(self, choice: PathChoice) -> None:
        self.choice, self.now = choice, 0.0
        self.rtts: dict[Path, float | None] = {}
        self.probes: list[tuple[float, Path]] = []
        self._under_way: list[tuple[float, Path, bytes]] = []

    def run(self, seconds: float) -> Path:
        """Let time pass, in steps of 10 ms, longer times of 50; return the path that is chosen then."""
        until, step = self.now + seconds, 0.01 if seconds <= 5 else 0.05
        while self.now < until:
            self.now = round(self.now + step, 6)
            for at, path, number in list(self._under_way):
                if at <= self.now:
                    self._under_way.remove((at, path, number))
                    assert self.choice.answered(path, number, self.now)
            for path in self.choice.due(self.now):
                number = len(self.probes).to_bytes(8, "big")
                self.probes.append((self.now, path))
                self.choice.sent(path, number, self.now)
                if (rtt := self.rtts.get(path)) is not None:
                    self._under_way.append((self.now + rtt, path, number))
            chosen = self.choice.choose(self.now)
            if chosen != self.choice.active:
                self.choice.moved(chosen, self.now)
        return self.choice.active

    def probed(self, path: Path) -> list[float]:
        return [at for at, probed in self.probes if probed == path]


def test_a_single_path_is_never_probed() -> None:
    """Also when it is in doubt: there is nothing to choose."""
    clock = Clock(PathChoice(DIRECT, 0.0, chooses=True))
    clock.choice.doubt(0.0)
    assert clock.run(100) == DIRECT
    assert clock.probes == []


def test_a_direct_path_is_taken_at_its_first_answer() -> None:
    """Even when it is slower than the relay; and not left for the relay again."""
    clock = Clock(PathChoice(RELAY, 0.0, chooses=True))
    clock.rtts = {RELAY: 0.05, DIRECT: 0.2}
    clock.choice.add(DIRECT, 0.0)
    assert clock.run(0.19) == RELAY
    assert clock.run(0.04) == DIRECT
    assert clock.run(200) == DIRECT


def test_who_accepted_the_connection_does_not_choose() -> None:
    """Only one side does, or they would chase each other."""
    clock = Clock(PathChoice(RELAY, 0.0, chooses=False))
    clock.rtts = {RELAY: 0.05, DIRECT: 0.02}
    clock.choice.add(DIRECT, 0.0)
    assert clock.run(60) == RELAY
    assert clock.choice.has_answered(DIRECT)


def test_a_clearly_faster_relay_is_taken_after_a_while() -> None:
    """A fifth faster, and 5 ms; five seconds after the last move at the earliest."""
    for rtt, wanted in ((0.05, SPARE), (0.095, RELAY)):
        clock = Clock(PathChoice(RELAY, 0.0, chooses=True))
        clock.rtts = {RELAY: 0.1, SPARE: rtt}
        clock.choice.add(SPARE, 0.0)
        assert clock.run(STAY_S - 0.1) == RELAY
        assert clock.run(SPARE_EVERY_S + 1) == wanted


def test_a_path_that_never_answers_gets_five_probes() -> None:
    """C1: and no more for half a minute, however often it is added."""
    clock = Clock(PathChoice(RELAY, 0.0, chooses=True))
    clock.rtts = {RELAY: 0.05}
    for _ in range(100):
        clock.choice.add(DIRECT, clock.now)
        clock.run(0.2)
    assert len(clock.probed(DIRECT)) == len(FIRST_PROBES_S) == 5


def test_a_dead_path_is_left_for_the_spare_within_a_second() -> None:
    """Both sides do; a spare that is dead as well is not taken."""
    for chooses in (True, False):
        clock = Clock(PathChoice(RELAY, 0.0, chooses=chooses))
        clock.rtts = {RELAY: 0.1, SPARE: 0.15}
        clock.choice.add(SPARE, 0.0)
        assert clock.run(30) == RELAY
        clock.rtts[RELAY] = None
        clock.choice.doubt(clock.now)
        assert clock.run(0.35) == RELAY
        assert clock.run(0.4) == SPARE
        clock.rtts[SPARE] = None
        clock.choice.doubt(clock.now)
        assert clock.run(3) == SPARE


def test_loss_alone_moves_nothing() -> None:
    """What stays unacknowledged makes all paths be probed; the present one answers, so it stays."""
    clock = Clock(PathChoice(DIRECT, 0.0, chooses=True))
    clock.rtts = {DIRECT: 0.1, RELAY: 0.1}
    clock.choice.add(RELAY, 0.0)
    clock.run(10)
    for _ in range(20):
        clock.choice.doubt(clock.now)
        assert clock.run(0.5) == DIRECT
        assert not clock.choice.suspect


def test_spares_are_probed_seldom_and_number_twelve_at_most() -> None:
    """Below the shortest common mapping time-out; who never answered gives way to a newcomer."""
    clock = Clock(PathChoice(RELAY, 0.0, chooses=True))
    clock.rtts = {RELAY: 0.1, SPARE: 0.1}
    clock.choice.add(SPARE, 0.0)
    clock.run(200)
    assert len(clock.probed(SPARE)) <= 12
    for port in range(100, 200):
        clock.choice.add(Path(Address("192.0.2.9", port), MUX), clock.now)
    assert len(clock.choice.paths) == MAX_PATHS
    assert SPARE in clock.choice


def test_answers_count_once_and_only_for_their_path() -> None:
    """Another path's number, an unknown one, the same again: nothing."""
    choice = PathChoice(RELAY, 0.0, chooses=True)
    choice.add(DIRECT, 0.0)
    assert set(choice.due(0.0)) == {RELAY, DIRECT}
    choice.sent(DIRECT, b"12345678", 0.0)
    assert not choice.answered(RELAY, b"12345678", 0.1)
    assert not choice.answered(DIRECT, b"87654321", 0.1)
    assert choice.answered(DIRECT, b"12345678", 0.1)
    assert not choice.answered(DIRECT, b"12345678", 0.2)
    assert choice.rtt_s(DIRECT) == 0.1
