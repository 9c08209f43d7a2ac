"""`netcheck` for people: each verdict with its evidence below it, then what to do; 80 columns, no colour. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from p2pnode import clean

if TYPE_CHECKING:
    from p2pnode.api.netcheck_types import NetcheckAnswer, NetcheckFamily, NetcheckInterface

__all__ = ["netcheck_lines"]

WIDTH, NAME = 79, 18
_YES = {True: "yes", False: "no", None: "unknown"}


def netcheck_lines(found: NetcheckAnswer) -> list[str]:
    """Return the lines; every text is made harmless for a terminal (X1)."""
    lines = [
        *_finding("UDP", {True: "passes", False: "blocked", None: "unknown"}[found.udp], found.evidence.get("udp"))
    ]
    lines += _finding("internet", {"captive-portal": "a login page"}.get(found.internet, found.internet))
    for name, family in (("IPv4", found.ipv4), ("IPv6", found.ipv6)):
        lines += _family(name, family, found.routers if name == "IPv4" else None)
    spoken = [name for name, there in found.portmap.items() if there]
    asked = any(there is not None for there in found.portmap.values())
    lines += _finding(
        "port mapping", ", ".join(spoken) or ("no" if asked else "unknown"), found.evidence.get("portmap")
    )
    for i, interface in enumerate(found.interfaces):
        lines += _finding("" if i else "interfaces", _interface(interface))
    lines += ["", "What to do"]
    for advice in found.advice:
        lines += textwrap.wrap(clean(advice, limit=600), WIDTH, initial_indent="- ", subsequent_indent="  ")
    return [*lines, "", f"{found.nodes_asked} nodes asked, {found.packets} datagrams, {found.seconds:.1f} s"]


def _family(name: str, family: NetcheckFamily | None, routers: int | None) -> Iterator[str]:
    if family is None:
        yield from _finding(name, "none")
        return
    one_or_two = "two routers" if routers == 2 else "a router"
    behind = {True: f", behind {one_or_two}", False: ", no router between", None: ""}[family.nat]
    yield from _finding(name, f"{family.public or 'unknown'}{behind}")
    step = "" if family.step is None else f", by {family.step}"
    life = "unknown" if family.mapping_lifetime_s is None else f"{family.mapping_lifetime_s} s"
    rows = [
        ("mapping", family.mapping, "mapping"),
        ("filtering", family.filtering, "filtering"),
        ("public ports", family.allocation + step, "allocation"),
        ("quiet flows live", ("at least " if family.lifetime_open else "") + life, "mapping_lifetime_s"),
    ]
    if family.nat is not False:
        rows.append(("hairpin", _YES[family.hairpin], "hairpin"))
    else:
        rows.append(("firewall", _YES[family.firewall], "firewall"))
    rows.append(("largest packet", "unknown" if family.mtu is None else f"{family.mtu} bytes", "mtu"))
    for label, verdict, field in rows:
        yield from _finding(f"  {label}", verdict, family.evidence.get(field))


def _interface(interface: NetcheckInterface) -> str:
    hidden = "" if interface.advertised else f" ({interface.kind}: not told to others)"
    return f"{interface.name} {' '.join(interface.addresses) or 'without address'}{hidden}"


def _finding(name: str, verdict: str, evidence: str | None = None) -> Iterator[str]:
    indent = " " * (NAME + 1)
    head = f"{name:<{NAME}} "
    yield from textwrap.wrap(clean(verdict, limit=400), WIDTH, initial_indent=head, subsequent_indent=indent)
    if evidence:
        indent += "  "
        yield from textwrap.wrap(clean(evidence, limit=600), WIDTH, initial_indent=indent, subsequent_indent=indent)
