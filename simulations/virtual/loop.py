"""An asyncio event loop whose clock jumps to the next timer.

`loop.time()`, `asyncio.sleep`, `asyncio.timeout` and `call_at` follow virtual time, which starts at 0.0 and passes only
while nothing is ready to run. Rules that make two runs equal, in any process:

- timers due at the same instant run in the order in which they were made (asyncio leaves it to the heap);
- tasks and futures hash by number, so that the sets inside `asyncio.wait` and `TaskGroup`, and those of the code under
  test, iterate alike whatever the addresses of the objects;
- `run_in_executor` calls the function at once, in the loop; there are no threads, sockets or signals here;
- while it runs, the entropy that qh3 draws by itself comes from the seed (`simulations.virtual.entropy`).

What stays with the code under test: sets of strings or bytes (PYTHONHASHSEED), sets of objects that hash by address.

A run that can never end is ended and explained: nothing to wait for (VirtualDeadlockError), turns without end at one
instant (VirtualLivelockError), virtual time beyond `until` (VirtualTimeLimitError), one callback that holds the loop
for seconds of real time (VirtualBlockedError).

How it differs from asyncio inside: timers lie in a heap of tuples, which compare without calling Python; `deliver_at`
makes a timer without a handle; the selector of BaseEventLoop is never asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
import sys
from asyncio.base_events import BaseEventLoop
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

from p2pnode.simulations.virtual.entropy import seeded_entropy
from p2pnode.simulations.virtual.processes import RUNNING, Process, owner_of
from p2pnode.simulations.virtual.spared import spared_arithmetic
from p2pnode.simulations.virtual.stuck import (
    VirtualBlockedError,
    VirtualDeadlockError,
    VirtualLivelockError,
    VirtualTimeLimitError,
    describe_callback,
    describe_running,
    describe_spinning,
    describe_waiting,
)
from p2pnode.simulations.virtual.watchdog import LoopInterrupt, Watchdog

__all__ = ["BLOCKED_AFTER_S", "VirtualLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Chosen by us. 50 nodes joining at one instant need some thousand turns; a loop that spins reaches this in seconds.
TURNS_AT_ONE_INSTANT_MAX = 1_000_000
# Real seconds. The longest honest steps, such as making the keys of thousands of nodes, have awaits in between.
BLOCKED_AFTER_S = 5.0
CLEAN_UPS = 3  # of what is left at the end, when clean-up itself blocks
# asyncio's own bounds (asyncio/base_events.py): above both, cancelled timers are taken out of the heap.
CANCELLED_MIN, CANCELLED_SHARE = 100, 0.5

# (when, number, callback, its arguments), or (when, number, None, handle). Numbers differ, so no more is ever compared.
_Timer = tuple[float, int, Any, Any]


class _VirtualFuture(asyncio.Future[Any]):
    """A future whose hash is a number, drawn when it is first asked for: most futures are never in a set."""

    _loop: VirtualLoop
    _order: int

    def __hash__(self) -> int:
        try:
            return self._order
        except AttributeError:
            self._order = order = next(self._loop.numbers)
            return order


class _VirtualTask(asyncio.Task[Any]):
    """A task whose hash is its number. `process`: whose it is."""

    def __init__(self, order: int, coro: Generator[Any, None, Any] | Coroutine[Any, Any, Any], **options: Any) -> None:
        self._order = order  # before super(): asyncio puts the task into a set while it is being made
        context = options.get("context")
        self.process: Process | None = RUNNING.get() if context is None else context.get(RUNNING)
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._order


class VirtualLoop(BaseEventLoop):
    """An event loop in virtual time. Run it with `run`; one loop, one run."""

    # Names of BaseEventLoop that its type stubs leave out (CPython 3.11 to 3.14, asyncio/base_events.py).
    _ready: deque[asyncio.Handle | _Timer]
    _stopping: bool

    def __init__(self, seed: object = 0, *, spares_keys: bool = True) -> None:
        """`seed`: of the entropy that libraries draw by themselves while the loop runs. `spares_keys`: compute no
        signature or shared secret twice (`simulations.virtual.spared`); False to measure processor time."""
        self.spares_keys = spares_keys
        self._virtual_now = 0.0
        self.numbers = itertools.count(1)
        super().__init__()
        self._timers: list[_Timer] = []
        self._cancelled = 0
        self._current: object = None
        self._turns = 0
        self._until = float("inf")
        self.sleepers: set[Process] = set()
        """Processes of hosts that are suspended: nothing of them runs."""
        self.clocks_differ = False
        """Some host has slept: clocks depend on who asks, from now on."""
        self.entropy = random.Random(f"{seed}/loop")
        """Source of what libraries draw from the operating system otherwise."""
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

    def run(
        self, main: Coroutine[Any, Any, T], *, until: float | None = None, blocked_after: float | None = BLOCKED_AFTER_S
    ) -> T:
        """Run `main` to its end and return its result; then cancel what still runs, and close the loop.

        `until`: virtual seconds after which VirtualTimeLimitError is raised. `blocked_after`: real seconds of one step
        after which VirtualBlockedError is raised; None, or a debugger at work, never. Raise VirtualDeadlockError when
        `main` can never finish, and an ExceptionGroup of whatever was raised where nobody looks (callbacks, handlers).
        """
        self._until = float("inf") if until is None else until
        task = self.create_task(main, name="main")
        with contextlib.ExitStack() as stack:
            stack.enter_context(seeded_entropy.installed())
            stack.enter_context(spared_arithmetic.installed())
            watchdog = None
            if blocked_after is not None and sys.gettrace() is None:
                watchdog = stack.enter_context(
                    Watchdog(lambda: self._current, self._describe_current, blocked_after, self.stop)
                )
            try:
                try:
                    result = self.run_until_complete(task)
                finally:
                    self._until = float("inf")
                    self._end()
            except (LoopInterrupt, RuntimeError) as exc:
                if watchdog is not None and watchdog.error is not None:
                    raise VirtualBlockedError(watchdog.error) from exc
                raise
            if watchdog is not None and watchdog.error is not None:  # it was swallowed
                raise VirtualBlockedError(watchdog.error)
        if self.unhandled:
            raise BaseExceptionGroup("raised in callbacks of the virtual loop", self.unhandled)
        return result

    def _end(self) -> None:
        try:
            for _attempt in range(CLEAN_UPS):
                with contextlib.suppress(LoopInterrupt):  # the watchdog remembers it
                    self._cancel_all_tasks()
                    break
            self.run_until_complete(self.shutdown_asyncgens())
        finally:
            self.close()

    # timers

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
            when = process.world_time(when)
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self.put_timer(timer)
        return timer

    def wire_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call `callback(*args)` when `now()` is `when`, in no process's context: an arrival.

        In one order with the other timers, but cheaper: no handle, so it cannot be cancelled.
        """
        heapq.heappush(self._timers, (when, next(self.numbers), callback, args))

    def put_timer(self, timer: asyncio.TimerHandle) -> None:
        """Enter a timer that is in no heap: a new one, or one that `take_timers` returned."""
        timer._scheduled = True  # type: ignore[attr-defined]  # cancel() tells the loop then
        heapq.heappush(self._timers, (timer.when(), next(self.numbers), None, timer))

    def take_timers(self, wanted: Callable[[asyncio.TimerHandle], bool]) -> list[asyncio.TimerHandle]:
        """Take out and return the timers that are `wanted`, those due first in front. O(timers of the world)."""
        taken, kept = [], []
        for entry in sorted(self._timers):
            if entry[2] is None and not entry[3].cancelled() and wanted(entry[3]):
                entry[3]._scheduled = False
                taken.append(entry[3])
            else:
                kept.append(entry)
        self._timers[:] = kept  # sorted, hence a heap
        return taken

    def pending_timers(self) -> list[asyncio.TimerHandle]:
        """Return the timers that are set and not cancelled, those due first in front."""
        return [entry[3] for entry in sorted(self._timers) if entry[2] is None and not entry[3].cancelled()]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle._scheduled:  # type: ignore[attr-defined]
            self._cancelled += 1
            if self._cancelled > CANCELLED_MIN and self._cancelled > len(self._timers) * CANCELLED_SHARE:
                self._timers[:] = [entry for entry in self._timers if entry[2] is not None or not entry[3].cancelled()]
                heapq.heapify(self._timers)
                self._cancelled = 0

    # turning

    def _run_once(self) -> None:
        """Turn until `stop`: for BaseEventLoop this is one turn."""
        ready, timers = self._ready, self._timers
        append, popleft, heappop, sleepers = ready.append, ready.popleft, heapq.heappop, self.sleepers
        try:
            while not self._stopping:
                if not ready:
                    self._let_time_pass()
                now = self._virtual_now
                while timers and timers[0][0] <= now:
                    timer = heappop(timers)
                    if timer[2] is not None:
                        append(timer)
                    elif timer[3]._cancelled:
                        self._cancelled -= 1
                    else:
                        timer[3]._scheduled = False
                        append(timer[3])
                self._turns += 1
                if self._turns > TURNS_AT_ONE_INSTANT_MAX:
                    self._turns = 0
                    spinning = describe_spinning(TURNS_AT_ONE_INSTANT_MAX, [_callback_of(item) for item in ready])
                    raise VirtualLivelockError(f"{spinning}; {self._describe_waiting()}")
                for _ in range(len(ready)):
                    self._current = item = popleft()
                    if isinstance(item, tuple):
                        try:
                            item[2](*item[3])
                        except (SystemExit, KeyboardInterrupt):
                            raise
                        except BaseException as exc:  # noqa: BLE001 - as asyncio's handles do
                            self._failed(item[2], exc)
                    elif not item._cancelled and not (sleepers and self._parks(item)):
                        item._run()
                self._current = None
        finally:
            self._current = None

    def _let_time_pass(self) -> None:
        """Move the clock to the next timer. Raise VirtualDeadlockError, VirtualTimeLimitError."""
        timers = self._timers
        while timers and timers[0][2] is None and timers[0][3].cancelled():
            heapq.heappop(timers)
            self._cancelled -= 1
        if not timers:
            raise VirtualDeadlockError(self._describe_waiting())
        when = timers[0][0]
        if when > self._until:
            raise VirtualTimeLimitError(
                f"not finished after {self._until:g} virtual seconds; {self._describe_waiting()}"
            )
        if when > self._virtual_now:
            self._virtual_now = when
            self._turns = 0

    def _parks(self, handle: asyncio.Handle) -> bool:
        """Put aside what is ready to run in a process that is asleep; return whether it was."""
        process = owner_of(handle)
        if process is None or not process.asleep:
            return False
        process.parked_ready.append(handle)
        return True

    def _failed(self, callback: Callable[..., object], exc: BaseException) -> None:
        message = f"exception in {describe_callback(callback)}"
        self.call_exception_handler({"message": message, "exception": exc})

    # what asyncio asks of a loop

    def create_future(self) -> asyncio.Future[Any]:
        return _VirtualFuture(loop=self)

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

    def _describe_waiting(self) -> str:
        return describe_waiting(self._virtual_now, self._tasks_in_order())

    def _describe_current(self, item: Any) -> str:
        return f"at {self._virtual_now:.6f} s {describe_running(_callback_of(item))}"

    def _tasks_in_order(self) -> list[asyncio.Task[Any]]:
        return sorted(asyncio.all_tasks(self), key=hash)

    def _cancel_all_tasks(self) -> None:
        tasks = self._tasks_in_order()
        for task in tasks:
            task.cancel()
        self.run_until_complete(_all_ended(tasks))
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None and task.get_name() != "main":
                self.unhandled.append(error)

    def _make_task(
        self, _loop: asyncio.AbstractEventLoop, coro: Generator[Any, None, T] | Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        order = next(self.numbers)
        options.setdefault("name", f"task-{order}")
        return _VirtualTask(order, coro, loop=self, **options)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no sockets, hence no events."""

    def _write_to_self(self) -> None:
        """`call_soon_threadsafe` needs no wake-up: nothing blocks."""


async def _all_ended(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _callback_of(item: Any) -> Callable[..., object]:
    """Return what an entry of the queue of ready things calls."""
    callback: Callable[..., object] = item[2] if isinstance(item, tuple) else item._callback
    return callback


def _note_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    told = str(context.get("message"))
    if (task := context.get("task")) is not None:
        told += f" {task!r}"  # which of them
    error = context.get("exception") or RuntimeError(told)
    if isinstance(loop, VirtualLoop):
        loop.unhandled.append(error)
