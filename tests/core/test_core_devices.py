"""The value of device records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.core.devices import MAX_DEVICES, decode_devices_untrusted, encode_devices
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import SigningKey

PEERS = [PeerId(SigningKey(bytes([i]) * 32).public_raw) for i in range(1, 26)]


@given(st.lists(st.sampled_from(PEERS[:MAX_DEVICES]), min_size=1))
def test_devices_round_trip_as_a_set(devices: list[PeerId]) -> None:
    """Order and repetition do not matter; each set has one value, which decodes to it."""
    for number in (0, 1, 2**63 - 1):
        value = encode_devices(devices, number)
        found = decode_devices_untrusted(value)
        assert set(found.devices) == set(devices)
        assert found.number == number
        assert value == encode_devices(reversed(devices), number) == encode_devices(found.devices, number)


def test_the_largest_value_fits_a_record() -> None:
    """23 devices take at most the 800 bytes of a record; none and 24 are refused."""
    assert len(encode_devices(PEERS[:23])) == 737
    assert len(encode_devices(PEERS[:23], 2**63 - 1)) == 745
    for devices in ([], PEERS[:24]):
        with pytest.raises(ValueError, match="1 to 23"):
            encode_devices(devices)


@given(st.binary(max_size=100))
def test_any_bytes_give_devices_or_bad_packet(data: bytes) -> None:
    """Nothing but BadPacket is raised, and what is accepted encodes to the same bytes."""
    key = data[:32].ljust(32, b"\7")
    for candidate in (data, b"\1" + data, b"\1" + key, b"\2" + data, b"\2" + data[:8].ljust(8, b"\7") + key):
        try:
            found = decode_devices_untrusted(candidate)
        except BadPacket:
            continue
        assert encode_devices(found.devices, found.number) == candidate
