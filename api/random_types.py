"""What the control API takes and gives about strangers. As `types`: names never change, new ones may come."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["RandomBegin", "RandomSay", "RandomState", "RandomStep"]


class RandomBegin(Struct):
    """`relay_only`: never show this computer's address to a stranger."""

    relay_only: bool = False


class RandomSay(Struct):
    """A text to the stranger: 1 to 2,000 bytes of UTF-8."""

    text: Annotated[str, Meta(min_length=1, max_length=2_000)]


class RandomStep(Struct):
    """An object without fields, so far."""


class RandomState(Struct, kw_only=True):
    """`state`: `off`, `searching`, `found` (talking), `ended` (the stranger has gone). `seconds`: since that began.

    `reports`: how many strangers have reported this device this week, as far as it knows.
    """

    state: str
    seconds: float
    relay_only: bool
    reports: int
