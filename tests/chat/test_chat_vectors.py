"""tests/vectors/chat.json: frames as bytes, for other implementations. Run this file to write it anew."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from p2pnode import AccountKey, Address, NodeKey, UserId
from p2pnode.chat import protocol as wire

PATH = Path(__file__).parent.parent / "vectors" / "chat.json"


def examples() -> dict[str, wire.Frame]:
    """The frames of the vectors, from fixed keys."""
    rng = random.Random("p2pnode chat vectors")
    account, node = AccountKey.generate(rng.randbytes), NodeKey.generate(rng.randbytes)
    other, friend = AccountKey.generate(rng.randbytes), NodeKey.generate(rng.randbytes)
    proof = wire.device_proof(account, node.peer_id)
    addresses = [Address("203.0.113.7", 4747).pack(), Address("2001:db8::7", 4747).pack()]
    return {
        "hello": wire.Hello(1, account.user_id.raw, proof, "alice", False),
        "hello_hall": wire.Hello(1, account.user_id.raw, proof, "", True),
        "message_direct": wire.TextMessage(bytes(range(16)), False, 1_700_000_000_001, 1_700_000_000_000, "hello"),
        "message_hall": wire.TextMessage(bytes(range(1, 17)), True, 2, 0, "Grüße,\nalle \U0001f680"),
        "ack": wire.Ack([bytes(range(16)), bytes(range(1, 17))]),
        "refuse": wire.Refuse(bytes(range(16)), "request_pending"),
        "members": wire.Members([wire.MemberEntry(friend.peer_id.raw, other.user_id.raw, "bob", addresses)]),
        "members_empty": wire.Members([]),
        "leave": wire.Leave(),
        "welcome": wire.Welcome(),
    }


def as_json(frame: wire.Frame) -> dict[str, Any]:
    """Fields by name; bytes as hex."""

    def plain(value: object) -> object:
        if isinstance(value, bytes):
            return value.hex()
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, wire.MemberEntry):
            return {field: plain(getattr(value, field)) for field in value.__struct_fields__}
        return value

    return {
        "kind": type(frame).__name__,
        "fields": {field: plain(getattr(frame, field)) for field in frame.__struct_fields__},
        "bytes": wire.encode(frame).hex(),
    }


def vectors() -> dict[str, Any]:
    rng = random.Random("p2pnode chat vectors")
    account, node = AccountKey.generate(rng.randbytes), NodeKey.generate(rng.randbytes)
    return {
        "source": "made by tests/chat/test_chat_vectors.py; described in docs/protocol/chat.md",
        "device_proof": {
            "account_seed": account.seed.hex(),
            "user": account.user_id.raw.hex(),
            "device": node.peer_id.raw.hex(),
            "signed_bytes": (b"\x0ep2pnode/1/chat\x06device\x20" + node.peer_id.raw).hex(),
            "proof": wire.device_proof(account, node.peer_id).hex(),
        },
        "frames": {name: as_json(frame) for name, frame in examples().items()},
    }


def test_vectors_file_is_what_we_write() -> None:
    """Every byte of the published vectors comes out of the encoder."""
    assert json.loads(PATH.read_text()) == vectors()


@pytest.mark.parametrize("name", list(examples()))
def test_vector_reads_back_to_its_frame(name: str) -> None:
    """decode(bytes) is the frame, and encode gives the bytes back."""
    data = bytes.fromhex(json.loads(PATH.read_text())["frames"][name]["bytes"])
    [frame] = wire.FrameBuffer().feed_untrusted(data)
    assert frame == examples()[name]
    assert wire.encode(frame) == data


def test_device_proof_of_the_vectors_verifies() -> None:
    """The signature covers domain, type and device key, as the page says; another account's does not do."""
    proof = json.loads(PATH.read_text())["device_proof"]
    user = UserId(bytes.fromhex(proof["user"]))
    assert user.verify(bytes.fromhex(proof["proof"]), bytes.fromhex(proof["signed_bytes"]))
    rng = random.Random(1)
    device = NodeKey.generate(rng.randbytes).peer_id
    assert not wire.is_device_of(user, device, bytes.fromhex(proof["proof"]))


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=2, ensure_ascii=False) + "\n")
