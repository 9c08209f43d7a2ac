"""Real terminals: tmux panes, typed into and read back, in a network namespace of their own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.processes import environment
from support.require import require, require_namespaces

# A host with loopback and one Ethernet: multicast works, nothing leaves the namespace.
NAMESPACE_SETUP = (
    "ip link set lo up && ip link add wire0 type veth peer name wire1 && ip addr add 192.168.77.2/24 dev wire0"
    " && ip link set wire0 up && ip link set wire1 up"
)


class Terminals:
    """A tmux server; each window is one user's terminal."""

    def __init__(self, root: Path, holder: subprocess.Popen[bytes], *, user_namespace: bool) -> None:
        self.root = root
        user = ["--user", "--preserve-credentials"] if user_namespace else []
        self._enter = ["nsenter", "--net", *user, "-t", str(holder.pid)]
        self._holder = holder
        self._socket = root / "tmux"

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments]
        done = subprocess.run(
            [*self._enter, *command], capture_output=True, text=True, env=environment(TERM="xterm-256color")
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def open(self, name: str, *arguments: str, width: int = 100, height: int = 30) -> Terminal:
        """Run `p2pnode --home ROOT/NAME ARGUMENTS` in a terminal of its own."""
        home = self.root / name
        command = shlex.join([sys.executable, "-m", "p2pnode", "--home", str(home), *arguments])
        size = ["-x", str(width), "-y", str(height)]
        self._tmux("new-session", "-d", "-s", name, *size, f"{command} 2>{home}.err; echo exit=$?; exec sleep 600")
        return Terminal(self, name)

    def close(self) -> None:
        subprocess.run(
            ["tmux", "-S", str(self._socket), "kill-server"],
            capture_output=True,
            env=environment(TERM="xterm-256color"),
        )
        self._holder.terminate()
        self._holder.wait()


class Terminal:
    """One user's terminal."""

    def __init__(self, terminals: Terminals, name: str) -> None:
        self._terminals = terminals
        self.name = name

    def type(self, text: str, *, enter: bool = True) -> None:
        self._terminals._tmux("send-keys", "-t", self.name, "-l", text)
        if enter:
            self.press("Enter")

    def press(self, key: str) -> None:
        self._terminals._tmux("send-keys", "-t", self.name, key)

    def screen(self) -> str:
        """What the user sees, with what scrolled away."""
        return self._terminals._tmux("capture-pane", "-p", "-J", "-S", "-200", "-t", self.name)

    def wait_for_bell(self, timeout: float = 20.0) -> None:
        """Return once the terminal's bell has rung."""
        deadline = time.monotonic() + timeout
        while self._terminals._tmux("display-message", "-p", "-t", self.name, "#{window_bell_flag}").strip() != "1":
            assert time.monotonic() < deadline, f"{self.name} never rang"
            time.sleep(0.05)

    def wait_for(self, pattern: str, timeout: float = 20.0) -> str:
        """Return the screen once the regular expression is found on it."""
        deadline = time.monotonic() + timeout
        while True:
            screen = self.screen()
            if re.search(pattern, screen):
                return screen
            if time.monotonic() > deadline:
                errors = Path(f"{self._terminals.root / self.name}.err")
                raise AssertionError(
                    f"{self.name} never showed {pattern!r}; the screen:\n{screen}\n{errors.read_text()[-2000:]}"
                )
            time.sleep(0.05)


@contextmanager
def terminals(root: Path) -> Iterator[Terminals]:
    """A network namespace with a tmux server; both are gone afterwards."""
    namespace = require_namespaces()
    require(shutil.which("tmux") is not None, "tmux is not installed (Debian package tmux)")
    ready = root / "ready"
    script = f"{NAMESPACE_SETUP} && touch {shlex.quote(str(ready))} && exec sleep 900"
    holder = subprocess.Popen([*namespace, "sh", "-c", script], env=dict(os.environ))
    deadline = time.monotonic() + 10
    while not ready.exists():
        assert holder.poll() is None, "the network namespace could not be made"
        assert time.monotonic() < deadline, "the network namespace takes too long"
        time.sleep(0.02)
    open_terminals = Terminals(root, holder, user_namespace="-Urn" in namespace)
    try:
        yield open_terminals
    finally:
        open_terminals.close()
