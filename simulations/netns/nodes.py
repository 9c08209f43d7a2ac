"""Real p2pnode processes on the laboratory's hosts: started, listened to, asked, killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from p2pnode import DEFAULT_PORT, Home, PeerId, load_or_create_account_key, load_or_create_node_key
from p2pnode.api.client import Client
from p2pnode.api.netcheck_types import NetcheckAnswer
from p2pnode.api.types import (
    ConnectAnswer,
    ConnectRequest,
    Contact,
    ContactAdd,
    PingAnswer,
    PingRequest,
    SendAnswer,
    SendRequest,
    Status,
)
from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.topology import Host

__all__ = ["LabNode", "Spawn", "node_environment"]

T = TypeVar("T")
Spawn = Callable[..., "subprocess.Popen[bytes]"]
Event = dict[str, Any]

PROGRAM = (sys.executable, "-m", "p2pnode")


def node_environment(**extra: str) -> dict[str, str]:
    """Return the environment of a node in the laboratory: none of the user's own settings, public test addresses."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("P2PNODE_")}
    return {**kept, "P2PNODE_ALLOW_DOC_ADDRESSES": "1", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", **extra}


class LabNode:
    """One identity on one host; its process may come and go. Methods may be called from any thread."""

    def __init__(self, name: str, host: Host, home: Path, spawn: Spawn) -> None:
        """`spawn`: starts a process inside the host that dies with the laboratory. Makes the keys."""
        self.name = name
        self.host = host
        self.home = Home(home)
        self.home.create()
        self.peer_id: PeerId = load_or_create_node_key(self.home.node_key, os.urandom, None).peer_id
        self.user_id = load_or_create_account_key(self.home.account_key, os.urandom, None).user_id
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.ready_at: float | None = None
        self._spawn = spawn
        self._arguments: tuple[str, ...] = ()
        self._events: list[tuple[float, Event]] = []
        self._changed = threading.Condition()
        self._ended = False

    @property
    def bootstrap_line(self) -> str:
        """`ID@HOST:PORT`, known before it runs."""
        return f"{self.peer_id}@{self.host.public_ip}:{DEFAULT_PORT}"

    def start(self, *arguments: str) -> None:
        """Start `p2pnode --home HOME ARGUMENTS`; without arguments with those of the last time. Does not wait."""
        if self.process is not None and self.process.poll() is None:
            raise LabError(f"The laboratory's node {self.name} runs already.")
        self._arguments = arguments or self._arguments
        with self._changed:
            self._events, self._ended, self.ready_at = [], False, None
        with (self.home.path / "stderr.log").open("ab") as log:
            self.process = self._spawn(
                [*PROGRAM, "--home", str(self.home.path), "--log-format", "console", *self._arguments],
                space=self.host.space,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=node_environment(),
            )
        self.started_at = time.monotonic()
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - asked for a pipe
        with process.stdout as lines:
            for line in lines:
                event = json.loads(line)
                with self._changed:
                    now = time.monotonic()
                    if event.get("event") == "ready":
                        self.ready_at = now
                    self._events.append((now, event))
                    self._changed.notify_all()
        with self._changed:
            if process is self.process:
                self._ended = True
            self._changed.notify_all()

    # Events

    def wait_event(self, wanted: Callable[[Event], bool], timeout: float = 20.0) -> Event:
        """Return the first event since the start for which `wanted` holds. Raise LabError with the end of its log."""

        def found() -> Event | None:
            return next((event for _, event in self._events if wanted(event)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._ended, timeout)
            event = found()
            ended = self._ended
        if event is None:
            what = "ended" if ended else f"did not say what was waited for within {timeout:g} s"
            raise LabError(f"The laboratory's node {self.name} {what}; its log ends: {self.log()[-1500:] or '(empty)'}")
        return event

    def ready(self, timeout: float = 30.0) -> Event:
        """Wait until it has joined."""
        return self.wait_event(lambda event: event.get("event") == "ready", timeout)

    def events(self, kind: str | None = None) -> list[Event]:
        """Return the events since the start, all or of one kind."""
        with self._changed:
            return [event for _, event in self._events if kind is None or event.get("event") == kind]

    def arrivals(self) -> dict[str, float]:
        """Return when each message's text was first seen here since the start (monotonic seconds)."""
        with self._changed:
            events = list(self._events)
        seen: dict[str, float] = {}
        for at, event in events:
            if event.get("event") == "message" and event.get("from") != str(self.peer_id):
                seen.setdefault(str(event["text"]), at)
        return seen

    def log(self) -> str:
        """Return what it wrote to stderr."""
        with contextlib.suppress(FileNotFoundError):
            return (self.home.path / "stderr.log").read_text(errors="replace")
        return ""

    # Asking the node

    def call(self, ask: Callable[[Client], T]) -> T:
        """Call its control API, which listens on the host's loopback. Raise P2PError."""
        return self.host.run(lambda: ask(Client(self.home)))

    def connect(self, to: LabNode, timeout: float = 15.0) -> ConnectAnswer:
        """Open a session by id alone. Raise the P2PError that `connect` gives."""
        request = ConnectRequest(str(to.peer_id), timeout)
        return self.call(lambda c: c.post("/v1/connect", ConnectAnswer, request, timeout=2 * timeout))

    def ping(self, to: LabNode) -> PingAnswer:
        """Measure one round trip over the session."""
        return self.call(lambda c: c.post("/v1/ping", PingAnswer, PingRequest(str(to.peer_id))))

    def send(self, to: LabNode, text: str, wait: float = 10.0) -> SendAnswer:
        """Send one message."""
        request = SendRequest(str(to.peer_id), text, wait)
        return self.call(lambda c: c.post("/v1/messages", SendAnswer, request, timeout=wait))

    def befriend(self, other: LabNode) -> None:
        """Make the two contacts of each other: a stranger gets one message through, contacts as many as they like."""
        for one, to in ((self, other), (other, self)):
            request = ContactAdd(str(to.peer_id), to.name)
            one.call(lambda c, request=request: c.post("/v1/contacts", Contact, request))  # type: ignore[misc]

    def path_to(self, other: LabNode) -> str | None:
        """Return the path of the session with a node, None when there is none."""
        from p2pnode.api.types import Peers

        sessions = self.call(lambda c: c.get("/v1/peers", Peers)).peers
        return next((each.path for each in sessions if each.peer == str(other.peer_id)), None)

    def status(self) -> Status:
        """Return addresses, NAT class, counters."""
        return self.call(lambda c: c.get("/v1/status", Status))

    def netcheck(self) -> NetcheckAnswer:
        """Let it find out what stands before it: seven seconds and more."""
        return self.call(lambda c: c.get("/v1/netcheck", NetcheckAnswer, timeout=60.0))

    def received(self) -> Counter[str]:
        """Return the texts of all messages that its history has from others, and how often each."""
        from p2pnode.api.types import Messages, MessagesQuery

        answer = self.call(lambda c: c.get("/v1/messages", Messages, MessagesQuery(limit=10_000)))
        return Counter(m.text for m in answer.messages if m.direction == "in")

    def times_received(self, text: str) -> int:
        """Return how many messages with this text its history holds."""
        return self.received()[text]

    def cli(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `p2pnode --home HOME ARGUMENTS` on this host to its end."""
        return self.host.run(
            lambda: subprocess.run(  # noqa: S603 - our own program
                [*PROGRAM, "--home", str(self.home.path), *arguments],
                capture_output=True,
                text=True,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                env=node_environment(),
                check=False,
            )
        )

    # Ending it

    def kill(self) -> None:
        """End it as a power failure would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> None:
        """Ask it to leave; does not wait."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def suspend(self) -> None:
        """Let its process stand still, as a sleeping machine does; `kill` and `resume` end that."""
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def stop(self, timeout: float = 5.0) -> int:
        """Let it leave in good order; return its exit code. Killed when that takes longer than `timeout`."""
        if self.process is None:
            return 0
        self.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9
