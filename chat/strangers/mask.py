"""A throw-away node: it says in the lobby that it is free, asks others there and is asked, until a conversation begins.

Used for one conversation, then thrown away. What it knows of its user is the blinded id of the week, which it shows to
those only whom it wants to talk to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Protocol

import structlog

from p2pnode import AccountKey, BadPacket, P2PError, PeerId, PeerSpec
from p2pnode.chat.limits import Buckets
from p2pnode.chat.link import BROKEN
from p2pnode.chat.ports import SessionPort, StreamPort
from p2pnode.chat.strangers.lobby import Acquaintances, Candidates, Patience
from p2pnode.chat.strangers.ports import MaskNode
from p2pnode.chat.strangers.receipts import LOBBY, NONCE_BYTES, Receipt, epoch_of, meeting_of
from p2pnode.chat.strangers.seat import Seat
from p2pnode.chat.strangers.talk import Pipe, Talk
from p2pnode.chat.strangers.wire import RANDOM_PROTOCOL, VERSION, Card, Consent, Decline, Frame, Resume

__all__ = ["Mask", "MaskOwner"]

log = structlog.get_logger(__name__)

# Chosen by us.
SAMPLE = 12  # of the lobby that is read at a time
AT_ONCE = 3  # of those are under way at the same time: dialled, then asked one after the other
CONNECT_S = 5.0
ASK_S = 5.0  # from the first card to both signatures
WAIT_S = {"wait": 2.5, "wait_briefly": 0.4}  # how long somebody waits while we ask another; a "no" takes 0.1 s mostly
CARD_S = 3.0  # for the first frame of a stream
LOOK_S = 0.25  # between two looks into the lobby, at first ...
LOOK_MOST_S = 4.0  # ... and when nobody new is in it
WAYS_TRIED = 4  # to join by once more
WITHDRAW_S = 3.0  # until a node that is thrown away does not wait for the lobby any more
LOBBY_LIFE_S = 120.0  # who vanishes is out of the lobby after that
MAX_ASKED = 16  # streams of strangers that are answered at a time
ASKED_FREE_S = 1.0  # that an answer to our question may take: no waste
TAKEN_S = 0.5  # what it costs to take the seat and give it back, beside the time: it is out of the lobby and in again
CLOCK_S = 600  # two clocks wrong by 5 minutes each still meet


class MaskOwner(Protocol):
    """What a mask asks its user's device."""

    acquaintances: Acquaintances
    patience: Patience

    def key_at(self, at: int) -> AccountKey: ...
    def ways(self) -> tuple[PeerSpec, ...]:
        """Return nodes to join through, as they are known now."""

    async def wanted(self, node: MaskNode, device: bytes, epoch: int) -> bool:
        """Whether reports allow to talk to a blinded id now."""


class Mask:
    """One throw-away node. `start`, `search`, `stop`."""

    def __init__(self, node: MaskNode, owner: MaskOwner) -> None:
        self.node = node
        self._owner = owner
        self._seat = Seat(node.peer_id)
        self._candidates = Candidates(node.peer_id)
        self._open = False
        self.epoch = 0
        """The week of the only blinded id that this node shows: two of them would be known as one device's."""
        self._talk: Talk | None = None
        self._found: asyncio.Future[Talk] = asyncio.get_running_loop().create_future()
        self._dials: set[asyncio.Task[None]] = set()
        self._one_question = asyncio.Lock()
        self._news = asyncio.Event()
        self._asked = 0
        self._knocks = Buckets(rate=0.5, burst=4, capacity=256)  # by peer
        self._all_knocks = Buckets(rate=8, burst=64, capacity=1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lobby_tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def start(self) -> None:
        """Join the network. Raise P2PError."""
        self.node.handle(RANDOM_PROTOCOL, self._serve)
        await self.node.start()

    async def search(self) -> Talk:
        """Return the conversation once one has begun."""
        self._open = True
        self.epoch = epoch_of(self.node.network.wall())
        listing = self._begin(self._be_listed())
        looking = self._begin(self._look())
        try:
            return await self._found
        finally:
            self._open = False
            ending = [listing, looking, *self._dials]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            self._withdraw()

    async def stop(self, *, hurry: bool = False) -> None:
        """Throw it away; calling it twice is harmless. `hurry`: what is still in the lobby ends by itself."""
        if self._stopped:
            return
        self._stopped = True
        self._open = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._lobby_tasks and not hurry:
            await asyncio.wait(self._lobby_tasks, timeout=WITHDRAW_S)
        await self.node.stop()

    # the lobby

    async def _be_listed(self) -> None:
        """Be in the lobby while the seat is not taken: who is about to agree with somebody is out of it already."""
        while True:
            if self._seat.taken is None:
                # Never cancelled: only what was announced to its end can be withdrawn everywhere.
                await asyncio.wait({self._to_lobby(self.node.announce(LOBBY, bytes((VERSION,)), life=LOBBY_LIFE_S))})
            while self._seat.taken is None:
                await self._news.wait()
            self._withdraw()
            while self._seat.taken is not None:
                await self._news.wait()

    def _withdraw(self) -> None:
        """Have the lobby forget us, behind everything else."""
        self._to_lobby(self.node.unannounce(LOBBY))

    def _to_lobby(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(_quietly(work), name="stranger-lobby")
        self._lobby_tasks.add(task)
        task.add_done_callback(self._lobby_tasks.discard)
        return task

    async def _look(self) -> None:
        """Read the lobby again and again, also while somebody is dialled and asked: what it says is old in a second."""
        network, pause = self.node.network, LOOK_S
        while True:
            listing = await self.node.topic(LOBBY, limit=SAMPLE, sample=True)
            if not listing.answered:
                await self._join_again()
            version = bytes((VERSION,))
            self._candidates.listed(member.peer for member in listing.members if member.value[:1] == version)
            pause = LOOK_S if self._go_on() else min(pause * 1.5, LOOK_MOST_S)
            await asyncio.sleep(pause * (0.5 + network.rng.random()))

    def _go_on(self) -> bool:
        """Dial as many of those last listed as may be under way; whether there was one to dial."""
        network, begun = self.node.network, False
        while self._open and self._seat.taken is None and len(self._dials) < AT_ONCE:
            peer = self._candidates.choose(network.monotonic(), network.rng)
            if peer is None:
                break
            begun = True
            dial = self._begin(self._try(peer))
            self._dials.add(dial)
            dial.add_done_callback(self._dialled)
        return begun

    def _dialled(self, dial: asyncio.Task[None]) -> None:
        self._dials.discard(dial)
        self._go_on()

    async def _join_again(self) -> None:
        """Nobody answers: perhaps our user's node has come to know somebody since we were made."""
        ways = [host for spec in self._owner.ways() for host in spec.hosts][:WAYS_TRIED]
        for host, port in ways:
            with contextlib.suppress(P2PError):
                await self.node.join_through(host, port)

    # asking

    async def _try(self, peer: PeerId) -> None:
        """Dial somebody from the lobby and ask; what comes of it is in `_found`."""
        how = "failed"
        try:
            session = await self.node.connect(peer, timeout=CONNECT_S)
            async with self._one_question:
                if self._is_lost(session):
                    return
                how = await self._ask(session, peer) if self._seat.ask(peer) else "unasked"
        except BROKEN as exc:
            log.debug("stranger_failed", reason=type(exc).__name__)
        finally:
            if how:
                self._candidates.tried(peer, how, self.node.network.monotonic())

    async def _ask(self, session: SessionPort, peer: PeerId) -> str:
        """Return "" when a conversation has begun, else why not. Raise one of BROKEN."""
        agreed, at = False, int(self.node.network.wall())
        began = self.node.network.monotonic()
        stream: StreamPort | None = None
        try:
            async with asyncio.timeout(ASK_S):
                if epoch_of(at) != self.epoch:
                    return "clock"  # the week has ended: another node takes over
                # Of two connections that crossed meanwhile the one that stays: the other may end before we agree.
                session = await self.node.connect(peer, timeout=ASK_S)
                stream = await session.open_stream(RANDOM_PROTOCOL)
                pipe = Pipe(stream)
                key, card = self._card(at)
                await pipe.send(card)
                answer = await pipe.read()
                if isinstance(answer, Decline):
                    return answer.code
                if not isinstance(answer, Card):
                    raise BadPacket("unexpected")
                if not self._seat.answered(peer):
                    return await self._decline(pipe, "crossing")
                self._wake()
                why = await self._agree(session, pipe, key, card, answer, asked_us=False)
                agreed = not why
                return why
        finally:
            if not agreed:
                self._wasted(session, began, -ASKED_FREE_S)
                self._give_up(peer, stream, ours=True)

    def _is_lost(self, session: SessionPort) -> bool:
        return self._owner.patience.is_lost(session.remote, self.node.network.monotonic())

    def _wasted(self, session: SessionPort, began: float, more: float) -> None:
        now = self.node.network.monotonic()
        self._owner.patience.wasted(session.remote, now - began + more, now)

    def _give_up(self, peer: PeerId, stream: StreamPort | None, *, ours: bool) -> None:
        self._seat.leave(peer, ours=ours)
        self._wake()
        if stream is not None:
            with contextlib.suppress(*BROKEN):
                stream.finish()

    # being asked

    async def _serve(self, session: SessionPort, stream: StreamPort) -> None:
        now = self.node.network.monotonic()
        partner = self._talk is not None and self._talk.peer == session.peer
        if (
            self._asked >= MAX_ASKED
            or (self._is_lost(session) and not partner)
            or not (self._knocks.take(session.peer, now) and self._all_knocks.take("", now))
        ):
            stream.reset(1)
            return
        self._asked += 1
        pipe = Pipe(stream)
        frame: Frame | None = None
        try:
            async with asyncio.timeout(CARD_S):
                frame = await pipe.read()
            await self._answer(session, pipe, frame)
        except BROKEN:
            if frame is None:
                self._wasted(session, now, 0.0)
            stream.reset(1)
        finally:
            self._asked -= 1

    async def _answer(self, session: SessionPort, pipe: Pipe, frame: Frame) -> None:
        peer, wall = session.peer, self.node.network.wall()
        if isinstance(frame, Resume):
            if self._talk is None or self._talk.peer != peer or not await self._talk.resume(pipe, frame):
                raise BadPacket("unexpected")
            return
        if not isinstance(frame, Card):
            raise BadPacket("unexpected")
        if abs(frame.at - wall) > CLOCK_S:
            await self._decline(pipe, "clock")
        elif not self._open or self._found.done():
            await self._decline(pipe, "taken")
        elif epoch_of(frame.at) != self.epoch:
            await self._decline(pipe, "clock")
        elif (refusal := await self._seat_for(peer)) is not None:
            await self._decline(pipe, refusal)
        else:
            await self._accept(session, pipe, frame)

    async def _accept(self, session: SessionPort, pipe: Pipe, card: Card) -> None:
        """They have the seat: show who we are, and agree or not."""
        agreed, began = False, self.node.network.monotonic()
        try:
            async with asyncio.timeout(ASK_S):
                key, mine = self._card(card.at)
                await pipe.send(mine)
                agreed = not await self._agree(session, pipe, key, mine, card, asked_us=True)
        finally:
            if not agreed:
                self._wasted(session, began, TAKEN_S)
                self._give_up(session.peer, pipe.stream, ours=False)

    async def _seat_for(self, peer: PeerId) -> str | None:
        """Return None when the seat is theirs, else the code to decline with."""
        verdict = self._seat.asked_by(peer)
        if verdict == "take":
            self._wake()
            return None
        if verdict not in WAIT_S:
            return verdict
        given: bool | None = None
        try:
            async with asyncio.timeout(WAIT_S[verdict]):
                while (given := self._seat.given(peer)) is None:
                    await self._news.wait()
        except TimeoutError:
            given = self._seat.given(peer)
        finally:
            self._seat.forget(peer)
        return None if given else "busy"

    # both

    async def _agree(
        self, session: SessionPort, pipe: Pipe, key: AccountKey, mine: Card, theirs: Card, *, asked_us: bool
    ) -> str:
        """Look at the other's reports, sign, and have its signature. Return "" then, else why not.

        Who asks signs first. Who is asked signs when the conversation has begun for it, so nobody collects signatures
        of whom he likes, to report them, by asking and going away. That it was met before is said only to who has
        proven its id.
        """
        if not asked_us and self._is_known(theirs):
            return await self._decline(pipe, "again")
        at = theirs.at if asked_us else mine.at
        if abs(theirs.at - at) > CLOCK_S:
            return await self._decline(pipe, "clock")
        meeting = meeting_of((self.node.peer_id, mine.nonce), (session.peer, theirs.nonce))
        receipt = Receipt(at, mine.device, theirs.device, meeting)
        if not await self._owner.wanted(self.node, theirs.device, receipt.epoch):
            return await self._decline(pipe, "later")
        consent = Consent(key.sign(receipt.signing_input()))
        if not asked_us:
            await pipe.send(consent)
        frame = await pipe.read()
        if isinstance(frame, Decline):
            return frame.code
        if not isinstance(frame, Consent) or not receipt.signed_by(theirs.device, frame.signature):
            raise BadPacket("bad_signature")
        if self._found.done():
            raise BadPacket("unexpected")
        if asked_us and self._is_known(theirs):
            return await self._decline(pipe, "again")
        self._talk = Talk(self.node, session, pipe, receipt, theirs.device, frame.signature)
        self._found.set_result(self._talk)
        if asked_us:
            await pipe.send(consent)  # before anything that is said
        return ""

    def _card(self, at: int) -> tuple[AccountKey, Card]:
        key = self._owner.key_at(at)
        return key, Card(VERSION, at, key.public_raw, self.node.network.token_bytes(NONCE_BYTES))

    def _is_known(self, card: Card) -> bool:
        """Whether it is ourselves, or somebody whom we met just now."""
        own = self._owner.key_at(card.at).public_raw
        return card.device == own or self._owner.acquaintances.just_met(card.device, self.node.network.monotonic())

    async def _decline(self, pipe: Pipe, code: str) -> str:
        await pipe.send(Decline(code))
        with contextlib.suppress(*BROKEN):
            pipe.stream.finish()
        return code

    def _wake(self) -> None:
        """Whoever waits for the seat looks again; while it is free, others are dialled."""
        self._news.set()
        self._news = asyncio.Event()
        self._go_on()

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(_quietly(work), name="stranger-mask")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _quietly(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except P2PError as exc:
        log.info("stranger_lobby_failed", code=exc.code)
