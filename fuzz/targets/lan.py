"""Packets of the local network: the reader, and the machine that hears them."""

from __future__ import annotations

import random

from p2pnode.core.address import Address
from p2pnode.core.clean import clean_name
from p2pnode.core.keys import NodeKey
from p2pnode.core.network_id import network_tag
from p2pnode.lan_machine import MAX_PEERS, MAX_SOURCES, LanMachine
from p2pnode.lan_wire import MAX_DATAGRAM_BYTES, Announcement, encode_announcement, read_untrusted
from targets.base import Target

__all__ = ["TAGS", "TARGETS"]

KEY = NodeKey(bytes([9]) * 32, bytes([9]) * 32)
OWN = Announcement(KEY.peer_id, network_tag("public"), 150, "me", (Address("192.168.1.2", 4747),))
TAGS = (bytes.fromhex("0011223344556677"), OWN.network_tag)  # of tests/vectors/lan.json, and the public network's


def hold_announcement(_data: bytes, heard: Announcement | None) -> None:
    """Said again, it fits and reads the same; of addresses with several ports only the first one's are said."""
    if heard is None:
        return
    assert heard.name == clean_name(heard.name)
    assert len(heard.addresses) <= 8
    assert bool(heard.addresses) == bool(heard.ttl)
    if len(heard.network_tag) != 8 or heard.ttl >= 2**31:
        return  # the machine refuses the tag; such a ttl is not ours to say
    said = encode_announcement(heard)
    assert len(said) <= MAX_DATAGRAM_BYTES
    again = read_untrusted(said)
    assert again is not None
    assert (again.peer_id, again.network_tag, again.ttl, again.known) == (
        heard.peer_id, heard.network_tag, heard.ttl, heard.known,
    )  # fmt: skip
    assert set(again.addresses) <= set(heard.addresses)


def read_machine(data: bytes) -> None:
    """Each datagram of `length (2) · bytes` from another source; the machine goes on, and speaks when it is due."""
    for tag in TAGS:
        machine = LanMachine(KEY.peer_id, tag, lambda: OWN, random.Random(1))
        machine.start(0.0)
        now, rest, number = 0.0, data, 0
        while len(rest) >= 2 and number < 8:
            end = 2 + int.from_bytes(rest[:2], "big") % 1_500
            source = Address(f"192.168.1.{7 + number % 2}", 5353)
            peer = machine.receive(rest[2:end], source, now, ("192.168.1.2", "127.0.0.1"))
            assert peer is None or (peer.peer_id in machine.peers() and peer.addresses)
            due = machine.next_at()
            assert due is not None
            for said in machine.tick(max(now, due)):
                assert len(said) <= MAX_DATAGRAM_BYTES
            now, rest, number = max(now, due), rest[end:], number + 1
        statistics = machine.statistics()
        assert statistics["peers"] <= MAX_PEERS
        assert statistics["sources"] <= MAX_SOURCES
        machine.goodbye()


TARGETS = [
    Target("lan_packet", read_untrusted, hold_announcement, max_bytes=1_500),
    Target("lan_machine", read_machine, errors=(), max_bytes=3_000),
]
