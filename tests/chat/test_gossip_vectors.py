"""tests/vectors/gossip.json: a statement, tags, frames, a claim of a name. Run this file to write it anew."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from p2pnode import AccountKey, Address, BadPacket, NodeKey, TopicMember
from p2pnode.chat.gossip import wire
from p2pnode.chat.gossip.statements import Body, Statement, entry_of, sign, tag_of
from p2pnode.chat.names.claims import encode_claim, read_claim_untrusted
from p2pnode.chat.protocol import device_proof

PATH = Path(__file__).parent.parent / "vectors" / "gossip.json"


class Case:
    """Fixed keys: who says something, and who may hear it."""

    def __init__(self) -> None:
        rng = random.Random("p2pnode gossip vectors")
        self.author, self.reader = NodeKey.generate(rng.randbytes), NodeKey.generate(rng.randbytes)
        self.account = AccountKey.generate(rng.randbytes)
        self.fill = [rng.randbytes(8) for _ in range(16)]
        self.tag = tag_of(self.author, self.reader.x25519_public, self.author.peer_id)

    def body(self) -> Body:
        return Body(
            self.author.public_raw, self.account.public_raw, device_proof(self.account, self.author.peer_id),
            1_700_000_000_000, True, "alice", "gone fishing \U0001f3a3", self.author.x25519_public,
            [Address("203.0.113.7", 4747).pack()], [entry_of(self.tag, self.reader.peer_id)],
        )  # fmt: skip

    def statement(self) -> Statement:
        return sign(self.author, self.body(), iter(self.fill))


def examples() -> dict[str, wire.GossipFrame]:
    case = Case()
    return {
        "ask": wire.Ask([case.tag]),
        "ask_for_nobody": wire.Ask([]),
        "tell": wire.Tell([case.statement().packed]),
        "know": wire.Know(7, [case.account.public_raw]),
        "known": wire.Known(7, []),
    }


def vectors() -> dict[str, Any]:
    case = Case()
    return {
        "source": "made by tests/chat/test_gossip_vectors.py; described in docs/protocol/gossip.md",
        "author_seed": case.author.seed.hex(),
        "author_x25519": case.author.x25519.private_bytes_raw().hex(),
        "account_seed": case.account.seed.hex(),
        "reader": case.reader.peer_id.raw.hex(),
        "reader_x25519": case.reader.x25519.private_bytes_raw().hex(),
        "tag": case.tag.hex(),
        "entry": entry_of(case.tag, case.reader.peer_id).hex(),
        "statement": case.statement().packed.hex(),
        "name_claim": encode_claim(
            case.account.user_id, device_proof(case.account, case.author.peer_id), 1_700_000_000
        ).hex(),
        "frames": {name: wire.encode(frame).hex() for name, frame in examples().items()},
    }


def test_vectors_file_is_what_we_write() -> None:
    assert json.loads(PATH.read_text()) == vectors()


@pytest.mark.parametrize("name", list(examples()))
def test_frame_of_the_vectors_reads_back(name: str) -> None:
    data = bytes.fromhex(json.loads(PATH.read_text())["frames"][name])
    assert wire.decode_untrusted(data[2:]) == examples()[name]
    assert int.from_bytes(data[:2], "big") == len(data) - 2


def test_statement_of_the_vectors_is_believed_and_both_make_the_tag() -> None:
    case = Case()
    statement = Statement.check_untrusted(bytes.fromhex(json.loads(PATH.read_text())["statement"]))
    assert (statement.device, statement.user) == (case.author.peer_id, case.account.user_id)
    assert (statement.name, statement.text) == ("alice", "gone fishing \U0001f3a3")
    assert statement.addresses == (Address("203.0.113.7", 4747),)
    tag = tag_of(case.reader, case.author.x25519_public, case.author.peer_id)
    assert tag == case.tag
    assert entry_of(tag, case.reader.peer_id) in statement.audience
    assert entry_of(tag, case.author.peer_id) not in statement.audience
    assert len(statement.audience) == 16


def test_v1_claim_of_the_vectors_is_read_and_no_changed_one() -> None:
    case = Case()
    value = bytes.fromhex(json.loads(PATH.read_text())["name_claim"])
    claim = read_claim_untrusted(TopicMember(case.author.peer_id, value, 5.0))
    assert (claim.user, claim.device, claim.since) == (case.account.user_id, case.author.peer_id, 1_700_000_000)
    for at in range(len(value) - 5):  # the last five bytes are a time that it says itself
        changed = bytearray(value)
        changed[at] ^= 1
        with contextlib.suppress(BadPacket):
            again = read_claim_untrusted(TopicMember(case.author.peer_id, bytes(changed), 5.0))
            assert (again.user, again.device) == (claim.user, claim.device)
            assert at == 1  # another version


def test_v1_every_changed_byte_of_a_statement_is_refused() -> None:
    """V1, V2: one error type; nothing of it is believed, whoever passed it on."""
    packed = Case().statement().packed
    for at in range(0, len(packed), 3):
        changed = bytearray(packed)
        changed[at] ^= 1
        with pytest.raises(BadPacket):
            Statement.check_untrusted(bytes(changed))
    for cut in (b"", packed[:63], packed[:64], packed[:-1], packed + b"\0"):
        with pytest.raises(BadPacket):
            Statement.check_untrusted(cut)


def test_v2_a_device_says_nothing_in_the_name_of_an_account_that_does_not_vouch_for_it() -> None:
    case = Case()
    other = AccountKey.generate(random.Random(1).randbytes)
    body = case.body()
    for wrong in (
        [body.device, other.public_raw, body.proof],
        [body.device, other.public_raw, device_proof(other, case.reader.peer_id)],
    ):
        forged = Body(*wrong, *[getattr(body, name) for name in Body.__struct_fields__[3:]])
        with pytest.raises(BadPacket, match="bad_proof"):
            Statement.check_untrusted(sign(case.author, forged, iter(case.fill)).packed)


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")
