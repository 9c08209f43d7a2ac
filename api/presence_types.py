"""What the control API takes and gives about one's own presence. As `types`: names never change, new ones may come."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["OwnPresence", "PresenceChange"]


class PresenceChange(Struct, kw_only=True):
    """What is left out stays as it is. `status`: at most 140 characters, empty: none."""

    status: Annotated[str, Meta(max_length=1_000)] | None = None
    invisible: bool | None = None


class OwnPresence(Struct, kw_only=True):
    """`status`: the text that contacts see, empty: none. `invisible`: this user looks offline to everybody."""

    status: str
    invisible: bool
