"""The presence value: what is published, what is believed."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import UserId
from p2pnode.core.keys import AccountKey
from p2pnode.presence import Presence, presence_salt

USER = AccountKey(bytes(range(32))).user_id
VECTORS = Path(__file__).parents[1] / "vectors" / "presence.json"


def presence(*addresses: str, name: str = "alice", user: UserId | None = USER) -> Presence:
    return Presence(tuple(Address.parse(a) for a in addresses), bytes(32), user, name)


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
    """Eight IPv6 addresses and a long name stay below 800 bytes."""
    addresses = tuple(Address(f"2001:4860::{i}", 65535) for i in range(8))
    assert len(Presence(addresses, bytes(32), USER, "ä" * 32, 2**32 - 1).encode()) < 400


def test_v1_every_prefix_of_a_presence_is_refused() -> None:
    """No cut value decodes, and none raises anything but BadPacket."""
    data = presence("8.8.8.8:4747").encode()
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
        )
        assert value.encode().hex() == vector["encoded"]
        assert Presence.decode_untrusted(bytes.fromhex(vector["encoded"]), realm) == value
