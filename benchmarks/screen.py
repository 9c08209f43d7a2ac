"""How fast the chat's screen is: a key's echo while 1,000 messages arrive, its start, with a million messages too.

Real processes: the screen runs on a pseudo-terminal of 100 columns and 30 rows, keys are written to it and their
characters looked for in what it draws. The yardstick is the same without messages.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.processes import LAUNCH, QUIET, environment
from table import Table

KEYS = "%&$={}[]<>"  # in nothing that the screen draws by itself, nor in the messages
KEY_PAUSE_S = 0.03
ROWS, COLUMNS = 30, 100


class Screen:
    """`p2pnode join` on a pseudo-terminal."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.started = time.monotonic()
        self.drawn = b""
        self._changed = threading.Condition()
        pid, self._terminal = pty.fork()
        if pid == 0:
            os.execvpe(  # noqa: S606 - no shell is wanted
                LAUNCH[0],
                [*LAUNCH, "--home", str(home), "join", *arguments, *QUIET],
                environment(TERM="xterm-256color", NO_COLOR=""),
            )
        self.pid = pid
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def press(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def type(self, line: str) -> None:
        """Type a line as a person would: Enter comes after the text was drawn."""
        self.press(line)
        time.sleep(0.3)
        self.press("\r")

    def wait(self, pattern: str, since: int = 0, timeout: float = 30.0) -> float:
        """Return when (monotonic) what is drawn from byte `since` on holds a regular expression."""
        wanted = re.compile(pattern.encode())
        with self._changed:
            if not self._changed.wait_for(lambda: wanted.search(self.drawn, since), timeout):
                raise AssertionError(f"the screen never drew {pattern!r}; its end: {self.drawn[-2000:]!r}")
            return time.monotonic()

    def processor_s(self) -> float:
        """Processor seconds that the process has used (its CPU clock, clock_getcpuclockid(3))."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def close(self) -> None:
        self.press("\x11")  # Ctrl+Q
        os.waitpid(self.pid, 0)
        os.close(self._terminal)

    def _read(self) -> None:
        while True:
            try:
                select.select([self._terminal], [], [])
                data = os.read(self._terminal, 65_536)
            except OSError:
                return
            with self._changed:
                self.drawn += data
                self._changed.notify_all()


def echoes(screen: Screen, until: threading.Event, least: int) -> tuple[list[float], list[float]]:
    """Press keys, one after the other, until the event is set (`least` at least); return each one's seconds, and the
    processor time that the node and its screen used between key and echo: what a loaded machine does not change."""
    found, used = [], []
    while not until.is_set() or len(found) < least:
        for key in KEYS:
            since = len(screen.drawn)
            pressed, before = time.monotonic(), screen.processor_s()
            screen.press(key)
            found.append(screen.wait(re.escape(key), since) - pressed)
            used.append(screen.processor_s() - before)
            time.sleep(KEY_PAUSE_S)
        screen.press("\x15")  # Ctrl+U empties the input
        time.sleep(0.1)
    return sorted(found), sorted(used)


def p95(seconds: list[float]) -> float:
    """Of a sorted list, in milliseconds."""
    return seconds[int(len(seconds) * 0.95)] * 1000


def free_port() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def messages_and_keys(table: Table, root: Path, count: int) -> None:
    port = free_port()
    screen = Screen(root / "alice", "alice", "--listen", f"127.0.0.1:{port}")
    table.add("screen drawn, first start", screen.wait("Welcome") - screen.started, "s", None)
    screen.press("\x1b")
    # It stands for another computer, so it must not take the processor from the screen's.
    other = subprocess.Popen(
        ["nice", "-n", "15", *LAUNCH, "--home", str(root / "bob"), "join", "bob", "127.0.0.1", port, "--plain", *QUIET,
         "--listen", "127.0.0.1:0"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment(), text=True,
    )  # fmt: skip
    assert other.stdin is not None
    screen.wait("1 other")
    screen.type("\\add bob")
    screen.wait("is a contact now")
    screen.type("\\chat bob")
    time.sleep(1.0)
    idle = threading.Event()
    idle.set()
    quiet, quiet_used = echoes(screen, idle, 100)
    beside = f"quiet screen: p95 {p95(quiet):.1f} ms, processor {p95(quiet_used):.1f} ms"
    since, arrived = len(screen.drawn), threading.Event()
    text = "and some words that make it a line of ordinary length, perhaps two"

    def watch() -> None:
        screen.wait(f"number {count} ", since, 120.0)
        arrived.set()

    threading.Thread(target=watch, daemon=True).start()
    began = time.monotonic()
    other.stdin.write("\\chat alice\n" + "".join(f"number {n} {text}\n" for n in range(1, count + 1)))
    other.stdin.flush()
    busy, busy_used = echoes(screen, arrived, 50)
    print(f"{count} messages in {time.monotonic() - began:.1f} s, {len(busy)} keys meanwhile")
    table.add("key drawn while messages arrive, p50", busy[len(busy) // 2] * 1000, "ms", None, beside)
    table.add("key drawn while messages arrive, p95", p95(busy), "ms", 50, beside)
    table.add("the same in processor time, p95", p95(busy_used), "ms", 50)
    table.add("the same in processor time, longest", busy_used[-1] * 1000, "ms", None)
    other.stdin.close()
    other.wait(10)
    screen.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="the same: it takes half a minute")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        messages_and_keys(table, Path(folder), 1000)
    sys.exit(table.finish(options.json))


if __name__ == "__main__":
    main()
