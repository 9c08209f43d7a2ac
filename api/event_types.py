"""An event of the node or the chat, as a line. As `types`: names never change, new ones may come."""

from __future__ import annotations

from msgspec import Struct, field

__all__ = ["Event"]


class Event(Struct, kw_only=True, omit_defaults=True):
    """One event; which fields are there depends on `event` (docs/cli.md). Comes at least once; messages carry ids."""

    event: str
    id: str | None = None
    from_: str | None = field(default=None, name="from")
    from_user: str | None = None
    from_name: str | None = None
    to: str | None = None
    text: str | None = None
    sent_at: str | None = None
    state: str | None = None
    peer: str | None = None
    name: str | None = None
    online: bool | None = None
    age_s: float | None = None
    evidence: str | None = None
    last_seen: str | None = None
    nat: str | None = None
    addresses: list[str] | None = None
    path: str | None = None
    reason: str | None = None
    members: list[str] | None = None
    direction: str | None = None
    receiver: str | None = None
    size: int | None = None
    done: int | None = None
    folder: bool | None = None
    everywhere: bool | None = None
