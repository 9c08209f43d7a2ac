"""What is said on the local network: mDNS (RFC 6762) with DNS-SD (RFC 6763), byte by byte in docs/protocol/lan.md.

zeroconf's packet classes write and read the DNS part and nothing else of it is used: its sockets and threads could not
run on `Network`. Differences from the specifications: no probing for a unique name (the name is a hash of the key), no
suppression of known answers, no unicast answers, IPv4 group only, no answer to service enumeration.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pnode.core.address import Address, Realm, realm_of
from p2pnode.core.clean import clean_name
from p2pnode.core.errors import BadPacket, InvalidPeerError
from p2pnode.core.ids import PeerId

if TYPE_CHECKING:
    # It re-exports these without saying so, hence the ignored complaint here and below.
    from zeroconf import DNSRecord  # type: ignore[attr-defined]

__all__ = [
    "GROUP",
    "TTL_S",
    "Announcement",
    "check_untrusted",
    "encode_announcement",
    "encode_query",
    "instance_of",
    "read_untrusted",
]

# Fixed by specification (RFC 6762 sections 3 and 18; RFC 1035 section 3.2).
GROUP = Address("224.0.0.251", 5353)
_FLAGS_QUERY, _FLAGS_RESPONSE = 0x0000, 0x8400
_TYPE_A, _TYPE_PTR, _TYPE_TXT, _TYPE_AAAA, _TYPE_SRV, _TYPE_ANY = 1, 12, 16, 28, 33, 255
_CLASS_IN, _CLASS_IN_UNIQUE = 0x0001, 0x8001

# Chosen by us.
SERVICE = "_p2pnode._udp.local."
_MARK = b"\x08_p2pnode"  # the label in wire form: what lacks it is somebody else's mDNS and is not even parsed
VERSION = "1"
TTL_S = 150  # two and a half repeats of a minute: one may get lost
MAX_DATAGRAM_BYTES = 1_472  # one Ethernet frame; our longest announcement has about 800
MAX_ADDRESSES = 8  # four interfaces with both families
MAX_KNOWN = 3
MAX_TXT_ENTRIES = 16
_NAME_BYTES = 96  # 32 characters of three bytes
_INSTANCE_HEX = 32  # 16 of the 20 bytes of the node id: no two nodes share it by chance, and a DNS label holds 63


@dataclass(frozen=True)
class Announcement:
    """One node, as it describes itself. Nothing of it is proven.

    `ttl`: seconds for which it may be believed; 0 is a goodbye. `name`: harmless to show, may be empty. `known`: peers
    that the node was in touch with, a way into a larger network.
    """

    peer_id: PeerId
    network_tag: bytes
    ttl: int
    name: str = ""
    addresses: tuple[Address, ...] = ()
    known: tuple[tuple[PeerId, Address], ...] = ()


def instance_of(peer_id: PeerId) -> str:
    """Return the service instance name of a node."""
    return f"{peer_id.node_id.hex()[:_INSTANCE_HEX]}.{SERVICE}"


def encode_query(asker: PeerId) -> bytes:
    """Return a question for all nodes of the local network: one PTR question, and the asker as a known answer.

    The known answer (RFC 6762 section 7.1) makes one's own question, which multicast brings back, recognisable among
    those of other nodes on the same machine.
    """
    from zeroconf import DNSOutgoing, DNSPointer, DNSQuestion  # type: ignore[attr-defined]

    out = DNSOutgoing(_FLAGS_QUERY)
    out.add_question(DNSQuestion(SERVICE, _TYPE_PTR, _CLASS_IN))
    out.add_answer_at_time(DNSPointer(SERVICE, _TYPE_PTR, _CLASS_IN, TTL_S, instance_of(asker)), 0)
    return out.packets()[0]


def encode_announcement(announcement: Announcement) -> bytes:
    """Return the unsolicited answer that describes a node: PTR, SRV, TXT, A and AAAA records, in one datagram.

    At most MAX_ADDRESSES addresses and MAX_KNOWN known peers are taken, the first ones. SRV has one port: addresses of
    the first one's port are named, and IPv6 ones of a second port through the TXT key `p6`.
    """
    from zeroconf import DNSAddress, DNSOutgoing, DNSPointer, DNSService, DNSText  # type: ignore[attr-defined]

    instance = instance_of(announcement.peer_id)
    host = instance.partition(".")[0] + ".local."
    ttl, port = announcement.ttl, announcement.addresses[0].port if announcement.addresses else 0
    port6 = next((a.port for a in announcement.addresses if a.is_ipv6), port)
    out = DNSOutgoing(_FLAGS_RESPONSE)
    out.add_answer_at_time(DNSPointer(SERVICE, _TYPE_PTR, _CLASS_IN, ttl, instance), 0)
    out.add_answer_at_time(DNSService(instance, _TYPE_SRV, _CLASS_IN_UNIQUE, ttl, 0, 0, port, host), 0)
    out.add_answer_at_time(DNSText(instance, _TYPE_TXT, _CLASS_IN_UNIQUE, ttl, _txt(announcement, port, port6)), 0)
    for address in announcement.addresses[:MAX_ADDRESSES]:
        if address.port == (port6 if address.is_ipv6 else port) and "%" not in address.ip:
            kind, packed = (_TYPE_AAAA if address.is_ipv6 else _TYPE_A), address.pack()[:-2]
            out.add_answer_at_time(DNSAddress(host, kind, _CLASS_IN_UNIQUE, ttl, packed), 0)
    return out.packets()[0]


def check_untrusted(data: bytes) -> None:
    """Raise BadPacket, `foreign` or `too_long`, for what `read_untrusted` need not even parse. Costs below 1 us."""
    if _MARK not in data:
        raise BadPacket("foreign")
    if len(data) > MAX_DATAGRAM_BYTES:
        raise BadPacket("too_long")


def read_untrusted(data: bytes) -> Announcement | None:
    """Read a datagram of the group: an announcement, or None when it asks for us to announce ourselves.

    Raise BadPacket: `foreign` (other services, none of our business), `too_long`, `malformed`, `incomplete`,
    `many_nodes`, `bad_txt`, `bad_version`, `bad_id`, `wrong_instance`, `bad_address`.
    """
    check_untrusted(data)
    from zeroconf import DNSIncoming  # type: ignore[attr-defined]

    try:
        message = DNSIncoming(data)
        valid, records = message.valid, message.answers()
    except Exception as exc:  # a library fed with hostile bytes: whatever escapes it is a bad packet
        raise BadPacket("malformed") from exc
    if not valid:
        raise BadPacket("malformed")
    if not message.is_query():
        return _read_records(records)
    if any(q.name == SERVICE and q.type in (_TYPE_PTR, _TYPE_ANY) for q in message.questions):
        return None
    raise BadPacket("foreign")  # asks for one instance's records by name: every announcement carries them all


def _txt(announcement: Announcement, port: int, port6: int) -> bytes:
    entries = [f"v={VERSION}", f"id={announcement.peer_id}", f"net={announcement.network_tag.hex()}"]
    if announcement.name:
        entries.append("n=" + announcement.name.encode(errors="ignore")[:_NAME_BYTES].decode(errors="ignore"))
    if port6 != port:
        entries.append(f"p6={port6}")
    entries += [f"k{i}={peer}@{address}" for i, (peer, address) in enumerate(announcement.known[:MAX_KNOWN])]
    return b"".join(bytes([len(entry.encode())]) + entry.encode() for entry in entries)


def _read_records(records: list[DNSRecord]) -> Announcement:
    from zeroconf import DNSAddress, DNSService, DNSText  # type: ignore[attr-defined]

    services = [r for r in records if isinstance(r, DNSService) and r.name.endswith("." + SERVICE)]
    if not services:
        raise BadPacket("incomplete")
    service = services[0]
    if any(other.name != service.name for other in services):
        raise BadPacket("many_nodes")
    texts = [r for r in records if isinstance(r, DNSText) and r.name == service.name]
    if not texts:
        raise BadPacket("incomplete")
    entries = _read_txt(texts[0].text)
    peer_id = _read_id(entries.get("id", b""))
    if service.name != instance_of(peer_id):
        raise BadPacket("wrong_instance")
    port6 = _read_port(entries["p6"]) if "p6" in entries else service.port
    hosts = [r for r in records if isinstance(r, DNSAddress) and r.name == service.server]
    try:
        tag = bytes.fromhex(entries.get("net", b"").decode("ascii"))
    except ValueError as exc:
        raise BadPacket("bad_txt") from exc
    return Announcement(
        peer_id=peer_id,
        network_tag=tag,
        ttl=service.ttl,
        name=clean_name(entries.get("n", b"").decode(errors="replace")),
        addresses=_read_addresses([r.address for r in hosts], service.port, port6) if service.ttl else (),
        known=_read_known(entries),
    )


def _read_txt(data: bytes) -> dict[str, bytes]:
    """RFC 6763 section 6.4: of a repeated key the first counts; keys are ASCII, case is ignored."""
    entries: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        entry = data[position + 1 : position + 1 + data[position]]
        if len(entry) != data[position] or len(entries) >= MAX_TXT_ENTRIES:
            raise BadPacket("bad_txt")
        position += 1 + len(entry)
        key, equals, value = entry.partition(b"=")
        if equals and key.isascii():
            entries.setdefault(key.decode("ascii").lower(), value)
    if entries.get("v") != VERSION.encode():
        raise BadPacket("bad_version")
    return entries


def _read_id(value: bytes) -> PeerId:
    try:
        return PeerId.parse(value.decode("ascii"))
    except (InvalidPeerError, UnicodeDecodeError) as exc:
        raise BadPacket("bad_id") from exc


def _read_port(value: bytes) -> int:
    if not (value.isdigit() and len(value) <= 5 and 0 < int(value) <= 65_535):
        raise BadPacket("bad_txt")
    return int(value)


def _read_addresses(packed: list[bytes], port: int, port6: int) -> tuple[Address, ...]:
    """Return the addresses that could be dialled; the shell of `LanDiscovery` judges them by scope."""
    found: dict[Address, None] = {}
    for each in packed[: 4 * MAX_ADDRESSES]:
        if len(each) not in (4, 16) or not (port6 if len(each) == 16 else port):
            raise BadPacket("bad_address")
        found[Address.of(str(ipaddress.ip_address(each)), port6 if len(each) == 16 else port)] = None
    if not found:
        raise BadPacket("incomplete")
    return tuple(found)[:MAX_ADDRESSES]


def _read_known(entries: dict[str, bytes]) -> tuple[tuple[PeerId, Address], ...]:
    """Return known peers at addresses that may mean something to us; loopback of another machine does not."""
    found = []
    for index in range(MAX_KNOWN):
        value = entries.get(f"k{index}")
        if value is None:
            continue
        id_part, at, address_part = value.partition(b"@")
        try:
            address = Address.parse(address_part.decode("ascii"))
            realm = realm_of(address.ip, allow_documentation=True)  # whether it may be dialled, the node decides
        except ValueError as exc:
            raise BadPacket("bad_txt") from exc
        if at and address.port and realm in (Realm.PRIVATE, Realm.PUBLIC):
            found.append((_read_id(id_part), address))
    return tuple(found)
