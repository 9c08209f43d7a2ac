"""A transfer in memory. No I/O."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from p2pnode import PeerId, UserId
from p2pnode.chat.files.meter import Meter
from p2pnode.chat.files.records import Record
from p2pnode.chat.model import Party, Transfer

__all__ = ["Job"]


@dataclass(eq=False)
class Job:
    """One that is not over. `done`: bytes at the other side, as far as we know, or here.

    `devices`: of what we send, what each device of the other said: `new` (nothing yet), `waits` (try again), `pending`,
    `accepted`, `refused`, `untold` and `told` (of the end).
    """

    record: Record
    done: int = -1
    meter: Meter = field(default_factory=Meter)
    told_at: float = float("-inf")
    devices: dict[PeerId, str] = field(default_factory=dict)
    retry_at: dict[PeerId, float] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    moving: bool = False
    """Whether bytes flow just now."""
    parent: Job | None = None
    """What goes to a whole room, where this goes to one member of it."""
    parts: dict[UserId, Job] = field(default_factory=dict)
    """Of what goes to a room: one for each member."""

    def __post_init__(self) -> None:
        if self.done < 0:
            self.done = self.record.size if self.record.state == "done" else self.record.known

    @property
    def party(self) -> Party:
        """The conversation that it belongs to."""
        return self.parent.record.party if self.parent is not None else self.record.party

    def snapshot(self, now: float) -> Transfer:
        record = self.record
        parts = tuple(part.snapshot(now) for part in self.parts.values())
        done = record.size if record.state == "done" else min(self.done, record.size)
        if parts:
            done = sum(part.done for part in parts) // len(parts)
        rate = self.meter.rate(now, self.done) if self.moving else 0.0
        return Transfer(
            position=record.position,
            id=record.id.hex(),
            outgoing=record.outgoing,
            party=self.party,
            author=record.author,
            name=record.name,
            folder=record.folder,
            size=record.size,
            count=record.count,
            done=done,
            state=record.state,
            reason=record.reason,
            path=record.source if record.outgoing else record.place if record.state == "done" else "",
            created_at=record.created_at / 1000,
            changed_at=record.changed_at / 1000,
            rate=rate,
            eta_s=(record.size - done) / rate if rate > 1.0 and record.state == "active" else None,
            receiver=record.party if self.parent is not None and isinstance(record.party, UserId) else None,
            receivers=parts,
        )
