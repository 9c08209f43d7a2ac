"""What happens in the chat, in batches: a screen is drawn ten times a second at most, five times in a flood."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pnode.chat import (
    Chat,
    ChatEvent,
    Message,
    MessageReceived,
    MessagesSynced,
    MessageStateChanged,
    Party,
    RoomChanged,
)
from p2pnode.chat.model import HallTold, MessagesGone, MessageState

__all__ = ["Batch", "Feed"]

State = tuple[MessageState, str, bool]
"""State, reason, whether all devices have it."""
# Chosen by us.
PAUSE_S = 0.1  # between two batches
FLOOD_PAUSE_S = 0.2  # between two while messages come in each: drawing is what a key waits for
BATCH_MAX = 100  # messages: 6 ms of layout, so that a key never waits for more
STATES_KEPT = 4096  # of messages that are not shown yet


@dataclass(slots=True)
class Batch:
    """`messages`: new in the database, all conversations, in the order of storing. `states`: of own messages, by id.
    `events`: everything else, in order. `gone`: positions of messages that were removed. `unread`: what is unread now,
    where that was counted anew."""

    messages: list[Message] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)
    events: list[ChatEvent] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    unread: dict[Party, int] = field(default_factory=dict)


class Feed:
    """Follows a chat. `show` is called with each batch, on the loop."""

    def __init__(self, chat: Chat, show: Callable[[Batch], None]) -> None:
        self._chat = chat
        self._show = show
        self._events: list[ChatEvent] = []
        self._states: OrderedDict[str, State] = OrderedDict()
        self._changed: dict[str, State] = {}
        self._gone: set[int] = set()
        self._stored = self._recount = False
        self._news = asyncio.Event()
        self._cancel = chat.subscribe(self._on_event)

    def close(self) -> None:
        """Stop listening."""
        self._cancel()

    async def run(self, position: int) -> None:
        """Give what comes after `position`, until cancelled. Raise StorageError."""
        flood = False
        while True:
            await self._news.wait()
            self._news.clear()
            batch = Batch(events=self._events)
            self._events = []
            if self._stored:
                self._stored = False
                batch.messages = await self._chat.store.messages(after=position, limit=BATCH_MAX)
                if batch.messages:
                    position = batch.messages[-1].position
                if len(batch.messages) == BATCH_MAX:
                    self._stored = True
                    self._news.set()
            if self._recount and not self._stored:
                self._recount = False
                batch.unread = {each.party: each.unread for each in await self._chat.store.conversations()}
            batch.states, self._changed = self._changed, {}
            batch.gone, self._gone = self._gone, set()
            for message in batch.messages:
                if message.outgoing and message.id in self._states:  # it moved on before it was read
                    batch.states[message.id] = self._states[message.id]
            self._show(batch)
            await asyncio.sleep(FLOOD_PAUSE_S if flood and batch.messages else PAUSE_S)
            flood = bool(batch.messages)

    def _on_event(self, event: ChatEvent) -> None:
        if isinstance(event, MessagesGone):
            self._gone.update(event.positions)
        elif isinstance(event, MessageReceived | HallTold | MessagesSynced):
            self._stored = True
            self._recount |= isinstance(event, MessagesSynced)
        elif isinstance(event, MessageStateChanged):
            if event.state == "queued":
                self._stored = True
            else:
                self._states[event.id] = self._changed[event.id] = (event.state, event.reason, event.everywhere)
                if len(self._states) > STATES_KEPT:
                    self._states.popitem(last=False)
            if event.state == "refused":
                self._events.append(event)
        else:
            self._stored = self._stored or isinstance(event, RoomChanged)  # a latecomer's history is told of as one
            self._events.append(event)
        self._news.set()
