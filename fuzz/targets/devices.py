"""Devices of a user: lists and receipts, linking and its code, what the own devices tell each other."""

from __future__ import annotations

from p2pnode import LinkCodeError
from p2pnode.chat import LinkCode
from p2pnode.chat.devices import link_wire, sync_wire, wire
from targets.base import Target
from targets.core import text_of
from targets.framed import frame_target

__all__ = ["TARGETS"]


def read_code(data: bytes) -> LinkCode:
    return LinkCode.parse(text_of(data))


def hold_code(_data: bytes, code: LinkCode) -> None:
    again = LinkCode.parse(code.text)
    assert (again.peer, again.secret) == (code.peer, code.secret)


TARGETS = [
    frame_target("devices_frame", wire.decode_untrusted, wire.encode, head=2, max_bytes=1_000),
    frame_target("link_frame", link_wire.decode_untrusted, link_wire.encode, head=2, max_bytes=1_000),
    frame_target("sync_frame", sync_wire.decode_untrusted, sync_wire.encode, head=4, max_bytes=2_000),
    Target("link_code", read_code, hold_code, (LinkCodeError,), 400),
]
