"""What the handlers work on: the running node, its chat, and how a PEER as typed becomes somebody."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import TypeVar

from p2pnode import (
    Address,
    InvalidPeerError,
    Node,
    P2PError,
    PeerId,
    PeerNotFoundError,
    PeerSpec,
    Session,
    UserId,
    parse_peer,
)
from p2pnode.chat import Chat, Contact

__all__ = ["Service", "Target", "match_contact"]

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


def match_contact(name: str, contacts: Iterable[Contact], others: Iterable[UserId | PeerId] = ()) -> UserId | PeerId:
    """Return whom a name or the prefix of an id means. Raise PeerNotFoundError, InvalidPeerError when it is not unique.

    A petname wins over names that people gave themselves, the exact spelling over another case.
    """
    contacts = list(contacts)
    for fold in (str, str.casefold):
        for field in ("petname", "name"):
            found = {c.party for c in contacts if getattr(c, field) and fold(getattr(c, field)) == fold(name)}
            if len(found) == 1:
                return found.pop()
            if found:
                raise InvalidPeerError(f"Several contacts are called {name!r}; name one by its id.")
    spec = parse_peer(name)
    if spec.is_prefix:
        known = {c.party for c in contacts} | {d for c in contacts for d in c.devices} | set(others)
        matches = {who for who in known if str(who).startswith(name)}
        if len(matches) == 1:
            return matches.pop()
        if matches:
            raise InvalidPeerError(f"{len(matches)} known ids begin with {name!r}; type more of it.")
        raise PeerNotFoundError(f"No known id begins with {name!r}; type the whole of it.", name=name)
    names = [n for c in contacts for n in (c.petname, c.name) if n]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "add it with: p2pnode contacts add ID --name NAME"
    raise PeerNotFoundError(f"No contact is called {name!r}; {hint}", name=name)


@dataclass
class Service:
    """The running parts. `network` is the node's own."""

    node: Node
    chat: Chat

    @property
    def now(self) -> float:
        return self.node.network.monotonic()

    async def target(self, text: str) -> Target:
        """Read a PEER. Raise InvalidPeerError, PeerNotFoundError."""
        spec = parse_peer(text)
        addresses = await self._addresses(spec)
        if spec.name is None:
            return Target(spec.user, spec.peer, addresses)
        others: list[UserId | PeerId] = [s.peer for s in self.node.sessions()]
        others += self.node.lan_peers()
        who = match_contact(spec.name, await self.chat.store.contacts(), others)
        return Target(who, None) if isinstance(who, UserId) else Target(None, who)

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
