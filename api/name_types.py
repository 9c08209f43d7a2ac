"""What the control API takes and gives about claimed names. As `types`: names never change, new ones may come."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["Claimant", "NameClaims", "NameQuery"]


class NameQuery(Struct):
    """A name as people type it."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]


class Claimant(Struct, kw_only=True):
    """Who calls itself so. `fingerprint`: the end of `user`. `since`: as it says itself; `age_s`: since it renewed its
    claim. `common`: contacts who know it, by name. `state`: `accepted`, `request`, or null: no contact. `presence`:
    `online`, `last_seen`, `offline`, or empty."""

    user: str
    fingerprint: str
    devices: list[str]
    since: str
    age_s: float
    common: list[str]
    state: str | None
    presence: str


class NameClaims(Struct, kw_only=True):
    """`complete`: nobody was left out. `answered`: nodes that were asked and answered; 0: nothing is known."""

    name: str
    claimants: list[Claimant]
    complete: bool
    answered: int
    seconds: float
