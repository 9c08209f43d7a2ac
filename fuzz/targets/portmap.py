"""What a gateway answers: NAT-PMP, PCP, SSDP, and the HTTP and XML of UPnP."""

from __future__ import annotations

import contextlib

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.nat import natpmp, pcp, upnp
from targets.base import Target

__all__ = ["TARGETS"]

GATEWAY = "192.168.1.1"
AT = upnp.Endpoint(Address(GATEWAY, 5000), "/rootDesc.xml")


def hold_natpmp(_data: bytes, answer: natpmp.NatPmpAnswer) -> None:
    assert answer.opcode in (natpmp.EXTERNAL, natpmp.MAP_UDP)
    assert not answer.lifetime_s or 1 <= answer.external_port <= 65_535


def hold_pcp(data: bytes, answer: pcp.PcpAnswer) -> None:
    assert answer.opcode in (pcp.ANNOUNCE, pcp.MAP)
    assert answer.nonce in (b"", data[24:36])
    if answer.external is not None:
        assert answer.external == Address.of(*answer.external)


def hold_endpoint(_data: bytes, endpoint: upnp.Endpoint) -> None:
    """It leads to the gateway, and its path ends no line of ours."""
    assert endpoint.address.ip == GATEWAY
    assert 0 <= endpoint.address.port <= 65_535
    assert upnp.get_request(endpoint).count(b"\r\n") == 4


def read_http(data: bytes) -> upnp.HttpAnswer | None:
    """The first byte says whether more may come; then the whole is taken as a description, and as an answer."""
    answer = upnp.parse_http_untrusted(data[1:], ended=bool(data[:1] != b"\0"))
    if answer is not None:
        upnp.external_ip_untrusted(answer)
        mapped = upnp.mapped_to_untrusted(answer)
        assert mapped is None or mapped.port <= 65_535
        with contextlib.suppress(BadPacket):
            hold_endpoint(data, upnp.parse_description_untrusted(answer.body, AT).control)
    return answer


TARGETS = [
    Target("portmap_natpmp", natpmp.parse_answer_untrusted, hold_natpmp),
    Target("portmap_pcp", pcp.parse_answer_untrusted, hold_pcp),
    Target("portmap_search", lambda data: upnp.parse_search_answer_untrusted(data, GATEWAY), hold_endpoint,
           max_bytes=2_100),
    Target("portmap_http", read_http, max_bytes=66_000),
]  # fmt: skip
