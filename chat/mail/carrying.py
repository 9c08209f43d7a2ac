"""Letters from hand to hand: where the network takes none, contacts whom both know carry them.

They learn who writes to whom, which the network's holders do not: so they are asked only where these took nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from p2pnode import BadPacket, P2PError, PeerId
from p2pnode.chat.limits import Buckets
from p2pnode.chat.link import BROKEN
from p2pnode.chat.mail.carry_wire import (
    CARRY_PROTOCOL,
    LATER,
    MAX_FRAME_BYTES,
    NO,
    YES,
    Carry,
    CarryFrame,
    FrameBuffer,
    Hand,
    Outcome,
    encode,
)
from p2pnode.chat.ports import SessionPort, StreamPort

if TYPE_CHECKING:
    from p2pnode.chat.mail.fetching import Fetching
    from p2pnode.chat.mail.granting import Granting
    from p2pnode.chat.service import Chat

__all__ = ["Carrying"]

log = structlog.get_logger(__name__)

CARRIERS = 2  # that get one letter
LIFE_S = 7 * 86_400  # as at the network's holders
PER_GIVER, PER_READER, IN_ALL = 32, 64, 512  # letters that we carry: 8 MB at most
TIMEOUT_S = 15.0
RATE, BURST = 1.0, 70.0  # letters of one device, per second


@dataclass(frozen=True, slots=True)
class Carried:
    """A letter that we carry."""

    slot: bytes
    giver: bytes
    letter: bytes


class Carrying:
    """Gives letters to carriers, carries those of others, takes what is handed to us."""

    def __init__(self, chat: Chat, granting: Granting, fetching: Fetching) -> None:
        self._chat = chat
        self._granting = granting
        self._fetching = fetching
        self._budget = Buckets(rate=RATE, burst=BURST)
        self._given: dict[bytes, set[PeerId]] = {}  # by slot: who carries it, since our start
        self._handing: set[PeerId] = set()
        self._readers: set[PeerId] | None = None  # for whom we carry something; None: not looked yet

    def start(self) -> None:
        self._chat.node.handle(CARRY_PROTOCOL, self._serve)

    # as the writer

    def carriers(self, reader: PeerId) -> list[PeerId]:
        """Return the contacts who are here and know the reader as well."""
        return [peer for peer in self._chat.gossip.friends_of(reader) if self._granting.is_friend(peer)]

    async def give(self, reader: PeerId, slot: bytes, letter: bytes) -> bool:
        """Leave a letter with some of them; return whether anybody has it. `slot`: its public key."""
        have = self._given.setdefault(slot, set())
        if len(self._given) > IN_ALL:
            del self._given[next(iter(self._given))]
        for peer in self.carriers(reader):
            if len(have) >= CARRIERS:
                break
            if peer not in have and await self._ask(peer, Carry(reader.raw, slot, letter)) == YES:
                have.add(peer)
        return bool(have)

    # as a carrier

    def look(self, peer: PeerId) -> None:
        """A contact's device is here: hand over what we carry for it."""
        nothing = self._readers is not None and peer not in self._readers
        if not nothing and peer not in self._handing and self._granting.is_friend(peer):
            self._handing.add(peer)
            self._chat.start_task(self._hand_over(peer), f"chat-carry {peer}")

    async def _hand_over(self, peer: PeerId) -> None:
        database, left = self._chat.store.database, True
        try:
            if self._readers is None:
                self._readers = await database.read(_carried_for)
            self._readers.discard(peer)  # before the look: what is taken for it meanwhile puts it in again
            for each in await database.read(lambda c: _for_reader(c, peer)):
                outcome = await self._ask(peer, Hand(each.giver, each.slot, each.letter))
                if outcome == LATER:
                    return
                await database.write(lambda c, slot=each.slot: _drop(c, slot))  # type: ignore[misc]
            left = False
        except P2PError as exc:
            log.warning("carried_not_handed_over", peer=str(peer), reason=exc.code)
        finally:
            if left and self._readers is not None:
                self._readers.add(peer)
            self._handing.discard(peer)

    async def _carry(self, giver: PeerId, frame: Carry) -> int:
        reader = PeerId.from_untrusted(frame.reader)
        directory = self._chat.directory
        if reader == giver or reader == self._chat.node.peer_id or not self._granting.is_friend(reader):
            return NO
        if directory.party_of(reader) == directory.party_of(giver):
            return NO
        now_s = self._chat.now_ms() // 1000
        givers = {giver, *directory.devices_of(directory.party_of(giver))}  # an account has any number of devices
        kept = await self._chat.store.database.write(lambda c: _keep(c, giver, givers, frame, now_s))
        if kept and self._readers is not None:
            self._readers.add(reader)
        if kept and self._chat.node.session(reader) is not None:
            self.look(reader)
        return YES if kept else LATER

    # as the reader

    async def _take(self, carrier: PeerId, frame: Hand) -> int:
        """Read a letter that was carried; nobody has to be believed, since only its writer can have sealed it."""
        giver = PeerId.from_untrusted(frame.giver)
        if not self._granting.is_friend(giver):
            return NO
        outcome = await self._fetching.take_handed(giver, frame.slot, frame.letter)
        log.info("carried_letter", carrier=str(carrier), giver=str(giver), outcome=outcome)
        return outcome

    # the stream

    async def _ask(self, peer: PeerId, frame: CarryFrame) -> int:
        """Return the outcome; `LATER` when there was none."""
        session = self._chat.node.session(peer)
        if session is None:
            return LATER
        try:
            async with asyncio.timeout(TIMEOUT_S):
                stream = await session.open_stream(CARRY_PROTOCOL)
                await stream.write(encode(frame))
                answer = await _frame(stream)
                stream.finish()
        except (*BROKEN, TimeoutError) as exc:
            log.debug("carry_failed", peer=str(peer), why=str(exc))
            return LATER
        return answer.code if isinstance(answer, Outcome) else LATER

    async def _serve(self, session: SessionPort, stream: StreamPort) -> None:
        peer = session.peer
        try:
            if not self._granting.is_friend(peer):
                raise BadPacket("not_a_contact")
            if not self._budget.take(peer, self._chat.node.network.monotonic()):
                raise BadPacket("too_fast")
            async with asyncio.timeout(TIMEOUT_S):
                frame = await _frame(stream)
                if isinstance(frame, Outcome):
                    raise BadPacket("not_a_question")
                outcome = await (self._carry(peer, frame) if isinstance(frame, Carry) else self._take(peer, frame))
                await stream.write(encode(Outcome(outcome)))
            stream.finish()
        except BadPacket as bad:
            self._chat.drops[f"carry_{bad.reason}"] += 1
            stream.reset(1)
        except (*BROKEN, TimeoutError):
            stream.reset(0)


async def _frame(stream: StreamPort) -> CarryFrame:
    """Return the stream's next frame. Raise BadPacket, EOFError, what a broken stream raises."""
    buffer = FrameBuffer()
    while (frame := buffer.next_untrusted()) is None:
        data = await stream.read(MAX_FRAME_BYTES)
        if not data:
            raise EOFError("the other side ended the stream")
        buffer.add(data)
    return frame


def _carried_for(connection: sqlite3.Connection) -> set[PeerId]:
    return {PeerId(raw) for (raw,) in connection.execute("SELECT DISTINCT reader FROM mail_carried")}


def _for_reader(connection: sqlite3.Connection, reader: PeerId) -> list[Carried]:
    rows = connection.execute(
        "SELECT slot, giver, letter FROM mail_carried WHERE reader = ? ORDER BY taken_at", (reader.raw,)
    )
    return [Carried(*row) for row in rows]


def _drop(connection: sqlite3.Connection, slot: bytes) -> None:
    connection.execute("DELETE FROM mail_carried WHERE slot = ?", (slot,))


def _keep(connection: sqlite3.Connection, giver: PeerId, givers: Collection[PeerId], frame: Carry, now_s: int) -> bool:
    """Whether there is room for it; what is older than a week makes some. `givers`: all devices of the giver's user."""
    connection.execute("DELETE FROM mail_carried WHERE taken_at < ?", (now_s - LIFE_S,))
    given = sum(_count(connection, "giver", device.raw, frame.slot) for device in givers)
    if given >= PER_GIVER or _count(connection, "reader", frame.reader, frame.slot) >= PER_READER:
        return False
    if connection.execute("SELECT count(*) FROM mail_carried").fetchone()[0] >= IN_ALL:
        return False
    connection.execute(
        "INSERT OR IGNORE INTO mail_carried (slot, giver, reader, letter, taken_at) VALUES (?, ?, ?, ?, ?)",
        (frame.slot, giver.raw, frame.reader, frame.letter, now_s),
    )
    return True


def _count(connection: sqlite3.Connection, column: str, device: bytes, but_slot: bytes) -> int:
    """Return how many letters `giver` or `reader` (`column`) has here."""
    query = f"SELECT count(*) FROM mail_carried WHERE {column} = ? AND slot != ?"  # noqa: S608 - one of these two
    count: int = connection.execute(query, (device, but_slot)).fetchone()[0]
    return count
