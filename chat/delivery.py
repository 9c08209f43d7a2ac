"""What becomes of messages sent since the start: for those who wait for an outcome. No I/O, nothing durable."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable

from p2pnode import PeerId, RefusedError
from p2pnode.chat.model import MessageState, Party, SendResult

__all__ = ["Deliveries", "Delivery"]

MAX_TRACKED = 4096  # about 600 bytes each; beyond it the oldest is not tracked any more (it stays in the outbox)
WAITS_FOR_A_PERSON = "request_pending"


class Delivery:
    """One message on its way. `devices`: where it goes; empty while they are looked up."""

    def __init__(self, message_id: str, party: Party, devices: Iterable[PeerId]) -> None:
        self.id = message_id
        self.party = party
        self.devices = set(devices)
        self.has: set[PeerId] = set()
        self.reason = ""
        self._refused: set[PeerId] = set()
        self._stored: set[PeerId] = set()
        self._tried: set[PeerId] = set()
        self._lookup_failed = False
        self._changed = asyncio.Event()

    @property
    def refused(self) -> bool:
        """Whether nobody has it and nobody will take it."""
        return bool(self.devices) and not self.has and self.devices <= self._refused

    @property
    def everywhere(self) -> bool:
        """Whether all devices that it goes to have it."""
        return bool(self.has) and self.devices <= self.has

    @property
    def is_stored(self) -> bool:
        """Whether it waits in the network for a device that has not got it yet."""
        return bool(self._stored) and not self.has

    @property
    def settled(self) -> bool:
        """Whether the first attempt has ended, one way or another."""
        if self.has or self.refused or self.reason == WAITS_FOR_A_PERSON:
            return True
        return self.devices <= self._tried | self._refused | self._stored if self.devices else self._lookup_failed

    async def wait(self, seconds: float, *, first_attempt: bool) -> None:
        """Wait for the delivery, or a refusal; with `first_attempt` also for the first failure."""
        try:
            async with asyncio.timeout(seconds):
                while not (self.settled if first_attempt else self._final):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    @property
    def _final(self) -> bool:
        return bool(self.has) or self.refused or self.reason == WAITS_FOR_A_PERSON

    def result(self, seconds: float) -> SendResult:
        """Return the outcome so far. Raise RefusedError when it is a final no."""
        if self.refused:
            raise RefusedError("The other side does not take your messages.", id=self.id, reason=self.reason)
        state: MessageState = "delivered" if self.has else "stored" if self.is_stored else "queued"
        reason = "" if self.has else self.reason
        return SendResult(self.id, state, bool(self.has), seconds, len(self.has), reason, self.everywhere)

    def note(self, change: Callable[[Delivery], None]) -> None:
        """Apply a change and wake those who wait."""
        change(self)
        self._changed.set()

    def attempt_failed(self, peer: PeerId, reason: str) -> None:
        self._tried.add(peer)
        self.reason = self.reason or reason

    def stored_for(self, peer: PeerId) -> None:
        self._stored.add(peer)

    def refused_by(self, peer: PeerId, reason: str, *, final: bool) -> None:
        (self._refused if final else self._tried).add(peer)
        self.reason = reason

    def looked_up(self, devices: Iterable[PeerId], reason: str) -> None:
        self.devices |= set(devices)
        self._lookup_failed = not self.devices
        self.reason = self.reason or reason


class Deliveries:
    """All messages of this run that are still on their way."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Delivery] = OrderedDict()

    def begin(self, message_id: str, party: Party, devices: Iterable[PeerId]) -> Delivery:
        delivery = self._open[message_id] = Delivery(message_id, party, devices)
        if len(self._open) > MAX_TRACKED:
            self._open.popitem(last=False)
        return delivery

    def get(self, message_id: str) -> Delivery | None:
        """Return a message that is still on its way."""
        return self._open.get(message_id)

    def delivered(self, message_id: str, peer: PeerId) -> tuple[bool, bool]:
        """Note that `peer` has it; return (whether nobody had it before, or all have it now; whether all have it now).
        Unknown ids (sent before the start) are news too."""
        delivery = self._open.get(message_id)
        if delivery is None:
            return True, False
        first = not delivery.has
        delivery.note(lambda d: d.has.add(peer))
        if delivery.everywhere:
            del self._open[message_id]
        return first or delivery.everywhere, delivery.everywhere

    def stored(self, message_id: str, peer: PeerId) -> None:
        """It waits for `peer` in the network."""
        if (delivery := self._open.get(message_id)) is not None:
            delivery.note(lambda d: d.stored_for(peer))

    def refused(self, message_id: str, peer: PeerId, reason: str, *, final: bool) -> None:
        if (delivery := self._open.get(message_id)) is not None:
            delivery.note(lambda d: d.refused_by(peer, reason, final=final))

    def is_refused(self, message_id: str) -> bool:
        delivery = self._open.get(message_id)
        return delivery is not None and delivery.refused

    def attempt_failed(self, peer: PeerId, reason: str) -> None:
        for delivery in self._open.values():
            if peer in delivery.devices and peer not in delivery.has:
                delivery.note(lambda d: d.attempt_failed(peer, reason))

    def looked_up(self, party: Party, devices: Iterable[PeerId], reason: str = "") -> None:
        """The devices of `party` are known now, or (none) could not be found."""
        found = tuple(devices)
        for delivery in self._open.values():
            if delivery.party == party and not delivery.has:
                delivery.note(lambda d: d.looked_up(found, reason))

    async def settle(self, timeout: float) -> None:
        """Wait until each has had its first attempt; at most `timeout` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        for delivery in list(self._open.values()):
            await delivery.wait(max(0.0, until - loop.time()), first_attempt=True)
