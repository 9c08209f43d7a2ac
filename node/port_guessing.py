"""Guessed ports between two nodes: consent, who does what, and at which address. `nat.guesser` does it.

Both sides put their terms into their ICE parameters, signed with the offer and the answer. Nothing is sent to any
address but the one at which rendezvous nodes see the peer (`vouches`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from p2pnode.core.address import Address
from p2pnode.core.ids import PeerId
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.nat import Guesser, GuessPlan, GuessTerms, IceEndpoint, IceSession, Role, UdpMux, role_of
from p2pnode.port_sampling import DEPENDENT, PortSampler
from p2pnode.reachability import NatKind
from p2pnode.vouches import Vouches

__all__ = ["PortGuessing"]

VOUCHED_WITHIN_S = 2.0  # the other copies of an offer or answer come well within that
LOOK_S = 0.02
# Ordinary checks pass two round trips and a half after the callee began, one after the caller did.
CALLER_AHEAD_S = 0.1


class PortGuessing:
    """All attempts of a node."""

    def __init__(
        self,
        *,
        network: Network,
        mux: UdpMux,
        ice: IceEndpoint,
        servers: Callable[[], Sequence[Address]],
        known: Callable[[PeerId], bool],
    ) -> None:
        """`servers()`: IPv4 STUN servers. `known`: whether a peer is a contact."""
        self._network = network
        self._known = known
        self._sampler = PortSampler(
            network,
            local_ip=lambda: next((each.ip for each in mux.local if not each.is_ipv6), "0.0.0.0"),
            servers=servers,
        )
        self._guesser = Guesser(network=network, mux=mux, ice=ice)
        self._tasks = TaskSet()

    def network_changed(self) -> None:
        """Our router may be another one."""
        self._sampler.forget()

    def look(self, nat: NatKind) -> None:
        """Get to know our router beforehand; to be called when more is known of it."""
        self._sampler.look(nat)

    async def stop(self) -> None:
        await self._tasks.cancel()
        self._sampler.stop()

    async def terms(self, peer: PeerId, nat: NatKind, seen: Sequence[int], *, called: bool) -> GuessTerms | None:
        """Return our consent to guessing with `peer`, None for none. `called`: by it. `seen`: our ports of late."""
        if nat is NatKind.UNKNOWN or not self._guesser.consents(peer, stranger=called and not self._known(peer)):
            return None
        return await self._sampler.terms(nat, seen)

    def helps(self, ice: IceSession, nats: tuple[NatKind, NatKind], theirs: GuessTerms | None) -> bool:
        """Whether guessing can help. `ice`: its terms are ours. `nats`: ours, and the peer's."""
        return _role(ice, nats, theirs) is not None

    def start(
        self,
        ice: IceSession,
        peer: PeerId,
        nats: tuple[NatKind, NatKind],
        theirs: GuessTerms | None,
        vouches: Vouches,
        *,
        called: bool,
    ) -> None:
        """Guess beside the checks of `ice`, if that can help; its `connect` has to run."""
        own, role = ice.local.guess, _role(ice, nats, theirs)
        if role is not None and own is not None and theirs is not None:
            stranger = called and not self._known(peer)
            self._tasks.spawn(self._guess(ice, peer, role, own, theirs, vouches, called, stranger))

    async def _guess(
        self,
        ice: IceSession,
        peer: PeerId,
        role: Role,
        own: GuessTerms,
        theirs: GuessTerms,
        vouches: Vouches,
        called: bool,
        stranger: bool,
    ) -> None:
        began = self._network.monotonic() - (0.0 if called else CALLER_AHEAD_S)
        while (target := _target(role, vouches)) is None:
            if ice.closed or ice.addresses_answered or self._network.monotonic() - began > VOUCHED_WITHIN_S:
                return
            await asyncio.sleep(LOOK_S)
        plan = GuessPlan(role, target, own, theirs)
        await self._guesser.run(ice, plan, peer, began=began, stranger=stranger)


def _role(ice: IceSession, nats: tuple[NatKind, NatKind], theirs: GuessTerms | None) -> Role | None:
    if NatKind.UNKNOWN in nats:
        return None
    hard, their_hard = (nat in DEPENDENT for nat in nats)
    return role_of(hard=hard, own=ice.local.guess, their_hard=their_hard, theirs=theirs)


def _target(role: Role, vouches: Vouches) -> Address | None:
    if role is Role.OPEN:
        return vouches.address
    return Address(vouches.ip, 0) if vouches.ip is not None else None
