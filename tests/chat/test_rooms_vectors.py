"""tests/vectors/rooms.json: entries and frames of rooms as bytes. Run this file to write it anew."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from p2pnode import AccountKey, BadPacket, NodeKey, encode_devices
from p2pnode.chat.devices.wire import list_signature
from p2pnode.chat.protocol import device_proof
from p2pnode.chat.rooms import entries, finding, wire
from p2pnode.chat.rooms.entries import Signed

PATH = Path(__file__).parent.parent / "vectors" / "rooms.json"
AT = 1_700_000_000_000


def keys() -> tuple[NodeKey, AccountKey]:
    rng = random.Random("p2pnode rooms vectors")
    return NodeKey.generate(rng.randbytes), AccountKey.generate(rng.randbytes)


def examples() -> dict[str, Signed]:
    """One entry of each kind, a log of one device."""
    node, account = keys()
    own, user = node.peer_id.raw, account.user_id.raw
    proof, key = device_proof(account, node.peer_id), bytes(range(32))
    create = entries.Create("garden", True, user, proof, "alice", entries.commitment(key))
    first = entries.sign(node, entries.Entry(entries.NO_ROOM, own, 1, entries.NO_HASH, [], 1, AT, create))
    sealed = entries.seal_text(key, bytes(range(12)), first.room, node.peer_id, "Gr\u00fc\u00dfe,\nhello")
    value = encode_devices([node.peer_id], AT)
    link = entries.Link(bytes(range(32)), 7, bytes(range(16)))
    bodies: dict[str, entries.Body] = {
        "join": entries.Join(user, proof, "alice"),
        "add": entries.Add(user),
        "out": entries.Out(user, [entries.Mark(own, 3)], entries.commitment(key), bytes(range(8))),
        "rekey": entries.Rekey(entries.commitment(key), bytes(range(8))),
        "text": entries.Text(first.id, sealed),
        "role": entries.Role(user, True),
        "devices": entries.Devices(user, value, list_signature(account, value), [entries.Mark(bytes(range(32)), 7)]),
    }
    found = {"create": first}
    last = first
    for number, (name, body) in enumerate(bodies.items(), 2):
        entry = entries.Entry(first.room.raw, own, number, last.id, [link], number, AT + number, body)
        found[name] = last = entries.sign(node, entry)
    return found


def frames() -> dict[str, wire.Frame]:
    signed = examples()
    room, key, short = signed["create"].room.raw, bytes(range(32)), bytes(range(16))
    raws = {name: each.raw for name, each in signed.items()}
    return {
        "invitation": wire.Invitation(raws["create"]),
        "have": wire.Have(room, True, [wire.Position(key, 7, bytes(range(8)))]),
        "want": wire.Want(room, True, [wire.Range(key, 1, 7)]),
        "entries": wire.Entries(room, False, False, [raws["create"], raws["text"]]),
        "mesh": wire.Mesh(room, False),
        "ask": wire.Ask(room, [short]),
        "keys": wire.Keys(room, [wire.EpochKey(short, key)]),
        "forks": wire.Forks(room, [wire.Fork(raws["add"], raws["out"])]),
        "near": wire.Near(room, [key]),
        "no": wire.No(room, "not_member"),
        "noted": wire.Noted(room),
    }


def vectors() -> dict[str, Any]:
    node, account = keys()
    signed = examples()
    room = signed["create"].room
    return {
        "source": "made by tests/chat/test_rooms_vectors.py; described in docs/protocol/rooms.md",
        "device": {"seed": node.seed.hex(), "key": node.peer_id.raw.hex(), "user": account.user_id.raw.hex()},
        "room": {"id": room.raw.hex(), "text": str(room)},
        "key": bytes(range(32)).hex(),
        "commitment": entries.commitment(bytes(range(32))).hex(),
        "text": "Gr\u00fc\u00dfe,\nhello",
        "entries": {
            name: {"bytes": each.raw.hex(), "id": each.id.hex(), "signed_bytes": each.covered.hex()}
            for name, each in signed.items()
        },
        "frames": {name: {"bytes": wire.encode(frame).hex()} for name, frame in frames().items()},
        "announcement": {
            "topic": finding.topic_of("Garden"),
            "name": "Garden",
            "value": finding.announcement(room, "Garden").hex(),
        },
    }


def known() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return found


def test_vectors_are_what_the_code_makes() -> None:
    assert known() == vectors()


@pytest.mark.parametrize("name", examples())
def test_entries_are_read_as_they_were_written(name: str) -> None:
    signed, expected = examples()[name], known()["entries"][name]
    read = entries.read_untrusted(bytes.fromhex(expected["bytes"]))
    read.check_untrusted()
    assert (read.entry, read.id.hex(), read.room) == (signed.entry, expected["id"], signed.room)


@pytest.mark.parametrize("name", frames())
def test_frames_are_read_as_they_were_written(name: str) -> None:
    assert wire.decode_untrusted(bytes.fromhex(known()["frames"][name]["bytes"])[4:]) == frames()[name]


def test_text_is_opened_by_its_key_only() -> None:
    signed, key = examples()["text"], bytes.fromhex(known()["key"])
    body = signed.entry.body
    assert isinstance(body, entries.Text)
    assert entries.open_text(key, signed.room, signed.device, body.sealed) == known()["text"]
    for other in (bytes(32), key[::-1]):
        with pytest.raises(BadPacket, match="bad_seal"):
            entries.open_text(other, signed.room, signed.device, body.sealed)


@pytest.mark.parametrize("wrong", ["signature", "no number", "covers", "short signature"])
def test_lists_and_covers_that_are_no_such_thing_are_refused(wrong: str) -> None:
    node, account = keys()
    user, value = account.user_id.raw, encode_devices([node.peer_id], 0 if wrong == "no number" else AT)
    signature = list_signature(account, value)
    bodies: dict[str, entries.Body] = {
        "signature": entries.Devices(user, value, signature[::-1], []),
        "no number": entries.Devices(user, value, signature, []),
        "short signature": entries.Devices(user, value, signature[:5], []),
        "covers": entries.Rekey(bytes(32), b"1234"),
    }
    last = examples()["text"]
    entry = entries.Entry(last.room.raw, node.peer_id.raw, 7, last.id, [], 7, AT, bodies[wrong])
    signed = entries.sign(node, entry)
    with pytest.raises(BadPacket, match="bad_list_signature" if wrong == "signature" else "no_number|malformed"):
        entries.read_untrusted(signed.raw).check_untrusted()


def test_announcement_is_of_its_topic() -> None:
    example = known()["announcement"]
    value = bytes.fromhex(example["value"])
    room, name = finding.read_announcement_untrusted(value, example["topic"])
    assert (room.raw.hex(), name) == (known()["room"]["id"], "Garden")
    for wrong in (b"", value[:32], value + b"x", value[:32] + b"\xff", value[:32] + b"\x1b[2J"):
        with pytest.raises(BadPacket, match="bad_announcement"):
            finding.read_announcement_untrusted(wrong, example["topic"])


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")
