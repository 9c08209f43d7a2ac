"""Numbers beneath header protection: RFC 9001's samples, and which of two packets was sent later."""

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from p2pnode.nat.packet_order import HEAD_BYTES, PacketOrder

CID = bytes(range(8))
KEY = bytes.fromhex("9f50449e04a0e810283a1e9933adedd2")  # RFC 9001, appendix A.1: client_initial_secret's hp


def packet(number: int, length: int = 2, *, salt: int = 0) -> bytes:
    """A short header under `KEY`, with `length` bytes of the number."""
    sample = bytes((salt, number & 0xFF)) + bytes(14)
    mask = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor().update(sample)  # noqa: S305 - RFC 9001
    plain = (number % (1 << 8 * length)).to_bytes(length, "big")
    protected = bytes(a ^ b for a, b in zip(plain, mask[1:], strict=False)).ljust(4, b"\7")
    return bytes((0x40 | (length - 1) ^ (mask[0] & 0x1F),)) + CID + protected + sample


def test_samples_of_rfc_9001() -> None:
    """A.2: AES-128, mask 437b9aec36; A.5: ChaCha20, a whole packet, number ending in 00bff4 in three bytes."""
    sample = bytes.fromhex("d1b1c98dd7689fb8ec11d242b123dc9b")
    aes = bytes((0x41 ^ 0x03,)) + CID + bytes.fromhex("69ae0000") + sample
    assert PacketOrder("aes-128-ecb", KEY)._number(aes) == (0x1234, 2)
    key = bytes.fromhex("25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4")
    whole = bytes.fromhex("4cfe4189655e5cd55c41f69080575d7999c25a5bfb")
    chacha = whole[:1] + CID + whole[1:]
    assert len(chacha) == HEAD_BYTES
    assert PacketOrder("chacha20", key)._number(chacha) == (0x00BFF4, 3)


@pytest.mark.parametrize(
    ("one", "other", "later"),
    [(1, 0, True), (0, 1, False), (5, 5, False), (0x10000, 0xFFFF, True), (0xFFFF, 0x10000, False),
     (0x7FFF, 0, True), (70_000, 40_000, True), (40_000, 70_000, False)],
)  # fmt: skip
def test_later_is_by_half_the_range(one: int, other: int, later: bool) -> None:
    """Also where the lower bytes begin again; the same number is not later."""
    order = PacketOrder("aes-128-ecb", KEY)
    assert order.later(packet(one), packet(other, salt=1)) is later


def test_lengths_may_differ() -> None:
    """Another implementation may send as few bytes as it needs: the shorter one decides."""
    order = PacketOrder("aes-128-ecb", KEY)
    assert order.later(packet(300, 1), packet(298))
    assert not order.later(packet(298, 4), packet(300, 1))
