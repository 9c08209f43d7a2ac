"""What contacts' devices said last, and who may hear it. Pure; times are passed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from p2pnode import NodeKey, PeerId, UserId
from p2pnode.chat.gossip.statements import MAX_AUDIENCE, Statement, entry_of, tag_of

__all__ = ["Book", "Told"]

FRESH_MS = 600_000  # so long who said that it is here counts as online: sessions without traffic close after 5 min
AHEAD_MS = 300_000  # clocks may differ by so much
MAX_DEVICES = 2_000  # 5 KB each; those heard of longest ago go first
MAX_OF_USER = 23  # as many as a device record holds: whoever owns an account can vouch for any number


@dataclass(frozen=True, slots=True)
class Told:
    """What a device said of itself, whoever brought it. `state`: `online`, `last_seen`, `offline`; `age_s`: since."""

    device: PeerId
    user: UserId
    state: str
    age_s: float
    text: str

    @property
    def online(self) -> bool:
        return self.state == "online"


class Book:
    """Of one device."""

    def __init__(self, key: NodeKey, is_contact: Callable[[PeerId, UserId], bool]) -> None:
        """`is_contact(device, user)`: whether they are accepted now; asked each time."""
        self._key = key
        self._is_contact = is_contact
        self._newest: dict[PeerId, Statement] = {}
        self._gone: list[Statement] = []
        self._tags: dict[tuple[PeerId, PeerId], tuple[bytes, bytes]] = {}  # (other, author) -> its key, the tag

    def __iter__(self) -> Iterator[Statement]:
        """Those of contacts, heard of longest ago first."""
        return (each for each in self._newest.values() if self._is_contact(each.device, each.user))

    def put(self, statement: Statement, now_ms: int) -> bool:
        """Take a checked statement; whether it is news."""
        known = self._newest.get(statement.device)
        if statement.body.at > now_ms + AHEAD_MS or not self._is_contact(statement.device, statement.user):
            return False
        if known is not None and known.body.at >= statement.body.at:
            return False
        self._newest.pop(statement.device, None)
        self._newest[statement.device] = statement
        its = [each.device for each in self._newest.values() if each.user == statement.user]
        if len(its) > MAX_OF_USER:
            self._gone.append(self._newest.pop(its[0]))
        if len(self._newest) > MAX_DEVICES:
            self._gone.append(self._newest.pop(next(iter(self._newest))))
        return True

    def take_gone(self) -> list[Statement]:
        """Return what gave way since this was called last."""
        gone, self._gone = self._gone, []
        return gone

    def knows(self, device: PeerId, at: int) -> bool:
        """Whether it holds a statement of `device` that is as new."""
        known = self._newest.get(device)
        return known is not None and known.body.at >= at

    def holds(self, device: PeerId, packed: bytes) -> bool:
        """Whether the newest statement of `device` is this one, byte for byte."""
        known = self._newest.get(device)
        return known is not None and known.packed == packed

    def told(self, device: PeerId, now_ms: int) -> Told | None:
        """Return what a contact's device said last."""
        statement = self._newest.get(device)
        if statement is None or not self._is_contact(device, statement.user):
            return None
        age_ms = max(0, now_ms - statement.body.at)
        state = "offline" if not statement.body.here else "online" if age_ms <= FRESH_MS else "last_seen"
        return Told(device, statement.user, state, age_ms / 1000, statement.text)

    def devices_of(self, user: UserId) -> list[PeerId]:
        """Return the devices of a user that said something, heard of longest ago first."""
        return [each.device for each in self if each.user == user]

    def audience(self) -> list[bytes]:
        """Return the entries that let our contacts' devices hear us; the newest where there are too many."""
        own, newest = self._key.peer_id, list(self)[-MAX_AUDIENCE:]
        return [entry_of(tag, each.device) for each in newest if (tag := self._tag(each, own))]

    def asked(self, limit: int) -> list[bytes]:
        """Return the tags by which contacts' devices let us hear them."""
        tags = (self._tag(each, each.device) for each in list(self)[-limit:])
        return [tag for tag in tags if tag]

    def matching(self, entries: frozenset[bytes], asker: PeerId) -> list[Statement]:
        """Return the contacts' statements that `asker` may hear, whose tags make these entries; not its own."""
        return [each for each in self if each.device != asker and not entries.isdisjoint(each.audience)]

    def _tag(self, other: Statement, author: PeerId) -> bytes:
        """The tag between us and another device, of statements of `author`; empty for a key that agrees on nothing."""
        theirs = other.body.x25519
        known = self._tags.get((other.device, author))
        if known is None or known[0] != theirs:
            try:
                known = theirs, tag_of(self._key, theirs, author)
            except ValueError:
                known = theirs, b""
            self._tags[other.device, author] = known
            if len(self._tags) > 2 * MAX_DEVICES:
                del self._tags[next(iter(self._tags))]
        return known[1]
