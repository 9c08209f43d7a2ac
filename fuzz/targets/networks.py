"""Frames between networks: the seal of a private network, and the question which network a node is of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from p2pnode.core.address import Address
from p2pnode.core.keys import NodeKey
from p2pnode.core.sealed_network import OPEN_KIND, SEAL_OVERHEAD, SealedNetwork
from p2pnode.other_network import ANSWER_BYTES, QUESTION_BYTES, NetworkQuestions
from targets.base import Target

__all__ = ["TARGETS"]

KEY = NodeKey(bytes([9]) * 32, bytes([9]) * 32)
NETWORK: Any = SimpleNamespace(rng=None, token_bytes=bytes, monotonic=lambda: 0.0)
SOURCE = Address("192.168.1.2", 4747)


def read_sealed(data: bytes) -> bytes | None:
    return SealedNetwork(NETWORK, bytes(32)).open_untrusted(data)


def hold_sealed(data: bytes, opened: bytes | None) -> None:
    """What opens was sealed by a member, or is of the one kind that is never sealed."""
    if opened is None:
        return
    assert data[0] == OPEN_KIND or len(opened) == len(data) - SEAL_OVERHEAD


def read_question(data: bytes) -> list[bytes]:
    sent: list[bytes] = []
    membership: Any = SimpleNamespace(key=b"", tag=bytes(8))
    questions = NetworkQuestions(
        KEY.peer_id, membership, NETWORK, lambda answer, _to: sent.append(answer), allow_documentation=False
    )
    questions.received(data, SOURCE)
    return sent


def hold_question(data: bytes, sent: list[bytes]) -> None:
    """Only a whole question is answered, once, with fewer bytes and its own nonce."""
    assert len(sent) <= (len(data) == QUESTION_BYTES)
    for answer in sent:
        assert len(answer) == ANSWER_BYTES
        assert answer[2:18] == data[2:18]


TARGETS = [
    Target("network_sealed", read_sealed, hold_sealed, errors=()),
    Target("network_question", read_question, hold_question, errors=(), max_bytes=200),
]
