"""The process in which one run is made: `python -m p2pnode.simulations.harness.child`, started by `process.py`.

Each run has a process of its own: its memory and processor time are its own figures, a crash costs one run, Ctrl-C need
not wait for a thousand nodes to say goodbye, and what the virtual loop controls per process (entropy, hash order) is
never shared with another run.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from typing import BinaryIO

from p2pnode.core.errors import P2PError
from p2pnode.core.logs import set_up
from p2pnode.simulations.harness.execution import Execution, Outcome, failed
from p2pnode.simulations.harness.frames import STOP, decode, encode, read_frame
from p2pnode.simulations.harness.job import Job

__all__ = ["main"]

TELL_EVERY_S = 0.25


def main() -> None:
    """Make the run that is asked for on standard input, and answer on what was standard output."""
    # A scenario may print: that belongs to the reader of this program's notes, not between our frames.
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    body = read_frame(sys.stdin.buffer)
    job = None if body is None else decode(body)
    if not isinstance(job, Job):
        os._exit(1)
    # A thousand nodes are millions of objects that live to the end: looking through all of them again and again took a
    # fifth of the time. Garbage in cycles is rare and still found, later.
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    set_up(job.log_level, job.log_format, sys.stderr)
    try:
        scenario, settings = job.prepare()
        execution = Execution(scenario, job.nodes, job.seed, settings)
    except P2PError as error:
        _leave(stream, failed(job.nodes, job.seed, error.message))
        return
    lock = threading.Lock()
    threading.Thread(target=_obey, args=(execution, stream, lock), daemon=True).start()
    threading.Thread(target=_tell, args=(execution, stream, lock), daemon=True).start()
    outcome = execution.execute(source=job.source.target if job.source.text is not None else "")
    lock.acquire()  # and keep: nobody else writes from here on
    _leave(stream, outcome)


def _leave(stream: BinaryIO, outcome: Outcome) -> None:
    """Hand over and go at once: tearing down ten thousand nodes object by object would take seconds."""
    code = 0
    try:
        stream.write(encode(outcome))
        stream.flush()
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # the parent has gone
        code = 1
    os._exit(code)


def _obey(execution: Execution, stream: BinaryIO, lock: threading.Lock) -> None:
    """Wait for the parent's word; its end is ours."""
    word = sys.stdin.buffer.read(1)
    if word != STOP:
        os._exit(1)
    with lock:
        _leave(stream, execution.snapshot("interrupted"))


def _tell(execution: Execution, stream: BinaryIO, lock: threading.Lock) -> None:
    """Say how far it is, four times a second."""
    done = threading.Event()
    while not done.wait(TELL_EVERY_S):
        with lock:
            try:
                stream.write(encode(execution.standing()))
                stream.flush()
            except OSError:
                os._exit(1)


if __name__ == "__main__":
    main()
