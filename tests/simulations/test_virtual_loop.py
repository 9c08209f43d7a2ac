"""The virtual loop: time, order, executors, and the runs that can never end."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from p2pnode.simulations.virtual import (
    VirtualDeadlockError,
    VirtualLivelockError,
    VirtualLoop,
    VirtualTimeLimitError,
    loop,
)


def test_sleep_lets_virtual_time_pass_exactly() -> None:
    """A day of sleeping takes no real time, and the clock shows the sum of what was slept."""

    async def main() -> list[float]:
        now = asyncio.get_running_loop().time
        stamps = [now()]
        for seconds in (0.001, 5, 86_400 * 3):
            await asyncio.sleep(seconds)
            stamps.append(now())
        return stamps

    started = time.monotonic()
    assert VirtualLoop().run(main()) == [0.0, 0.001, 5.001, 259_205.001]
    assert time.monotonic() - started < 60


def test_timeouts_follow_virtual_time() -> None:
    """asyncio.timeout and wait_for end at their virtual deadline; what is quicker is not disturbed."""

    async def main() -> None:
        now = asyncio.get_running_loop().time
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await asyncio.Event().wait()
        assert now() == 3.0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 2)
        assert now() == 5.0
        async with asyncio.timeout(3):
            await asyncio.sleep(2)

    VirtualLoop().run(main())


def test_timers_run_by_time_then_by_age() -> None:
    """Timers of one instant run in the order in which they were made, many of them too; cancelled ones do not."""

    async def main() -> list[int]:
        running = asyncio.get_running_loop()
        order: list[int] = []
        running.call_at(2.0, order.append, 1_000)
        for number in range(100):
            running.call_at(1.0, order.append, number)
        running.call_at(0.5, order.append, -1)
        running.call_at(0.7, order.append, 5_000).cancel()
        await asyncio.sleep(3)
        return order

    assert VirtualLoop().run(main()) == [-1, *range(100), 1_000]


def test_timer_in_the_past_runs_at_once_without_turning_the_clock_back() -> None:
    """`call_at` an instant that has passed is due now."""

    async def main() -> list[float]:
        running = asyncio.get_running_loop()
        await asyncio.sleep(5)
        seen: list[float] = []
        running.call_at(1.0, lambda: seen.append(running.time()))
        await asyncio.sleep(0.001)
        return seen

    assert VirtualLoop().run(main()) == [5.0]


def test_executor_runs_inline() -> None:
    """run_in_executor and to_thread call in this very thread, hand over results and errors, and take no time."""

    async def main() -> None:
        running = asyncio.get_running_loop()
        assert await running.run_in_executor(None, threading.get_ident) == threading.get_ident()
        assert await asyncio.to_thread(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await running.run_in_executor(None, divmod, 1, 0)
        assert running.time() == 0.0

    VirtualLoop().run(main())


def test_waiting_for_ever_is_a_named_deadlock() -> None:
    """When nothing can ever happen the run ends at once, and the error names the waiting tasks and their places."""

    async def waits_for_bob() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.sleep(1.5)
        await asyncio.create_task(waits_for_bob(), name="alice")

    with pytest.raises(VirtualDeadlockError, match=r"at 1\.500000 s waiting: main in .*, alice in .*waits_for_bob:\d+"):
        VirtualLoop().run(main())


def test_spinning_without_time_is_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that yields for ever at one instant is ended and named."""
    monkeypatch.setattr(loop, "TURNS_AT_ONE_INSTANT_MAX", 1_000)

    async def main() -> None:
        for _turn in range(10_000):
            await asyncio.sleep(0)

    with pytest.raises(VirtualLivelockError, match=r"again and again the task main \(.*main:\d+"):
        VirtualLoop().run(main())


def test_timer_that_sets_itself_again_at_the_same_instant_is_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handles and arrivals alike; the callback is named, not only the tasks that wait meanwhile."""
    monkeypatch.setattr(loop, "TURNS_AT_ONE_INSTANT_MAX", 1_000)

    def by_handle() -> None:
        asyncio.get_running_loop().call_later(0, by_handle)

    def by_wire() -> None:
        running = asyncio.get_running_loop()
        assert isinstance(running, VirtualLoop)
        running.wire_at(running.now(), by_wire)

    for spins in (by_handle, by_wire):

        async def main() -> None:
            spins()  # noqa: B023 - called in this round
            await asyncio.sleep(1)

        with pytest.raises(VirtualLivelockError, match=rf"the callback .*{spins.__name__} \(simulations/.*; at 0\.0"):
            VirtualLoop().run(main())


def test_deadlock_and_time_limit_name_what_is_awaited_inside() -> None:
    """The innermost coroutine is named as well: the outermost one says little in a large program."""

    async def waits_inside(event: asyncio.Event) -> None:
        await event.wait()

    async def main() -> None:
        await waits_inside(asyncio.Event())

    with pytest.raises(VirtualDeadlockError, match=r"main in .*main:\d+ awaiting Event\.wait:\d+"):
        VirtualLoop().run(main())


def test_cancelled_timers_do_not_pile_up() -> None:
    """A hundred thousand timers that are set and cancelled leave a small heap; those that remain still run in order."""

    async def main() -> list[int]:
        running = asyncio.get_running_loop()
        assert isinstance(running, VirtualLoop)
        order: list[int] = []
        for number in range(100):
            running.call_later(50 - number % 10, order.append, number)
        for _ in range(100_000):
            running.call_later(100, order.append, -1).cancel()
        assert len(running.pending_timers()) == 100
        assert len(running._timers) < 500
        await asyncio.sleep(200)
        return order

    assert VirtualLoop().run(main()) == sorted(range(100), key=lambda number: (-(number % 10), number))


def test_arrivals_and_timers_share_one_order() -> None:
    """What is due at one instant runs by age, whether it has a handle or not."""

    async def main() -> list[int]:
        running = asyncio.get_running_loop()
        assert isinstance(running, VirtualLoop)
        order: list[int] = []
        for number in range(0, 20, 2):
            running.call_at(1.0, order.append, number)
            running.wire_at(1.0, order.append, number + 1)
        await asyncio.sleep(2)
        return order

    assert VirtualLoop().run(main()) == list(range(20))


def test_time_limit_ends_a_run_whose_timers_never_end() -> None:
    """Periodic timers hide a deadlock; `until` ends the run."""

    async def main() -> None:
        for _week in range(1_000):
            await asyncio.sleep(7)

    virtual = VirtualLoop()
    with pytest.raises(VirtualTimeLimitError, match="100 virtual seconds"):
        virtual.run(main(), until=100)
    assert virtual.time() == 98.0


def test_errors_where_nobody_looks_fail_the_run() -> None:
    """An exception in a callback, and in a task that is still running at the end, is raised by `run`."""

    async def breaks_when_cancelled() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            raise KeyError("on the way out")

    async def main() -> None:
        asyncio.get_running_loop().call_later(1, divmod, 1, 0)
        task = asyncio.create_task(breaks_when_cancelled())
        await asyncio.sleep(2)
        assert not task.done()

    with pytest.raises(ExceptionGroup) as caught:
        VirtualLoop().run(main())
    assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError, KeyError]


def test_remaining_tasks_are_cancelled_in_order_of_birth() -> None:
    """At the end of the main coroutine the others may clean up, the eldest first, and take virtual time for it."""
    ended: list[tuple[int, float]] = []

    async def lives(number: int) -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            await asyncio.sleep(0.5)
            ended.append((number, asyncio.get_running_loop().time()))

    async def main() -> set[asyncio.Task[None]]:
        tasks = {asyncio.create_task(lives(number)) for number in range(20)}
        await asyncio.sleep(1)
        return tasks

    VirtualLoop().run(main())
    assert ended == [(number, 1.5) for number in range(20)]


def test_sets_of_tasks_iterate_in_order_of_birth() -> None:
    """Tasks and futures hash by age, so a set of them does not depend on where objects lie in memory."""

    async def main() -> None:
        running = asyncio.get_running_loop()
        tasks = {asyncio.create_task(asyncio.sleep(1)) for _ in range(50)}
        done, _pending = await asyncio.wait(tasks)
        assert list(done) == sorted(done, key=hash)
        assert [hash(running.create_future()) for _ in range(2)] == sorted(
            hash(running.create_future()) - 2 for _ in "ab"
        )

    VirtualLoop().run(main())


def test_the_real_world_is_out_of_reach() -> None:
    """Sockets and name look-ups of asyncio itself are refused: everything goes through Network."""

    async def main() -> None:
        running = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match=r"Network\.resolve"):
            await running.getaddrinfo("localhost", 1)
        with pytest.raises(RuntimeError, match=r"Network\.open_udp"):
            await running.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        with pytest.raises(RuntimeError, match=r"Network\.connect_tcp"):
            await asyncio.open_connection("127.0.0.1", 1)
        with pytest.raises(RuntimeError, match=r"Network\.listen_tcp"):
            await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)

    VirtualLoop().run(main())
