"""How long a mapping lives: several at once are left alone for different times, then called.

RFC 5780, section 4.6 "Binding Lifetime Discovery": the call goes from a second socket, which asks the server to answer
to the first one's public port (RESPONSE-PORT), so that asking does not refresh. Difference: instead of one bisection,
eight mappings are tried at a time, so that each round narrows the interval to a ninth.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from p2pnode.core.address import Address
from p2pnode.nat.lifetime import LifetimeBracket
from p2pnode.simulations.probing.asker import Asker
from p2pnode.simulations.probing.settings import ProbeSettings

__all__ = ["find_lifetime"]

_AT_A_TIME = 8
_ROUNDS = 12  # each narrows to a ninth
OpenAsker = Callable[[], Awaitable[Asker]]


class _Trial(NamedTuple):
    """A mapping that was left alone: at least `least` and at most `most` seconds as the router saw it."""

    alive: bool
    least: float
    most: float


async def find_lifetime(
    open_asker: OpenAsker, server: Address, settings: ProbeSettings
) -> tuple[tuple[float, float] | None, bool | None]:
    """Return (alive after, dead after) in seconds, and whether inbound packets refresh; None for what was not found."""
    helper = await open_asker()
    bracket = LifetimeBracket()
    for _ in range(_ROUNDS):
        if bracket.found(settings.lifetime_max_s, settings.lifetime_step_s):
            break
        pauses = bracket.spread(_AT_A_TIME, settings.lifetime_max_s)
        trials = await asyncio.gather(*(_trial(open_asker, helper, server, (pause,)) for pause in pauses))
        before = bracket.low, bracket.high
        for trial in trials:
            if trial is None:
                return None, None
            bracket.took(alive=trial.alive, least=trial.least, most=trial.most)
        if bracket.contradictory:
            return None, None
        if (bracket.low, bracket.high) == before:
            break  # nearer than a round trip nothing can be told apart
    low, high = bracket.low, bracket.high
    if high == math.inf or low == 0.0:
        return (low, high), None
    # Called once well before it would end, and again when without that call it would have ended long ago.
    refreshed = await _trial(open_asker, helper, server, (low * 0.75, high - low * 0.375))
    return (low, high), None if refreshed is None else refreshed.alive


async def _trial(open_asker: OpenAsker, helper: Asker, server: Address, pauses: tuple[float, ...]) -> _Trial | None:
    """Call a new mapping after each pause; None when it did not work at first."""
    loop = asyncio.get_running_loop()
    subject = await open_asker()
    try:
        began = loop.time()
        first = await subject.ask(server)
        if first is None:
            return None
        answered = loop.time()
        answer = None
        for pause in pauses:
            await asyncio.sleep(pause)
            asked = loop.time()
            answer = await helper.ask(server, arriving_at=subject, port=first.mapped.port)
        # A call that arrives is under way for a round trip; one that does not, until the router drops it.
        on_the_way = answered - began
        return _Trial(answer is not None, asked - answered, asked - began + on_the_way)
    finally:
        subject.close()
