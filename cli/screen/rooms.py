"""The list of conversations: whom one can write to, what is unread, in which order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from p2pnode.chat import HALL, Contact, ConversationSummary, Message, Party
from p2pnode.chat.model import Hall, RoomId

__all__ = ["Room", "Rooms"]


@dataclass(slots=True)
class Room:
    """One conversation. `last_at`: Unix seconds of its newest message, 0 for none; `last_position`: its place.
    `request`: a stranger's."""

    party: Party
    unread: int = 0
    last_at: float = 0.0
    last_position: int = 0
    request: bool = False


class Rooms:
    """All conversations and contacts, the hall first, then the newest conversation, then contacts by name."""

    def __init__(self, name_of: Callable[[Party], str]) -> None:
        self._name_of = name_of
        self._rooms: dict[Party, Room] = {HALL: Room(HALL)}

    def __getitem__(self, party: Party) -> Room:
        return self._rooms.setdefault(party, Room(party))

    @property
    def unread(self) -> int:
        """In all conversations."""
        return sum(room.unread for room in self._rooms.values())

    def load(self, summaries: Iterable[ConversationSummary], contacts: Iterable[Contact]) -> None:
        """Begin with what the database has."""
        for summary in summaries:
            room = self[summary.party]
            room.unread = summary.unread
            if summary.last is not None:
                room.last_at, room.last_position = summary.last.received_at, summary.last.position
        self.know(contacts)

    def know(self, contacts: Iterable[Contact]) -> None:
        """Take contacts as they are now: newcomers are listed, the blocked are not, a request is marked as one."""
        for contact in contacts:
            if contact.state == "blocked":
                self._rooms.pop(contact.party, None)
            else:
                self[contact.party].request = contact.state == "request"

    def note(self, message: Message, *, open_now: bool) -> None:
        """Count a new message; `open_now`: the user sees it come."""
        room = self[message.party]
        room.last_at = max(room.last_at, message.received_at)
        room.last_position = message.position
        if not message.outgoing and not open_now:
            room.unread += 1

    def recount(self, unread: Mapping[Party, int]) -> None:
        """Other devices of the user have seen some."""
        for party, count in unread.items():
            if party in self._rooms:
                self._rooms[party].unread = count

    def adopt(self, old: Party, new: Party) -> None:
        """The user of a bare device is known now: their conversations are one."""
        gone = self._rooms.pop(old, None)
        if gone is not None:
            room = self[new]
            room.unread += gone.unread
            room.last_at = max(room.last_at, gone.last_at)

    def ordered(self) -> list[Room]:
        """Return all in the order of showing."""

        def place(room: Room) -> tuple[bool, float, str]:
            first = isinstance(room.party, Hall) and not isinstance(room.party, RoomId)
            return (not first, -room.last_at, self._name_of(room.party).casefold())

        return sorted(self._rooms.values(), key=place)

    def beside(self, party: Party, step: int) -> Party:
        """Return the conversation `step` places below (above, when negative) the one given, round the ends."""
        parties = [room.party for room in self.ordered()]
        at = parties.index(party) if party in parties else 0
        return parties[(at + step) % len(parties)]

    def next_unread(self, party: Party) -> Party | None:
        """Return the nearest conversation below with something unread, None when all is read."""
        rooms = self.ordered()
        at = next((index for index, room in enumerate(rooms) if room.party == party), 0)
        return next((room.party for room in rooms[at + 1 :] + rooms[: at + 1] if room.unread), None)
