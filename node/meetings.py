"""What is held of one ICE session with a peer, and why it found no path."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from p2pnode.core.address import Address
from p2pnode.core.errors import BothNatsRandomError, NoPathError, P2PError
from p2pnode.core.ids import PeerId
from p2pnode.nat import IceCandidate, IceParameters, IceSession
from p2pnode.offer import RelayHint
from p2pnode.port_sampling import DEPENDENT
from p2pnode.reachability import NatKind
from p2pnode.vouches import Vouches

__all__ = ["Meeting", "OwnSide", "no_path"]


@dataclass(frozen=True)
class OwnSide:
    """What we tell the other side. `published`: addresses that anybody can dial; `nat`: what is before us; `ports`:
    our public ports of late; `relays`: those that we could use, the nearest first."""

    candidates: tuple[IceCandidate, ...]
    published: tuple[Address, ...]
    nat: NatKind
    ports: tuple[int, ...] = ()
    relays: tuple[RelayHint, ...] = ()


@dataclass(eq=False)
class Meeting:
    """One ICE session with a peer. `remotes`: addresses from which its connection may come through a hole.

    `vouches`: where rendezvous nodes see the peer. `consent`: decides on which terms we guess, for
    the answer. `guessing`: ports may be guessed in it. `relays`: those of the answer.
    """

    peer: PeerId
    ice: IceSession
    vouches: Vouches
    remote: IceParameters | None = None
    remotes: frozenset[Address] = frozenset()
    published: frozenset[Address] = frozenset()
    consent: asyncio.Task[None] | None = None
    guessing: bool = False
    relays: tuple[RelayHint, ...] = ()


def no_path(peer: PeerId, own: NatKind, theirs: NatKind, *, guessed: bool) -> P2PError:
    """Return why the checks failed. `guessed`: ports were guessed as well."""
    if NatKind.UDP_BLOCKED in (own, theirs):
        whose = "Our network" if own is NatKind.UDP_BLOCKED else f"The network of {peer}"
        return NoPathError(f"{whose} lets no UDP pass (udp-blocked).", peer=str(peer))
    if own in DEPENDENT and theirs in DEPENDENT:
        return BothNatsRandomError(
            f"Both routers, ours and that of {peer}, choose a new port for each destination (symmetric NAT), so neither"
            " side can tell the other where to knock.",
            peer=str(peer),
        )
    if own in DEPENDENT or theirs in DEPENDENT:
        whose = "Our router" if own in DEPENDENT else f"The router of {peer}"
        tried = "; no guess at the port was right in time" if guessed else ""
        return NoPathError(
            f"{whose} chooses a new port for each destination (symmetric NAT), and the other one lets in only what"
            f" was asked for at exactly that port{tried}.",
            peer=str(peer),
        )
    return NoPathError(f"{peer} answered, but no packet got through between the two routers.", peer=str(peer))
