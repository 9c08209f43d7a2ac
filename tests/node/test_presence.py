"""The presence value: what is published, what is believed."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId, UserId
from p2pnode.core.keys import AccountKey
from p2pnode.dht import KnownContact
from p2pnode.presence import MAX_RENDEZVOUS, Presence, presence_salt

USER = AccountKey(bytes(range(32))).user_id
VECTORS = Path(__file__).parents[1] / "vectors" / "presence.json"


def presence(
    *addresses: str, name: str = "alice", user: UserId | None = USER, through: tuple[str, ...] = ()
) -> Presence:
    contacts = tuple(KnownContact(None, NodeId(bytes([i]) * 20), Address.parse(a)) for i, a in enumerate(through))
    return Presence(tuple(Address.parse(a) for a in addresses), bytes(32), user, name, 0, contacts)


def test_presence_round_trip() -> None:
    """A value comes back as it was written, in its realm."""
    value = presence("192.168.1.7:4747", "[fd00::1]:4747")
    assert Presence.decode_untrusted(value.encode(), Realm.PRIVATE) == value


def test_addresses_of_other_realms_are_left_out() -> None:
    """A private address in a public presence is not believed, the public one is."""
    mixed = presence("192.168.1.7:4747", "8.8.8.8:4747")
    read = Presence.decode_untrusted(mixed.encode(), Realm.PUBLIC)
    assert read.addresses == (Address("8.8.8.8", 4747),)


def test_presence_with_only_foreign_addresses_is_refused() -> None:
    """It would otherwise read as a goodbye."""
    with pytest.raises(BadPacket, match="bad_address"):
        Presence.decode_untrusted(presence("127.0.0.1:22").encode(), Realm.PUBLIC)


def test_goodbye_keeps_the_user() -> None:
    """An offline device still names its account."""
    read = Presence.decode_untrusted(presence().encode(), Realm.PUBLIC)
    assert not read.online
    assert read.user == USER


def test_name_is_cleaned_on_reading() -> None:
    """A hostile name cannot carry terminal control characters."""
    read = Presence.decode_untrusted(presence("8.8.8.8:1", name="\x1b[31mred\u202e").encode(), Realm.PUBLIC)
    assert "\x1b" not in read.name
    assert "\u202e" not in read.name


def test_value_fits_into_a_record() -> None:
    """Eight IPv6 addresses, a long name and four rendezvous nodes stay well below 800 bytes."""
    addresses = tuple(Address(f"2001:4860::{i}", 65535) for i in range(8))
    through = tuple(KnownContact(None, NodeId(bytes(20)), address) for address in addresses[:MAX_RENDEZVOUS])
    largest = Presence(addresses, bytes(32), USER, "ä" * 32, 2**32 - 1, through, addresses[:2])
    assert len(largest.encode()) < 550


def test_rendezvous_nodes_come_back_in_order() -> None:
    """Field 6 holds node ids and addresses of both families; a fifth is not published."""
    value = presence("8.8.8.8:1", through=("9.9.9.9:4747", "[2a00::9]:4747"))
    assert Presence.decode_untrusted(value.encode(), Realm.PUBLIC) == value
    five = presence(through=tuple(f"9.9.9.{i}:1" for i in range(1, 6)))
    assert Presence.decode_untrusted(five.encode(), Realm.PUBLIC).rendezvous == five.rendezvous[:4]


def test_node_with_rendezvous_nodes_only_is_online() -> None:
    """Behind a router that nobody can dial it publishes no address, and is reached all the same."""
    read = Presence.decode_untrusted(presence(through=("9.9.9.9:1",)).encode(), Realm.PUBLIC)
    assert read.online
    assert read.addresses == ()


def test_rendezvous_nodes_of_other_realms_are_left_out() -> None:
    """A public presence cannot make its readers send to a private or multicast address."""
    mixed = presence("8.8.8.8:1", through=("192.168.1.1:1", "9.9.9.9:1", "224.0.0.1:1"))
    read = Presence.decode_untrusted(mixed.encode(), Realm.PUBLIC)
    assert [str(contact.address) for contact in read.rendezvous] == ["9.9.9.9:1"]
    with pytest.raises(BadPacket, match="bad_address"):
        Presence.decode_untrusted(presence(through=("192.168.1.1:1",)).encode(), Realm.PUBLIC)


def test_outside_addresses_come_back_two_at_most() -> None:
    """Field 7 says where routers show the node; those of other realms are left out, and they make nobody online."""
    seen = tuple(Address.parse(a) for a in ("8.8.4.4:4747", "[2a00::7]:4747", "9.9.9.9:1"))
    through = presence(through=("9.9.9.9:1",)).rendezvous
    value = Presence((), bytes(32), USER, rendezvous=through, outside=seen)
    assert Presence.decode_untrusted(value.encode(), Realm.PUBLIC).outside == seen[:2]
    assert Presence.decode_untrusted(presence().encode(), Realm.PUBLIC).outside == ()
    near = Presence((), bytes(32), USER, rendezvous=through, outside=(Address("192.168.1.1", 1), seen[0]))
    assert Presence.decode_untrusted(near.encode(), Realm.PUBLIC).outside == seen[:1]
    assert not Presence((), bytes(32), USER, outside=seen[:1]).online


@pytest.mark.parametrize("packed", [b"", bytes(6), bytes(18), bytes(7), 7, [b"\x08\x08\x08\x08\x00\x01"] * 3])
def test_v1_malformed_outside_address_is_refused(packed: object) -> None:
    """Too short, too long, port 0, not bytes, too many: one error type."""
    fields = msgspec.msgpack.decode(presence("8.8.8.8:1").encode())
    fields[7] = packed if isinstance(packed, list) else [packed]
    with pytest.raises(BadPacket, match=r"bad_address|malformed"):
        Presence.decode_untrusted(msgspec.msgpack.encode(fields), Realm.PUBLIC)


def test_value_of_an_earlier_version_is_read() -> None:
    """Without field 6 there are no rendezvous nodes, without field 7 no address outside."""
    old = msgspec.msgpack.encode(msgspec.msgpack.decode(presence("8.8.8.8:1").encode())[:6])
    read = Presence.decode_untrusted(old, Realm.PUBLIC)
    assert (read.rendezvous, read.outside, read.online) == ((), (), True)


@pytest.mark.parametrize("packed", [b"", bytes(20), bytes(25), bytes(26), bytes(37), bytes(39), 7, [b""] * 5])
def test_v1_malformed_rendezvous_node_is_refused(packed: object) -> None:
    """Too short, too long, port 0, not bytes, too many: one error type."""
    fields = msgspec.msgpack.decode(presence("8.8.8.8:1").encode())
    fields[6] = packed if isinstance(packed, list) else [packed]
    with pytest.raises(BadPacket, match=r"bad_address|malformed"):
        Presence.decode_untrusted(msgspec.msgpack.encode(fields), Realm.PUBLIC)


def test_v1_every_prefix_of_a_presence_is_refused() -> None:
    """No cut value decodes, and none raises anything but BadPacket."""
    data = presence("8.8.8.8:4747", through=("9.9.9.9:1",)).encode()
    for length in range(len(data)):
        with pytest.raises(BadPacket):
            Presence.decode_untrusted(data[:length], Realm.PUBLIC)


@given(st.binary(max_size=200))
def test_v1_random_bytes_are_a_presence_or_bad_packet(data: bytes) -> None:
    """Random bytes never raise anything else."""
    try:
        Presence.decode_untrusted(data, Realm.PUBLIC)
    except BadPacket as exc:
        assert exc.reason in {"malformed", "bad_address", "bad_key"}


def test_vectors_of_presence() -> None:
    """The published vectors decode and encode to the same bytes."""
    for vector in json.loads(VECTORS.read_text()):
        realm = Realm(vector["realm"])
        assert presence_salt(realm).decode() == vector["salt"]
        value = Presence(
            tuple(Address.parse(a) for a in vector["addresses"]),
            bytes.fromhex(vector["x25519"]),
            UserId(bytes.fromhex(vector["user"])) if vector["user"] else None,
            vector["name"],
            vector["capabilities"],
            tuple(
                KnownContact(None, NodeId(bytes.fromhex(contact["node_id"])), Address.parse(contact["address"]))
                for contact in vector["rendezvous"]
            ),
            tuple(Address.parse(a) for a in vector["outside"]),
            vector.get("run", 0),
        )
        if not vector.get("earlier_version"):
            assert value.encode().hex() == vector["encoded"]
        assert Presence.decode_untrusted(bytes.fromhex(vector["encoded"]), realm) == value
