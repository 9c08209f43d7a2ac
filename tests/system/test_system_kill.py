"""W1: `kill -9` of either side at random moments under traffic.

`P2PNODE_KILLS` sets the number of kills (20 in the test command, 200 in CI, 1,000 in the benchmark); they are spread
over pairs of peers that run in parallel.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.processes import Peer, Processes, eventually, processes

from p2pnode import Home, P2PError
from p2pnode.api.client import Client
from p2pnode.api.types import SendAnswer, SendRequest

KILLS = int(os.environ.get("P2PNODE_KILLS", "20"))
PAIRS = 2
SEED = int(os.environ.get("P2PNODE_SEED", "1"))


class Pair:
    """Two peers that write to each other; one of them is killed at a time, while the other stays."""

    def __init__(self, running: Processes, number: int, bootstrap: Peer) -> None:
        self.running = running
        self.bootstrap = bootstrap
        self.names = (f"left{number}", f"right{number}")
        self.peers = {name: self.start(name) for name in self.names}
        self.ids = {name: peer.id for name, peer in self.peers.items()}
        self.accepted: dict[str, list[str]] = {name: [] for name in self.names}
        self.done = threading.Event()
        self.rng = random.Random(f"{SEED}/{number}")
        for a, b in (self.names, self.names[::-1]):
            outcome = self.peers[a].cli("contacts", "add", self.ids[b], "--name", b)
            assert outcome.code == 0, outcome.err

    def start(self, name: str) -> Peer:
        return self.running.join(name, bootstrap=[self.bootstrap])

    def other(self, name: str) -> str:
        return self.names[1 - self.names.index(name)]

    def write(self, name: str) -> None:
        """Send without waiting for the delivery; what the node accepted must arrive."""
        number = 0
        while not self.done.is_set():
            text = f"{name} {number}"
            number += 1
            try:
                client = Client(Home(self.running.root / name))
                request = SendRequest(self.ids[self.other(name)], text, 0.0)
                client.post("/v1/messages", SendAnswer, request, timeout=5)
            except P2PError:
                time.sleep(0.05)
                continue
            self.accepted[name].append(text)
            time.sleep(self.rng.uniform(0.0, 0.02))

    def torment(self, kills: int) -> None:
        writers = [threading.Thread(target=self.write, args=(name,), daemon=True) for name in self.names]
        for writer in writers:
            writer.start()
        for _ in range(kills):
            time.sleep(self.rng.uniform(0.05, 0.6))
            name = self.rng.choice(self.names)
            self.peers[name].kill()
            self.peers[name] = self.start(name)
            self.peers[name].ready()
        self.done.set()
        for writer in writers:
            writer.join(10)

    def texts(self, name: str, direction: str) -> list[str]:
        """The whole history as it is shown, oldest first; 200 kills leave more than the 10,000 that a command gives."""
        database = sqlite3.connect(f"file:{self.running.root / name / 'chat.db'}?mode=ro", uri=True, timeout=10)
        try:
            rows = database.execute(
                "SELECT text FROM messages WHERE outgoing = ? ORDER BY conversation, ordinal, author_seq",
                (direction == "out",),
            )
            return [text for (text,) in rows]
        finally:
            database.close()

    def settled(self, name: str) -> bool:
        return set(self.accepted[self.other(name)]) <= set(self.texts(name, "in"))

    def check(self) -> tuple[int, int, int]:
        """Return (accepted, lost, twice) over both directions."""
        lost = twice = 0
        for name in self.names:
            received = self.texts(name, "in")
            lost += len(set(self.accepted[self.other(name)]) - set(received))
            twice += len(received) - len(set(received))
            numbers = [int(text.split()[1]) for text in received]
            assert numbers == sorted(numbers), "out of order"
            sent = self.texts(name, "out")
            twice += len(sent) - len(set(sent))
        return sum(map(len, self.accepted.values())), lost, twice


def test_attack_w1_kill_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """No accepted message is lost, none is twice in the history, every database opens and is whole."""
    with processes(tmp_path) as running:
        bootstrap = running.bootstrap("boot")
        pairs = [Pair(running, number, bootstrap) for number in range(PAIRS)]
        with ThreadPoolExecutor(PAIRS) as pool:
            list(pool.map(lambda pair: pair.torment(KILLS // PAIRS), pairs))
        for pair in pairs:
            for name in pair.names:
                eventually(lambda p=pair, n=name: p.settled(n), 60, "the delivery of all that was accepted")
        counts = [pair.check() for pair in pairs]
        accepted, lost, twice = (sum(column) for column in zip(*counts, strict=True))
        print(f"W1: {KILLS} kills, {accepted} messages accepted, {lost} lost, {twice} twice (seed {SEED})")
        assert (lost, twice) == (0, 0)
        assert accepted >= KILLS
        for pair in pairs:
            for name in pair.names:
                pair.peers[name].stop()
                database = sqlite3.connect(running.root / name / "chat.db")
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                database.close()
