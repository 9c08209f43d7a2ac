"""Parallel calls of the laboratory: in order, and nobody waits for what is under way when something fails."""

from __future__ import annotations

import threading

import pytest

from p2pnode.simulations.netns.threads import call_each


def test_results_come_in_the_order_of_the_items() -> None:
    """Whichever ends first; None is a result."""
    second_is_done = threading.Event()

    def work(number: int) -> int | None:
        if number == 0:
            assert second_is_done.wait(10)
            return None
        second_is_done.set()
        return number

    assert call_each(work, range(3), at_a_time=2) == [None, 1, 2]
    assert call_each(work, [], at_a_time=2) == []


def test_no_more_than_asked_for_at_a_time() -> None:
    """Three threads for ten items."""
    seen: set[str] = set()
    together = threading.Barrier(3, timeout=10)

    def work(number: int) -> None:
        seen.add(threading.current_thread().name)
        if number < 3:
            together.wait()

    call_each(work, range(10), at_a_time=3)
    assert len(seen) == 3


def test_an_error_is_not_held_up_by_others() -> None:
    """What hangs goes on by itself."""
    end, begun = threading.Event(), []

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            assert end.wait(10)
        elif number == 1:
            raise ValueError("one")

    with pytest.raises(ValueError, match="one"):
        call_each(work, range(2), at_a_time=2)
    end.set()
    assert sorted(begun) == [0, 1]
