"""tests/vectors/identity.json: what we make, and what we read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.identity_vectors import PATH, as_text, build

from p2pnode.core.address import Address
from p2pnode.core.devices import decode_devices_untrusted
from p2pnode.core.envelope import open_untrusted
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId, PublicKey, UserId
from p2pnode.core.keyfile import load_account_key, load_node_key
from p2pnode.core.safety import safety_number

VECTORS: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))


def unhex(case: dict[str, str], name: str) -> bytes:
    return bytes.fromhex(case[name])


def test_the_vectors_are_what_the_code_makes(tmp_path: Path) -> None:
    """The file is exactly the generator's output: a change of format cannot pass unnoticed."""
    assert as_text(build(tmp_path)) == PATH.read_text(encoding="utf-8")


def test_ids_of_the_vectors_parse() -> None:
    """Texts are read back to the public key and the fingerprint."""
    for case in VECTORS["ids"]:
        assert PeerId.parse(case["peer_id"]).raw == UserId.parse(case["user_id"]).raw == unhex(case, "public_key")
        assert PeerId.parse(case["peer_id"]).node_id == unhex(case, "node_id")


def test_refused_keys_of_the_vectors_are_refused() -> None:
    """Each key of small order or not in canonical form is BadPacket."""
    for text in VECTORS["refused_public_keys"]:
        with pytest.raises(BadPacket, match="bad_key"):
            PublicKey.from_untrusted(bytes.fromhex(text))


def test_signatures_of_the_vectors_verify() -> None:
    """The signature of each signing input is its seed's."""
    for case in VECTORS["signing_inputs"]:
        signer = next(ids for ids in VECTORS["ids"] if ids["seed"] == case["seed"])
        assert PublicKey(unhex(signer, "public_key")).verify(unhex(case, "signature"), unhex(case, "signing_input"))


def test_envelopes_of_the_vectors_open() -> None:
    """Valid ones give their payload, each refused one its reason."""
    for case in VECTORS["envelopes"]:
        opened = open_untrusted(unhex(case, "envelope"), case["domain"].encode(), case["payload_type"].encode())
        assert opened[1] == unhex(case, "payload")
    for case in VECTORS["refused_envelopes"]:
        with pytest.raises(BadPacket) as caught:
            open_untrusted(unhex(case, "envelope"), case["domain"].encode(), case["payload_type"].encode())
        assert caught.value.reason == case["reason"]


def test_devices_of_the_vectors_decode() -> None:
    """Valid values give their peers, each refused one its reason."""
    for case in VECTORS["devices"]:
        found = decode_devices_untrusted(unhex(case, "value"))
        assert sorted(map(str, found.devices)) == case["peer_ids"]
        assert found.number == case["number"]
    for case in VECTORS["refused_devices"]:
        with pytest.raises(BadPacket) as caught:
            decode_devices_untrusted(unhex(case, "value"))
        assert caught.value.reason == case["reason"]


def test_addresses_of_the_vectors_unpack() -> None:
    """Packed forms give back their text."""
    for case in VECTORS["addresses"]:
        assert str(Address.unpack_untrusted(unhex(case, "packed"))) == case["text"]


def test_safety_numbers_of_the_vectors() -> None:
    """From the other side, the same number."""
    for case in VECTORS["safety_numbers"]:
        assert safety_number(UserId.parse(case["other"]), UserId.parse(case["one"])) == case["number"]


def test_key_files_of_the_vectors_load(tmp_path: Path) -> None:
    """The plain and the encrypted file give their seeds."""
    for case in VECTORS["key_files"]:
        path = tmp_path / case["kind"]
        path.write_text(case["text"], encoding="ascii")
        path.chmod(0o600)
        if case["kind"] == "node":
            node = load_node_key(path)
            assert (node.seed, node.x25519.private_bytes_raw()) == (unhex(case, "seed"), unhex(case, "x25519_seed"))
        else:
            assert load_account_key(path, lambda case=case: case["passphrase"]).seed == unhex(case, "seed")
