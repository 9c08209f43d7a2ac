"""A file between two real nodes on loopback: rate, what `kill -9` costs, how long a message waits beside it.

The yardstick is a program of 20 lines run in the same minute: TCP, written to a file and hashed with SHA-256 as it
comes, brought to the disk at the end as ours is. The machine has other work, so each is the best of several runs, and
processor seconds are told as well, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import msgspec
import psutil
from first_steps import with_bytecode
from support.processes import Peer, Processes, processes
from table import Table

from p2pnode import Home
from p2pnode.api.client import Client
from p2pnode.api.file_types import FileInfo, FileQuery, FileSend
from p2pnode.api.types import SendAnswer, SendRequest

MB = 1_000_000
POLL_S = 0.1  # each look is an HTTP request to the node that is measured


def make_file(path: Path, size: int) -> None:
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for number in range(size // len(block)):
            file.write(number.to_bytes(8, "big") + block[8:])


def tcp_seconds(source: Path, target: Path) -> float:
    """From the first byte to the checked file on the disk: a process each way."""
    child = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    port = int(child.stdout.readline())
    started = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as sock, source.open("rb") as file:
        while data := file.read(1 << 20):
            sock.sendall(data)
    child.stdout.readline()
    seconds = time.perf_counter() - started
    child.wait(10)
    child.stdout.close()
    target.unlink()
    return seconds


def serve_tcp(target: Path) -> None:
    """Take one file."""
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    sock, _ = server.accept()
    digest = hashlib.sha256()
    with target.open("wb") as file:
        while data := sock.recv(1 << 20):
            digest.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    print(digest.hexdigest(), flush=True)


class Pair:
    """Two nodes that are contacts; what alice sends, bob takes unasked."""

    def __init__(self, running: Processes) -> None:
        self.running = running
        self.alice = running.join("alice", *self.listen("alice"))
        self.bob = self.start_bob()
        for one, other in ((self.alice, self.bob), (self.bob, self.alice)):
            assert one.cli("contacts", "add", other.user, "--name", other.home.name).code == 0

    def listen(self, name: str) -> list[str]:
        return ["--idle-timeout", "60"] if name == "alice" else ["--idle-timeout", "60", "--auto-accept", "64G"]

    def start_bob(self) -> Peer:
        bob = self.running.join("bob", *self.listen("bob"), bootstrap=[self.alice])
        bob.ready()
        return bob

    def client(self, peer: Peer) -> Client:
        return Client(Home(peer.home))

    def send(self, path: Path) -> FileInfo:
        return self.client(self.alice).post("/v1/files", FileInfo, FileSend(self.bob.user, str(path)), timeout=60.0)

    def info(self, peer: Peer, name: str) -> FileInfo:
        return self.client(peer).get("/v1/files/one", FileInfo, FileQuery(name))

    def wait(self, name: str, *, share: float = 1.0, timeout: float = 300.0) -> float:
        """Wait until so much has left alice; return when that was."""
        deadline = time.perf_counter() + timeout
        while True:
            info = self.info(self.alice, name)
            if info.state == "done" or (share < 1.0 and info.done >= share * info.size and info.state == "active"):
                return time.perf_counter()
            assert info.state in ("preparing", "offered", "active"), info.text
            assert time.perf_counter() < deadline, info.text
            time.sleep(POLL_S)

    def bytes_out(self) -> int:
        """Bytes of QUIC that alice has sent."""
        card = msgspec.json.decode((self.alice.home / "api.json").read_bytes())
        request = urllib.request.Request(
            f"http://127.0.0.1:{card['port']}/metrics", headers={"Authorization": f"Bearer {card['token']}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own
            lines = answer.read().decode().splitlines()
        found = [
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith("p2pnode_bytes_total") and 'direction="out"' in line and 'kind="quic"' in line
        ]
        return int(sum(found))


def cpu(peer: Peer) -> float:
    times = psutil.Process(peer.process.pid).cpu_times()
    return float(times.user + times.system)


def rates(table: Table, pair: Pair, source: Path, runs: int) -> None:
    size = source.stat().st_size
    ours, beside, moving, work = [], [], [], []
    for _ in range(runs):
        beside.append(size / tcp_seconds(source, source.with_name("tcp")))
        before = (cpu(pair.alice), cpu(pair.bob))
        started = time.perf_counter()
        name = pair.send(source).id
        while (info := pair.info(pair.alice, name)).state in ("preparing", "offered"):
            time.sleep(0.01)
        began = time.perf_counter()
        ended = pair.wait(name)
        assert info.size == size
        ours.append(size / (ended - started))
        moving.append(size / (ended - began))
        work.append(size / max(cpu(pair.alice) - before[0], cpu(pair.bob) - before[1]))
        (pair.bob.home / "downloads" / source.name).unlink()
    best, tcp = max(ours), max(beside)
    table.add("file, hashing before included", best / MB, "MB/s", 120, f"TCP and SHA-256: {tcp / MB:.0f}", least=True)
    table.add("file, against TCP and SHA-256", best / tcp, "", None)
    table.add("file, from its acceptance on", max(moving) / MB, "MB/s", 120, least=True)
    table.add("file, by processor time of the busier side", max(work) / MB, "MB/s", 120, least=True)


def kills(table: Table, pair: Pair, source: Path) -> None:
    """`kill -9` of the receiver half-way: what is sent again."""
    size = source.stat().st_size
    plain_before = pair.bytes_out()
    pair.wait(pair.send(source).id)
    plain = pair.bytes_out() - plain_before
    (pair.bob.home / "downloads" / source.name).unlink()
    before = pair.bytes_out()
    name = pair.send(source).id
    pair.wait(name, share=0.5)
    pair.bob.kill()
    pair.bob = pair.start_bob()
    pair.wait(name)
    again = pair.bytes_out() - before - plain
    got = pair.bob.home / "downloads" / source.name
    assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    got.unlink()
    bar = 1.0 if size >= 900 * MB else None  # what is in memory and under way does not depend on the size
    table.add(
        "kill -9 of the receiver half-way, sent again", 100 * max(0, again) / size, "%", bar, f"{again / MB:.1f} MB"
    )


def delays(table: Table, pair: Pair, source: Path, count: int) -> None:
    """Messages alone, and beside a file that flows."""
    alone = _messages(pair, count)
    name = pair.send(source).id
    pair.wait(name, share=0.01)
    beside: list[float] = []
    done = threading.Event()

    def write() -> None:
        while not done.is_set() and len(beside) < count:
            beside.extend(_messages(pair, 1))

    writer = threading.Thread(target=write)
    writer.start()
    pair.wait(name)
    done.set()
    writer.join(30)
    (pair.bob.home / "downloads" / source.name).unlink()
    table.add("message alone, p50", statistics.median(alone) * 1000, "ms", None)
    if beside:
        table.add("message beside a file, p50", statistics.median(beside) * 1000, "ms", 50, f"of {len(beside)}")
        table.add("message beside a file, longest", max(beside) * 1000, "ms", 500)


def _messages(pair: Pair, count: int) -> list[float]:
    client = pair.client(pair.alice)
    return [
        client.post("/v1/messages", SendAnswer, SendRequest(pair.bob.user, "hello", 10.0)).seconds for _ in range(count)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="256 MB and one run, as CI does")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve_tcp(arguments.serve)
        return 0
    table = Table()
    with tempfile.TemporaryDirectory() as folder, processes(Path(folder)) as running:
        root = Path(folder)
        with_bytecode(root / "bytecode")
        source = root / "source"
        make_file(source, (256 if arguments.short else 1000) * MB)
        pair = Pair(running)
        rates(table, pair, source, 2 if arguments.short else 3)
        kills(table, pair, source)
        delays(table, pair, source, 50)
    return table.finish(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
