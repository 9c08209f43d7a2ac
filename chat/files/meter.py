"""How fast a transfer goes and how long it still takes. No I/O."""

from __future__ import annotations

from collections import deque

__all__ = ["Meter"]

OVER_S = 5.0  # the rate is that of the last seconds: a pause shows soon, a hiccup does not
EVERY_S = 0.25


class Meter:
    """Rate over the last five seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def note(self, now: float, done: int) -> None:
        """`done`: bytes so far; `now`: seconds, monotonic."""
        if self._points and now - self._points[-1][0] < EVERY_S:
            return
        self._points.append((now, done))
        while now - self._points[0][0] > OVER_S and len(self._points) > 2:
            self._points.popleft()

    def rest(self) -> None:
        """It pauses: what comes after is a new beginning."""
        self._points.clear()

    def rate(self, now: float, done: int) -> float:
        """Return bytes per second; 0 while nobody knows."""
        if not self._points or now <= self._points[0][0]:
            return 0.0
        return max(0.0, (done - self._points[0][1]) / (now - self._points[0][0]))
