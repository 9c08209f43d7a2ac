"""The user's side of it: search, talk, go on, report, leave. A part of the chat.

    await chat.strangers.begin()               # StrangerChanged("searching"), then ("found")
    await chat.strangers.say("hi")             # StrangerSaid(own=True), then theirs
    await chat.strangers.next()                # another one
    await chat.strangers.report()              # this one, to everybody who is to choose him
    await chat.strangers.quit()

Each conversation has a throw-away node of its own. The one for the next conversation is started some random seconds
after this one began: it is ready at once, and its start says nothing about when this conversation ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from p2pnode import AccountKey, MessageTooLongError, NotFoundError, P2PError, PeerSpec, RefusedError
from p2pnode.chat.model import StrangerChanged, StrangerSaid
from p2pnode.chat.strangers.judging import next_slot
from p2pnode.chat.strangers.lobby import Acquaintances, Patience
from p2pnode.chat.strangers.mask import Mask
from p2pnode.chat.strangers.ports import Host, MaskNode, throw_away_node, ways_in
from p2pnode.chat.strangers.receipts import epoch_of
from p2pnode.chat.strangers.reports import Reports
from p2pnode.chat.strangers.store import StrangerStore
from p2pnode.chat.strangers.talk import Talk
from p2pnode.chat.strangers.wire import MAX_TEXT_BYTES
from p2pnode.chat.texts import check_text

if TYPE_CHECKING:
    from p2pnode.chat.database import Database

__all__ = ["Strangers"]

log = structlog.get_logger(__name__)

# Chosen by us.
RETRY_S = 3.0  # after a throw-away node that could not start
SPARE_S = (3.0, 10.0)  # after a conversation began, its successor's node is started
REMIND_S = (5.0, 10.0, 15.0, 30.0, *([60.0] * 240))  # between two "still looking"
GOODBYE_S = 0.3  # that a goodbye may take to leave
STOP_S = 0.7  # of the two seconds that leaving the program may take


class Strangers:
    """`phase`: `off`, `searching`, `found`, `ended`. All methods belong to the event loop's thread."""

    def __init__(self, host: Host, database: Database) -> None:
        """`database`: where the device's secret and reports are kept."""
        self._host = host
        self.database = database
        self.phase = "off"
        self.since = 0.0
        """Monotonic seconds of the last change."""
        self.relay_only = False
        self.acquaintances = Acquaintances()
        self.patience = Patience()
        # what carries reports need not be dialled, and tells nobody an address that need not know it
        self.reports = Reports(lambda: throw_away_node(host.node, relay_only=True))
        self._mask: Mask | None = None
        self._spare: Mask | None = None
        self._talk: Talk | None = None
        self._last: Talk | None = None
        self._round: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._carrying: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._one_step = asyncio.Lock()  # console and control API may both be at it
        self._stopping = False

    # life, as a part of the chat

    async def start(self) -> None:
        """Read what is kept, announce what was reported. Raise StorageError."""
        network = self._host.node.network
        store = StrangerStore(self.database)
        await self.reports.load(store, network.token_bytes(32), network.wall())
        self._carrying = self._host.start_task(self.reports.carry(), "stranger-reports")

    async def stop(self) -> None:
        """Leave whomever we talk to."""
        self._stopping = True
        with contextlib.suppress(NotFoundError):
            await self.quit()
        tasks = [task for task in (self._carrying, *self._closing) if task is not None]
        if self._carrying is not None:
            self._carrying.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_S)
            for task in late:
                task.cancel()

    # what users do

    @property
    def elapsed_s(self) -> float:
        """Seconds since the last change of phase."""
        return max(0.0, self._host.node.network.monotonic() - self.since)

    @property
    def reports_against_us(self) -> int:
        """How many strangers have reported this device this week, as far as it knows."""
        device = self.key_at(int(self._host.node.network.wall())).public_raw
        return self.reports.board.reports(device)

    async def begin(self, *, relay_only: bool = False) -> None:
        """Search for a stranger; each change is a StrangerChanged. `relay_only`: never show our address to one.

        Raise RefusedError while one is there.
        """
        async with self._one_step:
            if self.phase == "found":
                raise RefusedError("You are talking to a stranger already; \\next finds another one.")
            if self.phase == "searching" and relay_only == self.relay_only:
                return
            await self._end_round()
            if relay_only != self.relay_only:
                self._drop_spare()
            self.relay_only = relay_only
            self._begin_round()

    async def next(self) -> None:
        """Leave this stranger, if there is one, and search for another. Raise NotFoundError when nothing was begun."""
        async with self._one_step:
            self._need_begun()
            if self.phase == "searching":
                return
            await self._leave("next")
            self._begin_round("next")

    async def say(self, text: str) -> None:
        """Say something, 1 to 2,000 bytes. Raise NotFoundError (nobody is there), MessageTooLongError,
        EmptyMessageError."""
        self._need_begun()
        if self._talk is None:
            raise NotFoundError(
                "Nobody is there yet; still looking for a stranger."
                if self.phase == "searching"
                else "The stranger has gone; \\next finds another one."
            )
        check_text(text)
        if len(text.encode()) > MAX_TEXT_BYTES:
            raise MessageTooLongError(f"A text to a stranger has at most {MAX_TEXT_BYTES:,} bytes.")
        talk = self._talk
        self._host.emit(StrangerSaid(text, True, self._host.node.network.wall()))
        await talk.say(text)

    async def report(self) -> None:
        """Report this stranger, or the last one, and leave. Raise NotFoundError when there is none, StorageError."""
        async with self._one_step:
            talk = self._last
            if talk is None:
                raise NotFoundError("There is no stranger to report.")
            await self.reports.make(talk.receipt, talk.device, talk.signature)
            self._last = None
            if self._talk is talk:
                await self._leave("reported")
            else:
                self._tell(StrangerChanged(self.phase, "reported"))

    async def quit(self) -> None:
        """Leave the stranger and the lobby. Raise NotFoundError when nothing was begun."""
        async with self._one_step:
            self._need_begun()
            await self._leave("quit", tell=False)
            self._drop_spare()
            self._last = None
            self._change("off", "quit")

    # inside

    def _make_node(self) -> MaskNode:
        return throw_away_node(self._host.node, relay_only=self.relay_only)

    def ways(self) -> tuple[PeerSpec, ...]:
        return ways_in(self._host.node)

    def key_at(self, at: int) -> AccountKey:
        return self.reports.key_at(at)

    async def wanted(self, node: MaskNode, device: bytes, epoch: int) -> bool:
        """Whether reports allow to talk to a blinded id now."""
        return await self.reports.wanted(node, device, epoch)

    def _begin_round(self, reason: str = "") -> None:
        self._change("searching", reason, "relay" if self.relay_only else "")
        self._round = self._host.start_task(self._one_round(), "stranger")

    async def _one_round(self) -> None:
        """Search, talk, and say how it ended."""
        reminding = self._host.start_task(self._remind(), "stranger-reminder")
        try:
            mask, talk = await self._search()
        finally:
            reminding.cancel()
        network = self._host.node.network
        self._talk = self._last = talk
        self.acquaintances.met(talk.device, network.monotonic())
        talk.heard = lambda text: self._host.emit(StrangerSaid(text, False, network.wall()))
        self._change("found", path=talk.path)
        self._preparing = self._host.start_task(self._prepare(), "stranger-spare")
        reason = await talk.run()
        self._talk = None
        self.acquaintances.met(talk.device, network.monotonic())
        self._close(mask)
        self._mask = None
        self._change("ended", reason)

    async def _remind(self) -> None:
        """Say now and then that the search goes on."""
        for pause in REMIND_S:
            await asyncio.sleep(pause)
            self._tell(StrangerChanged("searching", "still", seconds=self.elapsed_s))

    async def _next_mask(self) -> Mask:
        """Return a throw-away node that has joined; it is `_mask` from then on."""
        if self._preparing is not None:
            self._preparing.cancel()
        self._mask, self._spare = self._spare, None
        while self._mask is None:
            mask = self._mask = Mask(self._make_node(), self)
            try:
                await mask.start()
            except P2PError as exc:
                log.info("stranger_node_failed", code=exc.code)
                self._close(mask)
                self._mask = None
                self._tell(StrangerChanged("searching", "no_network"))
                await asyncio.sleep(RETRY_S)
        return self._mask

    async def _search(self) -> tuple[Mask, Talk]:
        """Return a conversation that has begun. Who was reported takes part in some slots only: nobody would choose it
        in the others."""
        told = False
        while True:
            mask = await self._next_mask()
            searching = asyncio.ensure_future(mask.search())
            turn_over = asyncio.ensure_future(self._turn_over(mask))
            try:
                await asyncio.wait({searching, turn_over}, return_when=asyncio.FIRST_COMPLETED)
                if searching.done():
                    return mask, searching.result()
            finally:
                for task in (searching, turn_over):
                    task.cancel()
                await asyncio.gather(searching, turn_over, return_exceptions=True)
            self._close(mask)
            self._mask = None
            if turn_over.result():
                continue
            if not told:
                told = True
                self._tell(StrangerChanged("searching", "waiting", reports=self.reports_against_us))
            await asyncio.sleep(next_slot(self._host.node.network.wall()) + 0.1)

    async def _turn_over(self, mask: Mask) -> bool:
        """Return True when the week of the node's blinded id has ended, False when nobody would choose us, which may be
        now."""
        network = mask.node.network
        while True:
            wall = network.wall()
            if epoch_of(wall) != mask.epoch:
                return True
            if not await self.wanted(mask.node, self.key_at(int(wall)).public_raw, mask.epoch):
                return False
            await asyncio.sleep(next_slot(network.wall()) + 0.1)

    async def _prepare(self) -> None:
        """Start the node of the next conversation."""
        await asyncio.sleep(self._host.node.network.rng.uniform(*SPARE_S))
        mask = Mask(self._make_node(), self)
        try:
            await mask.start()
        except P2PError:
            self._close(mask)
        except asyncio.CancelledError:
            self._close(mask)
            raise
        else:
            self._spare = mask

    async def _leave(self, reason: str, *, tell: bool = True) -> None:
        """End this round politely."""
        talk, self._talk = self._talk, None
        if talk is not None:
            self.acquaintances.met(talk.device, self._host.node.network.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await talk.leave()
        await self._end_round()
        if talk is not None and tell:
            self._change("ended", reason)

    async def _end_round(self) -> None:
        task, self._round = self._round, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._mask is not None:
            self._close(self._mask)
            self._mask = None

    def _drop_spare(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            self._preparing = None
        if self._spare is not None:
            self._close(self._spare)
            self._spare = None

    def _close(self, mask: Mask) -> None:
        """Throw a node away, behind what the user does next."""
        task = self._host.start_task(mask.stop(hurry=self._stopping), "stranger-close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _need_begun(self) -> None:
        if self.phase == "off":
            raise NotFoundError("No stranger is looked for; \\random begins.")

    def _change(self, phase: str, reason: str = "", path: str = "") -> None:
        now = self._host.node.network.monotonic()
        seconds = now - self.since if self.phase in ("searching", "found") else 0.0
        self.phase, self.since = phase, now
        self._tell(StrangerChanged(phase, reason, path, seconds))

    def _tell(self, event: StrangerChanged) -> None:
        self._host.emit(event)
