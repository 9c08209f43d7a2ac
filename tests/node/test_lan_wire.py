"""The announcement's bytes: vectors, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.lan import TAG, key

from p2pnode.core.address import Address
from p2pnode.lan_wire import MAX_DATAGRAM_BYTES, Announcement, encode_announcement, encode_query, read_untrusted

VECTORS = Path(__file__).parents[1] / "vectors" / "lan.json"
KNOWN = tuple((key(number).peer_id, Address(f"203.0.113.{number}", 4747)) for number in (2, 3))
ANNOUNCEMENTS = {
    "two families, one port": Announcement(
        key(1).peer_id, TAG, 150, "alice", (Address("192.168.1.7", 4747), Address("fd00::7", 4747))
    ),
    "IPv6 on a port of its own, known peers, no name": Announcement(
        key(1).peer_id, TAG, 150, "", (Address("192.168.1.7", 4747), Address("fd00::7", 4748)), KNOWN
    ),
    "loopback alone": Announcement(key(1).peer_id, TAG, 150, "Zoë", (Address("127.0.0.1", 50_000),)),
    "goodbye": Announcement(key(1).peer_id, TAG, 0, "alice"),
}


def make_vectors() -> dict[str, Any]:
    """Return what tests/vectors/lan.json holds; run this file to write it."""
    return {
        "query": {"asker": str(key(1).peer_id), "encoded": encode_query(key(1).peer_id).hex()},
        "announcements": [
            {
                "what": what,
                "peer_id": str(each.peer_id),
                "network_tag": each.network_tag.hex(),
                "ttl": each.ttl,
                "name": each.name,
                "addresses": [str(address) for address in each.addresses],
                "known": [f"{peer}@{address}" for peer, address in each.known],
                "encoded": encode_announcement(each).hex(),
            }
            for what, each in ANNOUNCEMENTS.items()
        ],
    }


def test_vectors_are_what_the_code_writes() -> None:
    """The file equals what is encoded today: a change of the wire format is seen."""
    assert json.loads(VECTORS.read_text()) == make_vectors()


@pytest.mark.parametrize("vector", json.loads(VECTORS.read_text())["announcements"], ids=lambda v: v["what"])
def test_vectors_are_read_as_they_say(vector: dict[str, Any]) -> None:
    """Reading a vector's bytes gives its fields."""
    read = read_untrusted(bytes.fromhex(vector["encoded"]))
    assert read == ANNOUNCEMENTS[vector["what"]]


def test_query_vector_is_a_question() -> None:
    """The question is read as one: None asks us to announce ourselves."""
    assert read_untrusted(bytes.fromhex(json.loads(VECTORS.read_text())["query"]["encoded"])) is None


def test_largest_announcement_fits_one_frame() -> None:
    """Eight IPv6 addresses, a long name and three known peers stay below the limit, and are read again."""
    addresses = tuple(Address(f"2001:db8:1:2:3:4:5:{i:x}", 65_535) for i in range(1, 12))
    known = tuple((key(i).peer_id, Address(f"2001:db8:1:2:3:4:5:{i:x}", 65_535)) for i in range(5))
    data = encode_announcement(Announcement(key(1).peer_id, TAG, 150, "\N{SNOWMAN}" * 100, addresses, known))
    print(f"largest announcement: {len(data)} bytes")
    assert len(data) <= MAX_DATAGRAM_BYTES
    read = read_untrusted(data)
    assert read is not None
    assert read.addresses == addresses[:8]
    assert read.name == "\N{SNOWMAN}" * 32


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(make_vectors(), indent=1, ensure_ascii=False) + "\n")
