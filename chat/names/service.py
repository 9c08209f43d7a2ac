"""Claims our own name, and finds who claims a name. A part of the chat."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from p2pnode import InvalidPeerError, Joined, NodeEvent, P2PError, PeerId, UserId
from p2pnode.chat.model import ContactState, short_id
from p2pnode.chat.names.claims import MAX_SHOWN, claimed, encode_claim, folded, topic_of
from p2pnode.chat.ports import Cancel

if TYPE_CHECKING:
    from p2pnode.chat.database import Database
    from p2pnode.chat.service import Chat

__all__ = ["Claimant", "NameListing", "Names"]

log = structlog.get_logger(__name__)

CLAIM_LIFE_S = 3_600.0  # refreshed after a third of it
READ_MAX = 300  # entries: whoever floods a name is a few of them, and 0.1 ms each
COMMON_S = 1.5  # how long contacts are waited for who may know a claimant


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who calls itself so. `since`: Unix seconds, as it says itself; `age_s`: since it renewed that. `common`: our
    contacts who have it as a contact. `state`: what it is to us. `presence`: `online`, `offline`, ... or ""."""

    user: UserId
    devices: tuple[PeerId, ...]
    since: int
    age_s: float
    common: tuple[UserId | PeerId, ...]
    state: ContactState | None
    presence: str

    @property
    def fingerprint(self) -> str:
        return short_id(self.user)


@dataclass(frozen=True, slots=True)
class NameListing:
    """`complete`: nobody was left out. `answered`: holders that answered; 0: nothing is known."""

    name: str
    claimants: tuple[Claimant, ...]
    complete: bool
    answered: int
    seconds: float


class Names:
    """Of one chat."""

    def __init__(self, chat: Chat, database: Database) -> None:
        self._chat = chat
        self._database = database
        self._cancel: Cancel = lambda: None
        self._claiming: asyncio.Task[None] | None = None
        self._found: dict[str, UserId | None] = {}  # None: several, the last six characters of an id can be made

    async def start(self) -> None:
        self._cancel = self._chat.node.subscribe(self._node_event)
        if self._chat.node.addresses():
            self.renew()

    async def stop(self) -> None:
        self._cancel()

    def renew(self) -> None:
        """Claim our name where we may and are to be seen."""
        if self._wanted() and (self._claiming is None or self._claiming.done()):
            self._claiming = self._chat.start_task(self._claim(), "chat-name-claim")

    async def withdraw(self) -> None:
        """Take the claim back: we go out of sight."""
        name = folded(self._chat.node.settings.name)
        if self._claiming is not None:
            self._claiming.cancel()
            self._claiming = None
            with contextlib.suppress(P2PError):
                await self._chat.node.unannounce(topic_of(name))

    async def look_up(self, name: str) -> NameListing:
        """Return who claims a name, those we have to do with first. Raise InvalidPeerError for no name at all."""
        wanted = folded(name)
        if not wanted:
            raise InvalidPeerError("Type the name that you look for.")
        chat, started = self._chat, self._chat.node.network.monotonic()
        listing = await chat.node.topic(topic_of(wanted), limit=READ_MAX)
        users = [(user, claims) for user, claims in claimed(listing.members) if user != chat.node.user_id]
        common = await chat.gossip.who_knows([user for user, _ in users[:MAX_SHOWN]], COMMON_S)
        found = [
            Claimant(
                user,
                tuple(claim.device for claim in claims),
                min(claim.since for claim in claims),
                min(claim.age_s for claim in claims),
                tuple(common.get(user, ())),
                chat.directory.state_of(user),
                chat.gossip.presence_of(user),
            )
            for user, claims in users
            if chat.directory.state_of(user) != "blocked"
        ]
        found.sort(key=lambda each: (each.state != "accepted", -len(each.common)))  # then by age, as they were
        for each in found[:MAX_SHOWN]:
            self._note(wanted, each.user)
        seconds = chat.node.network.monotonic() - started
        complete = listing.complete and len(found) <= MAX_SHOWN
        return NameListing(wanted, tuple(found[:MAX_SHOWN]), complete, listing.answered, seconds)

    def chosen(self, text: str) -> UserId | None:
        """Return whom `NAME~FINGERPRINT` meant where claimants were shown; None for nobody, and where it is not one."""
        return self._found.get(folded(text))

    # inside

    def _note(self, name: str, user: UserId) -> None:
        """`NAME~FINGERPRINT` means this user, or nobody where another one was shown under it."""
        shown = f"{name}~{short_id(user)}"
        self._found[shown] = user if self._found.get(shown, user) == user else None

    def _wanted(self) -> bool:
        chat, settings = self._chat, self._chat.node.settings
        return chat.settings.claim_name and bool(folded(settings.name)) and not chat.gossip.invisible

    def _node_event(self, event: NodeEvent) -> None:
        if isinstance(event, Joined) and self._claiming is None:
            self.renew()

    async def _claim(self) -> None:
        chat = self._chat
        name = folded(chat.node.settings.name)
        try:
            since = await self._database.write(lambda connection: _claimed_since(connection, name, chat.now_ms()))
            claim = encode_claim(chat.node.user_id, chat.links.proof, since)
            result = await chat.node.announce(topic_of(name), claim, life=CLAIM_LIFE_S)
            log.info("name_claimed", name=name, stored=result.stored)
        except P2PError as exc:
            log.warning("name_not_claimed", reason=exc.code, why=exc.message)


def _claimed_since(connection: sqlite3.Connection, name: str, now_ms: int) -> int:
    """Return since when we have claimed a name; from now on if we never did."""
    connection.execute("INSERT OR IGNORE INTO names_claimed (name, since) VALUES (?, ?)", (name, now_ms // 1000))
    since: int = connection.execute("SELECT since FROM names_claimed WHERE name = ?", (name,)).fetchone()[0]
    return since
