"""What is held of one ICE session with a peer, and why it found no path."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from p2pnode.core.address import Address
from p2pnode.core.errors import BothNatsRandomError, NoPathError, P2PError
from p2pnode.core.ids import PeerId
from p2pnode.nat import IceCandidate, IceParameters, IceSession, Path
from p2pnode.offer import RelayHint
from p2pnode.port_sampling import DEPENDENT
from p2pnode.reachability import NatKind
from p2pnode.vouches import Vouches

__all__ = ["Meeting", "OwnSide", "no_path", "spare_of"]

# Checks that have passed go on with their session, as its consent; QUIC keeps a session alive without them as well.
MAX_OF_PEER = 3  # such meetings of one peer: it can make offers without end
MAX_OVER = 48  # of 64 ICE sessions, the others are for attempts


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

    `hits`: guessed ports from which a check has come. `vouches`: where rendezvous nodes see the peer. `consent`:
    decides on which terms we guess, for the answer. `guessing`: ports may be guessed in it. `found`: its checks have
    passed. `relays`: of a call to us, those of the answer.
    """

    peer: PeerId
    ice: IceSession
    vouches: Vouches
    remote: IceParameters | None = None
    remotes: frozenset[Address] = frozenset()
    published: frozenset[Address] = frozenset()
    hits: tuple[Address, ...] = ()
    consent: asyncio.Task[None] | None = None
    guessing: bool = False
    found: bool = False
    relays: asyncio.Future[tuple[RelayHint, ...]] | None = None

    def through_hole(self, remote: Address) -> bool:
        """Whether a connection from there comes through a router that this meeting has opened.

        From its IP address: where the port differs by destination, first packets may be here before a check tells it.
        """
        open_for = {each.ip for each in self.remotes - self.published}
        return remote not in self.published and remote.ip in open_for


def spare_of(meetings: Iterable[Meeting], peer: PeerId, path_of: Callable[[PeerId], Path | None]) -> Meeting | None:
    """Return the one to end before there is another with `peer`, the oldest first; None when there is room.

    `meetings`: in order of birth. `path_of`: of the session with a peer. A guessed port's socket ends with its
    meeting, so that goes last.
    """
    over = [meeting for meeting in meetings if meeting.found]
    counts = Counter(meeting.peer for meeting in over)
    if counts[peer] < MAX_OF_PEER and len(over) < MAX_OVER:
        return None
    whose = peer if counts[peer] >= MAX_OF_PEER else max(counts, key=counts.__getitem__)
    path = path_of(whose)

    def worth(meeting: Meeting) -> int:
        carries = path is not None and not path.relayed and path.remote in meeting.remotes
        return carries + (carries and meeting.guessing)

    return min((meeting for meeting in over if meeting.peer == whose), key=worth)


def no_path(peer: PeerId, own: NatKind, theirs: NatKind, *, guessed: bool, hidden: bool = False) -> P2PError:
    """Return why the checks failed. `guessed`: ports were guessed as well. `hidden`: we use relays only."""
    if hidden:
        return NoPathError(f"{peer} answered, but no relay joined us; this node uses relays only.", peer=str(peer))
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
