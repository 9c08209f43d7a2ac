"""Clocks, chance and threads for the fake nodes of `chat_fakes`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from p2pnode import Address

__all__ = ["FakeNetwork"]

START_WALL = 1_700_000_000.0


class FakeNetwork:
    """Clocks, chance and threads of one host."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return START_WALL + self.monotonic()

    def token_bytes(self, count: int) -> bytes:
        return self.rng.randbytes(count)

    async def resolve(self, host: str, port: int) -> list[Address]:
        return [Address(host, port)]

    async def run_blocking(self, function: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, function, *args)
