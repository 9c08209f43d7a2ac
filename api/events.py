"""Events of the node and the chat as the lines that `join --headless` and `GET /v1/events` give."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from p2pnode import (
    Joined,
    KeyInUse,
    LanPeerSeen,
    NetworkChanged,
    NodeEvent,
    PeerId,
    PresenceChanged,
    SessionClosed,
    SessionMoved,
    SessionOpened,
    UserId,
)
from p2pnode.api import types as t
from p2pnode.api.service import Service
from p2pnode.chat import (
    ChatEvent,
    FileChanged,
    HallChanged,
    HallTold,
    Message,
    MessageReceived,
    MessagesGone,
    MessagesSynced,
    MessageStateChanged,
    OwnDevicesChanged,
    PresenceSeen,
    RoomChanged,
    StatusChanged,
    StrangerChanged,
    StrangerSaid,
    TableChanged,
    TimerChanged,
)
from p2pnode.chat.model import Hall, RoomId

__all__ = ["EventFeed", "chat_event", "node_event"]

MAX_WAITING = 10_000  # events a slow reader may be behind, about 5 MB; then its stream ends and it asks again


def node_event(event: NodeEvent) -> t.Event | None:
    """Return the line for an event of the node, None when it has none."""
    match event:
        case PresenceChanged(peer, online, age_s, name, user, state, evidence, _, last_seen, addresses):
            return t.Event(
                event="presence",
                peer=str(peer),
                online=online,
                age_s=round(age_s, 3),
                name=name or None,
                from_user=None if user is None else str(user),
                state=state or None,
                evidence=evidence or None,
                last_seen=None if last_seen is None else t.rfc3339(last_seen),
                addresses=[str(address) for address in addresses] or None,
            )
        case NetworkChanged(addresses, nat):
            return t.Event(event="network", nat=nat, addresses=[str(a) for a in addresses])
        case SessionOpened(session):
            return t.Event(event="session", peer=str(session.peer), path=session.path, state="open")
        case SessionClosed(session, reason):
            return t.Event(event="session", peer=str(session.peer), path=session.path, state="closed", reason=reason)
        case SessionMoved(session, _):
            return t.Event(event="session", peer=str(session.peer), path=session.path, state="moved")
        case LanPeerSeen(peer, addresses, name):
            return t.Event(event="lan_peer", peer=str(peer), addresses=[str(a) for a in addresses], name=name or None)
        case Joined(realm):
            return t.Event(event="joined", name=realm.value)
        case KeyInUse():
            return t.Event(event="key_in_use")
    return None


def chat_event(event: ChatEvent, own: PeerId) -> t.Event | None:
    """Return the line for an event of the chat, None when it has none."""
    match event:
        case MessageReceived(message):
            return _message(message, own)
        case MessageStateChanged(message_id, party, state, reason, everywhere):
            return t.Event(
                event="state", id=message_id, to=str(party), state=state, reason=reason or None,
                everywhere=everywhere or None,
            )  # fmt: skip
        case OwnDevicesChanged(devices, revoked):
            state = "revoked" if revoked else "changed"
            return t.Event(event="devices", state=state, members=[str(device.peer) for device in devices])
        case PresenceSeen(peer, user, online, age_s, state, evidence):
            return t.Event(
                event="presence",
                peer=str(peer),
                from_user=None if user is None else str(user),
                online=online,
                age_s=round(age_s, 3),
                state=state or None,
                evidence=evidence or None,
            )
        case StatusChanged(peer, user, text):
            return t.Event(event="status", peer=str(peer), from_user=str(user), text=text)
        case StrangerChanged(phase, reason, path, seconds):
            return t.Event(
                event="random", state=phase, reason=reason or None, path=path or None, age_s=round(seconds, 3)
            )
        case StrangerSaid(text, own_text, at):
            who = "you" if own_text else "stranger"
            return t.Event(event="random_message", from_=who, text=text, sent_at=t.rfc3339(at))
        case TableChanged(name, place, state, party, peer, why):
            return t.Event(
                event="table",
                name=name,
                addresses=[place],
                state=state,
                peer=None if peer is None else str(peer),
                from_user=str(party) if isinstance(party, UserId) else None,
                reason=state if state == "wrong_key" else None,
                text=why or None,
            )
        case TimerChanged(party, seconds, agreed, by):
            return t.Event(
                event="timer", to=str(party), age_s=float(seconds), state="agreed" if agreed else "waiting",
                peer=None if by is None else str(by),
            )  # fmt: skip
        case MessagesGone(party, positions):
            return t.Event(event="gone", to=str(party), size=len(positions))
        case HallTold(teller, messages):
            return t.Event(event="told", peer=str(teller), to="hall", size=len(messages))
        case RoomChanged(room, what, user, author, count, name):
            return t.Event(
                event="room",
                to=str(room),
                name=name,
                state=what,
                from_user=None if user is None else str(user),
                peer=None if author is None else str(author),
                size=count or None,
            )
        case HallChanged(_, _, members):
            return t.Event(event="hall", members=[str(member.peer) for member in members])
        case FileChanged(transfer, _):
            return t.Event(
                event="file",
                id=transfer.id,
                peer=str(transfer.author),
                from_user=None if transfer.outgoing or not isinstance(transfer.party, UserId) else str(transfer.party),
                to=str(transfer.party) if transfer.outgoing or isinstance(transfer.party, RoomId) else str(own),
                receiver=None if transfer.receiver is None else str(transfer.receiver),
                direction="out" if transfer.outgoing else "in",
                name=transfer.name,
                folder=transfer.folder,
                size=transfer.size,
                done=transfer.done,
                state=transfer.state,
                reason=transfer.reason or None,
                path=transfer.path or None,
            )
    return None


def _message(message: Message, own: PeerId) -> t.Event:
    return t.Event(
        event="message",
        id=message.id,
        from_=str(message.author),
        from_user=None if message.author_user is None else str(message.author_user),
        from_name=message.author_name,
        to=str(message.party) if isinstance(message.party, Hall) else str(own),
        text=message.text,
        sent_at=t.rfc3339(message.sent_at),
    )


def _synced(message: Message, own: PeerId) -> t.Event:
    """What another device of the user told us of: its own messages, and what came there."""
    line = _message(message, own)
    line.event = "synced"
    line.direction = "out" if message.outgoing else "in"
    line.to = str(message.party) if message.outgoing else line.to
    return line


class EventFeed:
    """All events of node and chat as an async iterator. Ends with `close`, or when its reader is too slow."""

    def __init__(self, service: Service) -> None:
        self._queue: asyncio.Queue[t.Event | None] = asyncio.Queue(MAX_WAITING)
        own = service.node.peer_id
        self._cancels: list[Callable[[], None]] = [
            service.node.subscribe(lambda event: self._put(node_event(event))),
            service.chat.subscribe(lambda event: self._heard(event, own)),
        ]
        self._ended = False

    def _heard(self, event: ChatEvent, own: PeerId) -> None:
        if isinstance(event, MessagesSynced):
            for message in event.messages:
                self._put(_synced(message, own))
        elif not _doubled(event):
            self._put(chat_event(event, own))

    def _put(self, line: t.Event | None) -> None:
        if line is None or self._ended:
            return
        if self._queue.qsize() >= MAX_WAITING - 1:
            self.close()
        else:
            self._queue.put_nowait(line)

    def close(self) -> None:
        """End the feed after what is waiting. Calling it twice is harmless."""
        if not self._ended:
            self._ended = True
            for cancel in self._cancels:
                cancel()
            self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[t.Event]:
        try:
            while (line := await self._queue.get()) is not None:
                yield line
        finally:
            self.close()


def _doubled(event: ChatEvent) -> bool:
    """Whether the node tells the same itself: presence comes from there, but for what contacts pass on."""
    return isinstance(event, PresenceSeen) and event.evidence != "contact"
