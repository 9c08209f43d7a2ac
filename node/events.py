"""What a node tells its subscribers. Events are facts in the past tense, immutable, delivered in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from p2pnode.core.address import Address, Realm
from p2pnode.core.devices import DeviceList
from p2pnode.core.ids import PeerId, UserId
from p2pnode.core.network import Cancel

if TYPE_CHECKING:
    from p2pnode.session import Session

__all__ = [
    "DevicesChanged",
    "EventBus",
    "Joined",
    "KeyInUse",
    "LanPeerSeen",
    "NetworkChanged",
    "NodeEvent",
    "PresenceChanged",
    "SessionClosed",
    "SessionMoved",
    "SessionOpened",
]


log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SessionOpened:
    """A session with both sides proven."""

    session: Session


@dataclass(frozen=True)
class SessionClosed:
    """`reason`: `idle`, `lost`, `replaced`, `duplicate`, `closed`, `refused`, `stopping`."""

    session: Session
    reason: str


@dataclass(frozen=True)
class SessionMoved:
    """A session goes on by another path: `session.path`. `before`: the old one's name."""

    session: Session
    before: str


@dataclass(frozen=True)
class PresenceChanged:
    """Somebody came or went, or is at other addresses. `age_s`: how old the evidence is, seconds; the rest as in
    `FindResult`."""

    peer: PeerId
    online: bool
    age_s: float
    name: str = ""
    user: UserId | None = None
    state: str = ""
    evidence: str = ""
    holders: int = 0
    last_seen: float | None = None
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True)
class LanPeerSeen:
    """A peer on the local network answered with its key. Repeated when its addresses change."""

    peer: PeerId
    addresses: tuple[Address, ...]
    name: str = ""


@dataclass(frozen=True)
class NetworkChanged:
    """Own addresses changed; `nat` as in `NodeStatus`."""

    addresses: tuple[Address, ...]
    nat: str


@dataclass(frozen=True)
class Joined:
    """The first nodes of a realm answered."""

    realm: Realm


@dataclass(frozen=True)
class DevicesChanged:
    """The account's list of devices is another one: changed here, or heard of. `revoked`: this device is not in it."""

    devices: DeviceList
    revoked: bool


@dataclass(frozen=True)
class KeyInUse:
    """A newer process uses this device's key (a copied home); this one publishes nothing any more."""


NodeEvent = (
    SessionOpened
    | SessionClosed
    | SessionMoved
    | PresenceChanged
    | LanPeerSeen
    | NetworkChanged
    | Joined
    | DevicesChanged
    | KeyInUse
)


class EventBus:
    """Tells every subscriber, in order; a subscriber that raises is logged and the others still hear."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[NodeEvent], None]] = []

    def subscribe(self, callback: Callable[[NodeEvent], None]) -> Cancel:
        self._subscribers.append(callback)

        def cancel() -> None:
            with contextlib.suppress(ValueError):
                self._subscribers.remove(callback)

        return cancel

    def emit(self, event: NodeEvent) -> None:
        for callback in list(self._subscribers):
            try:
                callback(event)
            except Exception:  # an application's mistake must not end the node
                log.exception("subscriber_failed", event_type=type(event).__name__)
