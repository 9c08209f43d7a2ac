"""V1, V2, V3: hostile bytes, signatures and device records, as far as core holds them (security.md)."""

from __future__ import annotations

import hashlib
import tracemalloc

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from support.edwards import ORDER, P, all_encodings, small_order_points
from support.hostile import mutations, noise, prefixes

from p2pnode.core.address import Address
from p2pnode.core.devices import decode_devices_untrusted, encode_devices
from p2pnode.core.envelope import open_untrusted, seal, signing_input
from p2pnode.core.errors import BadPacket, InvalidPeerError
from p2pnode.core.ids import PeerId, PublicKey, UserId
from p2pnode.core.keys import SigningKey

KEY, OTHER = SigningKey(b"\1" * 32), SigningKey(b"\2" * 32)
DOMAIN, KIND, PAYLOAD = b"p2pnode/1/test", b"greeting", b"hello, world"
ENVELOPE = seal(KEY, DOMAIN, KIND, PAYLOAD)
PEERS = [PeerId(SigningKey(bytes([i]) * 32).public_raw) for i in range(1, 5)]


def refused(data: bytes, domain: bytes = DOMAIN, kind: bytes = KIND) -> str:
    with pytest.raises(BadPacket) as caught:
        open_untrusted(data, domain, kind)
    return caught.value.reason


def test_v1_every_prefix_and_mutation_of_an_envelope_is_refused() -> None:
    """No envelope but the signed one opens, and nothing but BadPacket is raised."""
    reasons = {refused(data) for data in [*prefixes(ENVELOPE), *mutations(ENVELOPE), *noise(2000)]}
    assert reasons <= {"malformed", "wrong_type", "bad_key", "bad_signature"}
    assert open_untrusted(ENVELOPE, DOMAIN, KIND)[1] == PAYLOAD


def test_v1_fields_of_an_envelope_replaced_by_every_type() -> None:
    """Type confusion: each field as number, text, nil, list, map, float, bool, extension, huge or empty bytes."""
    fields = msgspec.msgpack.decode(ENVELOPE)
    strange = [0, -1, 2**63, 1.5, None, True, "", "x" * 64, [], [fields], {}, {"a": 1}, b"", bytes(17_000)]
    strange.append(msgspec.msgpack.Ext(1, b"x"))
    for position in range(len(fields)):
        for value in strange:
            refused(msgspec.msgpack.encode([*fields[:position], value, *fields[position + 1 :]]))
        refused(msgspec.msgpack.encode(fields[:position] + fields[position + 1 :]))
    for left, right in ((0, 1), (0, 3), (1, 2), (2, 3)):
        swapped = list(fields)
        swapped[left], swapped[right] = swapped[right], swapped[left]
        refused(msgspec.msgpack.encode(swapped))


def test_v1_deep_nesting_and_lying_lengths_cost_nothing() -> None:
    """Nested or falsely long containers are refused in constant memory: nothing is allocated on a claim."""
    hostile = [
        b"\x91" * 16_000,
        b"\x81" * 16_000,
        b"\x94" + b"\x91" * 10_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ]
    hostile += [b"\x94\xc6\xff\xff\xff\xff", b"\x94\xdd\xff\xff\xff\xff" + bytes(1000), bytes(10**6)]
    tracemalloc.start()
    try:
        for data in hostile:
            refused(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"peak {peak} bytes")
    assert peak < 500_000


def test_v1_device_values_and_addresses_take_any_bytes() -> None:
    """Every prefix and mutation gives a result that encodes to the same bytes, or BadPacket."""
    values, packed = (encode_devices(PEERS), encode_devices(PEERS, 7)), Address.of("10.1.2.3", 4747).pack()
    for data in [case for v in values for case in (*prefixes(v), *mutations(v))] + [*noise(500, longest=900)]:
        try:
            devices = decode_devices_untrusted(data)
        except BadPacket:
            continue
        assert encode_devices(devices.devices, devices.number) == data
    for data in [*prefixes(packed), *mutations(packed), *noise(500, longest=20)]:
        try:
            address = Address.unpack_untrusted(data)
        except BadPacket:
            continue
        assert address.pack() == data


def test_v2_every_small_order_key_is_refused_in_every_encoding() -> None:
    """The eight points, found by arithmetic: canonical and not, with both sign bits; for each kind of id and reader."""
    points = small_order_points()
    assert len(points) == 8
    encodings = {data for _, y in points for data in all_encodings(y)}
    assert len(encodings) == 14
    for data in encodings:
        for kind in (PublicKey, PeerId, UserId):
            with pytest.raises(InvalidPeerError):
                kind(data)
            with pytest.raises(BadPacket, match="bad_key"):
                kind.from_untrusted(data)
        fields = [data, KIND, PAYLOAD, bytes(64)]
        assert refused(msgspec.msgpack.encode(fields)) == "bad_key"


def test_v2_a_small_order_key_would_let_anybody_sign() -> None:
    """Why they are refused: the library verifies a signature that nobody made under the identity point."""
    identity = b"\1" + bytes(31)
    forged = identity + bytes(32)
    Ed25519PublicKey.from_public_bytes(identity).verify(forged, b"any message at all")
    with pytest.raises(InvalidPeerError):
        PublicKey(identity)


def test_v2_one_key_has_one_encoding() -> None:
    """All encodings with y of p and above are refused: else one key would have two ids."""
    for y in range(P, 2**255):
        for sign in (0, 1):
            with pytest.raises(InvalidPeerError):
                PublicKey((y | sign << 255).to_bytes(32, "little"))


def test_v2_a_signature_has_one_form() -> None:
    """Malleability: S + order, a flipped sign of R, other lengths and bytes are not the signature."""
    message = signing_input(DOMAIN, KIND, PAYLOAD)
    signature = KEY.sign(message)
    key = PublicKey(KEY.public_raw)
    scalar = int.from_bytes(signature[32:], "little")
    wrong = [signature[:32] + (scalar + ORDER * i).to_bytes(32, "little") for i in (1, 2, 7)]
    wrong += [
        signature[:32] + (ORDER - scalar).to_bytes(32, "little"),
        signature[:-1],
        signature + b"\0",
        b"",
        bytes(64),
    ]
    wrong += [signature[:31] + bytes([signature[31] ^ 0x80]) + signature[32:], signature[32:] + signature[:32]]
    wrong += list(mutations(signature))
    assert key.verify(signature, message)
    assert not any(key.verify(data, message) for data in wrong)


def test_v2_an_envelope_has_one_form() -> None:
    """The same four values in longer MessagePack forms are refused, so a seen envelope cannot come as a new one."""
    key, kind, payload, signature = msgspec.msgpack.decode(ENVELOPE)
    bin8 = [b"\xc4" + bytes([len(part)]) + part for part in (key, kind, payload, signature)]
    bin16 = [b"\xc5" + len(part).to_bytes(2, "big") + part for part in (key, kind, payload, signature)]
    assert b"\x94" + b"".join(bin8) == ENVELOPE
    assert refused(b"\xdc\x00\x04" + b"".join(bin8)) == "malformed"
    for i in range(4):
        assert refused(b"\x94" + b"".join([*bin8[:i], bin16[i], *bin8[i + 1 :]])) == "malformed"


def test_v2_a_signature_is_worthless_for_another_purpose() -> None:
    """Another domain, type, signer, bare payload, or lengths shifted between the parts: refused."""
    assert refused(ENVELOPE, domain=b"p2pnode/1/other") == "bad_signature"
    assert refused(ENVELOPE, kind=b"farewell") == "wrong_type"
    fields = msgspec.msgpack.decode(ENVELOPE)
    assert refused(msgspec.msgpack.encode([OTHER.public_raw, *fields[1:]])) == "bad_signature"
    for signature in (KEY.sign(PAYLOAD), KEY.sign(DOMAIN + KIND + PAYLOAD), KEY.sign(hashlib.sha512(PAYLOAD).digest())):
        assert refused(msgspec.msgpack.encode([*fields[:3], signature])) == "bad_signature"
    moved = seal(KEY, DOMAIN + b"g", KIND[1:], PAYLOAD)
    assert refused(moved, kind=KIND[1:]) == "bad_signature"
    relabelled = msgspec.msgpack.decode(seal(KEY, DOMAIN, b"farewell", PAYLOAD))
    assert refused(msgspec.msgpack.encode([relabelled[0], KIND, *relabelled[2:]])) == "bad_signature"


def test_v3_a_device_value_names_each_device_once() -> None:
    """No duplicates, no order to choose, no device of small order: a set of devices has exactly one value."""
    raws = sorted(peer.raw for peer in PEERS[:3])
    for keys in ([raws[0], raws[0]], [raws[1], raws[0]], [raws[0], raws[2], raws[1]]):
        with pytest.raises(BadPacket, match="malformed"):
            decode_devices_untrusted(b"\1" + b"".join(keys))
    with pytest.raises(BadPacket, match="bad_key"):
        decode_devices_untrusted(b"\1" + bytes(32) + raws[0])


def test_v3_a_device_value_of_another_version_or_size_is_refused() -> None:
    """A later version is not misread; no count of devices beyond the limit is believed."""
    for version in (0, 3, 255):
        with pytest.raises(BadPacket, match="unknown_version"):
            decode_devices_untrusted(bytes([version]) + PEERS[0].raw)
    with pytest.raises(BadPacket, match="malformed"):
        decode_devices_untrusted(b"\1" + b"".join(bytes([i]) * 32 for i in range(2, 26)))
