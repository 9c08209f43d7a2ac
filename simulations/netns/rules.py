"""Kinds of routers as nftables rules. Pure: text from a kind.

Ports that stay the same for all destinations need maps that the kernel fills from outgoing packets, after it has
translated them: `mine` (private address and port -> public port) makes the next connection from there use the same
port, `taken` (public port -> private address and port) leads packets in, and `allowed` (remote address and public port)
says who may come. So two hosts on one private port get two public ports, each for all destinations; Linux's plain
masquerade would give both the same one towards different destinations. A port that nobody opened leads nowhere.

Port-restricted filtering is the kernel's own connection tracking. Every router drops what nobody asked for on its own
input chain: otherwise the kernel keeps the connection of a stranger's packet, the answering packet from inside finds
its tuple taken and gets another port, and no hole can be punched. Real home routers drop it as well.
"""

from __future__ import annotations

import random

from p2pnode.simulations.netns.kinds import ADDRESS, INDEPENDENT, NatKind

__all__ = ["PORT_MAPPING_RULES", "ruleset"]

MAX_MAPPINGS = 4096  # of one router; far above what a laboratory's hosts open
SEQUENTIAL_PORTS = 2048  # then it begins again
# Above the ports that programs listen on, below those that Linux gives to clients
_SEQUENTIAL_FROM = (16_384, 28_000)
_POOL = "1024-65535"

_RULES = """\
table ip lab
delete table ip lab
table ip lab {{
  map mine {{ type ipv4_addr . inet_service : inet_service; {dynamic} }}
  map taken {{ type inet_service : ipv4_addr . inet_service; {dynamic} }}
  set allowed {{ type ipv4_addr . inet_service; {dynamic} }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    {blocked}
    iifname "wan0" ct status dnat accept
    iifname "wan0" ct state new drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "wan0" ct state new drop
  }}
  chain in {{
    type nat hook prerouting priority dstnat;
    {inward}
  }}
  chain out {{
    type nat hook postrouting priority srcnat;
    oifname "wan0" jump translate
    oifname "lan0" iifname "lan0" ct status dnat jump translate
  }}
  chain translate {{
    {translate}
  }}
  chain learn {{
    type filter hook postrouting priority srcnat + 10;
    oifname "wan0" jump note
    oifname "lan0" iifname "lan0" ct status dnat jump note
  }}
  chain note {{
    {learn}
  }}
}}
table ip6 lab
delete table ip6 lab
table ip6 lab {{
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "wan0" ct state established,related accept
    iifname "wan0" drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "wan0" ct state new drop
  }}
}}
"""

# Empty chains of its own for miniupnpd, before ours
PORT_MAPPING_RULES = """\
table inet upnp
delete table inet upnp
table inet upnp {
  chain forward_upnp { }
  chain prerouting_upnp { }
  chain postrouting_upnp { }
  chain forward { type filter hook forward priority filter - 1; jump forward_upnp; }
  chain prerouting { type nat hook prerouting priority dstnat - 1; jump prerouting_upnp; }
  chain postrouting { type nat hook postrouting priority srcnat - 1; jump postrouting_upnp; }
}
"""

# After translation; `original` is the direction of a connection's first packet, and `reply` the other
_LEARN = {
    "original": (
        "@mine { ct original ip saddr . ct original proto-src : ct reply proto-dst }",
        "@taken { ct reply proto-dst : ct original ip saddr . ct original proto-src }",
    ),
    "reply": (
        "@mine { ct reply ip saddr . ct reply proto-src : ct original proto-dst }",
        "@taken { ct original proto-dst : ct reply ip saddr . ct reply proto-src }",
    ),
}
_ALLOW = {
    "original": "@allowed { ip daddr . ct reply proto-dst }",
    "reply": "@allowed { ip daddr . ct original proto-dst }",
}


def ruleset(kind: NatKind, ip: str, mapping_s: float, rng: random.Random) -> str:
    """Return the rules of a router whose address outside is `ip`. They replace what was there, and forget all.

    `mapping_s`: seconds that an unused mapping lives.
    """
    return _RULES.format(
        dynamic=f"flags dynamic,timeout; timeout {max(1, round(mapping_s))}s; size {MAX_MAPPINGS};",
        blocked="\n    ".join(_blocked(kind)),
        inward="\n    ".join(_inward(kind, ip)),
        translate="\n    ".join(_translate(kind, ip, rng)),
        learn="\n    ".join(_learn(kind)),
    )


def _learn(kind: NatKind) -> list[str]:
    if kind.ports in ("random", "sequential"):
        return []
    return [
        f"meta l4proto udp ct direction {direction} update {entry}"
        for direction, entries in _LEARN.items()
        for entry in (*entries, *([_ALLOW[direction]] if kind.filtering == ADDRESS else []))
    ]


def _blocked(kind: NatKind) -> list[str]:
    if kind.tcp == "443":
        return ['iifname "lan0" oifname "wan0" tcp dport 443 accept', 'iifname "lan0" oifname "wan0" drop']
    return [] if kind.udp else ['iifname "lan0" oifname "wan0" meta l4proto udp drop']


def _inward(kind: NatKind, ip: str) -> list[str]:
    rules = []
    if kind.filtering == INDEPENDENT:
        rules.append('iifname "wan0" meta l4proto udp dnat ip to udp dport map @taken')
    elif kind.filtering == ADDRESS:
        rules.append('iifname "wan0" ip saddr . udp dport @allowed dnat ip to udp dport map @taken')
    if kind.hairpin:  # RFC 4787, REQ-9; what the router would let in from elsewhere is not asked
        rules.append(f'iifname "lan0" ip daddr {ip} meta l4proto udp dnat ip to udp dport map @taken')
    return rules


def _translate(kind: NatKind, ip: str, rng: random.Random) -> list[str]:
    if kind.ports == "random":
        return [f"snat ip to {ip} random,fully-random"]
    if kind.ports == "sequential":
        first = rng.randrange(*_SEQUENTIAL_FROM)
        ports = ", ".join(f"{i} : {first + i}" for i in range(SEQUENTIAL_PORTS))
        number = f"numgen inc mod {SEQUENTIAL_PORTS} map {{ {ports} }}"
        return [f"meta l4proto {{ tcp, udp }} snat ip to {ip} : {number}", f"snat ip to {ip}"]
    random_port = f"snat ip to {ip}:{_POOL} fully-random"
    return [
        f"meta l4proto udp snat ip to {ip} : ip saddr . udp sport map @mine",
        f"meta l4proto udp {random_port}" if kind.ports == "pooled" else f"udp sport @taken {random_port}",
        f"snat ip to {ip}",
    ]
