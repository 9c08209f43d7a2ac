"""UPnP-IGD as the router answers it: SSDP, the description, SOAP actions and their errors."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET

import pytest
from support.routers import OUTSIDE, A, B, X, Y, back, out, router, tcp_in

from p2pnode import BadPacket
from p2pnode.core.address import Address
from p2pnode.simulations.routers.grants import Grants
from p2pnode.simulations.routers.http import MAX_BODY_BYTES, HttpReader, HttpRequest
from p2pnode.simulations.routers.router import RouterModel
from p2pnode.simulations.routers.upnp import UpnpGateway

SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
ASKER = Address(A.ip, 50_000)


def gateway(model: RouterModel) -> UpnpGateway:
    return UpnpGateway(Grants(model, random.Random(1)), "192.168.1.1", seed="test")


def search(target: str, man: str = '"ssdp:discover"') -> bytes:
    return (
        f"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: {man}\r\nMX: 2\r\nST: {target}\r\n\r\n"
    ).encode()


def call(
    upnp: UpnpGateway,
    action: str,
    now: float = 0.0,
    *,
    source: Address = ASKER,
    service: str = SERVICE,
    **fields: object,
) -> dict[str, str] | int:
    """Call an action; return its fields, or the error's code."""
    inside = "".join(f"<New{name}>{value}</New{name}>" for name, value in fields.items())
    body = f'<s:Envelope><s:Body><u:{action} xmlns:u="{service}">{inside}</u:{action}></s:Body></s:Envelope>'
    request = HttpRequest("POST", "/ctl/IPConn", {"soapaction": f'"{service}#{action}"'}, body.encode())
    head, _, text = upnp.answer_untrusted(now, request, source).decode().partition("\r\n\r\n")
    root = ET.fromstring(text)  # noqa: S314 - our own router's
    assert f"Content-Length: {len(text.encode())}" in head
    code = root.find(".//{urn:schemas-upnp-org:control-1-0}errorCode")
    if code is not None:
        assert head.startswith("HTTP/1.1 500 ")
        return int(code.text or "")
    assert head.startswith("HTTP/1.1 200 OK")
    answer = root.find(f".//{{{service}}}{action}Response")
    assert answer is not None
    return {each.tag.removeprefix("New"): each.text or "" for each in answer}


def add(upnp: UpnpGateway, now: float = 0.0, *, source: Address = ASKER, **changes: object) -> dict[str, str] | int:
    fields = {
        "RemoteHost": "", "ExternalPort": 5000, "Protocol": "UDP", "InternalPort": A.port, "InternalClient": A.ip,
        "Enabled": 1, "PortMappingDescription": "p2p &amp; chat", "LeaseDuration": 3600, **changes,
    }  # fmt: skip
    return call(upnp, "AddPortMapping", now, source=source, **fields)


@pytest.mark.parametrize("target", ["ssdp:all", "upnp:rootdevice", IGD, SERVICE])
def test_search_is_answered(target: str) -> None:
    """A unicast answer with the target, a name and where the description is."""
    answer = gateway(router("upnp")).search_untrusted(search(target))
    assert answer is not None
    text = answer.decode()
    assert text.startswith("HTTP/1.1 200 OK\r\n")
    assert text.endswith("\r\n\r\n")
    assert "LOCATION: http://192.168.1.1:5000/rootDesc.xml\r\n" in text
    assert f"ST: {IGD if target == 'ssdp:all' else target}\r\n" in text
    assert re.search(r"USN: uuid:[0-9a-f-]{36}::urn|USN: uuid:[0-9a-f-]{36}::upnp", text)


@pytest.mark.parametrize(
    "data",
    [
        b"", search("urn:schemas-upnp-org:device:MediaServer:1"), search(IGD, man="ssdp:discover"),
        b"NOTIFY * HTTP/1.1\r\n\r\n", search(IGD) + bytes(3000), b"\xff" * 40,
    ],
)  # fmt: skip
def test_other_datagrams_are_not_answered(data: bytes) -> None:
    """Searches for other devices, announcements, noise, and what is too long."""
    assert gateway(router("upnp")).search_untrusted(data) is None


def test_description_leads_to_the_control_url() -> None:
    """Well-formed XML: device in device in device, and the service with its control URL."""
    answer = gateway(router("upnp")).answer_untrusted(0.0, HttpRequest("GET", "/rootDesc.xml", {}, b""), ASKER)
    root = ET.fromstring(answer.partition(b"\r\n\r\n")[2])  # noqa: S314 - our own router's
    name = "{urn:schemas-upnp-org:device-1-0}"
    assert next(each.text for each in root.iter(f"{name}deviceType")) == IGD
    service = next(root.iter(f"{name}service"))
    found = {each.tag.removeprefix(name): each.text for each in service}
    assert (found["serviceType"], found["controlURL"]) == (SERVICE, "/ctl/IPConn")


def test_external_address_and_status() -> None:
    """The outside address; nothing and "Disconnected" when the line is dead."""
    upnp = gateway(router("upnp"))
    assert call(upnp, "GetExternalIPAddress") == {"ExternalIPAddress": OUTSIDE}
    assert call(upnp, "GetStatusInfo", 70.0) == {
        "ConnectionStatus": "Connected", "LastConnectionError": "ERROR_NONE", "Uptime": "70"
    }  # fmt: skip
    dead = gateway(router("upnp", line=False))
    assert call(dead, "GetExternalIPAddress") == {"ExternalIPAddress": ""}
    assert add(dead) == 501


def test_add_look_and_delete() -> None:
    """A mapping leads in, is listed as it was asked for, and ends when it is deleted or its lease is over."""
    model = router("upnp")
    upnp = gateway(model)
    assert add(upnp) == {}
    seen = Address(OUTSIDE, 5000)
    assert back(model, 1.0, Y, seen) == A
    assert tcp_in(model, 1.0, Y, seen, "syn") == "unsolicited"
    shown = {
        "InternalPort": str(A.port), "InternalClient": A.ip, "Enabled": "1",
        "PortMappingDescription": "p2p & chat", "LeaseDuration": "3000",
    }  # fmt: skip
    where = {"RemoteHost": "", "ExternalPort": 5000, "Protocol": "UDP"}
    assert call(upnp, "GetSpecificPortMappingEntry", 600.0, **where) == shown
    assert call(upnp, "GetGenericPortMappingEntry", 600.0, PortMappingIndex=0) == {
        **shown, "RemoteHost": "", "ExternalPort": "5000", "Protocol": "UDP"
    }  # fmt: skip
    assert call(upnp, "GetGenericPortMappingEntry", 600.0, PortMappingIndex=1) == 713
    assert back(model, 3600.0, Y, seen) == "unsolicited"
    assert call(upnp, "GetSpecificPortMappingEntry", 3600.0, **where) == 714
    add(upnp, 4000.0, LeaseDuration=0)
    assert back(model, 1e9, Y, seen) == A
    assert call(upnp, "DeletePortMapping", 1e9, **where) == {}
    assert back(model, 1e9, Y, seen) == "unsolicited"
    assert call(upnp, "DeletePortMapping", 1e9, **where) == 714


def test_disabled_mapping_leads_nowhere() -> None:
    """NewEnabled 0: it is listed, and lets nobody in."""
    model = router("upnp")
    add(gateway(model), Enabled=0)
    assert back(model, 1.0, Y, Address(OUTSIDE, 5000)) == "unsolicited"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ExternalPort": 0}, 402),
        ({"ExternalPort": 65536}, 402),
        ({"InternalPort": "x"}, 402),
        ({"Protocol": "SCTP"}, 402),
        ({"InternalClient": "me"}, 402),
        ({"LeaseDuration": -1}, 402),
        ({"InternalClient": B.ip}, 606),
        ({"RemoteHost": "203.0.113.9"}, 715),
    ],
)
def test_bad_arguments(changes: dict[str, object], code: int) -> None:
    """Each has its error; nothing is opened; hosts open ports for themselves only."""
    model = router("upnp")
    assert add(gateway(model), **changes) == code
    assert model.openings.living(0.0) == []


def test_conflicts() -> None:
    """Error 718 for another host's port, mapped or in use; one's own is overwritten."""
    model = router("upnp", ports="random")
    upnp = gateway(model)
    add(upnp)
    other = {"source": Address(B.ip, 9), "InternalClient": B.ip}
    assert add(upnp, **other) == 718  # type: ignore[arg-type]
    assert add(upnp, 10.0, LeaseDuration=7200) == {}
    in_use = out(model, 10.0, Address(A.ip, 6000), X)
    assert add(upnp, 10.0, ExternalPort=in_use.port, **other) == 718  # type: ignore[arg-type]
    where = {"RemoteHost": "", "ExternalPort": 5000, "Protocol": "UDP"}
    assert call(upnp, "DeletePortMapping", 10.0, source=Address(B.ip, 9), **where) == 606


def test_old_routers_know_permanent_leases_only() -> None:
    """Error 725 for any lease; 0 is accepted."""
    upnp = gateway(router("upnp", upnp_leases=False))
    assert add(upnp) == 725
    assert add(upnp, LeaseDuration=0) == {}


def test_unknown_actions_services_and_paths() -> None:
    """Error 401; 404 and 405 for what is no control request."""
    upnp = gateway(router("upnp"))
    assert call(upnp, "RequestConnection") == 401
    assert call(upnp, "GetExternalIPAddress", service="urn:schemas-upnp-org:service:WANPPPConnection:1") == 401
    for method, path, status in (("GET", "/", b"404"), ("GET", "/ctl/IPConn", b"405")):
        assert upnp.answer_untrusted(0.0, HttpRequest(method, path, {}, b""), ASKER).startswith(b"HTTP/1.1 " + status)


def test_http_in_pieces() -> None:
    """A request is read however it is cut; an absolute URI is a path."""
    data = b"POST http://192.168.1.1:5000/ctl/IPConn HTTP/1.1\r\nContent-Length: 5\r\nSOAPAction: x\r\n\r\nhello"
    reader = HttpReader()
    found = [reader.feed_untrusted(data[i : i + 1]) for i in range(len(data))]
    assert found[:-1] == [None] * (len(data) - 1)
    assert found[-1] == HttpRequest("POST", "/ctl/IPConn", {"content-length": "5", "soapaction": "x"}, b"hello")


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n", b"GET / HTTP/2\r\n\r\n", b"GET /\r\n\r\n", b"x" * 5000,
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
)  # fmt: skip
def test_http_that_is_none(data: bytes) -> None:
    """Not HTTP, too long, or with a length that is no number: a bad packet."""
    with pytest.raises(BadPacket):
        HttpReader().feed_untrusted(data)


def test_hostile_soap_does_no_harm() -> None:
    """Entities, nested and broken XML, random bytes: an HTTP answer each time, nothing opened."""
    rng = random.Random(3)
    model = router("upnp")
    upnp = gateway(model)
    bodies = [b"<!DOCTYPE x [<!ENTITY a 'b'>]><NewExternalPort>&a;</NewExternalPort>", b"<NewProtocol>" * 600]
    bodies += [rng.randbytes(rng.randint(0, 2000)) for _ in range(200)]
    for body in bodies:
        request = HttpRequest("POST", "/ctl/IPConn", {"soapaction": f'"{SERVICE}#AddPortMapping"'}, body)
        assert upnp.answer_untrusted(0.0, request, ASKER).startswith(b"HTTP/1.1 500")
    assert model.openings.living(0.0) == []
