"""Signing input and envelopes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.core.envelope import MAX_ENVELOPE_BYTES, open_untrusted, seal, signing_input
from p2pnode.core.errors import BadPacket
from p2pnode.core.keys import SigningKey

KEY = SigningKey(bytes(range(32)))
DOMAIN, KIND = b"p2pnode/1/test", b"greeting"


def test_signing_input_follows_libp2p_rfc_0002() -> None:
    """Each of the three parts is preceded by its length as an unsigned varint."""
    assert signing_input(b"ab", b"c", b"") == b"\x02ab\x01c\x00"
    assert signing_input(b"", b"", b"x" * 300) == b"\x00\x00\xac\x02" + b"x" * 300
    assert signing_input(b"", b"", b"x" * 127)[2:3] == b"\x7f"
    assert signing_input(b"", b"", b"x" * 128)[2:4] == b"\x80\x01"


@given(*[st.binary(max_size=200)] * 6)
def test_signing_input_is_injective(a: bytes, b: bytes, c: bytes, d: bytes, e: bytes, f: bytes) -> None:
    """Two different triples never give the same bytes to sign."""
    assert (signing_input(a, b, c) == signing_input(d, e, f)) == ((a, b, c) == (d, e, f))


@given(st.binary(max_size=2000))
@settings(max_examples=50)
def test_what_was_sealed_opens(payload: bytes) -> None:
    """The signer's key and the payload come back; the encoding is deterministic."""
    data = seal(KEY, DOMAIN, KIND, payload)
    signer, opened = open_untrusted(data, DOMAIN, KIND)
    assert (signer.raw, opened) == (KEY.public_raw, payload)
    assert data == seal(KEY, DOMAIN, KIND, payload)


def test_largest_envelope() -> None:
    """The largest payload fits; one byte more is the caller's error; more bytes from outside are `too_long`."""
    assert open_untrusted(seal(KEY, DOMAIN, KIND, bytes(16_000)), DOMAIN, KIND)[1] == bytes(16_000)
    with pytest.raises(ValueError, match="at most"):
        seal(KEY, DOMAIN, KIND, bytes(16_001))
    with pytest.raises(ValueError, match="type"):
        seal(KEY, DOMAIN, b"", b"")
    with pytest.raises(BadPacket, match="too_long"):
        open_untrusted(bytes(MAX_ENVELOPE_BYTES + 1), DOMAIN, KIND)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "malformed"),
        ([b"k" * 32, KIND, b"", b"s" * 64, 1], "malformed"),
        ({"public_key": b"k" * 32}, "malformed"),
        ([b"k" * 31, KIND, b"", b"s" * 64], "malformed"),
        ([b"k" * 32, KIND, b"", b"s" * 63], "malformed"),
        (["k" * 32, KIND, b"", b"s" * 64], "malformed"),
        ([b"k" * 32, KIND, None, b"s" * 64], "malformed"),
        ([b"k" * 32, b"", b"", b"s" * 64], "malformed"),
        ([b"k" * 32, b"other", b"", b"s" * 64], "wrong_type"),
        ([b"\1" + bytes(31), KIND, b"", b"s" * 64], "bad_key"),
        ([b"k" * 32, KIND, b"", b"s" * 64], "bad_signature"),
    ],
)
def test_each_refusal_has_its_reason(value: object, reason: str) -> None:
    """Wrong count, container, length and type of fields; foreign payload type; unusable key; false signature."""
    with pytest.raises(BadPacket) as caught:
        open_untrusted(msgspec.msgpack.encode(value), DOMAIN, KIND)
    assert caught.value.reason == reason
