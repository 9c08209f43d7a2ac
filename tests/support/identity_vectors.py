"""Makes tests/vectors/identity.json, which another implementation can test itself with.

`python tests/support/identity_vectors.py` prints it; a test compares the file with what `build()` gives.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.edwards import P, all_encodings, small_order_points

from p2pnode.core.address import Address, realm_of
from p2pnode.core.devices import encode_devices
from p2pnode.core.envelope import seal, signing_input
from p2pnode.core.keyfile import KdfCost, load_or_create_account_key, load_or_create_node_key
from p2pnode.core.keys import AccountKey, NodeKey
from p2pnode.core.safety import own_safety_number, safety_number

PATH = Path(__file__).parent.parent / "vectors" / "identity.json"
SEEDS = [
    bytes(32),
    bytes(31) + b"\1",
    bytes.fromhex("7e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"),  # libp2p specs, peer-ids
    bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"),  # RFC 8032, section 7.1
]
DOMAIN = "p2pnode/1/vectors"
ADDRESSES = ["127.0.0.1:4747", "10.0.0.1:1", "8.8.8.8:65535", "[::1]:4747", "[fd00::1]:4747", "[2606:4700::1111]:443"]
ADDRESSES += ["203.0.113.7:4747", "100.64.0.1:4747", "224.0.0.251:5353", "[fe80::1]:4747", "[64:ff9b::808:808]:53"]


def build(folder: Path) -> dict[str, Any]:
    """Return the vectors as JSON types; bytes are in hex. `folder`: an empty one for the two key files."""
    return {
        "specification": "docs/protocol/identity.md",
        "ids": [_ids(seed) for seed in SEEDS],
        "refused_public_keys": _refused_keys(),
        "signing_inputs": [_signing_input(*parts) for parts in _TRIPLES],
        "envelopes": [
            _envelope(seed, payload) for seed, payload in zip(SEEDS, (b"", b"hello", bytes(300)), strict=False)
        ],
        "refused_envelopes": _refused_envelopes(),
        "devices": [_devices(1), _devices(2), _devices(4), _devices(3, 1_790_000_000_000)],
        "refused_devices": _refused_devices(),
        "addresses": [_address(text) for text in ADDRESSES],
        "safety_numbers": [_safety(SEEDS[0], SEEDS[1]), _safety(SEEDS[3], SEEDS[2])],
        "key_files": _key_files(folder),
    }


_TRIPLES = [("", "", b""), ("ab", "c", b""), (DOMAIN, "greeting", b"hello"), (DOMAIN, "greeting", bytes(300))]


def _ids(seed: bytes) -> dict[str, str]:
    key = NodeKey(seed, bytes(32))
    return {
        "seed": seed.hex(),
        "public_key": key.public_raw.hex(),
        "node_id": key.node_id.hex(),
        "peer_id": str(key.peer_id),
        "user_id": str(AccountKey(seed).user_id),
    }


def _refused_keys() -> list[str]:
    small = {data for _, y in small_order_points() for data in all_encodings(y)}
    not_canonical = {(P + y | sign << 255).to_bytes(32, "little") for y in range(19) for sign in (0, 1)}
    return sorted(data.hex() for data in small | not_canonical)


def _signing_input(domain: str, payload_type: str, payload: bytes) -> dict[str, str]:
    data = signing_input(domain.encode(), payload_type.encode(), payload)
    return {
        "domain": domain,
        "payload_type": payload_type,
        "payload": payload.hex(),
        "signing_input": data.hex(),
        "seed": SEEDS[1].hex(),
        "signature": AccountKey(SEEDS[1]).sign(data).hex(),
    }


def _envelope(seed: bytes, payload: bytes) -> dict[str, str]:
    data = seal(AccountKey(seed), DOMAIN.encode(), b"greeting", payload)
    return {
        "seed": seed.hex(),
        "domain": DOMAIN,
        "payload_type": "greeting",
        "payload": payload.hex(),
        "envelope": data.hex(),
    }


def _refused_envelopes() -> list[dict[str, str]]:
    good = bytes.fromhex(_envelope(SEEDS[0], b"hello")["envelope"])
    foreign = seal(AccountKey(SEEDS[0]), DOMAIN.encode(), b"farewell", b"hello")
    other = seal(AccountKey(SEEDS[0]), b"p2pnode/1/other", b"greeting", b"hello")
    long_form = b"\xdc\x00\x04" + good[1:]  # array16 instead of fixarray: the same value, another encoding
    small = good.replace(AccountKey(SEEDS[0]).public_raw, b"\1" + bytes(31))
    cases = [
        ("malformed", good[:-1]),
        ("malformed", good + b"\0"),
        ("malformed", long_form),
        ("wrong_type", foreign),
        ("bad_key", small),
        ("bad_signature", other),
        ("bad_signature", good.replace(b"hello", b"hellp")),
    ]
    return [{"reason": r, "domain": DOMAIN, "payload_type": "greeting", "envelope": d.hex()} for r, d in cases]


def _devices(count: int, number: int = 0) -> dict[str, Any]:
    peers = [NodeKey(seed, bytes(32)).peer_id for seed in SEEDS[:count]]
    return {"peer_ids": sorted(map(str, peers)), "number": number, "value": encode_devices(peers, number).hex()}


def _refused_devices() -> list[dict[str, str]]:
    low, high = sorted(NodeKey(seed, bytes(32)).public_raw for seed in SEEDS[:2])
    cases = [
        ("malformed", b""),
        ("malformed", b"\1"),
        ("malformed", b"\1" + low[:-1]),
        ("malformed", b"\1" + high + low),
        ("malformed", b"\1" + low + low),
        ("malformed", b"\1" + bytes(24 * 32)),
        ("malformed", b"\2" + bytes(8) + low),
        ("malformed", b"\2" + b"\x80" + bytes(7) + low),
        ("malformed", b"\2" + low),
        ("unknown_version", b"\3" + low),
        ("bad_key", b"\1" + bytes(32)),
    ]
    return [{"reason": reason, "value": value.hex()} for reason, value in cases]


def _address(text: str) -> dict[str, str | None]:
    address = Address.parse(text)
    realm = realm_of(address.ip)
    return {
        "text": text,
        "packed": address.pack().hex(),
        "scope": address.scope.value,
        "realm": realm.value if realm else None,
    }


def _safety(one: bytes, other: bytes) -> dict[str, str]:
    users = AccountKey(one).user_id, AccountKey(other).user_id
    return {
        "one": str(users[0]),
        "other": str(users[1]),
        "own_of_one": own_safety_number(users[0]),
        "number": safety_number(*users),
    }


def _key_files(folder: Path) -> list[dict[str, str]]:
    draws = iter([SEEDS[3], SEEDS[1]])
    node, account = folder / "node.key", folder / "account.key"

    def node_bytes(count: int) -> bytes:
        return next(draws) if count == 32 else bytes(count)

    load_or_create_node_key(node, node_bytes)
    cost = KdfCost(memory_kib=64, iterations=2, lanes=2)
    load_or_create_account_key(account, lambda n: bytes(range(n)), lambda: "grün", encrypt_new=True, cost=cost)
    return [
        {"kind": "node", "seed": SEEDS[3].hex(), "x25519_seed": SEEDS[1].hex(), "text": node.read_text()},
        {"kind": "account", "seed": bytes(range(32)).hex(), "passphrase": "grün", "text": account.read_text()},
    ]


def as_text(vectors: dict[str, Any]) -> str:
    return json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        sys.stdout.write(as_text(build(Path(name))))
