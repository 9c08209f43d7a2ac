"""What a simulation need not compute twice, and what it computes all the same."""

from __future__ import annotations

import pytest

from p2pnode.core.errors import BadPacket
from p2pnode.core.keys import AccountKey, NodeKey
from p2pnode.dht.keyring import Ephemeral
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


def test_a_known_signature_holds_for_its_key_and_message_only() -> None:
    """Neither another message nor another key, nor a changed signature, is believed."""

    async def main(_world: VirtualWorld) -> None:
        one, other = NodeKey(bytes(range(32)), bytes(32)), AccountKey(bytes(range(1, 33)))
        signature = one.sign(b"hello")
        assert one.peer_id.verify(signature, b"hello")
        assert not one.peer_id.verify(signature, b"hellp")
        assert not other.user_id.verify(signature, b"hello")
        assert not one.peer_id.verify(bytes([signature[0] ^ 1]) + signature[1:], b"hello")

    run_virtual(main)


def test_a_signature_from_outside_is_verified() -> None:
    """Made before the loop ran, so nobody remembers it; a vector of RFC 8032 would do as well."""
    key = NodeKey(bytes(range(32)), bytes(32))
    signature = key.sign(b"hello")

    async def main(_world: VirtualWorld) -> None:
        assert key.peer_id.verify(signature, b"hello")
        assert not key.peer_id.verify(bytes(64), b"hello")

    run_virtual(main)


def test_both_sides_agree_on_a_secret_and_refuse_small_orders() -> None:
    """The same secret on both sides, others with others, and the check of RFC 7748, section 6.1."""

    async def main(_world: VirtualWorld) -> tuple[bytes, bytes]:
        one, other, third = (Ephemeral(bytes([number]) * 32) for number in (1, 2, 3))
        assert one.agree_untrusted(other.public) == other.agree_untrusted(one.public)
        assert one.agree_untrusted(other.public) != one.agree_untrusted(third.public)
        with pytest.raises(BadPacket, match="bad_ephemeral"):
            one.agree_untrusted(bytes(32))
        return one.public, Ephemeral(bytes([1]) * 31 + b"\2").public

    pooled = run_virtual(main)
    assert pooled[0] == pooled[1]
    computed = run_virtual(main, spares_keys=False)
    assert computed[0] != computed[1]
    assert pooled[0] not in computed


def test_nothing_of_it_stays_behind() -> None:
    """A real loop, and whoever comes after, computes."""
    before = Ephemeral(bytes(32)).public

    async def main(_world: VirtualWorld) -> bytes:
        return Ephemeral(bytes(31) + b"\1").public

    run_virtual(main)
    assert Ephemeral(bytes(32)).public == before
