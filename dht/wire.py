"""Frames of the DHT: bytes to fields and back. No secrets, no state; docs/protocol/dht.md has the tables.

0x05 signed request · 0x06 signed answer · 0x07 sealed frame · 0x08 token (come back with this)
0x09 forgot your key · 0x0A dial-back.
All numbers are big endian; a datagram has at most 1,200 bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from p2pnode.core.envelope import signing_input
from p2pnode.core.errors import BadPacket
from p2pnode.dht.tokens import RETRY_TOKEN_BYTES

__all__ = [
    "MAX_DATAGRAM",
    "SignedAnswer",
    "SignedRequest",
    "dialled_frame",
    "forgot_frame",
    "parse_dialled_untrusted",
    "parse_retry_untrusted",
    "parse_sealed_text_untrusted",
    "parse_signed_answer_untrusted",
    "parse_signed_request_untrusted",
    "retry_frame",
    "sealed_answer_text",
    "sealed_confirmation_text",
    "sealed_request_text",
    "signed_answer_body",
    "signed_request_body",
    "signing_bytes",
]

# Fixed by the specification.
SIGNED_REQUEST, SIGNED_ANSWER, SEALED, RETRY, FORGOT, DIALLED = 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A
VERSION = 1
MAX_DATAGRAM = 1_200
DOMAIN = b"p2pnode/1/dht"
SIGNATURE_BYTES = 64
NO_RECEIVER = bytes(20)  # a hello: whoever listens there
REQUEST_HEADER = 122  # up to and with the payload's length, without token
ANSWER_HEADER = 119
SIGNED_ANSWER_OVERHEAD = ANSWER_HEADER + SIGNATURE_BYTES
SEALED_HEADER = 17
SEAL_TAG = 16
SEALED_OVERHEAD = SEALED_HEADER + SEAL_TAG
SEALED_ANSWER_OVERHEAD = SEALED_OVERHEAD + 10
SEALED_REQUEST_MIN = 80  # so that the largest error answer is not longer than any sealed request
KNOWN_FLAGS = 0b11111
CONFIRM = 0b100000
"""In a signed answer: its sender has a place for the asker, who is to show that it got the answer."""
IS_REQUEST, IS_ANSWER, IS_CONFIRMATION = 0, 1, 2


class SignedRequest(NamedTuple):
    """A parsed 0x05 frame. `signed`: the bytes before the signature."""

    tag: bytes
    receiver: bytes
    sender_key: bytes
    nonce: bytes
    ephemeral: bytes
    wall_ms: int
    flags: int
    token: bytes
    payload: bytes
    signed: bytes
    signature: bytes


class SignedAnswer(NamedTuple):
    """A parsed 0x06 frame. `ephemeral` is zero in an error answer that agrees no keys."""

    requester: bytes
    responder_key: bytes
    request_hash: bytes
    ephemeral: bytes
    flags: int
    payload: bytes
    signed: bytes
    signature: bytes


def signing_bytes(frame_type: int, body: bytes) -> bytes:
    """Return what the signature of a 0x05 or 0x06 frame covers: domain, kind, and all bytes before the signature."""
    return signing_input(DOMAIN, b"request" if frame_type == SIGNED_REQUEST else b"answer", body)


def signed_request_body(
    *, tag: bytes, receiver: bytes, sender_key: bytes, nonce: bytes, ephemeral: bytes, wall_ms: int, flags: int,
    token: bytes, payload: bytes, size: int,
) -> bytes:  # fmt: skip
    """Return a 0x05 frame without its signature, padded so that the whole has at least `size` bytes (up to 1,200)."""
    body = b"".join((
        bytes((SIGNED_REQUEST, VERSION)), tag, receiver, sender_key, nonce, ephemeral, wall_ms.to_bytes(8, "big"),
        bytes((flags, len(token))), token, len(payload).to_bytes(2, "big"), payload,
    ))  # fmt: skip
    return body.ljust(min(size, MAX_DATAGRAM) - SIGNATURE_BYTES, b"\0")


def parse_signed_request_untrusted(data: bytes) -> SignedRequest:
    """Raise BadPacket: `too_long`, `too_short`, `bad_version`, `bad_flags`, `bad_length`. Signature not checked."""
    if len(data) > MAX_DATAGRAM:
        raise BadPacket("too_long")
    if len(data) < REQUEST_HEADER + SIGNATURE_BYTES:
        raise BadPacket("too_short")
    if data[1] != VERSION:
        raise BadPacket("bad_version")
    flags, token_length = data[118], data[119]
    if flags & ~KNOWN_FLAGS:
        raise BadPacket("bad_flags")
    if token_length not in (0, RETRY_TOKEN_BYTES):
        raise BadPacket("bad_length")
    at = 120 + token_length
    start = at + 2
    end = start + int.from_bytes(data[at:start], "big")
    if end > len(data) - SIGNATURE_BYTES:
        raise BadPacket("bad_length")
    return SignedRequest(
        data[2:10], data[10:30], data[30:62], data[62:78], data[78:110], int.from_bytes(data[110:118], "big"),
        flags, data[120:at], data[start:end], data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:],
    )  # fmt: skip


def signed_answer_body(
    *, requester: bytes, responder_key: bytes, request_hash: bytes, ephemeral: bytes, flags: int, payload: bytes
) -> bytes:
    """Return a 0x06 frame without its signature."""
    head = bytes((SIGNED_ANSWER, VERSION))
    return b"".join((head, requester, responder_key, request_hash, ephemeral, bytes((flags,)), payload))


def parse_signed_answer_untrusted(data: bytes) -> SignedAnswer:
    """Raise BadPacket: `too_long`, `too_short`, `bad_version`, `bad_flags`. Signature not checked."""
    if len(data) > MAX_DATAGRAM:
        raise BadPacket("too_long")
    if len(data) < SIGNED_ANSWER_OVERHEAD:
        raise BadPacket("too_short")
    if data[1] != VERSION:
        raise BadPacket("bad_version")
    if data[118] & ~(KNOWN_FLAGS | CONFIRM):
        raise BadPacket("bad_flags")
    return SignedAnswer(
        data[2:22], data[22:54], data[54:86], data[86:118], data[118], data[119:-SIGNATURE_BYTES],
        data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:],
    )  # fmt: skip


def sealed_request_text(flags: int, payload: bytes, size: int = SEALED_REQUEST_MIN) -> bytes:
    """Return the plaintext of a sealed request, padded so that the frame has at least `size` bytes."""
    text = bytes((IS_REQUEST, flags)) + len(payload).to_bytes(2, "big") + payload
    return text.ljust(size - SEALED_OVERHEAD, b"\0")


def sealed_answer_text(flags: int, counter: bytes, payload: bytes) -> bytes:
    """Return the plaintext of a sealed answer to the request that had `counter` (8 bytes)."""
    return bytes((IS_ANSWER, flags)) + counter + payload


def parse_sealed_text_untrusted(text: bytes) -> tuple[int, int, bytes, bytes]:
    """Return (kind, flags, counter of the answered request or b"", payload).

    Raise BadPacket: `too_short`, `bad_flags`, `bad_length`, `bad_kind`.
    """
    if len(text) < 4:
        raise BadPacket("too_short")
    kind, flags = text[0], text[1]
    if flags & ~KNOWN_FLAGS:
        raise BadPacket("bad_flags")
    if kind == IS_REQUEST:
        end = 4 + (text[2] << 8 | text[3])
        if end > len(text):
            raise BadPacket("bad_length")
        return IS_REQUEST, flags, b"", text[4:end]
    if kind == IS_CONFIRMATION:
        return IS_CONFIRMATION, flags, b"", b""
    if kind != IS_ANSWER:
        raise BadPacket("bad_kind")
    if len(text) < 10:
        raise BadPacket("too_short")
    return IS_ANSWER, flags, text[2:10], text[10:]


def sealed_confirmation_text(flags: int) -> bytes:
    """Return the plaintext of a confirmation: "I have the keys, at this address". It has no answer."""
    return bytes((IS_CONFIRMATION, flags, 0, 0))


def retry_frame(nonce: bytes, token: bytes) -> bytes:
    """0x08 · the request's nonce 16 · token 24: send that request again with this token."""
    return bytes((RETRY,)) + nonce + token


def parse_retry_untrusted(data: bytes) -> tuple[bytes, bytes]:
    """Return (nonce, token). Raise BadPacket("bad_length")."""
    if len(data) != 1 + 16 + RETRY_TOKEN_BYTES:
        raise BadPacket("bad_length")
    return data[1:17], data[17:]


def forgot_frame(sealed: bytes) -> bytes:
    """0x09 · key id 8 · counter 8 of the sealed frame that cannot be opened."""
    return bytes((FORGOT,)) + sealed[1:SEALED_HEADER]


def dialled_frame(nonce: bytes) -> bytes:
    """0x0A · nonce 16: sent once, by a node that was asked to see whether we can be reached."""
    return bytes((DIALLED,)) + nonce


def parse_dialled_untrusted(data: bytes) -> bytes:
    """Return the nonce. Raise BadPacket("bad_length")."""
    if len(data) != 17:
        raise BadPacket("bad_length")
    return data[1:]
