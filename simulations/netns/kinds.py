"""Kinds of home routers as nftables rules, and what a probe must find behind each. Pure: no I/O.

Names as users know them; RFC 4787 ("NAT Behavioral Requirements for Unicast UDP") words in brackets.

- `fullcone`: one public port per private one, anybody may send to it (endpoint-independent mapping and filtering)
- `address-restricted`: the same port, only addresses that were sent to (address-dependent filtering)
- `port-restricted`: the same port, only address and port that were sent to: Linux's plain masquerade
- `symmetric`: another, random port for every destination: masquerade fully-random

The first two need maps that the kernel fills from outgoing packets: which private host a public port belongs to, as
long as the mapping lives. A port that nobody opened leads nowhere, unlike with a static forwarding of all ports.

Every router drops what nobody asked for on its own input chain. Without that the kernel keeps the connection of a
stranger's packet, the answering packet from inside then finds its tuple taken and gets another port, and no hole can be
punched: real home routers drop it as well.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from p2pnode.simulations.netns.errors import LabError

__all__ = ["KINDS", "PUBLIC", "NatKind", "kind_named"]

INDEPENDENT = "endpoint-independent"
ADDRESS = "address-dependent"
ADDRESS_AND_PORT = "address-and-port-dependent"

MAX_MAPPINGS = 4096  # of one router; far above what a laboratory's host opens


@dataclass(frozen=True)
class NatKind:
    """One kind of router, or none (`public`).

    `mapping`, `filtering`: what a probe must find. `key`: nftables type of the map's keys, when it has a map of open
    ports to private hosts. `learn`: filter rule on packets from inside; `forward_in`: nat rule
    on packets from outside; `translate`: nat rule on packets to outside.
    """

    name: str
    text: str
    mapping: str
    filtering: str
    key: str = ""
    learn: str = ""
    forward_in: str = ""
    translate: str = "masquerade"

    @property
    def is_router(self) -> bool:
        return self.name != PUBLIC

    def rules(self, mapping_s: float) -> str:
        """Return the nftables ruleset. It replaces what was there: loading it again forgets the maps."""
        return _RULES.format(
            map=_MAP.format(key=self.key, seconds=max(1, round(mapping_s)), size=MAX_MAPPINGS) if self.key else "",
            learn=self.learn,
            forward_in=self.forward_in,
            translate=self.translate,
        )


PUBLIC = "public"

_RULES = """\
table ip lab
delete table ip lab
table ip lab {{
  {map}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    {learn}
    iifname "wan0" ct status dnat accept
    iifname "wan0" ct state new drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "wan0" ct state new drop
  }}
  chain in {{
    type nat hook prerouting priority dstnat;
    {forward_in}
  }}
  chain out {{
    type nat hook postrouting priority srcnat;
    oifname "wan0" {translate}
  }}
}}
"""

_MAP = "map open {{ type {key} : ipv4_addr; flags dynamic,timeout; timeout {seconds}s; size {size}; }}"

KINDS: dict[str, NatKind] = {
    kind.name: kind
    for kind in (
        NatKind(PUBLIC, "no router: a public address of its own", INDEPENDENT, INDEPENDENT),
        NatKind(
            "fullcone",
            "one public port for all; anybody may send to it",
            INDEPENDENT,
            INDEPENDENT,
            key="inet_service",
            learn='iifname "lan0" meta l4proto udp update @open { udp sport : ip saddr }',
            forward_in='iifname "wan0" meta l4proto udp dnat to udp dport map @open',
        ),
        NatKind(
            "address-restricted",
            "one public port for all; only addresses that were sent to may answer",
            INDEPENDENT,
            ADDRESS,
            key="ipv4_addr . inet_service",
            learn='iifname "lan0" meta l4proto udp update @open { ip daddr . udp sport : ip saddr }',
            forward_in='iifname "wan0" meta l4proto udp dnat to ip saddr . udp dport map @open',
        ),
        NatKind(
            "port-restricted",
            "one public port for all; only address and port that were sent to may answer",
            INDEPENDENT,
            ADDRESS_AND_PORT,
        ),
        NatKind(
            "symmetric",
            "another random public port for every destination; only that may answer",
            ADDRESS_AND_PORT,
            ADDRESS_AND_PORT,
            translate="masquerade random,fully-random",
        ),
    )
}


def kind_named(name: str) -> NatKind:
    """Return a kind. Raise LabError that suggests the nearest name."""
    kind = KINDS.get(name)
    if kind is None:
        near = difflib.get_close_matches(name.lower(), KINDS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(KINDS)}."
        raise LabError(f"There is no kind of router {name[:40]!r}; {hint}")
    return kind
