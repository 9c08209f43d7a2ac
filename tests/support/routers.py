"""Bare router models for tests: made of a kind with changes, asked with short names."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from p2pnode.core.address import Address
from p2pnode.simulations.routers.kinds import kind_named
from p2pnode.simulations.routers.router import Passed, RouterModel

A = Address("192.168.1.10", 4747)
B = Address("192.168.1.11", 4747)
X = Address("203.0.113.1", 1000)
X2 = Address("203.0.113.1", 2000)
Y = Address("203.0.113.2", 1000)
OUTSIDE = "198.51.100.1"


def router(kind: str = "port-restricted", *, pool: int = 1, seed: int = 1, **changes: Any) -> RouterModel:
    """Return a router of this kind with some parameters changed, with `pool` outside addresses."""
    ips = tuple(f"198.51.100.{number + 1}" for number in range(pool))
    return RouterModel(replace(kind_named(kind), pool=pool, **changes), ips, random.Random(seed))


def out(model: RouterModel, now: float, source: Address, to: Address) -> Address:
    """Send a UDP packet from inside that must pass, and return as whom it is seen."""
    passed = model.from_inside(now, "udp", source, to)
    assert isinstance(passed, Passed), passed
    assert passed.to == to
    return passed.source


def back(model: RouterModel, now: float, source: Address, to: Address) -> Address | str:
    """Send a UDP packet from outside; return whom it reaches, or why nobody."""
    passed = model.from_outside(now, "udp", source, to)
    if isinstance(passed, str):
        return passed
    assert (passed.source, passed.inside) == (source, True)
    return passed.to


def tcp_out(model: RouterModel, now: float, source: Address, to: Address, segment: str) -> Address | str:
    passed = model.from_inside(now, "tcp", source, to, segment)  # type: ignore[arg-type]
    return passed if isinstance(passed, str) else passed.source


def tcp_in(model: RouterModel, now: float, source: Address, to: Address, segment: str) -> Address | str:
    passed = model.from_outside(now, "tcp", source, to, segment)  # type: ignore[arg-type]
    return passed if isinstance(passed, str) else passed.to
