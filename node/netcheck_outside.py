"""Nobody answers: does UDP not pass, is there a login page, or no internet? Asked of addresses known from before.

Only nodes are asked, no third party: those to join through and those remembered. By UDP for STUN, by TCP at the ports
443 and 80; a host that refuses was reached. What answers HTTP in a node's place is a login page ("captive portal").
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from p2pnode.addresses import bound_ip
from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import Network
from p2pnode.netcheck_socket import Subject

__all__ = ["Outside", "PortalAnswer", "judge_outside", "look_outside", "read_http_untrusted"]

MAX_ASKED = 6
WAIT_S = 3.0
PORTS = (443, 80)
MAX_HTTP_BYTES = 4096
NETWORK_AUTHENTICATION_REQUIRED = 511  # RFC 6585, section 6

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_LOCATION = re.compile(rb"\n[Ll]ocation:[ \t]*([!-~]{1,400})")


@dataclass(frozen=True, slots=True)
class PortalAnswer:
    """An HTTP answer: its status, the host that it redirects to ("" for none), and all of it."""

    status: int
    redirect: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Outside:
    """`internet`: yes, no, captive-portal or unknown."""

    udp: bool | None
    internet: str
    evidence: str


@dataclass(slots=True)
class Reached:
    """What an address did. `tcp`: ports that took a connection; `refused`: that refused one."""

    udp: bool = False
    tcp: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    http: PortalAnswer | None = None


def read_http_untrusted(data: bytes) -> PortalAnswer:
    """Read the beginning of an HTTP answer. Raise BadPacket("malformed")."""
    found = _STATUS.match(data)
    if found is None:
        raise BadPacket("malformed")
    location = _LOCATION.search(data)
    redirect = ""
    if location is not None:
        try:
            redirect = urlsplit(location[1].decode("ascii")).hostname or ""
        except ValueError as exc:
            raise BadPacket("malformed") from exc
    return PortalAnswer(int(found[1]), redirect, data)


def judge_outside(reached: dict[str, Reached]) -> Outside:
    """Judge by what each IP address did. Pure."""
    if not reached:
        return Outside(None, "unknown", "no public address of any node is known to try")
    count = len(reached)
    answered = sum(each.udp for each in reached.values())
    if answered:
        return Outside(True, "yes", f"{answered} of {count} known addresses answered")
    portal = _portal(reached)
    if portal:
        return Outside(None, "captive-portal", portal)
    connected = sum(bool(each.tcp) for each in reached.values())
    refused = sum(bool(each.refused) for each in reached.values())
    said = f"{count} known addresses: by UDP none answered, by TCP {connected} did and {refused} refused"
    if connected or refused >= 2:  # one that refuses may be a machine whose node has gone
        return Outside(False, "yes", said)
    if refused:
        return Outside(None, "yes", said)
    return Outside(None, "no" if count >= 2 else "unknown", said)


def _portal(reached: dict[str, Reached]) -> str:
    """Return why there is a login page, "" for none."""
    pages: Counter[bytes] = Counter()
    for ip, each in reached.items():
        if each.http is None:
            continue
        if each.http.status == NETWORK_AUTHENTICATION_REQUIRED:
            return f"{ip} answers by HTTP: network authentication required"
        if 300 <= each.http.status < 400 and each.http.redirect not in ("", ip):
            return f"HTTP to {ip} is sent on to {each.http.redirect}"
        pages[each.http.data] += 1
    if pages and pages.most_common(1)[0][1] >= 2:
        return "several addresses answer by HTTP with the very same page"
    return ""


async def look_outside(
    network: Network, wire: Network, bound: Sequence[Address], addresses: Sequence[Address]
) -> tuple[Outside, int]:
    """Ask, for about three seconds; return the verdict and how many datagrams were sent.

    `wire`: whose UDP the nodes understand; `bound`: where our sockets are.
    """
    chosen = list({address.ip: address for address in reversed(addresses)}.values())[-MAX_ASKED:]
    reached = {address.ip: Reached() for address in chosen}
    subjects: dict[bool, Subject] = {}
    for ipv6 in {address.is_ipv6 for address in chosen}:
        ip = bound_ip(bound, ipv6=ipv6)
        with contextlib.suppress(OSError):
            if ip is not None:
                subjects[ipv6] = await Subject.open(wire, ip)

    async def by_udp(address: Address) -> None:
        subject = subjects.get(address.is_ipv6)
        if subject is not None:
            reached[address.ip].udp = await subject.ask(address, WAIT_S) is not None

    try:
        await asyncio.gather(
            *(by_udp(address) for address in chosen),
            *(_by_tcp(network, address.ip, port, reached[address.ip]) for address in chosen for port in PORTS),
        )
    finally:
        for subject in subjects.values():
            subject.close()
    return judge_outside(reached), sum(subject.sent for subject in subjects.values())


async def _by_tcp(network: Network, ip: str, port: int, reached: Reached) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            stream = await network.connect_tcp(Address(ip, port))
            reached.tcp += (port,)
            try:
                if port == 80:
                    await stream.write(f"GET / HTTP/1.1\r\nHost: {ip}\r\nConnection: close\r\n\r\n".encode())
                    reached.http = read_http_untrusted(await stream.read(MAX_HTTP_BYTES))
            finally:
                stream.close()
    except ConnectionRefusedError:
        reached.refused += (port,)
    except (OSError, TimeoutError, BadPacket):
        return  # silence, or something that speaks no HTTP
