"""Contacts: other nodes as we know them, and their form on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from kademlia.node import Node

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.dht.limits import prefix_of
from p2pnode.dht.overlay import Overlay

__all__ = ["Contact", "KnownContact", "pack_address", "split_contacts_untrusted", "unpack_address_untrusted"]

CONTACT4_BYTES = 26  # node id 20, IPv4 4, port 2
CONTACT6_BYTES = 38  # node id 20, IPv6 16, port 2
MAX_CONTACTS = 24  # in one answer: 20 nearest, and 4 from anywhere for who joins


@dataclass(frozen=True, slots=True)
class KnownContact:
    """A node to begin with: remembered, or given by the user. `peer_id` is None when only the node id is known."""

    peer_id: PeerId | None
    node_id: NodeId
    address: Address


class Contact(Node):
    """A node with its address in one overlay.

    `node_seen` in libtorrent's words once it is in a table: it answered us from this address. A contact that somebody
    only told us about lives in a lookup, never in a table.
    """

    def __init__(self, node_id: NodeId, address: Address, overlay: Overlay, peer_id: PeerId | None = None) -> None:
        # Not super().__init__: it parses the id through its hexadecimal text, four times as slow, for every hearsay.
        self.id = node_id
        self.ip, self.port = address
        self.long_id = int.from_bytes(node_id, "big")
        self.address = address
        self.overlay = overlay
        self.peer_id = peer_id
        self.packed: bytes = node_id + pack_address(address)
        self.prefix = prefix_of(address.ip)
        self.first_seen = 0.0
        self.last_seen = 0.0
        self.last_pinged = float("-inf")
        self.misses = 0
        self.missed_at = 0.0  # when the first of these was asked
        self.demerits = 0
        self.rtt_s: float | None = None
        self.rtt_var = 0.0

    def measured(self, rtt_s: float) -> None:
        """Smooth a round trip in (RFC 6298, section 2, "The Basic Algorithm")."""
        if self.rtt_s is None:
            self.rtt_s, self.rtt_var = rtt_s, rtt_s / 2
        else:
            self.rtt_var += (abs(self.rtt_s - rtt_s) - self.rtt_var) / 4
            self.rtt_s += (rtt_s - self.rtt_s) / 8

    def known(self) -> KnownContact:
        return KnownContact(self.peer_id, NodeId(self.id), self.address)

    def __repr__(self) -> str:
        return f"<Contact {self.id.hex()[:10]} {self.address}>"


@lru_cache(maxsize=8192)
def pack_address(address: Address) -> bytes:
    """`Address.pack`, remembered: parsing text costs more than all the rest of an answer (8,192 x 200 bytes)."""
    return address.pack()


@lru_cache(maxsize=8192)
def unpack_address_untrusted(packed: bytes) -> Address:
    """`Address.unpack_untrusted`, remembered (8,192 x 200 bytes)."""
    return Address.unpack_untrusted(packed)


def split_contacts_untrusted(ipv4: bytes, ipv6: bytes) -> list[bytes]:
    """Return the entries of both lists of an answer, each node id 20 and packed address 6 or 18.

    Raise BadPacket("bad_contacts") on a wrong length or more than 24 in all.
    """
    if len(ipv4) % CONTACT4_BYTES or len(ipv6) % CONTACT6_BYTES:
        raise BadPacket("bad_contacts")
    if len(ipv4) // CONTACT4_BYTES + len(ipv6) // CONTACT6_BYTES > MAX_CONTACTS:
        raise BadPacket("bad_contacts")
    entries = [ipv4[at : at + CONTACT4_BYTES] for at in range(0, len(ipv4), CONTACT4_BYTES)]
    if ipv6:
        entries += [ipv6[at : at + CONTACT6_BYTES] for at in range(0, len(ipv6), CONTACT6_BYTES)]
    return entries
