"""Peer, user and node ids against published vectors."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.core.encoding import base58_encode
from p2pnode.core.errors import BadPacket, InvalidPeerError
from p2pnode.core.ids import PeerId, PublicKey, UserId, node_id_of
from p2pnode.core.keys import AccountKey, NodeKey, SigningKey

# RFC 8032, section 7.1 "Test Vectors for Ed25519", tests 1 to 3: seed, public key, message, signature
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]
# libp2p specs, peer-ids/peer-ids.md, "Test vectors": protobufs of a private key (seed, public key) and its public key
LIBP2P_PRIVATE = (
    "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"
    "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
)
LIBP2P_PUBLIC = "080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
# the same document, "String representation": an Ed25519 peer id
LIBP2P_EXAMPLE = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
# peer ids of two well-known seeds: libp2p's zero key, and substrate's `--node-key 00..01`
WELL_KNOWN = [
    (bytes(32), "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"),
    (bytes(31) + b"\1", "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"),
]
seeds = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC8032)
def test_rfc8032_signatures(seed: str, public: str, message: str, signature: str) -> None:
    """Published seeds give the published keys and signatures, and those verify."""
    key = SigningKey(bytes.fromhex(seed))
    assert key.public_raw.hex() == public
    assert key.seed.hex() == seed
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert PublicKey(key.public_raw).verify(bytes.fromhex(signature), bytes.fromhex(message))
    assert not PublicKey(key.public_raw).verify(bytes.fromhex(signature), bytes.fromhex(message) + b"\0")


def test_libp2p_published_key_gives_its_peer_id() -> None:
    """The identity multihash of the published protobuf, in base58, is what we print."""
    private, public = bytes.fromhex(LIBP2P_PRIVATE), bytes.fromhex(LIBP2P_PUBLIC)
    key = NodeKey(private[4:36], bytes(32))
    assert key.public_raw == private[36:] == public[4:]
    assert str(key.peer_id) == base58_encode(b"\0" + bytes([len(public)]) + public)
    assert str(key.peer_id) == "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"


@pytest.mark.parametrize(("seed", "text"), WELL_KNOWN)
def test_well_known_peer_ids(seed: bytes, text: str) -> None:
    """Seeds that other implementations print ids for give the same ids here."""
    assert str(NodeKey(seed, bytes(32)).peer_id) == text
    assert PeerId.parse(text).raw == SigningKey(seed).public_raw


def test_libp2p_example_parses() -> None:
    """The specification's example of an Ed25519 peer id is read and printed unchanged."""
    assert str(PeerId.parse(LIBP2P_EXAMPLE)) == LIBP2P_EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",  # an RSA key's id
        "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe",  # a CID
        "12D3KooW",
        LIBP2P_EXAMPLE[:-1],
        LIBP2P_EXAMPLE + "1",
        "1" + LIBP2P_EXAMPLE,
        LIBP2P_EXAMPLE.replace("W", "0"),
        LIBP2P_EXAMPLE + " ",
        "1" * 10_000,
        "\x1b[31m" * 30,
    ],
)
def test_malformed_peer_ids_are_refused_in_one_sentence(text: str) -> None:
    """Whatever is no Ed25519 peer id is an InvalidPeerError whose message is short and printable."""
    with pytest.raises(InvalidPeerError) as caught:
        PeerId.parse(text)
    assert caught.value.code == "invalid_peer"
    assert len(caught.value.message) < 250
    assert caught.value.message.isprintable()


@given(seeds)
@settings(max_examples=50)
def test_texts_of_ids_round_trip(seed: bytes) -> None:
    """Both texts have their length and prefix and are read back; case of a user id does not matter."""
    raw = SigningKey(seed).public_raw
    peer, user = PeerId(raw), UserId(raw)
    assert (len(str(peer)), str(peer)[:8]) == (52, "12D3KooW")
    assert (len(str(user)), str(user)[:4]) == (62, "p2p1")
    assert PeerId.parse(str(peer)) == peer
    assert UserId.parse(str(user)) == UserId.parse(str(user).upper()) == user
    assert peer.node_id == node_id_of(raw) == hashlib.sha256(raw).digest()[:20]


def test_every_wrong_character_in_a_user_id_is_found() -> None:
    """One replaced character anywhere, and each pair of swapped neighbours, is refused."""
    text = str(AccountKey(bytes(32)).user_id)
    for position, char in itertools.product(range(len(text)), "qpzry9x8gf2tvdw0s3jn54khce6mua7l1"):
        wrong = text[:position] + char + text[position + 1 :]
        if wrong != text:
            with pytest.raises(InvalidPeerError):
                UserId.parse(wrong)
    for position in range(len(text) - 1):
        wrong = text[:position] + text[position + 1] + text[position] + text[position + 2 :]
        if wrong != text:
            with pytest.raises(InvalidPeerError):
                UserId.parse(wrong)


def test_a_user_id_is_never_read_as_a_peer_id_nor_the_reverse() -> None:
    """The two kinds cannot be mistaken for each other, and compare unequal with the same key."""
    peer, user = PeerId(SigningKey(bytes(32)).public_raw), UserId(SigningKey(bytes(32)).public_raw)
    with pytest.raises(InvalidPeerError):
        PeerId.parse(str(user))
    with pytest.raises(InvalidPeerError):
        UserId.parse(str(peer))
    assert peer != user
    assert len({peer, user}) == 2


def test_bech32m_of_another_prefix_or_length_is_no_user_id() -> None:
    """A valid bech32m text with another purpose is refused."""
    for text in ("abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx", "a1lqfn3a"):
        with pytest.raises(InvalidPeerError):
            UserId.parse(text)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_public_key_has_32_bytes(length: int) -> None:
    """Another length is refused, as BadPacket when it came from the network; the kind asked for is returned."""
    with pytest.raises(InvalidPeerError):
        PublicKey(bytes([7]) * length)
    with pytest.raises(BadPacket, match="bad_key"):
        PeerId.from_untrusted(bytes([7]) * length)
    assert isinstance(PeerId.from_untrusted(SigningKey(bytes(32)).public_raw), PeerId)


def test_private_keys_show_nothing() -> None:
    """Neither repr nor str of a key has its seed."""
    node, account = NodeKey(b"\x41" * 32, b"\x42" * 32), AccountKey(b"\x43" * 32)
    for key in (node, account):
        shown = f"{key!r} {key} {[key]}"
        for byte in ("41", "42", "43", "AAA", "BBB", "CCC"):
            assert byte * 4 not in shown
        assert "AAAA" not in shown


def test_generate_takes_its_seeds_from_the_given_source() -> None:
    """Two keys from the same source of chance are equal; a node draws two seeds of 32 bytes."""
    drawn: list[int] = []

    def token_bytes(count: int) -> bytes:
        drawn.append(count)
        return bytes([len(drawn)]) * count

    key = NodeKey.generate(token_bytes)
    assert drawn == [32, 32]
    assert key.seed == b"\1" * 32
    assert key.x25519.private_bytes_raw() == b"\2" * 32
    assert AccountKey.generate(lambda count: b"\1" * count).public_raw == key.public_raw


def test_key_in_use_is_one_object() -> None:
    """Its text and its hash are worked out once, however often it is read; kinds are told apart."""
    raw = SigningKey(bytes(32)).public_raw
    peer = PeerId.of(raw)
    assert PeerId.of(raw) is peer
    assert PeerId.from_untrusted(raw) is peer
    assert type(UserId.of(raw)) is UserId
    with pytest.raises(InvalidPeerError):
        PeerId.of(raw[:31])
