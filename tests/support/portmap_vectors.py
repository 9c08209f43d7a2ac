"""Makes tests/vectors/portmap.json: what a node and a gateway say to each other, byte by byte.

/path/to/python -c "from support.portmap_vectors import write; write()"
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from p2pnode.core.address import Address
from p2pnode.nat import natpmp, pcp, upnp
from p2pnode.simulations.routers.grants import Grants
from p2pnode.simulations.routers.http import HttpReader
from p2pnode.simulations.routers.kinds import kind_named
from p2pnode.simulations.routers.natpmp import NatPmp
from p2pnode.simulations.routers.pcp import Pcp
from p2pnode.simulations.routers.router import RouterModel
from p2pnode.simulations.routers.upnp import UpnpGateway

__all__ = ["INTERNAL", "NONCE", "VECTORS", "make", "write"]

VECTORS = Path(__file__).parent.parent / "vectors" / "portmap.json"
INTERNAL, INTERNAL6 = Address("192.168.1.10", 4747), Address("2001:db8:1::a", 4747)
GATEWAY = "192.168.1.1"
NONCE = bytes(range(1, 13))
NOW = 1000.0
SERVICE = upnp.Service("urn:schemas-upnp-org:service:WANIPConnection:1",
                       upnp.Endpoint(Address(GATEWAY, 5000), "/ctl/IPConn"))  # fmt: skip


def make() -> dict[str, Any]:
    """Return the vectors: requests as we write them, answers as the simulated router gives them."""
    grants = Grants(RouterModel(kind_named("upnp"), ("203.0.113.7",), random.Random(1)), random.Random(1))
    natpmp_server, pcp_server = NatPmp(grants), Pcp(grants)
    datagrams = []
    for name, request, source in (
        ("nat-pmp external address", natpmp.external_request(), INTERNAL),
        ("nat-pmp map", natpmp.map_request(4747, 4747, 7200), INTERNAL),
        ("nat-pmp delete", natpmp.map_request(4747, 0, 0), INTERNAL),
        ("pcp announce", pcp.announce_request(INTERNAL.ip), INTERNAL),
        ("pcp map", pcp.map_request(INTERNAL, Address("0.0.0.0", 4747), 7200, NONCE), INTERNAL),
        ("pcp map with another's nonce", pcp.map_request(INTERNAL, None, 7200, bytes(12)), INTERNAL),
        ("pcp delete", pcp.map_request(INTERNAL, None, 0, NONCE), INTERNAL),
        ("pcp pinhole", pcp.map_request(INTERNAL6, INTERNAL6, 7200, NONCE), INTERNAL6),
    ):
        server = natpmp_server if request[0] == natpmp.VERSION else pcp_server
        answer = server.answer_untrusted(NOW, request, source)
        assert answer is not None
        datagrams.append({"what": name, "from": str(source), "request": request.hex(), "answer": answer.hex()})
    gateway = UpnpGateway(grants, GATEWAY, seed="vectors")
    found = gateway.search_untrusted(upnp.search_request())
    assert found is not None
    texts = [{"what": "search", "request": upnp.search_request().decode(), "answer": found.decode()}]
    for name, request in (
        ("description", upnp.get_request(upnp.Endpoint(SERVICE.control.address, "/rootDesc.xml"))),
        ("add", upnp.add_mapping(SERVICE, 4747, INTERNAL, 3600)),
        ("specific entry", upnp.get_mapping(SERVICE, 4747)),
        ("external address", upnp.get_external_ip(SERVICE)),
        ("delete", upnp.delete_mapping(SERVICE, 4747)),
        ("delete again", upnp.delete_mapping(SERVICE, 4747)),
    ):
        asked = HttpReader().feed_untrusted(request)
        assert asked is not None
        answer = gateway.answer_untrusted(NOW, asked, INTERNAL)
        texts.append({"what": name, "request": request.decode(), "answer": answer.decode()})
    return {"specification": "docs/protocol/portmap.md", "nonce": NONCE.hex(), "datagrams": datagrams, "upnp": texts}


def write() -> None:
    VECTORS.write_text(json.dumps(make(), indent=1) + "\n", encoding="utf-8")
