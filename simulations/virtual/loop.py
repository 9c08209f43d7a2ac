"""An asyncio event loop whose clock jumps to the next timer.

`loop.time()`, `asyncio.sleep`, `asyncio.timeout` and `call_at` follow virtual time, which starts at 0.0 and passes only
while nothing is ready to run. Rules that make two runs equal, in any process:

- timers due at the same instant run in the order in which they were made (asyncio leaves it to the heap);
- tasks and futures hash by their order of creation, so that the sets inside `asyncio.wait` and `TaskGroup`, and those
  of the code under test, iterate alike whatever the addresses of the objects;
- `run_in_executor` calls the function at once, in the loop; there are no threads, sockets or signals here.

What stays with the code under test: sets of strings or bytes (PYTHONHASHSEED), sets of coroutines, own entropy.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

from p2pnode.simulations.virtual.processes import RUNNING, Process, park_ready

__all__ = ["VirtualDeadlockError", "VirtualLivelockError", "VirtualLoop", "VirtualTimeLimitError"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Chosen by us. 50 nodes joining at one instant need some thousand turns; a loop that spins reaches this in seconds.
TURNS_AT_ONE_INSTANT_MAX = 1_000_000


class VirtualDeadlockError(RuntimeError):
    """Nothing is ready and no timer is set, but the main coroutine has not finished: it waits for ever."""


class VirtualLivelockError(RuntimeError):
    """The loop turned a million times at one instant: something calls itself without letting time pass."""


class VirtualTimeLimitError(RuntimeError):
    """Virtual time reached `until` before the main coroutine finished."""


class _OrderedTimer(asyncio.TimerHandle):
    """A timer that is older than others of the same instant runs first."""

    __slots__ = ("order",)
    order: int

    def __lt__(self, other: object) -> bool:
        if isinstance(other, _OrderedTimer):
            return (self.when(), self.order) < (other.when(), other.order)
        return NotImplemented


class _VirtualFuture(asyncio.Future[Any]):
    """A future whose hash is its number."""

    def __init__(self, order: int, loop: VirtualLoop) -> None:
        self._order = order
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._order


class _VirtualTask(asyncio.Task[Any]):
    """A task whose hash is its number. `process`: whose it is."""

    def __init__(self, order: int, coro: Generator[Any, None, Any] | Coroutine[Any, Any, Any], **options: Any) -> None:
        self._order = order  # before super(): asyncio puts the task into a set while it is being made
        context = options.get("context")
        self.process: Process | None = RUNNING.get() if context is None else context.get(RUNNING)
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._order


class _Clock:
    """What BaseEventLoop takes for its selector: waiting is letting virtual time pass."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._turns = 0

    def select(self, timeout: float | None) -> list[tuple[Any, int]]:
        if self._loop.sleepers:
            park_ready(self._loop)
        if timeout is None:
            raise VirtualDeadlockError(self._loop.describe_waiting())
        if timeout <= 0:
            self._turns += 1
            if self._turns > TURNS_AT_ONE_INSTANT_MAX:
                self._turns = 0
                raise VirtualLivelockError(self._loop.describe_waiting())
            return []
        self._turns = 0
        self._loop.pass_time(timeout)
        return []

    def close(self) -> None:
        """Nothing to release."""


class VirtualLoop(BaseEventLoop):
    """An event loop in virtual time. Run it with `run`; one loop, one run."""

    # Names of BaseEventLoop that its type stubs leave out (CPython 3.11 to 3.14, asyncio/base_events.py).
    _scheduled: list[asyncio.TimerHandle]
    _clock_resolution: float

    def __init__(self) -> None:
        self._virtual_now = 0.0
        self._numbers = itertools.count(1)
        super().__init__()
        self._clock_resolution = 1e-9  # a timer due exactly now must count as due
        self._selector = _Clock(self)
        self._until: float | None = None
        self._wire_context = Context()
        self.sleepers: set[Process] = set()
        """Processes of hosts that are suspended: nothing of them runs."""
        self.clocks_differ = False
        """Some host has slept: clocks depend on who asks, from now on."""
        self.unhandled: list[BaseException] = []
        """Exceptions that callbacks and forgotten tasks raised; `run` raises them together at its end."""
        self.set_task_factory(self._make_task)
        self.set_exception_handler(_note_unhandled)

    def time(self) -> float:
        """Seconds of virtual time since the loop was made; inside a process, without those that its host slept."""
        if self.clocks_differ and (process := RUNNING.get()) is not None:
            return self._virtual_now - process.lag_s
        return self._virtual_now

    def now(self) -> float:
        """Seconds of virtual time since the loop was made, whoever asks: the clock of the wires."""
        return self._virtual_now

    def run(self, main: Coroutine[Any, Any, T], *, until: float | None = None) -> T:
        """Run `main` to its end and return its result; then cancel what still runs, and close the loop.

        `until`: virtual seconds after which VirtualTimeLimitError is raised. Raise VirtualDeadlockError when `main` can
        never finish, and an ExceptionGroup of whatever was raised where nobody looks (callbacks, handlers).
        """
        self._until = until
        task = self.create_task(main, name="main")
        try:
            result = self.run_until_complete(task)
        finally:
            self._until = None
            try:
                self.run_until_complete(self._cancel_all_tasks())
                self.run_until_complete(self.shutdown_asyncgens())
            finally:
                self.close()
        if self.unhandled:
            raise BaseExceptionGroup("raised in callbacks of the virtual loop", self.unhandled)
        return result

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call `callback` at the virtual time `when`, after those asked for earlier at the same instant."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        if self.clocks_differ and (process := RUNNING.get()) is not None:
            when += process.lag_s
        timer = _OrderedTimer(when, callback, args, self, context)
        timer.order = next(self._numbers)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]  # as BaseEventLoop.call_at does
        return timer

    def wire_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call `callback` when `now()` is `when`, in no process's context: an arrival. Cannot be cancelled."""
        timer = _OrderedTimer(when, callback, args, self, self._wire_context)
        timer.order = next(self._numbers)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]  # as BaseEventLoop.call_at does

    def create_future(self) -> asyncio.Future[Any]:
        return _VirtualFuture(next(self._numbers), self)

    def run_in_executor(
        self,
        executor: object,  # noqa: ARG002 - the name is asyncio's; there are no threads to choose from
        func: Callable[[*Ts], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """Call `func` now, in the loop; virtual time stands still meanwhile."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as exc:  # noqa: BLE001 - an executor hands over whatever was raised, through the future
            future.set_exception(exc)
        return future

    async def getaddrinfo(self, *_args: Any, **_options: Any) -> Any:
        """Refuse: nothing in virtual time may touch the real world; use `Network.resolve`."""
        raise RuntimeError("the virtual loop has no DNS: use Network.resolve")

    async def create_datagram_endpoint(self, *_args: Any, **_options: Any) -> Any:
        """Refuse, likewise."""
        raise RuntimeError("the virtual loop has no sockets: use Network.open_udp")

    async def create_connection(self, *_args: Any, **_options: Any) -> Any:
        """Refuse, likewise."""
        raise RuntimeError("the virtual loop has no sockets: use Network.connect_tcp")

    async def create_server(self, *_args: Any, **_options: Any) -> Any:
        """Refuse, likewise."""
        raise RuntimeError("the virtual loop has no sockets: use Network.listen_tcp")

    def pass_time(self, timeout: float) -> None:
        """Let `timeout` seconds pass, exactly to the next timer (a sum of floats might miss it)."""
        target = self._virtual_now + timeout
        if self._scheduled and abs(self._scheduled[0].when() - target) < 1e-6:
            target = self._scheduled[0].when()
        if self._until is not None and target > self._until:
            raise VirtualTimeLimitError(f"not finished after {self._until} virtual seconds; {self.describe_waiting()}")
        self._virtual_now = max(self._virtual_now, target)

    def describe_waiting(self) -> str:
        """Return one sentence that names the tasks that wait, and where (the first ten)."""
        places = []
        for task in self._tasks_in_order()[:10]:
            frames = task.get_stack(limit=1)
            where = f"{frames[0].f_code.co_qualname}:{frames[0].f_lineno}" if frames else "?"
            places.append(f"{task.get_name()} in {where}")
        return f"at {self._virtual_now:.6f} s waiting: {', '.join(places) or 'nothing'}"

    def _tasks_in_order(self) -> list[asyncio.Task[Any]]:
        return sorted(asyncio.all_tasks(self), key=hash)

    async def _cancel_all_tasks(self) -> None:
        tasks = [task for task in self._tasks_in_order() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None and task.get_name() != "main":
                self.unhandled.append(error)

    def _make_task(
        self, _loop: asyncio.AbstractEventLoop, coro: Generator[Any, None, T] | Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        order = next(self._numbers)
        options.setdefault("name", f"task-{order}")
        return _VirtualTask(order, coro, loop=self, **options)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no sockets, hence no events."""

    def _write_to_self(self) -> None:
        """`call_soon_threadsafe` needs no wake-up: nothing blocks."""


def _note_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception") or RuntimeError(str(context.get("message")))
    if isinstance(loop, VirtualLoop):
        loop.unhandled.append(error)
