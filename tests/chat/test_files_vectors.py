"""tests/vectors/files.json: frames, lists and roots as bytes, for others. Run this file to write it anew."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from p2pnode import AccountKey, NodeKey
from p2pnode.chat.files import wire
from p2pnode.chat.files.names import local_paths, safe_name
from p2pnode.chat.protocol import Hello, device_proof

PATH = Path(__file__).parent.parent / "vectors" / "files.json"
OFFER = bytes(range(16))
TREE = {("a.txt",): b"hello", ("sub", "empty"): b"", ("sub", "big.bin"): bytes(range(256)) * 8192}
NAMES = [
    "photo.jpg",
    "../../etc/passwd",
    ".bashrc",
    "CON.txt",
    "a\u202egpj.exe",
    "-rf",
    "x" * 300 + ".tar",
    "",
    "a/b\\c:d",
]


def leaves(data: bytes) -> bytes:
    return b"".join(hashlib.sha256(data[at : at + wire.SEGMENT]).digest() for at in range(0, len(data), wire.SEGMENT))


def entries() -> list[wire.Entry]:
    files = [wire.Entry(path, len(data), wire.root_of(len(data), leaves(data))) for path, data in TREE.items()]
    return [*files, wire.Entry(("nothing",), 0, b"")]


def frames() -> dict[str, wire.Frame]:
    rng = random.Random("p2pnode file vectors")
    account, node = AccountKey.generate(rng.randbytes), NodeKey.generate(rng.randbytes)
    manifest = wire.encode_manifest(entries())
    size = sum(map(len, TREE.values()))
    return {
        "hello": Hello(1, account.user_id.raw, device_proof(account, node.peer_id), "alice", False),
        "offer": wire.Offer(OFFER, b"", True, "holiday", size, 4, len(manifest), wire.manifest_root(manifest)),
        "answer": wire.Answer(OFFER, "pending", ""),
        "answer_refused": wire.Answer(OFFER, "refused", "refused"),
        "withdraw": wire.Withdraw(OFFER, "taken"),
        "want": wire.Want(OFFER, True, 0, 0),
        "want_later": wire.Want(OFFER, False, 2, 1_500_000),
    }


def vectors() -> dict[str, Any]:
    manifest = wire.encode_manifest(entries())
    return {
        "source": "made by tests/chat/test_files_vectors.py; described in docs/protocol/files.md",
        "frames": {name: wire.encode(frame).hex() for name, frame in frames().items()},
        "data_head_of_70000_bytes": wire.data_piece(70_000).hex(),
        "manifest": manifest.hex(),
        "manifest_root": wire.manifest_root(manifest).hex(),
        "roots": [
            {"size": len(data), "leaves": leaves(data).hex(), "root": wire.root_of(len(data), leaves(data)).hex()}
            for data in TREE.values()
        ],
        "names": {name: safe_name(name) for name in NAMES},
    }


def test_vectors_file_is_what_we_write() -> None:
    """Every byte of the published vectors comes out of the encoder."""
    assert json.loads(PATH.read_text()) == vectors()


@pytest.mark.parametrize("name", list(frames()))
def test_vector_reads_back_to_its_frame(name: str) -> None:
    """However it is cut."""
    data = bytes.fromhex(json.loads(PATH.read_text())["frames"][name])
    reader = wire.PieceReader()
    assert [piece for byte in data for piece in reader.feed_untrusted(bytes([byte]))] == [frames()[name]]


@pytest.mark.parametrize(
    ("paths", "local"),
    [
        ([("a",), ("A",)], [("a",), ("A (2)",)]),
        ([("d", "x"), ("d", "y"), ("D", "x")], [("d", "x"), ("d", "y"), ("D (2)", "x")]),
        ([("..", "..", "x")], [("file", "file", "x")]),
        ([("x",), ("x", "y")], [("x",), ("x (2)", "y")]),
        ([("a (2).txt",), ("a.txt",), ("a.txt",)], [("a (2).txt",), ("a.txt",), ("a (3).txt",)]),
    ],
)
def test_x2_paths_of_a_list_stay_below_and_apart(paths: list[tuple[str, ...]], local: list[tuple[str, ...]]) -> None:
    """Whatever a list says, each entry has one place below the folder, told apart on any file system."""
    assert local_paths(paths) == local


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=2, ensure_ascii=False) + "\n")
