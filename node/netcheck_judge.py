"""From what helpers saw and what came in to verdicts with evidence. Pure.

Any helper may lie, so nobody is believed alone about what cannot be checked. What arrives proves itself (it carries a
number that only we and one helper know, and a router let it in). What does not arrive must be missed from two voters.
What helpers say they see is put to the vote (`reachability`). A voter is an address block, /24 or /48; in a network of
fewer than three blocks an IP address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from p2pnode.core.address import Address, Realm
from p2pnode.dht.limits import prefix_of
from p2pnode.nat.behaviour import (
    ADDRESS,
    ADDRESS_AND_PORT,
    INDEPENDENT,
    UNKNOWN,
    allocation_of,
    filtering_of,
)
from p2pnode.reachability import NatKind, Reachability, Reflexive

__all__ = ["LetIn", "MappingVerdict", "View", "Voters", "judge_allocation", "judge_filtering", "judge_mapping"]

ENOUGH = 2  # voters from whom something must be missed


class Voters:
    """Who has a vote of its own."""

    def __init__(self, helpers: Iterable[Address]) -> None:
        ips = {helper.ip for helper in helpers}
        self._by_block = len({prefix_of(ip) for ip in ips}) >= 3

    def of(self, helper: Address) -> Hashable:
        return prefix_of(helper.ip) if self._by_block else helper.ip


@dataclass(frozen=True, slots=True)
class View:
    """`server` saw a socket of ours as `seen`; `fresh`: it is a second port of a helper."""

    server: Address
    seen: Address
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class MappingVerdict:
    """`public`: our outside IP address, where it is believed."""

    mapping: str
    public: str | None
    nat: bool | None
    evidence: str


def judge_mapping(
    views: Sequence[View], local: Sequence[Address], voters: Voters, *, documentation: bool
) -> MappingVerdict:
    """Judge one socket, `local` its own addresses, as seen by several servers; some share an IP address.

    RFC 5780, section 4.3 "Determining NAT Mapping Behavior". Second ports only tell, where the mapping depends on the
    destination, whether its port matters.
    """
    book = Reachability(allow_documentation=documentation)
    servers = [view.server for view in views if not view.fresh]
    for view in views:
        if not view.fresh:
            book.report(b"", view.server, view.seen, 0.0)
    if not servers:
        return MappingVerdict(UNKNOWN, None, None, "no node answered")

    def verdict() -> Reflexive:
        return book.verdict(Realm.PUBLIC, ipv6=servers[0].is_ipv6, local=local, known=servers, now=0.0)

    found = verdict()
    count = len({voters.of(server) for server in servers})
    if count < ENOUGH:
        return MappingVerdict(UNKNOWN, None, None, f"one node sees {views[0].seen}; it takes two to know")
    if found.kind in (NatKind.NONE, NatKind.ENDPOINT_INDEPENDENT):
        nat = found.kind is NatKind.ENDPOINT_INDEPENDENT
        said = f"{found.witnesses} of {found.votes} nodes see {found.address}"
        return MappingVerdict(INDEPENDENT, found.ip, nat, said if nat else f"{said}, which is our own address")
    for view in views:
        if view.fresh:
            book.report(b"", view.server, view.seen, 0.0)
    kind = verdict().kind if found.kind is not NatKind.UNKNOWN else found.kind
    alike, different = _pairs(views)
    if count < 3 and (kind is NatKind.ADDRESS_DEPENDENT or len(different) < ENOUGH):
        kind = NatKind.UNKNOWN  # of two, one may lie
    if kind not in (NatKind.ADDRESS_DEPENDENT, NatKind.ADDRESS_AND_PORT_DEPENDENT):
        said = f"{count} nodes contradict each other, and are too few to tell who is right"
        return MappingVerdict(UNKNOWN, found.ip, None, said)
    said = f"{len({view.seen for view in views})} different public ports toward {len(views)} destinations"
    if alike or different:
        said += f"; the same toward both ports of {len(alike)} of {len(alike) + len(different)} nodes"
    else:
        said += "; no node showed a second port, so the worse is assumed"
    return MappingVerdict(kind.value, found.ip, True, said)


def _pairs(views: Sequence[View]) -> tuple[set[str], set[str]]:
    """Return the IP addresses whose ports all saw the same, and those whose ports saw different addresses."""
    seen: dict[str, dict[Address, Address]] = {}
    for view in views:
        seen.setdefault(view.server.ip, {})[view.server] = view.seen
    several = {ip: set(by_port.values()) for ip, by_port in seen.items() if len(by_port) > 1}
    return {ip for ip, s in several.items() if len(s) == 1}, {ip for ip, s in several.items() if len(s) > 1}


@dataclass(slots=True)
class LetIn:
    """What reached one socket that has sent to `helper` only. None, or absent: nobody agreed to try."""

    helper: Address
    other_port: bool | None = None
    """From another port of the helper's."""
    strangers: dict[Address, bool] = field(default_factory=dict)
    """From other helpers."""


def judge_filtering(tries: Sequence[LetIn], voters: Voters) -> tuple[str, str]:
    """Return word and evidence. RFC 5780, section 4.4 "Determining NAT Filtering Behavior"."""
    came = {voters.of(who) for each in tries for who, arrived in each.strangers.items() if arrived}
    if came:
        asked = {voters.of(who) for each in tries for who in each.strangers}
        said = f"packets of {len(came)} of {len(asked)} nodes that we had not sent to came in"
        return filtering_of(own=True, stranger=True, other_port=True), said
    missed = {voters.of(who) for each in tries for who in each.strangers}
    if len(missed) < ENOUGH:
        return UNKNOWN, "too few nodes could try to reach us from where we had sent nothing"
    silent = {voters.of(each.helper) for each in tries if each.other_port is False}
    other_port = any(each.other_port for each in tries)
    if not other_port and len(silent) < ENOUGH:
        return UNKNOWN, "too few nodes could try to reach us from another port"
    word = filtering_of(own=True, stranger=False, other_port=other_port)
    said = f"nothing came in from {len(missed)} nodes that we had not sent to"
    if word == ADDRESS:
        return word, f"{said}; something did from other ports of nodes that we had sent to"
    assert word == ADDRESS_AND_PORT  # noqa: S101 - the third word of `filtering_of` needs a stranger
    return word, f"{said}, nor from other ports of {len(silent)} that we had"


def judge_allocation(series: Sequence[Sequence[tuple[int, Address]]]) -> tuple[str, int | None, str]:
    """Return word, step and evidence; each series: (private port, public address) of new sockets, seen by one helper.

    Two helpers and more than half of all must say the same.
    """
    verdicts = [verdict for each in series if (verdict := allocation_of(each))[0] != UNKNOWN]
    words = Counter(word for word, _ in verdicts)
    if not words:
        return UNKNOWN, None, "no node saw enough new sockets of ours"
    word, count = words.most_common(1)[0]
    if count < ENOUGH or 2 * count <= len(verdicts):
        if len(verdicts) == 1:
            return UNKNOWN, None, "one node saw new sockets of ours; it takes two to know"
        return UNKNOWN, None, f"{len(verdicts)} nodes saw new sockets of ours, and do not agree"
    steps = Counter(step for each, step in verdicts if each == word and step is not None)
    step = steps.most_common(1)[0][0] if steps else None
    ports = " ".join(str(public.port) for _, public in next(e for e in series if allocation_of(e)[0] == word))
    return word, step, f"{count} of {len(verdicts)} nodes agree; new sockets got the public ports {ports}"
