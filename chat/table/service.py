"""Greets the people of the static table until it knows who they are, and remembers which key answered first."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from p2pnode import (
    Address,
    NodeEvent,
    P2PError,
    P2PTimeoutError,
    PeerId,
    PeerOfflineError,
    SessionOpened,
    UserId,
    WrongKeyError,
)
from p2pnode.chat.model import Party, TableChanged, TableState
from p2pnode.chat.outbox import retry_delay
from p2pnode.chat.ports import Cancel
from p2pnode.chat.table.rows import TableRow

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Table", "TableEntry"]

log = structlog.get_logger(__name__)

# Chosen by us.
GREETED_AT_ONCE = 16
HELLO_S = 3.0
INTRODUCTION_S = 10.0  # until the other side has said whose device it is
WRONG_KEY_PAUSE_S = 60.0  # somebody has to mend it: the table, or the machine at that address
REACH_S = 5.0  # how long who writes to a name waits until its key is known
NODE_START_S, NODE_LOOK_S = 5.0, 0.05
MAX_ADDRESSES = 4  # of one host name


@dataclass
class TableEntry:
    """One person of the table. `peer`: the device that answers there, once it is known, or the one that has to.

    `state`: `waiting` (nobody has answered yet) · `known` · `wrong_key` (somebody else's key answers; `why` says so) ·
    `blocked` (by us) · `self` (the line with our own name).
    """

    row: TableRow
    state: TableState = "waiting"
    peer: PeerId | None = None
    party: UserId | PeerId | None = None
    why: str = ""
    addresses: tuple[Address, ...] = ()
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    failed: bool = False


class Table:
    """The static table of one chat. A part of it."""

    def __init__(self, chat: Chat, rows: tuple[TableRow, ...]) -> None:
        self._chat = chat
        self._entries = {row.key: TableEntry(row) for row in rows}
        self._limit = asyncio.Semaphore(GREETED_AT_ONCE)
        self._cancel: Cancel = lambda: None

    def entries(self) -> list[TableEntry]:
        return list(self._entries.values())

    async def start(self) -> None:
        if not self._entries:
            return
        chat = self._chat
        self._cancel = chat.node.subscribe(self._node_event)
        pinned = await chat.store.database.read(_pins)
        for key, entry in self._entries.items():
            row = entry.row
            if key == chat.node.settings.name.casefold():
                entry.state = "self"
                entry.tried.set()
                continue
            entry.peer = row.peer or (None if row.user is not None else pinned.get(key))
            party = row.user or (chat.directory.party_of(entry.peer) if entry.peer is not None else None)
            chat.directory.aliases[key] = None
            if party is not None:
                await self._meet(entry, party)
            chat.start_task(self._keep(entry), f"chat-table {row.name}")

    async def stop(self) -> None:
        self._cancel()

    async def first_round(self, timeout: float) -> None:
        """Wait until everybody was tried once, at most `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for entry in self._entries.values():
                    await entry.tried.wait()

    async def resolve(self, text: str) -> Party:
        """Return whom a name means, as `Chat.resolve`; who stands in the table and is not known yet is tried now.

        Raise NotFoundError, InvalidPeerError, and as `wait_for`.
        """
        await self.wait_for(text)
        return self._chat.resolve(text)

    async def wait_for(self, name: str) -> None:
        """Try who stands in the table under a name and is not known yet; others: at once.

        Raise PeerOfflineError, WrongKeyError.
        """
        entry = self._entries.get(name.strip().casefold())
        if entry is not None and entry.party is None and entry.state != "self":
            await self._try_now(entry)

    def check(self, devices: tuple[PeerId, ...]) -> None:
        """Raise WrongKeyError when somebody else answers where the only one of `devices` should be."""
        for entry in self._entries.values():
            if entry.state == "wrong_key" and devices == (entry.peer,) and self._chat.node.session(devices[0]) is None:
                raise WrongKeyError(entry.why)

    def attempt_failed(self, peer: PeerId) -> None:
        """A device could not be reached: look whether it is still where it was."""
        for entry in self._entries.values():
            if entry.peer == peer:
                entry.wake.set()

    # inside

    async def _try_now(self, entry: TableEntry) -> None:
        row = entry.row
        entry.tried.clear()
        entry.wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REACH_S):
                await entry.tried.wait()
        if entry.state == "wrong_key":
            raise WrongKeyError(entry.why)
        if entry.party is None and self._chat.node.settings.relay_only and entry.why:
            raise PeerOfflineError(entry.why)
        if entry.party is None:
            raise PeerOfflineError(
                f"{row.name} does not answer at {row.place} yet, and its key is not known: nothing was sent."
            )

    def _node_event(self, event: NodeEvent) -> None:
        if isinstance(event, SessionOpened):
            for entry in self._entries.values():
                if entry.state == "waiting" and event.session.remote in entry.addresses:
                    entry.wake.set()  # it is there now

    async def _keep(self, entry: TableEntry) -> None:
        await self._node_started()
        rng, failures = self._chat.node.network.rng, 0
        while True:
            entry.wake.clear()
            pause: float | None = None
            try:
                async with self._limit:
                    await self._greet(entry)
                failures = 0
            except (P2PError, TimeoutError) as exc:
                failures += 1
                pause = WRONG_KEY_PAUSE_S if isinstance(exc, WrongKeyError) else retry_delay(failures, rng)
                self._failed(entry, exc)
            entry.tried.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await entry.wake.wait()
            if pause is None:
                await asyncio.sleep(retry_delay(1, rng))  # who is known and cannot be reached is not asked in a rush

    async def _node_started(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NODE_START_S):
                while not self._chat.node.addresses():  # noqa: ASYNC110 - and some nodes never tell one
                    await asyncio.sleep(NODE_LOOK_S)

    async def _greet(self, entry: TableEntry) -> None:
        """Ask who is there, prove it, and make a contact of it. Raise P2PError (WrongKeyError), TimeoutError."""
        chat, row, expected = self._chat, entry.row, entry.peer
        if chat.node.settings.relay_only:
            peer = await self._device_of(entry)  # whoever is dialled would learn our address
        else:
            peer = (await chat.node.hello(row.host, row.port, timeout=HELLO_S)).peer_id
            if peer == chat.node.peer_id:
                entry.state = "self"
                return
            if expected is not None and peer != expected:
                raise self._wrong_key(row, peer)
            entry.addresses = tuple(await chat.node.network.resolve(row.host, row.port))[:MAX_ADDRESSES]
            chat.links.hint(peer, entry.addresses)
            with contextlib.suppress(P2PError):
                await chat.node.join_through(row.host, row.port)  # a way into the network, where there is one
        party = await self._introduced(row, peer)
        if row.user is not None and party != row.user:
            raise self._wrong_key(row, party)
        if row.peer is None and row.user is None and expected is None:
            now = chat.now_ms()
            await chat.store.database.write(lambda connection: _pin(connection, row.key, peer, now))
            log.info("table_key_pinned", name=row.name, peer=str(peer))
        entry.peer = peer
        await self._meet(entry, party)
        self._turn(entry, "known")

    async def _device_of(self, entry: TableEntry) -> PeerId:
        """Return the device of a key that is known without dialling an address. Raise PeerOfflineError, P2PError."""
        row = entry.row
        if entry.peer is not None:
            return entry.peer
        if row.user is not None:
            return (await self._chat.node.find_user(row.user))[0]
        raise PeerOfflineError(
            f"{row.name} has no key in the table, and with --relay-only nobody is dialled who would see this computer's"
            " address: write the key behind the line."
        )

    async def _introduced(self, row: TableRow, peer: PeerId) -> UserId | PeerId:
        """Open a session, so that the other side meets us too, and return whose device it is. Raise P2PError."""
        chat = self._chat
        known = chat.user_of(peer)
        if known is not None:
            await chat.links.connect(peer)
            return known
        try:
            async with asyncio.timeout(INTRODUCTION_S):
                await chat.links.get(peer).introduce()
        except TimeoutError as exc:
            raise P2PTimeoutError(f"{row.name} does not say who it is.") from exc
        user = chat.user_of(peer)
        if user is None:
            return peer
        # after a restart the pinned key means the same person again
        await chat.store.learn_device(peer, user, chat.directory.name_of(peer), now_ms=chat.now_ms())
        return user

    async def _meet(self, entry: TableEntry, party: UserId | PeerId) -> None:
        """Whoever stands in the user's table is a contact of that name, unless the user has decided otherwise."""
        chat, directory = self._chat, self._chat.directory
        contact = directory.contact(party)
        if contact is None or contact.state == "request" or (contact.state == "accepted" and not contact.petname):
            await chat.add_contact(party, entry.row.name)
        if entry.party != party:
            entry.party = party
            directory.aliases[entry.row.key] = party

    def _failed(self, entry: TableEntry, exc: Exception) -> None:
        wrong = isinstance(exc, WrongKeyError)
        entry.why = exc.message if isinstance(exc, P2PError) else ""
        if wrong:
            self._turn(entry, "wrong_key")
        elif not entry.failed and entry.state == "waiting":
            self._tell(entry)
        elif entry.state == "wrong_key":
            self._turn(entry, "waiting")  # whoever it was has gone
        entry.failed = True

    def _turn(self, entry: TableEntry, state: TableState) -> None:
        if state == "known":
            entry.why = ""
            if entry.party is not None and entry.peer is not None and self._chat.directory.is_blocked(entry.peer):
                state = "blocked"
        if entry.state != state:
            entry.state = state
            self._tell(entry)

    def _tell(self, entry: TableEntry) -> None:
        log.info("table_entry", name=entry.row.name, state=entry.state, why=entry.why)
        row = entry.row
        self._chat.emit(TableChanged(row.name, row.place, entry.state, entry.party, entry.peer, entry.why))

    def _wrong_key(self, row: TableRow, found: UserId | PeerId) -> WrongKeyError:
        known = "the table says" if row.peer is not None or row.user is not None else "answered there before"
        return WrongKeyError(
            f"At {row.place} answers another key ({found}) than {known} for {row.name}; nothing goes there. If"
            f" {row.name} really has a new key, write it behind its line in the table.",
            name=row.name,
        )


def _pins(connection: sqlite3.Connection) -> dict[str, PeerId]:
    return {name: PeerId(peer) for name, peer in connection.execute("SELECT name, peer FROM pins")}


def _pin(connection: sqlite3.Connection, name: str, peer: PeerId, now_ms: int) -> None:
    connection.execute("INSERT OR REPLACE INTO pins (name, peer, pinned_at) VALUES (?, ?, ?)", (name, peer.raw, now_ms))
