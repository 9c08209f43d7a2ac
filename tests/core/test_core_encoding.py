"""base58btc and bech32m against their published vectors."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.core.encoding import (
    base58_decode,
    base58_encode,
    bech32m_decode,
    bech32m_decode_values,
    bech32m_encode,
)

# draft-msporny-base58-03, section 5 "Test Vectors"; and leading zeros
BASE58 = [
    (b"Hello World!", "2NEpo7TZRRrLZSi2U"),
    (b"The quick brown fox jumps over the lazy dog.", "USm3fpXnKG5EUBx2ndxBDMPVciP5hGey2Jh4NDv6gmeo1LkMeiKrLJUUBk6Z"),
    (bytes.fromhex("0000287fb4cd"), "11233QC4"),
    (b"", ""),
    (b"\0", "1"),
    (b"\0\0\0", "111"),
]
# BIP 350, "Test vectors for Bech32m"
VALID = [
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "11llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllludsr8",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
]
INVALID = [
    ("\x201xj0phk", "printable"),
    ("\x7f1g6xzxy", "printable"),
    ("\x801vctc34", "printable"),
    ("an84characterslonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11d6pts4", "length"),
    ("qyrz8wqd2c9m", "separator"),
    ("1qyrz8wqd2c9m", "separator"),
    ("y1b0jsk6g", "character"),
    ("lt1igcx5c0", "character"),
    ("in1muywd", "length"),
    ("mm1crxm3i", "character"),
    ("au1s5cgom", "character"),
    ("M1VUXWEZ", "checksum"),
    ("16plkw9", "separator"),
    ("1p2gdwpf", "separator"),
]
# BIP 350, "Test vectors for v0-v16 native segregated witness addresses": the data after the version, as bytes
PROGRAM = "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"
PROGRAM_HEX = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"


@pytest.mark.parametrize(("data", "text"), BASE58)
def test_base58_published_vectors(data: bytes, text: str) -> None:
    """The published pairs hold in both directions."""
    assert base58_encode(data) == text
    assert base58_decode(text) == data


@pytest.mark.parametrize("text", ["0", "O", "I", "l", "abc def", "ä", "\ud800", "1" * 129])
def test_base58_refuses_foreign_characters_and_long_text(text: str) -> None:
    """What is not in the alphabet, or above 128 characters, is a ValueError."""
    with pytest.raises(ValueError, match=r"base58|too long"):
        base58_decode(text)


@given(st.binary(max_size=80))
def test_base58_round_trip(data: bytes) -> None:
    """Decoding undoes encoding, leading zeros included."""
    assert base58_decode(base58_encode(data)) == data


@pytest.mark.parametrize("text", VALID)
def test_bech32m_bip350_valid(text: str) -> None:
    """Each valid string of BIP 350 decodes."""
    hrp, values = bech32m_decode_values(text)
    assert hrp == text[: text.rindex("1")].lower()
    assert len(values) == len(text) - len(hrp) - 7


@pytest.mark.parametrize(("text", "reason"), INVALID)
def test_bech32m_bip350_invalid(text: str, reason: str) -> None:
    """Each invalid string of BIP 350 is refused, for the published reason."""
    with pytest.raises(ValueError, match=reason):
        bech32m_decode_values(text)


def test_bech32m_bip350_witness_program() -> None:
    """A published version 1 program decodes to its published bytes."""
    hrp, values = bech32m_decode_values(PROGRAM)
    bits = int("".join(f"{value:05b}" for value in values[1:]), 2)
    assert (hrp, values[0]) == ("bc", 1)
    assert (bits >> 4).to_bytes(32, "big").hex() == PROGRAM_HEX


@pytest.mark.parametrize(
    "text",
    [
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",  # Bech32's constant instead of Bech32m's
        "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq47Zagq",  # mixed case
    ],
)
def test_bech32m_bip350_invalid_addresses(text: str) -> None:
    """Published invalid addresses that do not depend on witness versions are refused."""
    with pytest.raises(ValueError, match=r"checksum|mixed"):
        bech32m_decode_values(text)


def test_bech32m_refuses_nonzero_and_long_padding() -> None:
    """Bits beyond the last byte must be zero and fewer than five, so that no two texts give the same bytes."""
    for values in ([0, 1], [0, 0, 0], [31]):
        with pytest.raises(ValueError, match="padding"):
            bech32m_decode(_encode_values("p2p", values))


@given(st.binary(max_size=48))
def test_bech32m_round_trip(data: bytes) -> None:
    """Decoding undoes encoding; an all upper-case text (a QR code's) is the same."""
    text = bech32m_encode("p2p", data)
    assert bech32m_decode(text) == ("p2p", data)
    assert bech32m_decode(text.upper()) == ("p2p", data)


def test_bech32m_encode_refuses_more_than_90_characters() -> None:
    """Nothing is encoded that could not be decoded."""
    assert len(bech32m_encode("p2p", bytes(50))) == 90
    with pytest.raises(ValueError, match="too long"):
        bech32m_encode("p2p", bytes(51))


@settings(max_examples=200)
@given(st.text(max_size=100))
def test_decoders_raise_only_value_error(text: str) -> None:
    """Any text gives a result or a ValueError."""
    for decode in (base58_decode, bech32m_decode):
        try:
            decode(text)
        except ValueError:
            continue


def _encode_values(hrp: str, values: list[int]) -> str:
    """bech32m of raw 5-bit groups; the checksum is found by brute arithmetic, not by the code under test."""
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    expanded = [ord(c) >> 5 for c in hrp] + [0] + [ord(c) & 31 for c in hrp]
    state = 1
    for value in [*expanded, *values, *[0] * 6]:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            state ^= generator if top >> i & 1 else 0
    state ^= 0x2BC830A3
    return hrp + "1" + "".join(alphabet[v] for v in [*values, *[(state >> 5 * (5 - i)) & 31 for i in range(6)]])
