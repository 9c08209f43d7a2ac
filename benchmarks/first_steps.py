"""How fast the first things are: start, ready, connect, first and later messages, idle cost. Real processes, loopback.

Each figure is printed beside its bar and beside a yardstick of this machine, measured in the same run.

The processes run from bytecode, as every installed program does from its second start on, also where the environment
forbids to write it (PYTHONDONTWRITEBYTECODE): compiling the sources anew costs each start of a node half a second,
and the node 2 MB. It goes to a temporary folder, not into the tree.
"""

from __future__ import annotations

import argparse
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.processes import Peer, Processes, environment, processes
from table import Table

from p2pnode import Home
from p2pnode.api.client import Client
from p2pnode.api.types import ConnectAnswer, ConnectRequest, SendAnswer, SendRequest


def with_bytecode(folder: Path) -> None:
    """Let the processes started from here keep their bytecode in `folder`."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def best_of(count: int, command: list[str]) -> float:
    def once() -> None:
        subprocess.run(command, check=True, capture_output=True, env=environment())

    return statistics.median(timed(once) for _ in range(count))


def start_times(table: Table, root: Path, count: int) -> None:
    python = [sys.executable, "-c", "pass"]
    command = [str(Path(sys.executable).with_name("p2pnode")), "--home", str(root / "id")]
    if not Path(command[0]).exists():
        command[:1] = [sys.executable, "-m", "p2pnode"]
    best_of(1, [*command, "id"])
    empty = best_of(count, python)
    beside = f"empty Python: {empty:.3f} s"
    table.add("p2pnode --help", best_of(count, [*command, "--help"]), "s", 0.3, beside)
    table.add("p2pnode id", best_of(count, [*command, "id"]), "s", 0.5, beside)


def durable_write(root: Path) -> float:
    """Median seconds of one committed row, the unavoidable part of a durable message."""
    database = sqlite3.connect(root / "yardstick.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE t (x BLOB)")
    times = [timed(lambda: database.execute("INSERT INTO t VALUES (?)", (os.urandom(200),))) for _ in range(200)]
    database.close()
    return statistics.median(times)


def udp_echo() -> float:
    """Median seconds of one UDP round trip between two threads on loopback."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(200):
            data, source = server.recvfrom(2048)
            server.sendto(data, source)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)

        def once() -> None:
            client.sendto(b"x" * 100, server.getsockname())
            client.recvfrom(2048)

        result = statistics.median(timed(once) for _ in range(200))
    thread.join()
    server.close()
    return result


def ready_times(table: Table, running: Processes, boot: Peer, count: int) -> None:
    cold, warm = [], []
    for number in range(count):
        for figures in (cold, warm):
            peer = running.join(f"ready{number}", bootstrap=[boot])
            peer.ready()
            figures.append(peer.ready_at - peer.started)
            peer.stop()
    table.add("ready, cold (process start included)", statistics.median(cold), "s", 3.0)
    table.add("ready, warm", statistics.median(warm), "s", 2.0)


def messages(table: Table, running: Processes, boot: Peer, root: Path, count: int) -> None:
    alice = running.join("alice", bootstrap=[boot])
    firsts = []
    write, echo = durable_write(root), udp_echo()
    beside = f"2 durable writes + UDP echo: {(2 * write + echo) * 1000:.2f} ms"
    for number in range(5):
        bob = running.join(f"bob{number}", bootstrap=[boot])
        for a, b in ((alice, bob), (bob, alice)):
            a.cli("contacts", "add", b.id, "--name", b.home.name)
        client = Client(Home(alice.home))
        if number == 0:
            answer = client.post("/v1/connect", ConnectAnswer, ConnectRequest(bob.id))
            table.add(
                "connect by id, lookup included", answer.seconds * 1000, "ms", None, f"UDP echo: {echo * 1000:.2f}"
            )
        else:
            first = client.post("/v1/messages", SendAnswer, SendRequest(bob.id, "first", 5.0))
            assert first.state == "delivered", first
            firsts.append(first.seconds * 1000)
    table.add("first message to a new peer, delivered", statistics.median(firsts), "ms", 150, beside)
    later = []
    for number in range(count):
        answer = client.post("/v1/messages", SendAnswer, SendRequest(bob.id, f"later {number}", 5.0))
        assert answer.state == "delivered"
        later.append(answer.seconds * 1000)
    later.sort()
    table.add("later messages, delivered, p50", later[len(later) // 2], "ms", 15, beside)
    table.add("later messages, delivered, p99", later[int(len(later) * 0.99)], "ms", None)


def idle(table: Table, running: Processes, boot: Peer, seconds: float) -> None:
    import psutil

    peer = running.join("idle", bootstrap=[boot])
    peer.ready()
    process = psutil.Process(peer.process.pid)
    time.sleep(5)  # what starting left behind
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    used = (after.user + after.system) - (before.user + before.system)
    table.add("idle node, resident memory", process.memory_info().rss / 1e6, "MB", 70)
    table.add("idle node, share of a core", used / seconds * 100, "%", 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory() as folder, processes(Path(folder)) as running:
        root = Path(folder)
        with_bytecode(root / "bytecode")
        start_times(table, root, 5 if options.short else 15)
        boot = running.bootstrap("boot")
        boot.ready()
        ready_times(table, running, boot, 2 if options.short else 7)
        messages(table, running, boot, root, 100 if options.short else 1000)
        idle(table, running, boot, 20 if options.short else 120)
    sys.exit(table.finish(options.json))


if __name__ == "__main__":
    main()
