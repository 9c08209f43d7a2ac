"""Real p2pnode processes for the system tests: started, talked to, killed by their own pid, always cleaned up."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LAUNCH = [sys.executable, "-m", "p2pnode"]
QUIET = ["--no-lan", "--no-portmap"]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a child: no setting of the developer's own nodes leaks in."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("P2PNODE_") or k == "P2PNODE_REQUIRE_ALL"}
    return {**kept, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", **extra}


@dataclass
class Outcome:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(home: Path, *arguments: str, timeout: float = 30.0, stdin: str | bytes | None = None, **env: str) -> Outcome:
    """Run `p2pnode --home HOME ...` to its end."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*LAUNCH, "--home", str(home), *arguments],
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        timeout=timeout,
        env=environment(**env),
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


@dataclass
class Peer:
    """One `join --headless` or `bootstrap` process."""

    home: Path
    process: subprocess.Popen[bytes]
    started: float
    events: list[dict[str, Any]] = field(default_factory=list)
    ready_at: float = 0.0
    _lines: queue.Queue[dict[str, Any] | None] = field(default_factory=queue.Queue)
    _reader: threading.Thread | None = None

    def wait_event(self, wanted: Callable[[dict[str, Any]], bool], timeout: float = 20.0) -> dict[str, Any]:
        """Return the first event (also an earlier one) for which `wanted` holds."""
        for event in self.events:
            if wanted(event):
                return event
        deadline = time.monotonic() + timeout
        while True:
            try:
                event = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no such event from {self.home.name}; log:\n{self.log()}") from None
            if event is None:
                raise AssertionError(f"{self.home.name} ended with {self.process.wait()}; log:\n{self.log()}")
            self.events.append(event)
            if wanted(event):
                return event

    def ready(self, timeout: float = 20.0) -> dict[str, Any]:
        return self.wait_event(lambda e: e["event"] == "ready", timeout)

    @property
    def id(self) -> str:
        return str(self.ready()["peer_id"])

    @property
    def user(self) -> str:
        return str(self.ready()["user_id"])

    def messages(self) -> list[dict[str, Any]]:
        """All `message` events so far."""
        while True:
            try:
                event = self._lines.get_nowait()
            except queue.Empty:
                break
            if event is not None:
                self.events.append(event)
        return [e for e in self.events if e["event"] == "message"]

    def cli(self, *arguments: str, timeout: float = 30.0, stdin: str | bytes | None = None) -> Outcome:
        return run(self.home, *arguments, timeout=timeout, stdin=stdin)

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout: float = 5.0) -> int:
        """End it as a service manager would; return its exit code."""
        self.process.terminate()
        return self.process.wait(timeout)

    def log(self) -> str:
        path = self.home / "stderr.log"
        return path.read_text(errors="replace")[-6000:] if path.exists() else ""

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(json.loads(line))
            if not self.ready_at:
                self.ready_at = time.monotonic()
        self._lines.put(None)


class Processes:
    """Starts peers and ends them all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.peers: list[Peer] = []

    def start(self, name: str, *arguments: str, prefix: tuple[str, ...] = (), **env: str) -> Peer:
        """Start `p2pnode --home ROOT/name ARGUMENTS` and collect its events. Does not wait."""
        home = self.root / name
        home.mkdir(mode=0o700, exist_ok=True)
        with (home / "stderr.log").open("ab") as log:
            process = subprocess.Popen(
                [*prefix, *LAUNCH, "--home", str(home), "--log-format", "console", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(**env),
            )
        peer = Peer(home, process, time.monotonic())
        peer._reader = threading.Thread(target=peer._read, daemon=True)
        peer._reader.start()
        self.peers.append(peer)
        return peer

    def bootstrap(self, name: str, *arguments: str, listen: str = "127.0.0.1:0") -> Peer:
        return self.start(name, "bootstrap", "--listen", listen, *QUIET, *arguments)

    def join(
        self, name: str, *arguments: str, bootstrap: list[Peer] | None = None, listen: str = "127.0.0.1:0"
    ) -> Peer:
        """A headless peer on loopback, named, without multicast."""
        through = [part for b in bootstrap or [] for part in ("--bootstrap", b.ready()["bootstrap"])]
        return self.start(name, "join", name, "--headless", "--listen", listen, *QUIET, *through, *arguments)

    def close(self) -> None:
        for peer in self.peers:
            if peer.process.poll() is None:
                peer.process.terminate()
        deadline = time.monotonic() + 5
        for peer in self.peers:
            try:
                peer.process.wait(max(0.05, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                peer.kill()
            if peer.process.stdout is not None and peer._reader is not None:
                peer._reader.join(5)
                assert not peer._reader.is_alive(), f"something that {peer.home.name} started still has its output"
                peer.process.stdout.close()


@contextmanager
def processes(root: Path) -> Iterator[Processes]:
    """All processes started within are gone afterwards."""
    running = Processes(root)
    try:
        yield running
    finally:
        running.close()


def eventually(check: Callable[[], bool], timeout: float = 20.0, what: str = "it") -> None:
    """Wait for another process to get somewhere; only system tests wait in real time."""
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout:g} s"
        time.sleep(0.02)
