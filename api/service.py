"""What the handlers work on: the running node, its chat, and how a PEER as typed becomes somebody."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from p2pnode import (
    Address,
    InvalidPeerError,
    Node,
    NotFoundError,
    P2PError,
    PeerId,
    PeerNotFoundError,
    PeerSpec,
    Session,
    UserId,
    parse_peer,
)
from p2pnode.chat import Chat, Directory, Party

__all__ = ["Service", "Target", "first", "named"]

T = TypeVar("T")

MAX_DEVICES = 23  # what a device record holds


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody. Exactly one of `user`, `peer` is set. `addresses`: to dial without a lookup."""

    user: UserId | None
    peer: PeerId | None
    addresses: tuple[Address, ...] = ()

    @property
    def party(self) -> UserId | PeerId:
        """Whom a conversation would be with."""
        if self.user is not None:
            return self.user
        if self.peer is not None:
            return self.peer
        raise ValueError("a target names a user or a peer")


def named(spec: PeerSpec, directory: Directory, others: Iterable[PeerId] = ()) -> Party:
    """Return whom a name or the prefix of an id means; `hall` is the hall. `others`: known only by a session.

    Raise PeerNotFoundError, InvalidPeerError when it is not unique.
    """
    try:
        return directory.resolve(spec.text)
    except NotFoundError as error:
        if spec.is_prefix:
            found = {peer for peer in others if str(peer).startswith(spec.text)}
            if len(found) == 1:
                return found.pop()
            if found:
                raise InvalidPeerError(f"Several known ids begin with {spec.text!r}; type more of it.") from error
        raise PeerNotFoundError(error.message, name=spec.text) from error


@dataclass
class Service:
    """The running parts. `topics`: under which names this node is announced, with what text."""

    node: Node
    chat: Chat
    topics: dict[str, str] = field(default_factory=dict)

    @property
    def now(self) -> float:
        return self.node.network.monotonic()

    async def target(self, text: str) -> Target:
        """Read a PEER. Raise InvalidPeerError, PeerNotFoundError."""
        spec = parse_peer(text)
        addresses = await self._addresses(spec)
        if spec.name is None:
            return Target(spec.user, spec.peer, addresses)
        who = self._named(spec)
        if isinstance(who, UserId):
            return Target(who, None)
        if isinstance(who, PeerId):
            return Target(None, who)
        raise InvalidPeerError("The hall is a room, not a peer.")

    async def conversation(self, text: str) -> tuple[Party, tuple[Address, ...]]:
        """Read a PEER or `hall`: whom the conversation is with, and addresses to try. Raise as `target`."""
        spec = parse_peer(text)
        if spec.name is not None:
            await self.chat.table.wait_for(spec.text)
            return self._named(spec), ()
        target = await self.target(text)
        if target.peer is not None:
            return self.chat.directory.party_of(target.peer), target.addresses
        return target.party, target.addresses

    def _named(self, spec: PeerSpec) -> Party:
        return named(spec, self.chat.directory, [*(s.peer for s in self.node.sessions()), *self.node.lan_peers()])

    async def devices(self, target: Target, *, timeout: float) -> tuple[PeerId, ...]:
        """Return the nodes that `target` means: itself, or the user's devices. Raise PeerNotFoundError."""
        if target.peer is not None:
            return (target.peer,)
        if target.user is None:
            return ()
        if target.user == self.node.user_id:
            raise InvalidPeerError("That is your own user id; name somebody else's.")
        mine = [s.peer for s in self.node.sessions() if self.chat.user_of(s.peer) == target.user]
        if mine:
            return tuple(mine)  # who is connected need not be looked up
        return (await self.node.find_user(target.user, timeout=timeout))[:MAX_DEVICES]

    async def session(self, target: Target, *, timeout: float) -> Session:
        """Return a session with the target, with the first of a user's devices that answers. Raise P2PError."""
        started = self.now
        devices = await self.devices(target, timeout=timeout)
        left = max(0.1, timeout - (self.now - started))
        return await first(self.node.connect(d, addresses=target.addresses, timeout=left) for d in devices)

    async def _addresses(self, spec: PeerSpec) -> tuple[Address, ...]:
        found: list[Address] = []
        for host, port in spec.hosts:
            found += await self.node.network.resolve(host, port)
        if spec.hosts and not found:
            raise PeerNotFoundError(f"None of the host names in {spec.text[:120]!r} is known here.")
        return tuple(dict.fromkeys(found))


async def first(attempts: Iterable[Coroutine[None, None, T]]) -> T:
    """Return the first success and cancel the rest. Raise the last P2PError when all failed."""
    tasks = [asyncio.ensure_future(attempt) for attempt in attempts]
    if not tasks:
        raise PeerNotFoundError("This user has no device that can be found.")
    error: P2PError | None = None
    try:
        for done in asyncio.as_completed(tasks):
            try:
                return await done
            except P2PError as exc:
                error = exc
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert error is not None  # noqa: S101 - at least one attempt, none succeeded
    raise error
