"""base58btc and bech32m, the two text encodings of ids.

base58btc (Bitcoin's alphabet) is what libp2p peer ids use; bech32m (BIP 350) finds typing errors. Both are small and
frozen standards; the packages on PyPI are unmaintained or lack bech32m.
"""

from __future__ import annotations

__all__ = ["base58_decode", "base58_encode", "bech32m_decode", "bech32m_encode"]

_B58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_B58_INDEX = {c: i for i, c in enumerate(_B58)}
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_INDEX = {c: i for i, c in enumerate(_BECH32)}
_BECH32M_CONST = 0x2BC830A3  # BIP 350, "Bech32m"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
MAX_BASE58_LENGTH = 128  # characters; decoding is quadratic, and a peer id has 52
MAX_BECH32M_LENGTH = 90  # characters; BIP 173, "Bech32": the checksum's promises hold up to here. A user id has 62


def base58_encode(data: bytes) -> str:
    """Encode bytes in base58btc; each leading zero byte becomes a '1'."""
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, remainder = divmod(number, 58)
        digits = _B58[remainder] + digits
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + digits


def base58_decode(text: str) -> bytes:
    """Decode base58btc. Raise ValueError on a character outside the alphabet or more than 128 characters."""
    if len(text) > MAX_BASE58_LENGTH:
        raise ValueError("too long")
    number = 0
    for char in text:
        if char not in _B58_INDEX:
            raise ValueError(f"{char!r} is not a base58 character")
        number = number * 58 + _B58_INDEX[char]
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


def bech32m_encode(hrp: str, data: bytes) -> str:
    """Encode bytes as bech32m with human-readable part `hrp` (lower case). Raise ValueError above 90 characters."""
    if len(hrp) + 7 + (len(data) * 8 + 4) // 5 > MAX_BECH32M_LENGTH:
        raise ValueError("too long")
    values = _to_base32(data)
    checksum = _polymod([*_expand(hrp), *values, 0, 0, 0, 0, 0, 0]) ^ _BECH32M_CONST
    values += [(checksum >> 5 * (5 - i)) & 31 for i in range(6)]
    return hrp + "1" + "".join(_BECH32[v] for v in values)


def bech32m_decode(text: str) -> tuple[str, bytes]:
    """Return (human-readable part in lower case, data). Raise ValueError with the reason.

    BIP 173, "Bech32", with the constant of BIP 350, "Bech32m". At most 90 characters.
    """
    hrp, values = bech32m_decode_values(text)
    return hrp, _from_base32(values)


def bech32m_decode_values(text: str) -> tuple[str, list[int]]:
    """Return (human-readable part, 5-bit groups without checksum); the part that BIP 350's vectors test."""
    if any(not 33 <= ord(c) <= 126 for c in text):
        raise ValueError("a character outside the printable ASCII range")
    if text.lower() != text and text.upper() != text:
        raise ValueError("upper and lower case are mixed")
    text = text.lower()
    position = text.rfind("1")
    if position < 1 or position + 7 > len(text) or len(text) > MAX_BECH32M_LENGTH:
        raise ValueError("wrong length or no separator")
    hrp, tail = text[:position], text[position + 1 :]
    if any(c not in _BECH32_INDEX for c in tail):
        raise ValueError("a character that bech32 does not use")
    values = [_BECH32_INDEX[c] for c in tail]
    if _polymod([*_expand(hrp), *values]) != _BECH32M_CONST:
        raise ValueError("the checksum does not match: a typing error")
    return hrp, values[:-6]


def _expand(hrp: str) -> list[int]:
    return [ord(c) >> 5 for c in hrp] + [0] + [ord(c) & 31 for c in hrp]


def _polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate(_GENERATOR):
            checksum ^= generator if (top >> i) & 1 else 0
    return checksum


def _to_base32(data: bytes) -> list[int]:
    bits = int.from_bytes(data, "big")
    length = len(data) * 8
    padding = -length % 5
    bits <<= padding
    return [(bits >> shift) & 31 for shift in range(length + padding - 5, -1, -5)]


def _from_base32(values: list[int]) -> bytes:
    bits = 0
    for value in values:
        bits = bits << 5 | value
    padding = len(values) * 5 % 8
    if padding >= 5 or bits & ((1 << padding) - 1):
        raise ValueError("non-zero padding")
    return (bits >> padding).to_bytes(len(values) * 5 // 8, "big")
