"""Messages of the chat between two real nodes, durable on both sides: how many a second, and how long one takes.

Two processes with a chat each (the Python API), contacts of each other, one conversation. On loopback, and, as root,
over a wire of 40 ms (`long_wire.py`). `delivered` is told when the other side has it on its disk and said so: half a
round trip later than it appears there. The yardstick is a bare durable write of the same machine; processor seconds
are told as well, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from first_steps import durable_write, with_bytecode
from long_wire import ENDS, long_wire
from table import Table

import p2pnode as p
from p2pnode.chat import Chat, ChatStore
from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.spaces import Space

FLIGHT = 512  # messages on their way at a time
RTT_S = 0.04
LOOPBACK = "127.0.0.1"


async def side(home: p.Home, ip: str, other: str) -> None:
    """Be one of the two: obey a line of JSON at a time. `other`: whom to bootstrap from, or empty."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for answers
    home.create()
    key = p.load_or_create_node_key(home.node_key, secrets.token_bytes)
    account = p.load_or_create_account_key(home.account_key, secrets.token_bytes)
    settings = p.NodeSettings(
        listen=(p.Address(ip, 0),), lan=False, portmap=False, allow_documentation=ip != LOOPBACK,
        role="peer" if other or ip == LOOPBACK else "bootstrap",
        bootstrap=(p.parse_peer(other),) if other else (),
    )  # fmt: skip
    node = p.Node(key=key, account=account, settings=settings, network=p.RealNetwork())
    chat = Chat(node, await ChatStore.open(home.chat_db, run_blocking=node.network.run_blocking))
    await chat.start()
    ready = await node.start()
    hello = {"user": str(node.user_id), "address": ready.bootstrap or ""}
    print(json.dumps(hello), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        began, used = time.perf_counter(), time.process_time()
        times: list[float] = []
        if command["do"] == "add":
            await chat.add_contact(p.UserId.parse(command["user"]), command["name"])
        elif command["do"] == "send":
            await _send(chat, p.UserId.parse(command["user"]), command["count"], command["flight"], times)
        answer = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used, "times": times}
        answer["total_cpu"] = time.process_time()
        print(json.dumps(answer), flush=True)
    await chat.stop()
    await node.stop()


async def _send(chat: Chat, user: p.UserId, count: int, flight: int, times: list[float]) -> None:
    numbers = iter(range(count))

    async def lane() -> None:
        for number in numbers:
            sent = await chat.send(user, f"number {number} and some words that make it an ordinary line", wait=30.0)
            assert sent.state == "delivered", sent
            times.append(sent.seconds)

    await asyncio.gather(*(lane() for _ in range(flight)))


class Side:
    """A process, from outside."""

    def __init__(self, home: Path, ip: str, other: str = "") -> None:
        command = [sys.executable, __file__, "--side", str(home), "--ip", ip, "--other", other]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hello = self._line()

    def tell(self, do: str, **facts: object) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **facts}) + "\n")
        self.process.stdin.flush()
        return self._line()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@contextmanager
def two(root: Path, spaces: tuple[Space, Space] | None = None) -> Iterator[tuple[Side, Side]]:
    """Alice and bob, contacts, with a session between them; on loopback or in two namespaces."""
    root.mkdir()
    if spaces is None:
        alice = Side(root / "alice", LOOPBACK)
        bob = Side(root / "bob", LOOPBACK, alice.hello["address"])
    else:
        alice = spaces[0].run(lambda: Side(root / "alice", ENDS[0]))
        bob = spaces[1].run(lambda: Side(root / "bob", ENDS[1], alice.hello["address"]))
    try:
        alice.tell("add", user=bob.hello["user"], name="bob")
        bob.tell("add", user=alice.hello["user"], name="alice")
        alice.tell("send", user=bob.hello["user"], count=20, flight=1)
        yield alice, bob
    finally:
        for each in (alice, bob):
            each.close()


def many(table: Table, alice: Side, bob: Side, count: int, runs: int) -> None:
    """One conversation, as fast as it goes."""
    rates, work = [], []
    for _ in range(runs):
        before = bob.tell("cpu")["total_cpu"]
        done = alice.tell("send", user=bob.hello["user"], count=count, flight=FLIGHT)
        busier = max(done["cpu"], bob.tell("cpu")["total_cpu"] - before)
        rates.append(count / done["seconds"])
        work.append(count / busier)
    table.add("messages in one conversation", max(rates), "/s", 3000, f"{FLIGHT} on their way", least=True)
    table.add("the same by processor time of the busier side", max(work), "/s", 3000, least=True)


def single(table: Table, alice: Side, bob: Side, count: int, bars: tuple[float, float], beside: str) -> None:
    """One after the other has arrived."""
    times = sorted(alice.tell("send", user=bob.hello["user"], count=count, flight=1)["times"])
    table.add("one message, delivered, p50", times[len(times) // 2] * 1000, "ms", bars[0], beside)
    table.add("one message, delivered, p99", times[int(len(times) * 0.99)] * 1000, "ms", bars[1])


def far(table: Table, root: Path, count: int) -> None:
    """40 ms of round trip. It appears half a round trip before `delivered` is back: 15 ms more than that is the bar."""
    with long_wire(RTT_S, 0.0) as spaces, two(root, spaces) as (alice, bob):
        times = sorted(alice.tell("send", user=bob.hello["user"], count=count, flight=1)["times"])
    appears = times[len(times) // 2] - RTT_S / 2
    table.add("40 ms away, appears, p50", appears * 1000, "ms", RTT_S * 500 + 15, "half a round trip: 20 ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    for name in ("--side", "--ip", "--other"):
        parser.add_argument(name, default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        _run_side(options)
        return
    table = Table()
    count = 3000 if options.short else 15_000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with_bytecode(root / "bytecode")
        beside = f"a durable write: {durable_write(root) * 1000:.2f} ms"
        with two(root / "loopback") as (alice, bob):
            single(table, alice, bob, count // 15, (5, 30), beside)
            many(table, alice, bob, count, 1 if options.short else 3)
        if os.geteuid() == 0:
            with contextlib.suppress(LabError):  # no namespaces here
                far(table, root / "far", count // 60)
    sys.exit(table.finish(options.json))


def _run_side(options: argparse.Namespace) -> None:
    run = asyncio.run
    with contextlib.suppress(ImportError):
        import uvloop

        run = uvloop.run
    run(side(p.Home(Path(options.side)), options.ip, options.other))


if __name__ == "__main__":
    main()
