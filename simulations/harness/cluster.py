"""Making the runs of a sweep in parallel, through Dask: on this machine, or on a cluster that exists.

A worker makes one run at a time, in a process of the run's own (`process.py`): here as there. When a worker is lost,
Dask gives its runs to others; when a run's process is killed, it is made again. A run's result depends on its job
alone, so it does not matter who makes it, or how often. A result is kept under the number of its run: it cannot come
twice.

The workers of this machine are threads of this process, each waiting for the process of its run; they and the
scheduler talk within memory and listen nowhere. (Whoever can reach a Dask scheduler can run code through it.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from p2pnode import __version__
from p2pnode.simulations.harness.errors import MissingPackageError, ScenarioFailedError, SettingError
from p2pnode.simulations.harness.execution import Outcome, failed
from p2pnode.simulations.harness.job import Job
from p2pnode.simulations.harness.process import RunLostError, run_in_process
from p2pnode.simulations.harness.usage import available_bytes

__all__ = ["Cluster", "make_run", "worker_count"]

# What a full node needs at most, and an interpreter with everything imported: bounds how many runs go at once.
NODE_BYTES, PROCESS_BYTES = 3_000_000, 120_000_000
CONNECT_S = 5
RETRIES = 3  # of a run whose own process was killed; one that is killed this often takes too much memory itself

_CONFIG = {
    "distributed.scheduler.worker-saturation": 1.0,  # a run waits at the scheduler, not behind another run
    "distributed.comm.timeouts.connect": f"{CONNECT_S}s",
    "distributed.admin.tick.limit": "60s",  # a busy machine is no news
}


def worker_count(nodes: int, runs: int) -> int:
    """Return how many runs of `nodes` nodes this machine makes at once: as many as cores, fewer if memory is short."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = available_bytes()
    fitting = memory // (nodes * NODE_BYTES + PROCESS_BYTES) if memory else cores
    return max(1, min(cores, runs, fitting))


def make_run(job: Job) -> bytes:
    """Make one run, on a worker; return its Outcome as msgpack. Raise RunLostError when another try may go well."""
    try:
        outcome = run_in_process(job, wanted=_still_wanted())
    except RunLostError as error:
        if error.killed:
            raise
        outcome = failed(job.nodes, job.seed, error.message)
    return msgspec.msgpack.encode(outcome)


class Cluster:
    """Workers to make runs on. Use it as a context."""

    def __init__(self, scheduler: str | None, workers: int) -> None:
        """`scheduler`: address of an existing one; None: `workers` runs at once on this machine."""
        self._scheduler, self._workers = scheduler, workers
        self._stack = contextlib.ExitStack()
        self._client: Any  # distributed.Client: that package has no types

    def __enter__(self) -> Cluster:
        """Connect. Raise SettingError, ScenarioFailedError when nobody answers."""
        import dask
        import distributed  # noqa: F401 - its defaults must be there before ours, or they go when ours do

        with contextlib.ExitStack() as stack:
            stack.enter_context(dask.config.set(_CONFIG))
            stack.enter_context(_quiet())
            self._client = stack.enter_context(self._connect(stack))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def workers(self) -> int:
        """How many there are now."""
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    def other_versions(self) -> set[str]:
        """Return the versions of p2pnode on the workers that are not ours. Raise MissingPackageError."""
        if self._scheduler is None:
            return set()
        try:
            return set(self._client.run(_version).values()) - {_version()}
        except Exception as error:
            if _missing_package(error) is not None:
                raise self._lacking(error) from error
            raise

    def make(self, jobs: list[Job]) -> Iterator[tuple[int, Outcome]]:
        """Yield the number of each job and what it gave, in the order in which they end."""
        import distributed

        as_completed: Any = distributed.as_completed
        name = f"p2pnode-{uuid.uuid4().hex}"
        futures: dict[Any, int] = {}
        for number, job in enumerate(jobs):
            future = self._client.submit(
                make_run, job, key=f"{name}-{number}", pure=False, retries=RETRIES, priority=job.nodes
            )
            futures[future] = number
        for future in as_completed(list(futures), loop=self._client.loop):
            number = futures.pop(future)
            yield number, self._outcome(future, jobs[number])
            future.release()

    def _outcome(self, future: Any, job: Job) -> Outcome:
        try:
            return msgspec.msgpack.decode(future.result(), type=Outcome)
        except RunLostError as error:
            message = error.message
        except Exception as error:  # a worker may be lost in any way; its other runs go on
            if _missing_package(error) is not None:
                raise self._lacking(error) from error
            kind = type(error).__name__
            message = f"The run was lost by its Dask cluster ({kind})."
            if kind == "KilledWorker":
                message = "Each worker that made this run was lost; was there not enough memory?"
        return failed(job.nodes, job.seed, message)

    def _lacking(self, error: BaseException) -> MissingPackageError:
        what = _missing_package(error)
        return MissingPackageError(
            f"{what} is not installed at {self._scheduler}: its scheduler and workers need p2pnode, too."
        )

    def _connect(self, stack: contextlib.ExitStack) -> Any:
        import distributed

        client: Any = distributed.Client
        if self._scheduler is not None:
            try:
                return client(self._scheduler, timeout=CONNECT_S, set_as_default=False)
            except (OSError, TimeoutError) as exc:
                raise ScenarioFailedError(f"No Dask scheduler answers at {self._scheduler}.") from exc
            except ValueError as exc:
                raise SettingError(f"--scheduler {self._scheduler}: {exc}.") from exc
        cluster = stack.enter_context(self._local(stack.enter_context(_scratch())))
        return client(cluster, timeout=CONNECT_S, set_as_default=False)

    def _local(self, folder: str) -> Any:
        """Return a cluster within this process."""
        import distributed

        from p2pnode.simulations.harness.dask_quiet import QuietScheduler, QuietWorker

        cluster: Any = distributed.SpecCluster
        common = {"protocol": "inproc://"}
        options = {**common, "nthreads": 1, "local_directory": folder, "memory_limit": 0}
        return cluster(
            scheduler={"cls": QuietScheduler, "options": {**common, "dashboard": False}},
            workers={number: {"cls": QuietWorker, "options": options} for number in range(self._workers)},
            silence_logs=logging.CRITICAL,
        )


def _version() -> str:
    """Return the version of p2pnode where this is called: on a worker, too."""
    return __version__


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """Dask wants a folder for what does not fit into memory."""
    with tempfile.TemporaryDirectory(prefix="p2pnode-", ignore_cleanup_errors=True) as folder:
        yield folder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's remarks on lost workers and closed connections to itself: `make` says what matters."""
    # Its loggers have levels of their own, but write through the handlers of their parent only.
    handlers = logging.getLogger("distributed").handlers
    before = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler, level in zip(handlers, before, strict=True):
            handler.setLevel(level)


def _missing_package(error: BaseException | None) -> str | None:
    """Return what could not be imported where the run was to be made; None when that was not the reason."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            return error.name
        error = error.__cause__
    return None


def _still_wanted() -> Callable[[], bool]:
    """Return what tells whether anybody still waits for the task that runs in this thread."""
    from distributed import get_worker

    try:
        worker = get_worker()
        key = worker.get_current_task()
    except ValueError:  # not on a worker
        return lambda: True

    def wanted() -> bool:
        # A task that is released while it runs stays in this table as "cancelled" (distributed, worker_state_machine).
        task = worker.state.tasks.get(key)
        return task is not None and task.state == "executing"

    return wanted
