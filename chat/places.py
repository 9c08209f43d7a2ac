"""Conversations that are with nobody in particular: the hall, strangers, rooms. No I/O."""

from __future__ import annotations

import base64
from dataclasses import dataclass

__all__ = ["HALL", "STRANGER", "Hall", "RoomId", "Stranger"]


class Hall:
    """The room of everybody who joined through one another or met on the LAN; one per node: `HALL`."""

    def __str__(self) -> str:
        return "hall"

    def __repr__(self) -> str:
        return "<Hall>"


HALL = Hall()


class Stranger(Hall):
    """The conversation with a stranger (docs/random.md): like the hall, nobody that can be named, but never stored."""

    def __str__(self) -> str:
        return "stranger"

    def __repr__(self) -> str:
        return "<Stranger>"


STRANGER = Stranger()


@dataclass(frozen=True, slots=True)
class RoomId(Hall):
    """A room (chat/rooms): the hash of the entry that made it, 32 bytes. As the hall, it is no contact."""

    raw: bytes

    def __str__(self) -> str:
        return f"#{base64.b32encode(self.raw).decode().rstrip('=').lower()}"

    def __repr__(self) -> str:
        return f"<RoomId {str(self)[:9]}>"

    @property
    def short(self) -> str:
        """Six characters that tell two rooms of one name apart."""
        return str(self)[1:7]
