"""Keeps the hall: greets, lets in, tells newcomers of the others, notices who left."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from p2pnode import Address, PeerId
from p2pnode.chat.hall import Roster
from p2pnode.chat.limits import Buckets
from p2pnode.chat.model import HallChanged, Member
from p2pnode.chat.ports import SessionPort, addresses_of
from p2pnode.chat.protocol import Leave, Members

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["HallKeeper"]

log = structlog.get_logger(__name__)

# Chosen by us.
ATTEMPTS = 2  # failed connects in a row, about 10 s apart, after which a member counts as gone
# Entries of one peer: each is shown, told to others, undone on the disk. A flaky link comes back once a minute or so.
ENTRY_RATE, ENTRY_BURST = 0.1, 10.0
GONE_REASONS = frozenset({"refused"})  # ends of sessions that need no second look
QUIET_REASONS = frozenset({"idle", "stopping"})  # ends that say nothing about the peer and cost no frame


class HallKeeper:
    """The hall of one `Chat`."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._roster = Roster(chat.node.peer_id)
        self.away = False
        """Whether the user has left the hall."""
        self._before: tuple[Member, ...] = ()
        self._entries = Buckets(rate=ENTRY_RATE, burst=ENTRY_BURST, capacity=1024)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._roster

    def members(self) -> tuple[Member, ...]:
        return self._roster.members()

    def peers(self) -> tuple[PeerId, ...]:
        return tuple(member.peer for member in self._roster.members())

    def includes(self, peer: PeerId) -> bool:
        """Whether our Hello to `peer` says that we are in one hall."""
        return self._roster.includes(peer)

    def enter(self, peer: PeerId, addresses: tuple[Address, ...]) -> None:
        """Greet `peer` as somebody in the same hall; it is a member once it greets back."""
        if self._chat.directory.is_blocked(peer) or not self._roster.invite(peer, self._now()):
            return
        self._chat.links.hint(peer, addresses)
        # a stream that is open already has said Hello without the flag: the members are told on it all the same
        self._chat.links.get(peer).tell(self._roster.gossip_for(peer))
        self._chat.links.get(peer).poke(retry_now=True)

    def heard_hello(self, member: Member, *, wants: bool) -> None:
        """A Hello came; `wants`: with the hall flag."""
        chat = self._chat
        if not wants or self.away or chat.directory.is_blocked(member.peer):
            return
        if not chat.settings.hall and not self._roster.includes(member.peer):
            return  # we take part in no hall that we did not enter
        if member.peer not in self._roster and not self._entries.take(member.peer, self._now()):
            chat.drops["hall_too_often"] += 1
            return
        if self._roster.answered(member):
            chat.links.get(member.peer).tell(self._roster.gossip_for(member.peer))
            self._announce(joined=(member,))

    def heard_members(self, session: SessionPort, frame: Members) -> None:
        """A member told us of others. One that greets only now (its first Hello was older) becomes a member so."""
        peer = session.peer
        user = self._chat.directory.user_of(peer)
        teller = Member(peer, user, self._chat.directory.name_of(peer), addresses_of(session))
        self.heard_hello(teller, wants=True)
        if peer not in self._roster:
            return
        for told in self._roster.told_untrusted(frame, teller, session.remote, self._now()):
            self.enter(told.peer, told.addresses)

    def attempt_failed(self, peer: PeerId, failures: int) -> None:
        """It could not be reached, or its stream broke."""
        if failures < ATTEMPTS or self._chat.node.session(peer) is not None:
            return
        self.lost(peer)

    def session_closed(self, peer: PeerId, reason: str) -> None:
        """Look whether a member whose session broke is still there."""
        if peer not in self._roster or reason in QUIET_REASONS:
            return
        if reason in GONE_REASONS:
            self.lost(peer)
        else:
            self._chat.links.get(peer).tell(self._roster.gossip_for(peer))

    def lost(self, peer: PeerId) -> None:
        """It is gone; what was to be sent to it as a member is not sent any more."""
        chat = self._chat
        self._roster.withdraw(peer)
        link = chat.links.get(peer)
        link.forget_control()
        member = self._roster.remove(peer)
        if member is None:
            return
        link.hall.drop()
        cutoff = chat.now_ms() + 1
        chat.start_task(chat.store.forget_hall_outbox(peer, before_ms=cutoff), "chat-hall-outbox")
        self._announce(left=(member,))

    def nobody(self) -> str:
        """Return why nobody hears what is said to the hall."""
        return "You have left the hall; \\chat leads back." if self.away else "Nobody else is in the hall yet."

    async def go_out(self, seconds: float) -> None:
        """Leave until `come_back`: nobody who greets us as a member becomes one. Raise StorageError."""
        if self.away:
            return
        self.away, self._before = True, self._roster.members()
        await self.leave(seconds)
        for member in self._before:
            self._roster.remove(member.peer)
            link = self._chat.links.get(member.peer)
            link.forget_control()
            link.hall.drop()
        await self._chat.store.forget_hall_outbox(None, before_ms=self._chat.now_ms() + 1)
        self._chat.attention.look()
        self._chat.emit(HallChanged((), (), ()))

    def come_back(self) -> None:
        """Enter again, through those who were there."""
        if self.away:
            self.away = False
            for member in self._before:
                self.enter(member.peer, member.addresses)

    async def leave(self, seconds: float) -> None:
        """Tell all members that we go; wait at most `seconds` until that has left."""
        links = [self._chat.links.get(peer) for peer in self.peers() if self._chat.node.session(peer) is not None]
        for link in links:
            link.tell(Leave())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for link in links:
                    await link.control_sent()

    def _announce(self, *, joined: tuple[Member, ...] = (), left: tuple[Member, ...] = ()) -> None:
        members = self._roster.members()
        self._chat.attention.look()
        log.info("hall_changed", members=len(members), joined=len(joined), left=len(left))
        self._chat.emit(HallChanged(joined, left, members))

    def _now(self) -> float:
        return self._chat.node.network.monotonic()
