"""Those who ask the servers of `dht_server.py`: plain `kademlia`'s requests and ours, from bare sockets."""

from __future__ import annotations

import hashlib
import random
import select
import socket
import time
from dataclasses import dataclass

import umsgpack  # type: ignore[import-untyped]

from p2pnode.core.address import Address
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.core.network_id import network_tag
from p2pnode.dht import DhtSettings
from p2pnode.dht.keyring import Ciphers, Ephemeral, Session, derive_keys
from p2pnode.dht.messages import FindNode, Nodes, decode_answer_untrusted, encode
from p2pnode.dht.wire import (
    SIGNED_REQUEST,
    parse_sealed_text_untrusted,
    parse_signed_answer_untrusted,
    sealed_request_text,
    signed_request_body,
    signing_bytes,
)

__all__ = ["ASKERS", "WINDOW", "Asker", "Count", "ask"]

WINDOW = 16  # requests in flight per socket
LOST_AFTER_S = 0.5
FIRST_EXCHANGES = 400  # per socket
TAG = network_tag(DhtSettings().network_id, b"")


class KademliaAsker:
    """Asks a plain `kademlia` server from one socket."""

    def __init__(self, server: Address, _name: bytes, rng: random.Random) -> None:
        self.socket = connected(server)
        self._rng = rng
        self._head: bytes = umsgpack.packb(["find_node", [rng.randbytes(20), bytes(20)]])[:-20]

    def request(self) -> bytes:
        return b"\0" + self._rng.randbytes(20) + self._head + self._rng.randbytes(20)

    def check(self, answer: bytes) -> None:
        """Raise AssertionError unless 20 contacts came."""
        assert answer[0] == 1
        assert len(umsgpack.unpackb(answer[21:])) == 20


class SealedAsker:
    """Asks ours from one socket, under pairwise keys agreed at first."""

    def __init__(self, server: Address, name: bytes, rng: random.Random) -> None:
        self.socket = connected(server)
        self._rng = rng
        first = FirstExchange(PeerId(name), rng)
        self.socket.setblocking(True)
        self.socket.settimeout(5)
        self.socket.send(first.frame)
        self._session = first.session(self.socket.recv(2048))
        self.socket.setblocking(False)

    def request(self) -> bytes:
        payload = encode(FindNode(self._rng.randbytes(20)))
        return self._session.seal(sealed_request_text(1, payload))

    def check(self, answer: bytes) -> None:
        _, _, _, payload = parse_sealed_text_untrusted(self._session.open_untrusted(answer))
        check_nodes(payload)


class FirstExchange:
    """One signed request of a new node."""

    def __init__(self, server: PeerId, rng: random.Random) -> None:
        self._key = NodeKey.generate(rng.randbytes)
        self._server = server
        self._ephemeral = Ephemeral(rng.randbytes(32))
        body = signed_request_body(
            tag=TAG, receiver=server.node_id, sender_key=self._key.public_raw, nonce=rng.randbytes(16),
            ephemeral=self._ephemeral.public, wall_ms=int(time.time() * 1000), flags=1,
            token=b"", payload=encode(FindNode(rng.randbytes(20))), size=992,
        )  # fmt: skip
        self.frame = body + self._key.sign(signing_bytes(SIGNED_REQUEST, body))

    def session(self, answer: bytes) -> Session:
        """Return the keys agreed. Raise AssertionError when the answer does not hold."""
        parsed = parse_signed_answer_untrusted(answer)
        check_nodes(parsed.payload)
        secret = self._ephemeral.agree_untrusted(parsed.ephemeral)
        keys = derive_keys(
            secret, tag=TAG, requester=self._key.node_id, responder=self._server.node_id,
            request_hash=hashlib.sha256(self.frame).digest(), answer=answer,
        )  # fmt: skip
        return Session(self._server, keys, Ciphers(), initiator=True, now=0.0)


class SignedAsker:
    """Each request is the first of a new node; they are signed beforehand."""

    def __init__(self, server: Address, name: bytes, rng: random.Random) -> None:
        self.socket = connected(server)
        self._ready = [FirstExchange(PeerId(name), rng).frame for _ in range(FIRST_EXCHANGES)]

    def request(self) -> bytes | None:
        return self._ready.pop() if self._ready else None

    def check(self, answer: bytes) -> None:
        check_nodes(parse_signed_answer_untrusted(answer).payload)


class EchoAsker:
    """Sends as many bytes as a sealed request has."""

    def __init__(self, server: Address, _name: bytes, _rng: random.Random) -> None:
        self.socket = connected(server)

    def request(self) -> bytes:
        return b"\x04" + bytes(79)

    def check(self, answer: bytes) -> None:
        assert len(answer) == 80


Asker = KademliaAsker | SealedAsker | SignedAsker | EchoAsker
ASKERS: dict[str, type[Asker]] = {
    "ours": SealedAsker, "kademlia": KademliaAsker, "echo": EchoAsker, "first": SignedAsker
}  # fmt: skip


def check_nodes(payload: bytes) -> None:
    answer = decode_answer_untrusted(payload)
    assert isinstance(answer, Nodes)
    assert len(answer.ipv4) == 20 * 26


def connected(server: Address) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(server)
    sock.setblocking(False)
    return sock


@dataclass
class Count:
    """What one run counted."""

    answered: int
    lost: int
    seconds: float


def ask(askers: list[Asker], seconds: float) -> Count:
    """Keep WINDOW requests of each asker in flight for so long, or until they have no more."""
    poll = select.epoll()
    for asker in askers:
        poll.register(asker.socket, select.EPOLLIN)
    by_fd = {asker.socket.fileno(): asker for asker in askers}
    in_flight = dict.fromkeys(by_fd, 0)
    heard = dict.fromkeys(by_fd, time.monotonic())
    answered = lost = 0
    began = time.monotonic()

    def fill(fd: int, asker: Asker) -> None:
        while in_flight[fd] < WINDOW and (frame := asker.request()) is not None:
            asker.socket.send(frame)
            in_flight[fd] += 1

    for fd, asker in by_fd.items():
        fill(fd, asker)
    while (now := time.monotonic()) < began + seconds and any(in_flight.values()):
        for fd, _ in poll.poll(LOST_AFTER_S):
            asker = by_fd[fd]
            heard[fd] = now
            try:
                while True:
                    answer = asker.socket.recv(2048)
                    answered += 1
                    in_flight[fd] -= 1
                    if not answered & 31:
                        asker.check(answer)
            except BlockingIOError:
                fill(fd, asker)
        for fd, asker in by_fd.items():
            if now - heard[fd] > LOST_AFTER_S:
                lost += in_flight[fd]
                in_flight[fd], heard[fd] = 0, now
                fill(fd, asker)
    poll.close()
    return Count(answered, lost, time.monotonic() - began)
