"""Guessed ports: who sends what where, in which order and how fast, where a router gives each destination a new port.

The *hard* side has such a router, so nobody can tell the port that the peer will see. The *easy* side has one outside
address for all, but lets in only what comes from an address and port that it has sent to. The hard side opens N sockets
toward the easy side's address: N mappings, each of which lets in exactly that address. The easy side sends from its one
socket to ports of the hard side's IP address until it meets one of the N. Of P = 64,512 ports (1024 to 65535) the first
hit takes (P + 1) / (N + 1) probes on average: 251 with N = 256, 2.5 s at 100 a second; 1,400 probes fail in
((P - 1400) / P)^256 = 0.4 % of attempts. After 4 s, with some 390 ports probed in vain, the hard side takes N fresh
sockets: the easy router lets in what comes from any of those ports, so one of the N fresh ones passes with 79 %.

Prediction goes first. A router that hands ports out in steps gives N sockets N ports in a row from a known one on, so
every 32nd port behind it meets them with the first few probes. Where both routers do, both sides open sockets and aim
all of them at the one port in the middle of what the other's will get: the socket that has this port on the one side
and the one that has it on the other are a pair. A port unknown on both sides is left to a relay: N sockets against M
probes, each from a new port of its own, would need both ports right at once.

Every packet is an ICE check with the session's password, so the first that comes through proves itself. Known before:
"How NAT traversal works" (Tailscale, 2020) for the arithmetic, HyperDHT for 256 sockets; the differences are in
docs/reach.md. Pure: `now` and `at` in monotonic seconds.
"""

from __future__ import annotations

import enum
import itertools
import math
import random
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.nat.behaviour import NEAR_PORTS, SEQUENTIAL, allocation_of

__all__ = [
    "ATTEMPT_S",
    "OPEN_AFTER_S",
    "TERMS_BYTES",
    "GuessGate",
    "GuessPlan",
    "GuessTerms",
    "Role",
    "Step",
    "guessed_ports",
    "opening_steps",
    "probing_steps",
    "role_of",
    "terms_of",
]

# Chosen by us; issue and docs/reach.md give the arithmetic
SOCKETS = 256
PROBES = 1400
PROBES_PER_S = 100.0
BATCH = 2  # probes per wake-up
PEER_PAUSE_S = 20.0  # between two attempts with one peer
PATIENCE_S = 5.0  # that one may begin late: the other side goes on meanwhile, and has ten seconds left
MAX_PEERS = 256  # remembered, 100 bytes each: one attempt at a time, so those of the last 20 s are among them
OPEN_AFTER_S = 0.25  # the ordinary checks need a round trip; most pairs never guess
PROBE_AFTER_S = 0.35  # the caller opens its sockets half a round trip after the callee began
ATTEMPT_S = PROBE_AFTER_S + PROBES / PROBES_PER_S + 0.5
OPENED_AT_ONCE, OPENED_EACH_S = 32, 0.03  # sockets: a burst of 256 first packets could overflow a small router
# Then each socket gives way to a fresh one, 256 at once all the time. The easy router is open for each port that was
# probed in vain by then: with 390 of them one of 256 fresh mappings is let in with 79 %, with no probe at all. Mends
# lost packets too, and mappings that live 10 s only.
RENEW_S = 4.0
ROUND, ROUND_S = 64, 1.5  # sockets in a row, and pause between such rows, where ports are predicted
MEET_REPEATS_S = (0.0, 0.2, 0.6)  # the first packet opens our side, a later one comes through
MEET_ROUNDS = 4
# What else took ports since the other side looked: its searches, rendezvous nodes, checks. Mapping number 48 since then
# is in its first row if that was below 48; each row later the guess is that it was more.
MEET_AIMS = (48, 64 + 64, 2 * 64 + 96, 3 * 64 + 128)
REACH = 512  # ports behind the known one that prediction tries
MIN_SEEN = 4  # ports that tell a range
LOW, HIGH = 1024, 65_535
TERMS_BYTES = 8


class Role(enum.Enum):
    """What one side does."""

    OPEN = "open"
    """Open many sockets toward the peer's one address."""
    PROBE = "probe"
    """Send to many ports of the peer's IP address."""
    MEET = "meet"
    """Open many sockets toward the one port that the peer's router will probably give: both sides do."""


@dataclass(frozen=True, slots=True)
class GuessTerms:
    """What one side says of its router's ports; that it says anything is its consent to guessing.

    `step`: how far apart two ports given out in turn are, 0 where no rule is known; `next_port`: the next one then.
    `low`, `high`: the narrow range that ports come from, 0 where any may come.
    """

    next_port: int = 0
    step: int = 0
    low: int = 0
    high: int = 0

    @property
    def sequential(self) -> bool:
        return self.step != 0

    def predicted(self, number: int) -> int | None:
        """The port of the `number`-th mapping from now, None beyond the range of ports."""
        port = self.next_port + (number - 1) * self.step
        return port if LOW <= port <= HIGH else None

    def encode(self) -> bytes:
        """8 bytes: next port 2, step 2, low 2, high 2."""
        return b"".join(number.to_bytes(2, "big") for number in (self.next_port, self.step, self.low, self.high))

    @classmethod
    def decode_untrusted(cls, data: bytes) -> GuessTerms | None:
        """Read `encode`'s form; None for no bytes, which is no consent. Raise BadPacket("malformed")."""
        if not data:
            return None
        if len(data) != TERMS_BYTES:
            raise BadPacket("malformed")
        next_port, step, low, high = (int.from_bytes(data[i : i + 2], "big") for i in range(0, TERMS_BYTES, 2))
        if not 0 <= step <= NEAR_PORTS or (step == 0) != (next_port == 0) or low > high or (low == 0) != (high == 0):
            raise BadPacket("malformed")
        return cls(next_port, step, low, high)


def terms_of(samples: Sequence[tuple[int, Address]], seen: Iterable[int]) -> GuessTerms:
    """Say what rule a router follows.

    `samples`: private port and public address of mappings made one right after the other, in this order; `seen`: other
    public ports of late.
    """
    word, step = allocation_of(samples)
    if word == SEQUENTIAL and step is not None and samples[-1][1].port + step <= HIGH:
        return GuessTerms(samples[-1][1].port + step, step)
    ports = sorted({*(public.port for _, public in samples), *seen})
    if len(ports) < MIN_SEEN:
        return GuessTerms()
    # The ends of a uniform range lie about one mean gap beyond the outermost of those drawn.
    gap = math.ceil((ports[-1] - ports[0]) / (len(ports) - 1))
    low, high = max(1, ports[0] - gap), min(HIGH, ports[-1] + gap)
    return GuessTerms(low=low, high=high) if high - low < (HIGH - LOW) // 2 else GuessTerms()


def role_of(*, hard: bool, own: GuessTerms | None, their_hard: bool, theirs: GuessTerms | None) -> Role | None:
    """Return what we do; the other side, asked the other way round, does what fits. None: guessing cannot help.

    `hard`: our router gives a new port to each destination; else it has one address for all. No terms: no consent.
    """
    if own is None or theirs is None or not (hard or their_hard):
        return None
    if hard and their_hard:
        return Role.MEET if own.sequential and theirs.sequential else None
    return Role.OPEN if hard else Role.PROBE


@dataclass(frozen=True, slots=True)
class GuessPlan:
    """One attempt. `target`: the peer's one address (`OPEN`), else its IP address with port 0."""

    role: Role
    target: Address
    own: GuessTerms
    theirs: GuessTerms


@dataclass(frozen=True, slots=True)
class Step:
    """Send to `to` at `at` seconds after the start, from the extra socket of this number (0: the node's own).

    `renew`: from a fresh socket in its place.
    """

    at: float
    socket: int
    to: Address
    renew: bool = False


def opening_steps(plan: GuessPlan) -> list[Step]:
    """What the side with many sockets sends, in order of time."""
    steps: list[Step] = []
    if plan.role is Role.MEET:
        for turn in range(MEET_ROUNDS):
            port = plan.theirs.predicted(MEET_AIMS[turn])
            if port is None:
                continue
            to = Address(plan.target.ip, port)
            numbers = range(turn * ROUND, (turn + 1) * ROUND)
            start = OPEN_AFTER_S + turn * ROUND_S
            steps += [Step(start + after, number, to) for after in MEET_REPEATS_S for number in numbers]
    else:
        # Predicted ports are met by the first row, if at all; the others are for what cannot be predicted.
        late = 2 * ROUND_S if plan.own.sequential else 0.0
        for number in range(SOCKETS):
            at = OPEN_AFTER_S + number // OPENED_AT_ONCE * OPENED_EACH_S + (late if number >= ROUND else 0.0)
            steps += [Step(at, number, plan.target), Step(at + RENEW_S, number, plan.target, renew=True)]
    return sorted(steps, key=lambda step: step.at)


def probing_steps(plan: GuessPlan, rng: random.Random) -> Iterator[Step]:
    """What the side with one socket sends."""
    for count, port in enumerate(itertools.islice(guessed_ports(plan.theirs, rng), PROBES)):
        yield Step(PROBE_AFTER_S + count // BATCH * BATCH / PROBES_PER_S, 0, Address(plan.target.ip, port))


def guessed_ports(terms: GuessTerms, rng: random.Random) -> Iterator[int]:
    """Yield ports, the likeliest first, none twice: predicted ones, then two of three from a narrow range, then all."""
    tried: set[int] = set()
    if terms.sequential:
        for stride in (32, 16, 8, 4, 2, 1):
            for number in range(stride, REACH + 1, stride):
                port = terms.predicted(number)
                if port is not None and port not in tried:
                    tried.add(port)
                    yield port
    narrow = _shuffled(terms.low, terms.high, rng) if terms.high else iter(())
    wide = _shuffled(LOW, HIGH, rng)
    for source in itertools.cycle((narrow, narrow, wide)):
        port = next((each for each in source if each not in tried), None)
        if port is not None:
            tried.add(port)
            yield port
        elif source is wide:
            return


def _shuffled(low: int, high: int, rng: random.Random) -> Iterator[int]:
    count = high - low + 1
    return iter(rng.sample(range(low, high + 1), min(count, 2 * PROBES)))


class GuessGate:
    """Which attempts may be made: one per peer in 20 s; those that strangers began take half of the time at most."""

    def __init__(self) -> None:
        self._began: OrderedDict[Hashable, float] = OrderedDict()
        self._strangers_at = -math.inf

    def wait_s(self, peer: Hashable, *, stranger: bool, now: float) -> float | None:
        """Return in how many seconds an attempt with this peer may begin, None: not soon enough to say yes to it.

        `stranger`: it called us and is nobody that we know.
        """
        if now - self._began.get(peer, -math.inf) < PEER_PAUSE_S:
            return None
        wait = max(0.0, self._strangers_at - now) if stranger else 0.0
        return wait if wait <= PATIENCE_S else None

    def begin(self, peer: Hashable, *, stranger: bool, now: float) -> bool:
        """Whether an attempt may begin now; it is counted when so."""
        if self.wait_s(peer, stranger=stranger, now=now) != 0.0:
            return False
        self._began[peer] = now
        self._began.move_to_end(peer)
        if len(self._began) > MAX_PEERS:
            self._began.popitem(last=False)
        return True

    def ended(self, *, stranger: bool, began: float, now: float) -> None:
        """An attempt that began then is over."""
        if stranger:
            self._strangers_at = now + (now - began)
