"""A callback that holds the virtual loop for real seconds is broken off and named, whatever it does there.

Proves: sleeps and spins, in tasks, timers and arrivals, in the main thread and in others, are found and interrupted;
what was swallowed is raised at the end; many short steps and a debugger's pauses are no alarm; nothing stays installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine

import pytest

from p2pnode.simulations.virtual import VirtualBlockedError, VirtualLoop

LIMIT_S = 0.05
FOR_EVER_S = 3600.0


def sleeps() -> None:
    time.sleep(FOR_EVER_S)


def spins() -> None:
    while True:
        pass


def waits_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def run(main: Callable[[], Coroutine[object, object, None]], limit: float | None = LIMIT_S) -> None:
    VirtualLoop().run(main(), until=1_000, blocked_after=limit)


@pytest.mark.parametrize("hangs", [sleeps, spins, waits_for_a_lock])
def test_task_that_blocks_is_named_with_its_line(hangs: Callable[[], None]) -> None:
    """The message has the task's name, the virtual instant, and the lines from the innermost outwards."""

    async def alice() -> None:
        await asyncio.sleep(2)
        hangs()

    async def main() -> None:
        await asyncio.create_task(alice(), name="alice")

    with pytest.raises(VirtualBlockedError) as caught:
        run(main)
    expected = (
        rf"at 2\.000000 s the task alice \(.*alice:\d+\) held the loop for more than 0\.05 real seconds: "
        rf"{hangs.__name__} \(simulations/test_virtual_blocked\.py:\d+\), called by .*alice \(simulations/"
    )
    caught.match(expected)


def test_timer_and_arrival_that_block_are_named() -> None:
    """Callbacks of handles and those of the wire, which have none."""

    async def by_timer() -> None:
        asyncio.get_running_loop().call_later(1, spins)
        await asyncio.sleep(5)

    async def by_wire() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.wire_at(1.0, spins)
        await asyncio.sleep(5)

    for main in (by_timer, by_wire):
        with pytest.raises(VirtualBlockedError, match=r"at 1\.000000 s the callback spins \(simulations/"):
            run(main)


def test_swallowed_interrupt_is_raised_at_the_end() -> None:
    """Code that catches everything cannot hide that it blocked, not even when it finishes."""

    async def main() -> None:
        with contextlib.suppress(BaseException):
            spins()

    with pytest.raises(VirtualBlockedError, match="the task main"):
        run(main)


def test_clean_up_that_blocks_as_well_is_broken_off() -> None:
    """What the cancelled tasks do in the end is watched, too."""

    async def hangs_on_the_way_out() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            spins()

    async def main() -> None:
        task = asyncio.create_task(hangs_on_the_way_out(), name="bob")
        await asyncio.sleep(1)
        assert not task.done()

    with pytest.raises(VirtualBlockedError, match="the task bob"):
        run(main)


def test_loop_in_another_thread_is_watched_without_signals() -> None:
    """Only the main thread hears signals; elsewhere the exception is raised at the next instruction."""
    errors: list[BaseException] = []

    async def main() -> None:
        spins()

    def work() -> None:
        try:
            run(main)
        except VirtualBlockedError as exc:
            errors.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert "the task main" in str(errors[0])


@pytest.mark.slow
def test_many_short_steps_are_no_alarm() -> None:
    """The limit is for one step, not for the run."""

    async def main() -> None:
        for _step in range(60):
            until = time.monotonic() + 0.02
            while time.monotonic() < until:
                pass
            await asyncio.sleep(0)

    run(main, 1.0)


def test_no_alarm_without_limit_and_under_a_debugger() -> None:
    """None turns it off; so does a trace function, which is how debuggers come."""

    async def main() -> None:
        until = time.monotonic() + 4 * LIMIT_S
        while time.monotonic() < until:
            pass

    run(main, None)
    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        run(main)
    finally:
        sys.settrace(before)


def test_nothing_stays_installed() -> None:
    """After a run, blocked or not, the signal's handler is what it was and the watching thread is gone."""

    async def quick() -> None:
        await asyncio.sleep(1)

    async def stuck() -> None:
        spins()

    before = signal.getsignal(signal.SIGURG)
    run(quick)
    with pytest.raises(VirtualBlockedError):
        run(stuck)
    assert signal.getsignal(signal.SIGURG) is before
    assert not [thread for thread in threading.enumerate() if thread.name == "virtual-loop-watchdog"]
