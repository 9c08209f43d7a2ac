"""A flood at a DHT node, and honest nodes beside it (B1): who sends what, how fast, and what was answered.

Everything runs in a network namespace whose loopback has the whole of 5.0.0.0/8, so that each socket sends from an
address, and a /24, of its own; to the node those are public addresses.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import select
import socket
import time
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.dht.keyring import Ciphers, Ephemeral, Session, derive_keys
from p2pnode.dht.messages import FindNode, encode
from p2pnode.dht.wire import (
    RETRY,
    SEALED,
    SIGNED_ANSWER,
    SIGNED_REQUEST,
    parse_retry_untrusted,
    parse_sealed_text_untrusted,
    parse_signed_answer_untrusted,
    sealed_request_text,
    signed_request_body,
    signing_bytes,
)

__all__ = ["GARBAGE_PER_S", "KNOWN_PER_S", "NEW_PER_S", "Flood", "Garbage", "Honest", "Target"]

# security.md, B1
GARBAGE_PER_S, GARBAGE_PREFIXES = 20_000, 1_000
KNOWN_PER_S, NEW_PER_S = 1_000, 50
KNOWN_NODES, NEW_ADDRESSES = 100, 100
ANSWER_WITHIN_S = 1.0
FRAMES = 4_096  # different ones, sent again and again
SERVES_PUBLIC = 4
SPAWN = get_context("spawn")


@dataclass(frozen=True)
class Target:
    """The node under attack."""

    address: Address
    peer_id: PeerId
    tag: bytes


@dataclass
class Garbage:
    """What the attacker sent."""

    sent: int = 0
    seconds: float = 0.0


@dataclass
class Honest:
    """What honest nodes asked and got, in time; round trips in seconds."""

    asked: int = 0
    answered: int = 0
    round_trips: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.answered / max(1, self.asked)

    def percentile_ms(self, share: float) -> float:
        return sorted(self.round_trips)[int(len(self.round_trips) * share)] * 1000


def bound(ip: str, target: Target) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((ip, 0))
    made.connect(target.address)
    made.setblocking(False)
    return made


# -- the attacker -------------------------------------------------------------------------------------------------


def false_request(target: Target, rng: random.Random) -> bytes:
    """Return a signed request in which everything holds but the signature, and the token of every fifth."""
    body = signed_request_body(
        tag=target.tag, receiver=target.peer_id.node_id, sender_key=rng.randbytes(31) + b"\x11",
        nonce=rng.randbytes(16), ephemeral=rng.randbytes(32), wall_ms=int(time.time() * 1000), flags=SERVES_PUBLIC,
        token=rng.randbytes(24) if rng.random() < 0.2 else b"", payload=encode(FindNode(rng.randbytes(20))), size=992,
    )  # fmt: skip
    return body + rng.randbytes(64)


def attack(target: Target, seconds: float, pipe: Connection) -> None:
    """Send garbage from a thousand /24s, one after the other, as fast as is due; a quarter of it well-framed."""
    rng = random.Random(1)
    sockets = [bound(f"5.{number // 250}.{number % 250}.1", target) for number in range(GARBAGE_PREFIXES)]
    for made in sockets:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # nobody reads the answers
    frames = [
        false_request(target, rng) if number % 4 == 0 else rng.randbytes(rng.randint(1, 1200))
        for number in range(FRAMES)
    ]
    pipe.send(None)
    pipe.recv()
    sent, began = 0, time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        due = min(int(elapsed * GARBAGE_PER_S), sent + 200)
        while sent < due:
            with contextlib.suppress(OSError):  # an ICMP error of an earlier one
                sockets[sent % GARBAGE_PREFIXES].send(frames[sent % FRAMES])
            sent += 1
        time.sleep(0.0005)
    pipe.send(Garbage(sent, time.monotonic() - began))


# -- honest nodes -------------------------------------------------------------------------------------------------


class FirstExchange:
    """A new node asks for the first time."""

    def __init__(self, target: Target, rng: random.Random) -> None:
        self._target = target
        self._key = NodeKey.generate(rng.randbytes)
        self._ephemeral = Ephemeral(rng.randbytes(32))
        self._rng = rng
        self.frame = b""

    def request(self, token: bytes = b"") -> bytes:
        body = signed_request_body(
            tag=self._target.tag, receiver=self._target.peer_id.node_id, sender_key=self._key.public_raw,
            nonce=self._rng.randbytes(16), ephemeral=self._ephemeral.public,
            wall_ms=int(time.time() * 1000), flags=SERVES_PUBLIC, token=token,
            payload=encode(FindNode(self._rng.randbytes(20))), size=992,
        )  # fmt: skip
        self.frame = body + self._key.sign(signing_bytes(SIGNED_REQUEST, body))
        return self.frame

    def session(self, answer: bytes) -> Session:
        """Return the keys agreed. Raise BadPacket when the answer does not hold."""
        parsed = parse_signed_answer_untrusted(answer)
        request_hash = hashlib.sha256(self.frame).digest()
        if parsed.request_hash != request_hash or not self._target.peer_id.verify(
            parsed.signature, signing_bytes(SIGNED_ANSWER, parsed.signed)
        ):
            raise BadPacket("bad_signature")
        keys = derive_keys(
            self._ephemeral.agree_untrusted(parsed.ephemeral), tag=self._target.tag,
            requester=self._key.node_id, responder=self._target.peer_id.node_id, request_hash=request_hash,
            answer=answer,
        )  # fmt: skip
        return Session(self._target.peer_id, keys, Ciphers(), initiator=True, now=0.0)


class Known:
    """Nodes with pairwise keys: one sealed request each in turn, each sent once."""

    def __init__(self, target: Target, rng: random.Random) -> None:
        self._rng = rng
        self.results = Honest()
        self._waiting: dict[bytes, float] = {}
        self._by_fd: dict[int, tuple[socket.socket, Session]] = {}
        for number in range(KNOWN_NODES):
            made = bound(f"5.100.{number}.1", target)
            exchange = FirstExchange(target, rng)
            made.setblocking(True)
            made.settimeout(5)
            made.send(exchange.request())
            session = exchange.session(made.recv(2048))
            made.setblocking(False)
            self._by_fd[made.fileno()] = made, session
        self._turn = list(self._by_fd.values())

    def register(self, poll: select.epoll) -> None:
        for fd in self._by_fd:
            poll.register(fd, select.EPOLLIN)

    def ask(self, now: float) -> None:
        made, session = self._turn[self.results.asked % KNOWN_NODES]
        frame = session.seal(sealed_request_text(SERVES_PUBLIC, encode(FindNode(self._rng.randbytes(20)))))
        self._waiting[frame[1:17]] = now
        made.send(frame)
        self.results.asked += 1

    def read(self, fd: int, now: float) -> bool:
        """Take what came on one of our sockets; return False when it is not ours."""
        if fd not in self._by_fd:
            return False
        made, session = self._by_fd[fd]
        for data in received(made):
            if data[0] == SEALED:  # the node asks us as well: signed at first, as it does everybody who serves
                _, _, counter, _ = parse_sealed_text_untrusted(session.open_untrusted(data))
                note(self.results, self._waiting.pop(session.send_id + counter, None), now)
        return True


class New:
    """New nodes, each with one first exchange, a second time when it is given a token."""

    def __init__(self, target: Target, rng: random.Random) -> None:
        self._target, self._rng = target, rng
        self.results = Honest()
        self.tokens = 0
        self._sockets = [bound(f"5.200.{number}.1", target) for number in range(NEW_ADDRESSES)]
        self._asking: dict[int, tuple[socket.socket, FirstExchange, float]] = {}

    def register(self, poll: select.epoll) -> None:
        for made in self._sockets:
            poll.register(made, select.EPOLLIN)

    def ask(self, now: float) -> None:
        made = self._sockets[self.results.asked % NEW_ADDRESSES]
        exchange = FirstExchange(self._target, self._rng)
        self._asking[made.fileno()] = made, exchange, now
        made.send(exchange.request())
        self.results.asked += 1

    def read(self, fd: int, now: float) -> None:
        made, exchange, since = self._asking[fd]
        for data in received(made):
            if data[0] == RETRY:
                self.tokens += 1
                made.send(exchange.request(parse_retry_untrusted(data)[1]))
            elif data[0] == SIGNED_ANSWER:
                try:
                    exchange.session(data)
                except BadPacket:
                    continue  # to the one before
                note(self.results, since, now)


def received(made: socket.socket) -> list[bytes]:
    frames = []
    try:
        while True:
            frames.append(made.recv(2048))
    except OSError:
        return frames


def note(results: Honest, since: float | None, now: float) -> None:
    if since is not None and now - since <= ANSWER_WITHIN_S:
        results.answered += 1
        results.round_trips.append(now - since)


def behave(target: Target, seconds: float, pipe: Connection) -> None:
    """Ask as known and as new nodes, at even pace."""
    rng = random.Random(2)
    known, new = Known(target, rng), New(target, rng)
    poll = select.epoll()
    known.register(poll)
    new.register(poll)
    pipe.send(None)
    pipe.recv()
    began = time.monotonic()
    while (elapsed := (now := time.monotonic()) - began) < seconds + ANSWER_WITHIN_S:
        if elapsed < seconds:
            # Never in bursts to catch up: those would be another test.
            if known.results.asked < elapsed * KNOWN_PER_S:
                known.ask(now)
            if new.results.asked < elapsed * NEW_PER_S:
                new.ask(now)
        for fd, _ in poll.poll(0.0005):
            now = time.monotonic()
            if not known.read(fd, now):
                new.read(fd, now)
    poll.close()
    pipe.send((known.results, new.results, new.tokens))


class Flood:
    """The attacker and the honest nodes, each in a process of its own. Start it inside the namespace."""

    def __init__(self, target: Target, seconds: float, *, lead_s: float = 1.0) -> None:
        """The flood begins `lead_s` before the first question."""
        self._lead_s = lead_s
        self._pipes: list[Connection] = []
        self._processes = []
        for work, duration in ((attack, seconds + lead_s), (behave, seconds)):
            pipe, other = SPAWN.Pipe()
            process = SPAWN.Process(target=work, args=(target, duration, other), daemon=True)
            process.start()
            other.close()
            self._pipes.append(pipe)
            self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process.pid is not None]

    def run(self) -> tuple[Garbage, Honest, Honest, int]:
        """Return what was sent, what known and what new nodes got, and how many tokens were given out."""
        attacker, honest = self._pipes
        attacker.recv()
        honest.recv()
        attacker.send(None)
        time.sleep(self._lead_s)
        honest.send(None)
        known, new, tokens = honest.recv()
        garbage = attacker.recv()
        for process in self._processes:
            process.join(10)
        return garbage, known, new, tokens
