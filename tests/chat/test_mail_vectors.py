"""tests/vectors/mail.json: frames, slots, letters and a pool's place as bytes. Run this file to write it anew."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2pnode import AccountKey, BadPacket, NodeKey, UserId
from p2pnode.chat.mail import carry_wire
from p2pnode.chat.mail import frames as wire
from p2pnode.chat.mail.first_letters import FirstLetter, Note, open_first_untrusted, pool_of, seal_first
from p2pnode.chat.mail.letters import (
    MAX_MESSAGES,
    SIZES,
    LetterMessage,
    Slot,
    fits,
    is_final,
    join_parts_untrusted,
    open_untrusted,
    read_mark,
    seal,
    split,
)
from p2pnode.chat.protocol import device_proof
from p2pnode.dht import pool_salt, record_key, work_of

PATH = Path(__file__).parent.parent / "vectors" / "mail.json"


class Case:
    """Fixed keys, and a letter under them."""

    def __init__(self) -> None:
        rng = random.Random("p2pnode mail vectors")
        self.author, self.reader = NodeKey.generate(rng.randbytes), NodeKey.generate(rng.randbytes)
        self.private, self.ephemeral = rng.randbytes(32), rng.randbytes(32)
        self.slot = Slot(rng.randbytes(32))
        self.account = AccountKey(bytes(range(32)))
        self.messages = [LetterMessage(bytes(range(16)), 1_700_000_000_001, 1_700_000_000_000, "hello \U0001f680")]

    @property
    def key(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self.private)

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def note(self) -> Note:
        return Note(self.public, UserId(self.account.public_raw))

    def first(self) -> bytes:
        user, proof = UserId(self.account.public_raw), device_proof(self.account, self.author.peer_id)
        return seal_first(
            self.reader.peer_id, self.public, self.author, user, proof, "anna", self.messages[0], self.ephemeral
        )

    def letter(self, messages: list[LetterMessage] | None = None) -> bytes:
        return seal(self.slot, self.reader.peer_id, self.public, self.author, messages or self.messages, self.ephemeral)


def examples() -> dict[str, wire.MailFrame]:
    case = Case()
    grant = wire.grant_id(case.slot.secret)
    return {
        "check": wire.Check(grant),
        "grant": wire.Grant(case.slot.secret, case.public),
        "taken": wire.Taken(grant, 3),
        "taken_none": wire.Taken(wire.NO_GRANT, 0),
    }


def carry_examples() -> dict[str, carry_wire.CarryFrame]:
    case = Case()
    return {
        "carry": carry_wire.Carry(case.reader.public_raw, case.slot.public, case.letter()),
        "hand": carry_wire.Hand(case.author.public_raw, case.slot.public, case.letter()),
        "outcome": carry_wire.Outcome(carry_wire.LATER),
    }


def vectors() -> dict[str, Any]:
    case = Case()
    return {
        "source": "made by tests/chat/test_mail_vectors.py; described in docs/protocol/mail.md",
        "slots": [
            {"secret": slot.secret.hex(), "signing_seed": slot.seed.hex(), "public_key": slot.public.hex()}
            for slot in (case.slot, case.slot.next(), case.slot.next(2))
        ],
        "grant_id": wire.grant_id(case.slot.secret).hex(),
        "frames": {name: wire.encode(frame).hex() for name, frame in examples().items()},
        "carry_frames": {name: carry_wire.encode(frame).hex() for name, frame in carry_examples().items()},
        "letter": {
            "slot_secret": case.slot.secret.hex(),
            "author_seed": case.author.seed.hex(),
            "reader": case.reader.peer_id.raw.hex(),
            "reader_private": case.private.hex(),
            "reader_public": case.public.hex(),
            "ephemeral_private": case.ephemeral.hex(),
            "messages": [
                {"id": each.id.hex(), "sequence": each.sequence, "sent_at": each.sent_at, "text": each.text}
                for each in case.messages
            ],
            "bytes": case.letter().hex(),
            "read_mark": read_mark(case.letter()).hex(),
        },
        "first_letter": {
            "pool": pool_of(case.reader.peer_id).hex(),
            "note": case.note.encode().hex(),
            "account_seed": case.account.seed.hex(),
            "name": "anna",
            "bytes": case.first().hex(),
        },
        "place": place_of(case),
    }


def place_of(case: Case) -> dict[str, Any]:
    """A record of a pool before it is signed: the first stamp, whatever its work is."""
    salt, value = pool_salt(pool_of(case.reader.peer_id), 5), bytes(8) + case.first()
    public, expires = case.slot.public, 1_700_000_000
    return {
        "public_key": public.hex(), "salt": salt.hex(), "key": record_key(public, salt).hex(), "expires": expires,
        "value": value.hex(), "seq": work_of(public, salt, expires, value),
    }  # fmt: skip


def test_first_letter_of_the_vectors_opens() -> None:
    """With whichever of the reader's keys fits; the note names key and account, and later versions may say more."""
    case, found = Case(), json.loads(PATH.read_text())["first_letter"]
    letter = bytes.fromhex(found["bytes"])
    keys = [X25519PrivateKey.from_private_bytes(bytes(range(32))), case.key]
    first = open_first_untrusted(case.reader.peer_id, keys, letter)
    user = UserId(case.account.public_raw)
    assert first == FirstLetter(case.author.peer_id, user, "anna", case.messages[0])
    note = bytes.fromhex(found["note"])
    assert Note.decode_untrusted(note) == case.note
    assert Note.decode_untrusted(b"\x94" + note[1:] + b"\x01") == case.note
    for bad in (b"", note[:-1], note + b"\0", note[:1] + b"\x02" + note[2:]):
        with pytest.raises(BadPacket):
            Note.decode_untrusted(bad)


def test_vectors_file_is_what_we_write() -> None:
    assert json.loads(PATH.read_text()) == vectors()


@pytest.mark.parametrize("name", list(examples()))
def test_frame_of_the_vectors_reads_back(name: str) -> None:
    data = bytes.fromhex(json.loads(PATH.read_text())["frames"][name])
    assert wire.decode_untrusted(data[2:]) == examples()[name]
    assert int.from_bytes(data[:2], "big") == len(data) - 2


@pytest.mark.parametrize("name", list(carry_examples()))
def test_carried_frame_of_the_vectors_reads_back(name: str) -> None:
    data = bytes.fromhex(json.loads(PATH.read_text())["carry_frames"][name])
    assert carry_wire.decode_untrusted(data[2:]) == carry_examples()[name]
    for cut in (data[2:-1], data[2:] + b"\0", data[3:]):
        with pytest.raises(BadPacket):
            carry_wire.decode_untrusted(cut)


def test_letter_of_the_vectors_opens() -> None:
    case = Case()
    letter = bytes.fromhex(json.loads(PATH.read_text())["letter"]["bytes"])
    assert len(letter) == 512
    assert open_untrusted(case.slot, case.reader.peer_id, case.key, letter) == (case.author.peer_id, case.messages)


def test_what_a_reader_leaves_names_the_letter() -> None:
    case = Case()
    letter = case.letter()
    assert read_mark(letter).hex() == json.loads(PATH.read_text())["letter"]["read_mark"]
    assert read_mark(letter) != read_mark(letter[:-1] + bytes([letter[-1] ^ 1]))
    assert [is_final(value) for value in (read_mark(letter), b"", *split(letter), b"\xff" * 800)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_letters_have_one_of_four_sizes_and_survive_being_cut() -> None:
    """What a holder sees of a text's length is one of four sizes; each opens again."""
    case = Case()
    seen = set()
    for length in (1, 300, 400, 1_800, 2_100, 8_000, 15_000):
        messages = [LetterMessage(bytes(16), 1, 2, "x" * length)]
        letter = case.letter(messages)
        parts = split(letter)
        assert max(map(len, parts)) <= 800
        assert open_untrusted(case.slot, case.reader.peer_id, case.key, join_parts_untrusted(parts))[1] == messages
        seen.add(len(letter))
    assert seen == set(SIZES)
    many = [LetterMessage(bytes(16), 1, 2, "x")] * (MAX_MESSAGES + 1)
    assert fits(many[:-1])
    assert not fits(many)
    with pytest.raises(ValueError, match="does not hold"):
        case.letter(many)


def test_v1_every_changed_byte_of_a_letter_is_refused() -> None:
    """V1: one error type; nothing of a changed letter is believed."""
    case = Case()
    letter = case.letter()
    for at in range(0, len(letter), 3):
        changed = bytearray(letter)
        changed[at] ^= 1
        with pytest.raises(BadPacket):
            open_untrusted(case.slot, case.reader.peer_id, case.key, bytes(changed))
    for cut in (b"", letter[:-1], letter + b"\0", letter[:33], b"\x04" + letter[1:]):
        with pytest.raises(BadPacket):
            open_untrusted(case.slot, case.reader.peer_id, case.key, cut)


def test_v2_a_letter_opens_for_its_reader_and_its_slot_only() -> None:
    """V2: another slot, another reader's id or key, a key of small order: refused."""
    case = Case()
    letter = case.letter()
    other = NodeKey.generate(random.Random(2).randbytes)
    for slot, reader, key in (
        (case.slot.next(), case.reader.peer_id, case.key),
        (case.slot, other.peer_id, case.key),
        (case.slot, case.reader.peer_id, other.x25519),
    ):
        with pytest.raises(BadPacket):
            open_untrusted(slot, reader, key, letter)
    with pytest.raises(BadPacket):
        open_untrusted(case.slot, case.reader.peer_id, case.key, letter[:1] + bytes(32) + letter[33:])
    with pytest.raises(ValueError, match=r"."):
        seal(case.slot, case.reader.peer_id, bytes(32), case.author, case.messages, case.ephemeral)


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=2, ensure_ascii=False) + "\n")
