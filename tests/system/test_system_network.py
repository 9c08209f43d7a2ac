"""Three bootstrap nodes and five peers as real processes on loopback addresses (issue: two nodes find each other)."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.processes import Peer, Processes, eventually, processes

from p2pnode import Home
from p2pnode.api.client import Client
from p2pnode.api.types import ConnectAnswer, ConnectRequest, SendAnswer, SendRequest

NAMES = ("anna", "bert", "cora", "dora", "emil")


class Town:
    """Three bootstrap nodes, each joined through the first, and five peers, each knowing one of them."""

    def __init__(self, running: Processes) -> None:
        self.running = running
        first = running.bootstrap("boot1", listen="127.0.0.1:0")
        others = [
            running.bootstrap(f"boot{i}", "--bootstrap", first.ready()["bootstrap"], listen=f"127.0.0.{i}:0")
            for i in (2, 3)
        ]
        self.bootstrap = [first, *others]
        self.peers = [
            running.join(name, bootstrap=[self.bootstrap[i % 3]], listen=f"127.0.0.{10 + i}:0")
            for i, name in enumerate(NAMES)
        ]
        for peer in self.peers:
            peer.ready()


def client(peer: Peer) -> Client:
    return Client(Home(peer.home))


def send(peer: Peer, to: Peer, text: str, wait: float = 10.0) -> SendAnswer:
    return client(peer).post("/v1/messages", SendAnswer, SendRequest(to.id, text, wait), timeout=wait)


def connect(peer: Peer, to: Peer) -> ConnectAnswer:
    return client(peer).post("/v1/connect", ConnectAnswer, ConnectRequest(to.id))


def accept_each_other(one: Peer, other: Peer) -> None:
    for a, b in ((one, other), (other, one)):
        outcome = a.cli("contacts", "add", b.id, "--name", b.home.name)
        assert outcome.code == 0, outcome.err


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with processes(tmp_path_factory.mktemp("town")) as running:
        yield Town(running)


def test_every_peer_finds_and_reaches_every_other_by_id(town: Town) -> None:
    """All twenty ordered pairs, by id alone, over a loopback path."""
    pairs = list(itertools.permutations(town.peers, 2))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda pair: connect(*pair), pairs))
    assert all(a.connected and a.path == "lan" for a in answers)
    print(f"connect, 20 pairs: median {statistics.median(a.seconds for a in answers) * 1000:.1f} ms")


def test_hundred_messages_each_way_in_order_once_each(town: Town) -> None:
    """Both sides write at once; each history has all messages of the other in order, once."""
    anna, bert = town.peers[:2]
    accept_each_other(anna, bert)
    count = 100

    def talk(a: Peer, b: Peer) -> list[SendAnswer]:
        return [send(a, b, f"{a.home.name} {i}") for i in range(count)]

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(talk, (anna, bert), (bert, anna)))
    assert all(answer.state == "delivered" for answers in both for answer in answers)
    for me, other in ((anna, bert), (bert, anna)):
        eventually(lambda me=me: len(me.messages()) >= count, what="the last event")
        got = [e["text"] for e in me.messages() if e["from"] == other.id]
        assert got == [f"{other.home.name} {i}" for i in range(count)]
        shown = me.cli("history", other.id, "--json").json["messages"]
        received = [m["text"] for m in shown if m["direction"] == "in"]
        assert received == got
    seconds = sorted(answer.seconds for answers in both for answer in answers)
    print(f"send, durable on both sides: first {both[0][0].seconds * 1000:.1f} ms, p50 {seconds[100] * 1000:.1f} ms")


def test_all_bootstrap_processes_killed(tmp_path: Path) -> None:
    """Open sessions go on, a new connect works, a restarted peer rejoins and is found."""
    with processes(tmp_path) as running:
        town = Town(running)
        anna, bert, cora, dora, _ = town.peers
        accept_each_other(anna, bert)
        assert send(anna, bert, "before").state == "delivered"
        for node in town.bootstrap:
            node.kill()
        assert send(anna, bert, "after").state == "delivered"
        assert connect(cora, dora).connected
        emil = town.peers[4]
        identity = emil.id
        assert emil.stop() == 0
        began = time.monotonic()
        again = running.join("emil", bootstrap=None, listen="127.0.0.14:0")
        assert again.ready()["peers"] > 0
        assert again.id == identity
        print(f"warm rejoin without bootstrap nodes: ready after {again.ready_at - began:.2f} s")
        assert connect(anna, again).connected
