"""tests/vectors/random.json: frames, ids and reports as bytes. Run this file to write it anew."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from p2pnode import BadPacket, NodeKey
from p2pnode.chat.strangers import receipts, wire

PATH = Path(__file__).parent.parent / "vectors" / "random.json"
AT = 1_700_000_000


def examples() -> dict[str, wire.Frame]:
    """The frames of the vectors."""
    device = receipts.device_key(bytes(range(32)), receipts.epoch_of(AT))
    return {
        "card": wire.Card(1, AT, device.public_raw, bytes(range(16))),
        "consent": wire.Consent(bytes(range(64))),
        "decline": wire.Decline("busy"),
        "say": wire.Say(1, "Gr\u00fc\u00dfe,\nhello"),
        "leave": wire.Leave(),
        "beat": wire.Beat(7),
        "resume": wire.Resume(bytes(range(32)), 7),
    }


def vectors() -> dict[str, Any]:
    rng = random.Random("p2pnode random vectors")
    one, other = (NodeKey.generate(rng.randbytes).peer_id for _ in range(2))
    epoch = receipts.epoch_of(AT)
    reporter, reported = (receipts.device_key(rng.randbytes(32), epoch) for _ in range(2))
    meeting = receipts.meeting_of((one, bytes(16)), (other, bytes(range(16))))
    receipt = receipts.Receipt(AT, reporter.public_raw, reported.public_raw, meeting)
    signature = reported.sign(receipt.signing_input())
    return {
        "source": "made by tests/chat/test_strangers_vectors.py; described in docs/protocol/random.md",
        "lobby": receipts.LOBBY.hex(),
        "device": {
            "secret": bytes(range(32)).hex(),
            "at": AT,
            "epoch": epoch,
            "seed": receipts.device_key(bytes(range(32)), epoch).seed.hex(),
            "id": receipts.device_key(bytes(range(32)), epoch).public_raw.hex(),
        },
        "meeting": {
            "peers": [one.raw.hex(), other.raw.hex()],
            "nonces": [bytes(16).hex(), bytes(range(16)).hex()],
            "meeting": meeting.hex(),
        },
        "report": {
            "reporter": reporter.public_raw.hex(),
            "reported": reported.public_raw.hex(),
            "signed_bytes": receipt.signing_input().hex(),
            "signature": signature.hex(),
            "topic": receipts.reports_topic(reported.public_raw, epoch).hex(),
            "value": receipts.report_value(receipt, signature).hex(),
        },
        "frames": {
            name: {"kind": type(each).__name__, "bytes": wire.encode(each).hex()} for name, each in examples().items()
        },
    }


def test_vectors_file_is_what_we_write() -> None:
    """Every byte of the published vectors comes out of the program."""
    assert json.loads(PATH.read_text()) == vectors()


@pytest.mark.parametrize("name", list(examples()))
def test_vector_reads_back_to_its_frame(name: str) -> None:
    data = bytes.fromhex(json.loads(PATH.read_text())["frames"][name]["bytes"])
    [frame] = wire.FrameBuffer().feed_untrusted(data)
    assert frame == examples()[name]
    assert wire.encode(frame) == data


def test_report_of_the_vectors_is_valid_and_changed_ones_are_not() -> None:
    report = {name: bytes.fromhex(value) for name, value in json.loads(PATH.read_text())["report"].items()}
    who = report["reporter"], report["reported"], receipts.epoch_of(AT), AT + 60.0
    assert receipts.read_report_untrusted(report["value"], *who) == AT
    for place in range(receipts.REPORT_BYTES):
        changed = bytearray(report["value"])
        changed[place] ^= 1
        with pytest.raises(BadPacket):
            receipts.read_report_untrusted(bytes(changed), *who)


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=2, ensure_ascii=False) + "\n")
