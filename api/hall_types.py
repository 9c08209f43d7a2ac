"""What the control API gives about the static table and the hall. As `types`: names never change, new ones may come."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["HallAnswer", "HallChange", "HallMember", "TableAnswer", "TablePerson"]


class TablePerson(Struct, kw_only=True):
    """Somebody of the static table. `state`: waiting (nobody has answered yet), known, wrong_key (somebody else's key
    answers, `why` says so), blocked, self. `peer`, `user`: once known. `connected`: a session is open just now."""

    name: str
    host: str
    port: int
    state: str
    peer: str | None
    user: str | None
    connected: bool
    why: str


class TableAnswer(Struct):
    """The static table of `join --peers`, as it stands in the file."""

    people: list[TablePerson]


class HallMember(Struct, kw_only=True):
    """Somebody in the hall. `name`: the petname, else the self-chosen name with the end of the id."""

    peer: str
    user: str | None
    name: str


class HallAnswer(Struct):
    """The hall as this node sees it. `entered`: false once the user has left it."""

    entered: bool
    members: list[HallMember]


class HallChange(Struct):
    """Leave the hall, or come back."""

    entered: bool
