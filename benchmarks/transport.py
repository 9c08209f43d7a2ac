"""How good the transport is: bulk, messages, round trips, handshakes, idle sessions. A process per side.

On loopback, and, as root, over a wire of 40 ms (`long_wire.py`) beside the kernel's TCP.

Each figure of ours stands beside bare qh3's on the same socket, run in turn with it: the machine has other work, so
the best of several runs counts, and ratios tell more than rates. `per core`: bytes by the processor time of the busier
side, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from long_wire import ENDS, long_wire
from table import Table

from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.spaces import Space

SIDES = str(Path(__file__).with_name("transport_sides.py"))
LOOPBACK = "127.0.0.1"


class Server:
    """The serving process of a stack."""

    def __init__(self, stack: str, ip: str = LOOPBACK) -> None:
        self.stack, self.ip = stack, ip
        self.process = subprocess.Popen(
            [sys.executable, SIDES, "serve", stack, ip], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._hello = self._line()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def cpu(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("cpu\n")
        self.process.stdin.flush()
        return float(self._line()["cpu"])

    def command(self, what: str, count: int) -> list[str]:
        hello = self._hello
        return [sys.executable, SIDES, "call", self.stack, self.ip, str(hello["port"]), hello["key"], what, str(count)]

    def call(self, what: str, count: int, local: str = LOOPBACK) -> dict[str, Any]:
        """Run a client; return its figures, with `per_core` in bytes per second where bytes flowed."""
        before = self.cpu()
        done = subprocess.run(
            self.command(what, count), check=True, capture_output=True, text=True,
            env={**os.environ, "P2PNODE_BENCHMARK_LOCAL": local},
        )  # fmt: skip
        figures: dict[str, Any] = json.loads(done.stdout)
        if "bytes" in figures:
            figures["server_cpu"] = self.cpu() - before
            figures["per_core"] = figures["bytes"] / max(figures["cpu"], figures["server_cpu"])
            figures["rate"] = figures["bytes"] / figures["seconds"]
        return figures

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


@contextmanager
def servers() -> Iterator[tuple[Server, Server]]:
    whole, bare = Server("whole"), Server("bare")
    try:
        yield whole, bare
    finally:
        whole.close()
        bare.close()


def flows(table: Table, whole: Server, bare: Server, runs: int, megabytes: int, messages: int) -> None:
    """Bulk and messages, whole and bare in turn."""
    for what, count in (("bulk", megabytes * 16), ("messages", messages)):
        ours = [_figures(whole, bare, what, count) for _ in range(runs)]
        rate, beside = (max(pair[side]["rate"] for pair in ours) for side in (0, 1))
        core, beside_core = (max(pair[side]["per_core"] for pair in ours) for side in (0, 1))
        if what == "bulk":
            table.add("bulk, one stream", rate / 1e6, "MB/s", 220, f"bare qh3: {beside / 1e6:.0f}", least=True)
            table.add("bulk, against bare qh3", rate / beside, "", 0.85, least=True)
            table.add("bulk per core", core / 1e6, "MB/s", None, f"bare qh3: {beside_core / 1e6:.0f}")
            table.add("bulk per core, against bare qh3", core / beside_core, "", 0.85, least=True)
        else:
            table.add(
                "100-byte messages, one stream", rate / 100, "/s", 50_000, f"bare: {beside / 100:.0f}", least=True
            )


def _figures(whole: Server, bare: Server, what: str, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return whole.call(what, count), bare.call(what, count)


def round_trips(table: Table, whole: Server, bare: Server, runs: int, count: int) -> None:
    pairs = [_figures(whole, bare, "ping", count) for _ in range(runs)]
    ours, beside = (min(statistics.median(pair[side]["times"]) for pair in pairs) for side in (0, 1))
    table.add("1-byte ping, p50", ours * 1e6, "us", None, f"bare qh3: {beside * 1e6:.0f}")
    table.add("1-byte ping, against bare qh3", ours / beside, "", 1.5)
    firsts = min(statistics.median(whole.call("connect", 30)["times"]) for _ in range(runs))
    table.add("handshake and first byte echoed, p50", firsts * 1000, "ms", 10)


def far(table: Table, megabytes: int, lossy_megabytes: int) -> None:
    """40 ms of round trip: one stream of ours, and TCP (CUBIC) on the same wire."""
    for loss, size in ((0.0, megabytes), (0.001, lossy_megabytes)):
        with long_wire(0.04, loss) as (near, other):
            tcp = _tcp_rate(near, other, size)
            server = other.run(lambda: Server("whole", ENDS[1]))
            try:
                figures = near.run(lambda: server.call("bulk", size * 16, ENDS[0]))  # noqa: B023 - called at once
            finally:
                server.close()
            ours = figures["rate"]
        name = f"40 ms, {loss:.1%} loss, one stream"
        bar = 500.0 if not loss else tcp * 8 / 1e6
        table.add(name, ours * 8 / 1e6, "Mb/s", bar, f"TCP beside it: {tcp * 8 / 1e6:.0f}", least=True)


def _tcp_rate(near: Space, other: Space, megabytes: int) -> float:
    """Bytes per second, from the first one sent to the answer to the last."""

    def listen() -> socket.socket:
        made = socket.socket()
        made.bind((ENDS[1], 4747))
        made.listen()
        return made

    def call() -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        made.connect((ENDS[1], 4747))
        return made

    listener = other.run(listen)
    client = near.run(call)
    server, _ = listener.accept()

    def take() -> None:
        buffer = bytearray(1 << 20)
        while server.recv_into(buffer):
            pass
        server.sendall(b"x")

    taking = threading.Thread(target=take)
    taking.start()
    began = time.perf_counter()
    for _ in range(megabytes):
        client.sendall(bytes(1 << 20))
    client.shutdown(socket.SHUT_WR)
    client.recv(1)
    taken = time.perf_counter() - began
    taking.join()
    for each in (listener, client, server):
        each.close()
    return (megabytes << 20) / taken


def idle(table: Table, seconds: float) -> None:
    """1,000 sessions that say nothing: the serving node's memory and processor."""
    import psutil

    server = Server("whole")
    client = subprocess.Popen(
        server.command("idle", 1000), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert client.stdout is not None
        assert client.stdin is not None
        client.stdout.readline()
        time.sleep(1)
        before = server.cpu()
        time.sleep(seconds)
        used = (server.cpu() - before) / seconds
        table.add("1,000 idle sessions, share of a core", used * 100, "%", 5)
        table.add("1,000 idle sessions, memory", psutil.Process(server.process.pid).memory_info().rss / 1e6, "MB", 250)
        client.stdin.close()
        client.wait(20)
    finally:
        client.kill()
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer repetitions; below a minute")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    table = Table()
    short = options.short
    with servers() as (whole, bare):
        flows(table, whole, bare, 2 if short else 8, 200 if short else 400, 50_000 if short else 200_000)
        round_trips(table, whole, bare, 2 if short else 5, 300 if short else 2000)
    try:
        far(table, 200 if short else 600, 8 if short else 40)
    except (LabError, OSError) as exc:
        print(f"no wire of 40 ms: {exc}")
    idle(table, 5 if short else 45)
    sys.exit(table.finish(options.json))


if __name__ == "__main__":
    main()
