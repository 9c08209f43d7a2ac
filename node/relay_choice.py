"""Which relays two nodes use, and how long they give direct ways a start. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from p2pnode.core.envelope import signing_input
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.dht import KnownContact
from p2pnode.dht.limits import prefix_of
from p2pnode.offer import RelayHint
from p2pnode.reachability import NatKind

__all__ = ["DEPENDENT", "FLOWS", "UNKNOWN_RTT_S", "choose_relays", "head_start", "key_between"]

FLOWS = 2  # the one in use and a spare
UNKNOWN_RTT_S = 0.1  # of a node that we have not measured: half the way round the world

DEPENDENT = (NatKind.ADDRESS_DEPENDENT, NatKind.ADDRESS_AND_PORT_DEPENDENT)
# What a relay waits for direct ways once both sides' candidates are known: a check and a handshake's first round trip
# on a long line. Where both routers are random, or UDP is blocked, no check can pass; where one is random, it passes at
# once or not at all.
START_S = 0.5
START_ONE_RANDOM_S = 0.15
START_DIALABLE_S = 1.0  # somebody only has to be dialled
START_TLS_S = 0.25  # by TLS on TCP, which began before the offer


def head_start(own: NatKind, theirs: NatKind, *, dialable: bool) -> float:
    """Return for how many seconds direct ways are tried alone. `dialable`: one side has published an address."""
    if NatKind.UDP_BLOCKED in (own, theirs):
        return START_TLS_S if dialable else 0.0
    if dialable:
        return START_DIALABLE_S
    random = (own in DEPENDENT) + (theirs in DEPENDENT)
    return (START_S, START_ONE_RANDOM_S, 0.0)[random]


def choose_relays(own: Sequence[tuple[KnownContact, float]], offered: Sequence[RelayHint]) -> list[RelayHint]:
    """Return up to `FLOWS` relays for a call, the lowest total round trip first.

    `own`: ours with their round trips, `offered`: the caller's, those that we can reach. A second one stands in another
    block of addresses, where there is one: what takes the first down spares it.
    """
    theirs = {hint.contact.node_id: hint for hint in offered}
    ranked: list[tuple[float, KnownContact, float]] = []
    for contact, rtt_s in own:
        hint = theirs.pop(contact.node_id, None)
        ranked.append((rtt_s + (hint.rtt_s if hint else max(rtt_s, UNKNOWN_RTT_S)), contact, rtt_s))
    # Those that we measured ourselves go first among equals: a hint is only a word.
    ranked += [(h.rtt_s + max(h.rtt_s, UNKNOWN_RTT_S) + 0.001, h.contact, UNKNOWN_RTT_S) for h in theirs.values()]
    ranked.sort(key=lambda each: each[0])
    chosen: list[tuple[float, KnownContact, float]] = []
    for each in ranked:
        blocks = {prefix_of(kept[1].address.ip) for kept in chosen}
        if len(chosen) < FLOWS and prefix_of(each[1].address.ip) not in blocks:
            chosen.append(each)
    chosen += [each for each in ranked if each not in chosen][: FLOWS - len(chosen)]
    return [RelayHint(contact, rtt_s) for _, contact, rtt_s in chosen]


def key_between(one: PeerId, other: PeerId) -> NodeId:
    """Return the place in the DHT where two nodes that know no relay in common look for one: the same for both, and
    chosen by neither. Who grinds node ids can stand there, as near to any record of theirs."""
    ids = b"".join(sorted((one.raw, other.raw)))
    return NodeId(hashlib.sha256(signing_input(b"p2pnode/1/relay", b"between", ids)).digest()[:20])
