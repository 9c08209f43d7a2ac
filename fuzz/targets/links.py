"""TLS links: frames, the greeting, the certificate, a proxy's answer."""

from __future__ import annotations

from p2pnode.core.address import Address
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.nat import link_wire
from p2pnode.nat.certificate import make_link_certificate, peer_of_certificate_untrusted
from p2pnode.proxy import MAX_REPLY_BYTES, read_reply_untrusted
from targets.base import Target

__all__ = ["TARGETS", "certificate_seed"]


def certificate_seed() -> bytes:
    """Return a certificate that is the same in every run."""
    return make_link_certificate(NodeKey(bytes([1]) * 32, bytes(32)), lambda count: bytes([7]) * count, b"x").der


def read_frames(data: bytes) -> list[bytes]:
    return link_wire.FrameReader().feed_untrusted(data)


def hold_frames(data: bytes, datagrams: list[bytes]) -> None:
    """Written again they are the beginning of the stream; cut anywhere, the same datagrams come."""
    assert data.startswith(b"".join(map(link_wire.link_frame, datagrams)))
    reader = link_wire.FrameReader()
    again = [each for at in range(0, len(data), 7) for each in reader.feed_untrusted(data[at : at + 7])]
    assert again == datagrams


def hold_greeting(data: bytes, greeting: tuple[int, Address, tuple[Address, ...]]) -> None:
    assert link_wire.greeting(*greeting) == data


def read_certificate(data: bytes) -> PeerId:
    return peer_of_certificate_untrusted(data, link=True)


def hold_reply(_data: bytes, status: int | None) -> None:
    assert status is None or 100 <= status < 600


TARGETS = [
    Target("link_frames", read_frames, hold_frames, max_bytes=3_000),
    Target("link_greeting", link_wire.read_greeting_untrusted, hold_greeting, max_bytes=90),
    Target("link_certificate", read_certificate, max_bytes=2_100),
    Target("proxy_reply", read_reply_untrusted, hold_reply, max_bytes=MAX_REPLY_BYTES + 10),
]
