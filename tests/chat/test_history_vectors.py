"""tests/vectors/history.json: what is told of the hall, and timers, as bytes. Run this file to write it anew."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from p2pnode import BadPacket, NodeKey
from p2pnode.chat.keeping import wire as timer
from p2pnode.chat.protocol import MAX_TEXT_BYTES
from p2pnode.chat.told import wire as told

PATH = Path(__file__).parent.parent / "vectors" / "history.json"


def told_examples() -> dict[str, told.Frame]:
    author = NodeKey.generate(random.Random("p2pnode history vectors").randbytes).peer_id.raw
    message_id, sequence = bytes(range(16)), 1_700_000_000_001
    return {
        "ask": told.Ask(100),
        "told": told.Told(message_id, author, "anna", sequence, 1_700_000_000_000, "hello \U0001f680"),
        "told_nameless": told.Told(message_id, author, "", 0, 0, "x"),
    }


def told_refused() -> dict[str, str]:
    good = told.encode(told_examples()["told"])[2:]
    ask = told.encode(told.Ask(1))[2:]
    return {
        "count_0": (ask[:-1] + b"\x00").hex(),
        "count_101": (ask[:-1] + b"\x65").hex(),
        "kind_unknown": (b"\x92\x03\x01").hex(),
        "element_more": (b"\x93" + ask[1:] + b"\x00").hex(),
        "empty_text": (b"\x97" + good[1:-11] + b"\xa0").hex(),
        "small_order_author": good.replace(told_examples()["told"].author, bytes(32)).hex(),  # type: ignore[union-attr]
    }


def timer_examples() -> dict[str, timer.Frame]:
    return {
        "set": timer.Set(3_600, 1_700_000_000_000, 1_700_000_000_001),
        "off": timer.Set(0, 1_700_000_000_002, 1_700_000_000_003),
        "have": timer.Have(3_600, 1_700_000_000_000),
    }


def timer_refused() -> dict[str, str]:
    good = timer.encode(timer_examples()["set"])[2:]
    return {
        "too_long_a_time": (good[:2] + b"\xce\x01\xe1\x33\x81" + good[5:]).hex(),
        "negative": (good[:2] + b"\xff" + good[5:]).hex(),
        "kind_unknown": (b"\x93\x03" + good[2:]).hex(),
        "element_missing": (b"\x93" + good[1:-9]).hex(),
        "longer_than_a_frame": (good + bytes(64)).hex(),
    }


def vectors() -> dict[str, Any]:
    return {
        "source": "made by tests/chat/test_history_vectors.py; described in docs/protocol/chat.md",
        "told": {name: told.encode(frame).hex() for name, frame in told_examples().items()},
        "told_refused": told_refused(),
        "timer": {name: timer.encode(frame).hex() for name, frame in timer_examples().items()},
        "timer_refused": timer_refused(),
    }


def test_vectors_file_is_what_we_write() -> None:
    assert json.loads(PATH.read_text()) == vectors()


def test_told_frames_are_read_as_written() -> None:
    buffer = told.FrameBuffer()
    data = b"".join(bytes.fromhex(each) for each in json.loads(PATH.read_text())["told"].values())
    frames = [frame for byte in data for frame in buffer.feed_untrusted(bytes([byte]))]
    assert frames == list(told_examples().values())


def test_timer_frames_are_read_as_written() -> None:
    buffer = timer.FrameBuffer()
    data = b"".join(bytes.fromhex(each) for each in json.loads(PATH.read_text())["timer"].values())
    assert [frame for byte in data for frame in buffer.feed_untrusted(bytes([byte]))] == list(timer_examples().values())


@pytest.mark.parametrize("name", list(timer_refused()))
def test_v1_timer_frames_that_break_a_rule_are_refused(name: str) -> None:
    with pytest.raises(BadPacket):
        timer.decode_untrusted(bytes.fromhex(timer_refused()[name]))


@pytest.mark.parametrize("name", list(told_refused()))
def test_v1_told_frames_that_break_a_rule_are_refused(name: str) -> None:
    with pytest.raises(BadPacket):
        told.decode_untrusted(bytes.fromhex(told_refused()[name]))


def test_v1_every_cut_and_change_of_a_told_frame_is_read_or_refused() -> None:
    """Nothing but BadPacket, whatever a byte becomes; a text above the limit in bytes is refused."""
    body = told.encode(told_examples()["told"])[2:]
    for at in range(len(body)):
        for changed in (body[:at], body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]):
            try:
                told.decode_untrusted(changed)
            except BadPacket:
                continue
    long = told.Told(bytes(16), NodeKey.generate(random.Random(1).randbytes).peer_id.raw, "", 0, 0, "\u20ac" * 5_001)
    assert len(long.text.encode()) > MAX_TEXT_BYTES
    with pytest.raises(BadPacket, match="too_long"):
        told.decode_untrusted(told.encode(long)[2:])


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=2, ensure_ascii=False) + "\n")
