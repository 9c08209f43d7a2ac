"""Who is here and who is not, as `\\users`, `\\online` and `\\offline` show it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pnode import FindResult, P2PError, PeerId, PresenceChanged, UserId
from p2pnode.chat.model import HALL, ContactState, Party

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["People", "Person"]

# Chosen by us.
Evidence = PresenceChanged | FindResult
LOOKUP_TIMEOUT_S = 3.0  # a user who asks who is here does not wait longer
LOOKUPS_AT_ONCE = 8
DEVICES_ASKED = 3  # of each contact


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody known. `online` None: the network does not know. `age_s`: seconds since the evidence, None: none.

    `presence`: `online`, `last_seen` (there a moment ago, perhaps not any more), `offline`, or "": nobody knows.
    `status`: what it shows of itself, may be empty.
    """

    party: UserId | PeerId
    online: bool | None
    age_s: float | None
    in_hall: bool
    state: ContactState | None
    presence: str = ""
    status: str = ""


class People:
    """Asks the node about everybody that the user knows."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    async def all(self) -> list[Person]:
        """Return the members of the hall and all contacts but blocked ones, those who are online first."""
        chat = self._chat
        parties: dict[UserId | PeerId, None] = {member.user or member.peer: None for member in chat.members()}
        parties |= {c.party: None for c in chat.directory.contacts() if c.state != "blocked"}
        limit = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        people = await asyncio.gather(*(self._person(party, limit) for party in parties))
        return sorted(people, key=lambda p: (p.online is not True, chat.display_name(p.party).casefold()))

    def glance(self, party: UserId | PeerId) -> str:
        """Return what is known just now, nobody is asked: `online`, `last_seen`, `offline`, or "" for nothing."""
        chat = self._chat
        devices = chat.attention.devices_of(party)
        if any(chat.node.session(device) is not None for device in devices):
            return "online"
        known: list[Evidence] = [found for device in devices if (found := chat.node.presence(device)) is not None]
        told = chat.gossip.told_of(party)
        if told is not None and all(told.age_s < found.age_s for found in known):
            return told.state  # the newest evidence decides
        states = {found.state or ("online" if found.online else "offline") for found in known}
        return next((state for state in ("online", "last_seen", "offline") if state in states), "")

    async def lines(self, which: str, party: Party = HALL) -> list[str]:
        """Return one line per person; `which`: `users`, `online`, `offline`, or `who`: those in the conversation with
        `party`."""
        people = await self.all()
        if which == "who":
            people = [person for person in people if (person.in_hall if party is HALL else person.party == party)]
        elif which != "users":
            people = [person for person in people if (person.online is True) == (which == "online")]
        if which == "who" and party is HALL:
            if not people:
                return [f"* {self._chat.hall.nobody()}"]
            return [f"* In the hall: you and {len(people)} more.", *(self._line(person) for person in people)]
        if not people:
            return [
                {"online": "* Nobody known is online.", "offline": "* Nobody known is offline."}.get(
                    which, "* Nobody yet."
                )
            ]
        return [self._line(person) for person in people]

    async def _person(self, party: UserId | PeerId, limit: asyncio.Semaphore) -> Person:
        chat = self._chat
        devices = chat.attention.devices_of(party)
        in_hall = any(device in chat.hall for device in devices)
        state = chat.directory.state_of(party)
        status = chat.gossip.status_of(party)
        if any(chat.node.session(device) is not None for device in devices):
            return Person(party, True, 0.0, in_hall, state, "online", status)
        online: bool | None = None
        age_s: float | None = None
        presence = ""
        told = chat.gossip.told_of(party)
        if told is not None and told.online and not any(chat.node.presence(device) for device in devices):
            return Person(party, True, told.age_s, in_hall, state, told.state, status)  # nobody has to be asked
        async with limit:
            for device in devices[:DEVICES_ASKED]:
                found: Evidence | None = chat.node.presence(device)
                try:  # what is watched is known; whoever is not has to be looked up
                    found = found or await chat.node.find(device, timeout=LOOKUP_TIMEOUT_S)
                except P2PError:
                    continue  # nobody knows this device just now; another may be known
                if age_s is None or (found.online, -found.age_s) > (bool(online), -age_s):
                    online, age_s, presence = found.online, found.age_s, found.state
                if online:
                    break
        if told is not None and (age_s is None or told.age_s < age_s):
            online, age_s, presence = told.online, told.age_s, told.state
        return Person(party, online, age_s, in_hall, state, presence, status)

    def _line(self, person: Person) -> str:
        seen = "here now" if person.online and person.age_s == 0.0 else "online" if person.online else "offline"
        if person.age_s:
            ago = f"seen {_span(person.age_s)} ago"
            seen = f"last {ago}" if person.presence == "last_seen" else f"{seen}, {ago}"
        notes = [seen]
        if person.in_hall:
            notes.append("in the hall")
        if person.state == "request":
            notes.append("waits for your answer")
        if person.status:
            notes.append(f"says: {person.status}")
        return f"  {self._chat.display_name(person.party):<24} {', '.join(notes)}"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
