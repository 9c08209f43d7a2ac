"""Starting the process of a run, watching it, stopping it; nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

import msgspec

from p2pnode.simulations.harness.errors import ScenarioFailedError
from p2pnode.simulations.harness.execution import Outcome, Standing
from p2pnode.simulations.harness.frames import STOP, decode, encode, read_frame
from p2pnode.simulations.harness.job import Job

__all__ = ["RunLostError", "RunProcess", "run_in_process"]

# Real seconds for the snapshot of an interrupted run: all of Ctrl-C has two.
SNAPSHOT_S = 1.0
_POLL_S = 0.1


class RunLostError(ScenarioFailedError):
    """The process of a run ended without a word. `killed`: by a signal, so that another try may go well."""

    def __init__(self, message: str, *, killed: bool) -> None:
        super().__init__(message)
        self.killed = killed


class RunProcess:
    """One run in a process of its own. Use it as a context: leaving kills what still runs."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._frames: queue.SimpleQueue[Standing | Outcome | None] = queue.SimpleQueue()
        # -P: a file beside the user's feet must not stand in for a module. A fixed hash seed: sets of texts iterate
        # alike in every run. A session of its own: Ctrl-C on the terminal is for the parent, which asks for the rest.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "p2pnode.simulations.harness.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        self._say(encode(job))
        # A thread, because a read that Ctrl-C breaks off loses half a frame.
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> RunProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def next(self, timeout: float) -> Standing | Outcome | None:
        """Return what the run says next; None when it says nothing for `timeout` seconds. Raise RunLostError."""
        try:
            message = self._frames.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None:
            raise self._lost()
        return message

    def stop(self, timeout: float = SNAPSHOT_S) -> Outcome:
        """Break the run off and return what it found so far: nothing when it does not answer in time."""
        self._say(STOP)
        deadline = threading.Event()
        timer = threading.Timer(timeout, deadline.set)
        timer.daemon = True
        timer.start()
        try:
            while not deadline.is_set():
                message = self.next(_POLL_S)
                if isinstance(message, Outcome):
                    return message
        except RunLostError:
            pass
        finally:
            timer.cancel()
        return Outcome("interrupted", self.job.nodes, self.job.seed)

    def _say(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended: `next` tells
            if self._process.stdin is not None:
                self._process.stdin.write(data)
                self._process.stdin.flush()

    def _read(self, stream: BinaryIO) -> None:
        try:
            while (body := read_frame(stream)) is not None:
                message = decode(body)
                if not isinstance(message, Job):
                    self._frames.put(message)
        except (OSError, ValueError, KeyError, msgspec.MsgspecError):  # closed under us, or no frames of ours
            pass
        self._frames.put(None)

    def _lost(self) -> RunLostError:
        code = self._process.wait()
        if code >= 0:
            return RunLostError(f"The process of the run ended by itself with code {code}.", killed=False)
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        why = "; was there not enough memory?" if name == "SIGKILL" else "."
        return RunLostError(f"The process of the run was ended by {name}{why}", killed=True)


def run_in_process(
    job: Job,
    watch: Callable[[Standing], None] = lambda _standing: None,
    wanted: Callable[[], bool] = lambda: True,
) -> Outcome:
    """Make a run in a process of its own and return what it gave; Ctrl-C gives what it found so far.

    `watch` is told how far it is, several times a second; when `wanted` turns false the run is dropped.
    Raise RunLostError.
    """
    with RunProcess(job) as process:
        try:
            while wanted():
                message = process.next(_POLL_S)
                if isinstance(message, Outcome):
                    return message
                if message is not None:
                    watch(message)
        except KeyboardInterrupt:
            return process.stop()
    return Outcome("interrupted", job.nodes, job.seed)
