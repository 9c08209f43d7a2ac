"""Operations on strangers: search for one, talk, go on, report, leave. What happens comes as events (docs/api.md)."""

from __future__ import annotations

from p2pnode.api import random_types as t
from p2pnode.api.routing import Route
from p2pnode.api.service import Service
from p2pnode.api.types import Done

__all__ = ["ROUTES"]


async def show(service: Service, _request: None) -> t.RandomState:
    """Return how it stands."""
    return _state(service)


async def begin(service: Service, request: t.RandomBegin) -> t.RandomState:
    """Search for a stranger; events `random` and `random_message` tell what comes of it."""
    await service.chat.strangers.begin(relay_only=request.relay_only)
    return _state(service)


async def say(service: Service, request: t.RandomSay) -> Done:
    """Say something to the stranger."""
    await service.chat.strangers.say(request.text)
    return Done()


async def go_on(service: Service, _request: t.RandomStep) -> t.RandomState:
    """Leave this stranger and search for another."""
    await service.chat.strangers.next()
    return _state(service)


async def report(service: Service, _request: t.RandomStep) -> t.RandomState:
    """Tell those who may meet this stranger (or the last one) next, and leave."""
    await service.chat.strangers.report()
    return _state(service)


async def leave(service: Service, _request: None) -> t.RandomState:
    """Leave the stranger and the lobby."""
    await service.chat.strangers.quit()
    return _state(service)


def _state(service: Service) -> t.RandomState:
    strangers = service.chat.strangers
    return t.RandomState(
        state=strangers.phase,
        seconds=round(strangers.elapsed_s, 3),
        relay_only=strangers.relay_only,
        reports=strangers.reports_against_us,
    )


ROUTES = [
    Route("GET", "/v1/random", "How it stands with strangers", show, None, t.RandomState),
    Route("POST", "/v1/random", "Search for a stranger", begin, t.RandomBegin, t.RandomState),
    Route("POST", "/v1/random/messages", "Say something to the stranger", say, t.RandomSay, Done),
    Route("POST", "/v1/random/next", "Another stranger", go_on, t.RandomStep, t.RandomState),
    Route("POST", "/v1/random/report", "Report the stranger", report, t.RandomStep, t.RandomState),
    Route("DELETE", "/v1/random", "Leave the strangers", leave, None, t.RandomState),
]
