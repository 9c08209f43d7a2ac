"""Attacks on sessions: M2 and V2, proofs and certificates. See docs/security.md."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from support.nat_peers import BareClient, make_peer

from p2pnode.core.envelope import signing_input
from p2pnode.core.errors import BadPacket, WrongKeyError, WrongNetworkError
from p2pnode.core.keys import NodeKey
from p2pnode.nat import CloseCode
from p2pnode.nat import certificate as certificates
from p2pnode.nat.certificate import NodeCertificate, make_certificate, peer_of_certificate_untrusted
from p2pnode.nat.proof import (
    SessionFacts,
    check_proof_untrusted,
    make_proof,
)
from p2pnode.nat.transport import Configurations
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

KEYS = [NodeKey(bytes([number]) * 32, bytes(32)) for number in range(1, 5)]


def facts(server: NodeKey = KEYS[0], *, nonce: bytes = bytes(32), tag: bytes = bytes(8)) -> SessionFacts:
    return SessionFacts(nonce=nonce, server=server.peer_id, certificate_der=b"certificate", network_tag=tag)


def test_m2_proof_is_bound_to_server_nonce_certificate_and_network() -> None:
    """M2: a valid proof is refused when any of what it is bound to differs."""
    client = KEYS[1]
    proof = make_proof(client, facts())
    assert check_proof_untrusted(proof, facts()) == client.peer_id
    others = [
        facts(KEYS[2]),
        facts(nonce=b"\x01" * 32),
        facts(tag=b"\x01" * 8),
        SessionFacts(nonce=bytes(32), server=KEYS[0].peer_id, certificate_der=b"other", network_tag=bytes(8)),
    ]
    for other in others:
        with pytest.raises(BadPacket, match="bad_signature"):
            check_proof_untrusted(proof, other)


def test_m2_relayed_proof_is_refused_by_the_third() -> None:
    """M2: Mallory, to whom Alice connects, relays Bob's nonce to her and her proof to Bob: Bob refuses."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        mallory = await make_peer(world, "10.0.0.3")
        towards_bob = await BareClient.open(world, "10.0.0.4", bob)
        towards_bob.connect()
        await asyncio.sleep(0.1)
        # Mallory serves Alice with Bob's nonce, under her own certificate, and copies the proof.
        real = mallory.network.token_bytes
        mallory.network.token_bytes = lambda n: towards_bob.nonce[1:] if n == 32 else real(n)  # type: ignore[method-assign]
        copied: list[bytes] = []
        original = check_proof_untrusted

        def spy(data: bytes, known: SessionFacts) -> Any:
            copied.append(data)
            return original(data, known)

        import p2pnode.nat.handshake as handshake

        handshake.check_proof_untrusted = spy  # type: ignore[attr-defined]
        try:
            await alice.endpoint.connect(mallory.key.peer_id, mallory.address)
        finally:
            handshake.check_proof_untrusted = original  # type: ignore[attr-defined]
        assert len(copied) == 1
        towards_bob.write(copied[0])
        await asyncio.sleep(0.1)
        assert towards_bob.ended is not None
        assert towards_bob.ended.error_code == CloseCode.BAD_PROOF
        assert bob.incoming == []
        assert bob.endpoint.statistics().dropped["bad_signature"] == 1

    run_virtual(main)


def test_v2_proof_signatures_of_other_kinds_are_refused() -> None:
    """V2: other domain, other type, somebody else's key, a small-order key, S + L."""
    client, known = KEYS[1], facts()
    proof = make_proof(client, known)
    payload = known.nonce + KEYS[0].public_raw + client.public_raw + known.certificate_hash + bytes(8)
    for domain, kind in ((b"p2pnode/1/dht", b"client-proof"), (b"p2pnode/1/session", b"other")):
        forged = proof[:33] + client.sign(signing_input(domain, kind, payload))
        with pytest.raises(BadPacket, match="bad_signature"):
            check_proof_untrusted(forged, known)
    with pytest.raises(BadPacket, match="bad_signature"):
        check_proof_untrusted(proof[:1] + KEYS[2].public_raw + proof[33:], known)
    with pytest.raises(BadPacket, match="bad_key"):
        check_proof_untrusted(proof[:1] + b"\x01" + bytes(31) + proof[33:], known)
    group_order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(proof[65:], "little") + group_order
    with pytest.raises(BadPacket, match="bad_signature"):
        check_proof_untrusted(proof[:65] + scalar.to_bytes(32, "little"), known)


def _with_extension(key: NodeKey, value: bytes) -> NodeCertificate:
    original = certificates._signed_key
    certificates._signed_key = lambda _raw, _signature: value
    try:
        return make_certificate(key, os.urandom)
    finally:
        certificates._signed_key = original


def test_v2_certificate_with_a_wrong_extension_is_refused() -> None:
    """V2: signature by another key or over another certificate, wrong layout, small-order key, no self-signature."""
    key, other = KEYS[0], KEYS[1]
    good = make_certificate(key, os.urandom)
    second = make_certificate(key, os.urandom)
    assert peer_of_certificate_untrusted(good.der) == key.peer_id
    at = good.der.index(bytes((0x30, 104, 0x04, 36)))
    extension = second.der[second.der.index(bytes((0x30, 104, 0x04, 36))) :][:106]
    cases = {
        "bad_signature": [extension, extension[:8] + other.public_raw + extension[40:]],
        "bad_extension": [b"", extension[:-1], extension + b"\0", b"\x31" + extension[1:], bytes(106)],
        "bad_key": [extension[:8] + bytes(32) + extension[40:]],
    }
    for reason, values in cases.items():
        for value in values:
            with pytest.raises(BadPacket, match=reason):
                peer_of_certificate_untrusted(_with_extension(key, value).der)
    # a valid extension moved into a certificate without signing that anew
    with pytest.raises(BadPacket, match="bad_certificate"):
        peer_of_certificate_untrusted(good.der[:at] + extension + good.der[at + 106 :])
    with pytest.raises(BadPacket, match="bad_certificate"):
        peer_of_certificate_untrusted(good.der + bytes(3000))


def test_v2_server_with_a_forged_certificate_is_refused_by_name() -> None:
    """V2: a server that copies the victim's signed key into its own certificate gets no connection."""

    async def main(world: VirtualWorld) -> None:
        alice, mallory = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        victim = KEYS[3]
        stolen = make_certificate(victim, os.urandom)
        extension = stolen.der[stolen.der.index(bytes((0x30, 104, 0x04, 36))) :][:106]
        forged = _with_extension(mallory.key, extension)
        mallory.endpoint._configurations = Configurations(mallory.endpoint.alpn, 60, 0.3, forged)
        with pytest.raises(WrongKeyError) as caught:
            await alice.endpoint.connect(victim.peer_id, mallory.address)
        assert caught.value.facts["answered"] is None
        assert alice.endpoint.statistics().tracked == 0

    run_virtual(main)


def test_v2_other_alpn_is_refused_on_both_sides() -> None:
    """V2: neither another network's tag nor an unknown protocol gets past TLS."""

    async def main(world: VirtualWorld) -> None:
        bob = await make_peer(world, "10.0.0.2")
        for number, alpn in enumerate(("h3", "p2pnode/1/ffffffffffffffff", "p2pnode/2/0102030405060708")):
            client = await BareClient.open(world, f"10.0.1.{number + 1}", bob, alpn=alpn)
            client.connect()
            await asyncio.sleep(0.2)
            assert not client.handshake_done
        alice = await make_peer(world, "10.0.0.1", tag=b"12345678")
        with pytest.raises(WrongNetworkError):
            await alice.endpoint.connect(bob.key.peer_id, bob.address)
        await asyncio.sleep(6)
        assert bob.endpoint.statistics().tracked == 0

    run_virtual(main)
