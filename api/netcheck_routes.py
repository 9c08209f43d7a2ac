"""Operations about the network that the node is in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pnode.api import netcheck_types as t
from p2pnode.api.routing import Route
from p2pnode.api.service import Service

if TYPE_CHECKING:
    from p2pnode import FamilyReport

__all__ = ["ROUTES"]


async def netcheck(service: Service, _request: None) -> t.NetcheckAnswer:
    """Find out with the help of other nodes what stands between this one and the world; takes about seven seconds."""
    found = await service.node.netcheck()
    return t.NetcheckAnswer(
        udp=found.udp,
        ipv4=_family(found.ipv4),
        ipv6=_family(found.ipv6),
        portmap=found.portmap,
        advice=[each.text for each in found.advice],
        advice_codes=[each.code for each in found.advice],
        internet=found.internet,
        routers=found.routers,
        interfaces=[
            t.NetcheckInterface(name=i.name, kind=i.kind, addresses=list(i.addresses), advertised=i.advertised)
            for i in found.interfaces
        ],
        evidence=found.evidence,
        nodes_asked=found.helpers,
        packets=found.packets,
        seconds=round(found.seconds, 3),
    )


def _family(found: FamilyReport | None) -> t.NetcheckFamily | None:
    if found is None:
        return None
    return t.NetcheckFamily(
        public=found.public,
        nat=found.nat,
        mapping=found.mapping,
        filtering=found.filtering,
        allocation=found.allocation,
        step=found.step,
        mapping_lifetime_s=found.mapping_lifetime_s,
        lifetime_open=found.lifetime_open,
        hairpin=found.hairpin,
        firewall=found.firewall,
        mtu=found.mtu,
        evidence=found.evidence,
    )


ROUTES = [Route("GET", "/v1/netcheck", "What stands between the node and the world", netcheck, None, t.NetcheckAnswer)]
