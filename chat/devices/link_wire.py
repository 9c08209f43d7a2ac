"""The frames of `p2pnode/link/1`: a new device asks to become one of the account. No I/O. docs/protocol/devices.md."""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2pnode import UserId, decode_devices_untrusted
from p2pnode.chat import framing
from p2pnode.chat.devices.codes import NONCE_BYTES, PROOF_BYTES
from p2pnode.chat.devices.wire import MAX_LIST_BYTES
from p2pnode.chat.framing import Codec

__all__ = ["LINK_PROTOCOL", "Ask", "FrameBuffer", "Give", "Have", "decode_untrusted", "encode"]

# Fixed by this protocol.
LINK_PROTOCOL = "p2pnode/link/1"
MAX_FRAME_BYTES = 2_048
SEALED_BYTES = 48

Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class Ask(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """The new device has the code: `proof`, of both ids and the nonce. `name`: how it calls itself."""

    nonce: Nonce
    proof: Annotated[bytes, msgspec.Meta(min_length=PROOF_BYTES, max_length=PROOF_BYTES)]
    name: Annotated[str, msgspec.Meta(max_length=32)]


class Give(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """The account key, sealed with the code, and the list that names the new device, signed by the account."""

    nonce: Nonce
    user: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    sealed: Annotated[bytes, msgspec.Meta(min_length=SEALED_BYTES, max_length=SEALED_BYTES)]
    value: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_LIST_BYTES)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Have(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=3):
    """The new device has the key on its disk."""


Frame = Ask | Give | Have


def _check_untrusted(frame: Frame) -> None:
    if isinstance(frame, Give):
        UserId.from_untrusted(frame.user)
        decode_devices_untrusted(frame.value)


_codec: Codec[Frame] = Codec(Frame, length_bytes=2, max_bytes=MAX_FRAME_BYTES, check=_check_untrusted)
encode = _codec.encode
decode_untrusted = _codec.decode_untrusted
"""Raises BadPacket: `too_long`, `malformed`, `bad_key`, `unknown_version`. Proofs and signatures are not looked at."""


class FrameBuffer(framing.FrameBuffer[Frame]):
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        super().__init__(_codec)
