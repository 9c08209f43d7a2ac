"""What the control API gives about the node's network. As `types`: names never change, new ones may come."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["FlowInfo", "NetcheckAnswer", "NetcheckFamily", "NetcheckInterface"]

Behaviour = Annotated[
    str, Meta(description="endpoint-independent, address-dependent, address-and-port-dependent or unknown (RFC 4787)")
]
Evidence = Annotated[dict[str, str], Meta(description="By field: from what its verdict is known, in plain words")]


class FlowInfo(Struct, kw_only=True):
    """What it costs to stay reachable: `kept` flows, each used at least every `keep_alive_s` seconds. The router
    remembers a quiet one for `mapping_lifetime_s`, null while that is not measured."""

    kept: int
    keep_alive_s: float
    mapping_lifetime_s: float | None
    datagrams_per_hour: int


class NetcheckFamily(Struct, kw_only=True):
    """One address family; null is unknown. `allocation`: preserving, sequential (by `step`), random or unknown.
    `lifetime_open`: mappings live at least so long, longer was not tried. `firewall`: without a NAT, whether something
    drops what comes unasked. `mtu`: bytes of the largest IP packet that passes; 1500 at most is tried."""

    public: str | None
    nat: bool | None
    mapping: Behaviour
    filtering: Behaviour
    allocation: str
    step: int | None
    mapping_lifetime_s: int | None
    lifetime_open: bool
    hairpin: bool | None
    firewall: bool | None
    mtu: int | None
    evidence: Evidence


class NetcheckInterface(Struct, kw_only=True):
    """`kind`: loopback, real, vpn or container. `advertised`: whether others hear of its addresses."""

    name: str
    kind: str
    addresses: list[str]
    advertised: bool


class NetcheckAnswer(Struct, kw_only=True):
    """What stands between the node and the world; null is unknown. `internet`: yes, no, captive-portal or unknown.
    `ipv4`, `ipv6`: null without an address. `portmap`: by protocol, null where the router was not asked. `routers`: how
    many translate in a row, as far as it shows. `advice`: sentences; `advice_codes`: their stable names."""

    udp: bool | None
    ipv4: NetcheckFamily | None
    ipv6: NetcheckFamily | None
    portmap: dict[str, bool | None]
    advice: list[str]
    advice_codes: list[str]
    internet: str
    routers: int | None
    interfaces: list[NetcheckInterface]
    evidence: Evidence
    nodes_asked: int
    packets: int
    seconds: float
