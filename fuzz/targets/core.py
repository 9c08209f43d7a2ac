"""Ids, addresses, device records, envelopes, PEER specs."""

from __future__ import annotations

import unicodedata

from p2pnode import parse_peer
from p2pnode.core.address import Address, realm_of, scope_of
from p2pnode.core.clean import clean, clean_name
from p2pnode.core.devices import DeviceList, decode_devices_untrusted, encode_devices
from p2pnode.core.envelope import open_untrusted
from p2pnode.core.errors import InvalidPeerError
from p2pnode.core.ids import PeerId, PublicKey, UserId
from p2pnode.peerspec import PeerSpec, parse_host_port
from targets.base import Target

__all__ = ["ENVELOPE_DOMAIN", "ENVELOPE_TYPE", "TARGETS"]

ENVELOPE_DOMAIN, ENVELOPE_TYPE = b"p2pnode/1/vectors", b"greeting"
HARMFUL = {"Cc", "Cf", "Co", "Cs"}


def text_of(data: bytes) -> str:
    """Any text that a user or another program can hand us, lone surrogates included."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def read_peer_id(data: bytes) -> PeerId:
    return PeerId.parse(text_of(data))


def hold_peer_id(data: bytes, peer: PeerId) -> None:
    assert str(peer) == text_of(data)
    assert PeerId.parse(str(peer)) == peer
    assert len(peer.node_id) == 20


def read_user_id(data: bytes) -> UserId:
    return UserId.parse(text_of(data))


def hold_user_id(data: bytes, user: UserId) -> None:
    assert str(user) == text_of(data).lower()
    assert UserId.parse(str(user)) == user


def hold_public_key(data: bytes, key: PublicKey) -> None:
    assert key.raw == data
    assert PeerId.parse(str(PeerId(data))).raw == data
    assert UserId.parse(str(UserId(data))).raw == data
    assert not key.verify(bytes(64), data)


def read_peer_spec(data: bytes) -> PeerSpec:
    return parse_peer(text_of(data))


def hold_peer_spec(_data: bytes, spec: PeerSpec) -> None:
    assert [spec.user, spec.peer, spec.name].count(None) == 2
    assert all(1 <= port <= 65_535 and host for host, port in (*spec.hosts, *spec.tcp_hosts))
    assert parse_peer(str(spec)) == spec
    assert spec.is_prefix in (True, False)


def read_host_port(data: bytes) -> tuple[str, int]:
    return parse_host_port(text_of(data))


def read_address(data: bytes) -> Address:
    return Address.parse(text_of(data), default_port=4747)


def hold_address(_data: bytes, address: Address) -> None:
    assert Address.parse(str(address)) == address
    assert Address.of(*address) == address
    scope_of(address.ip)
    realm_of(address.ip)
    if address.port and "%" not in address.ip:
        assert Address.unpack_untrusted(address.pack()) == address


def hold_packed_address(data: bytes, address: Address) -> None:
    assert address.pack() == data
    assert Address.parse(str(address)) == address
    realm_of(address.ip, allow_documentation=True)


def hold_devices(data: bytes, found: DeviceList) -> None:
    assert encode_devices(found.devices, found.number) == data


def read_envelope(data: bytes) -> tuple[PublicKey, bytes]:
    return open_untrusted(data, ENVELOPE_DOMAIN, ENVELOPE_TYPE)


def read_text(data: bytes) -> str:
    return text_of(data)


def hold_clean(_data: bytes, text: str) -> None:
    """What was made harmless stays as it is when that is done again."""
    once = clean(text, limit=200)
    assert clean(once, limit=200) == once
    name = clean_name(text)
    assert clean_name(name) == name
    assert len(name) <= 32
    assert not {unicodedata.category(char) for char in (once + name).replace("\u200d", "")} & HARMFUL


TARGETS = [
    Target("peer_id", read_peer_id, hold_peer_id, (InvalidPeerError,), 200),
    Target("user_id", read_user_id, hold_user_id, (InvalidPeerError,), 200),
    Target("public_key", PublicKey.from_untrusted, hold_public_key, max_bytes=40),
    Target("peer_spec", read_peer_spec, hold_peer_spec, (InvalidPeerError,), 600),
    Target("host_port", read_host_port, None, (ValueError,), 400),
    Target("address_text", read_address, hold_address, (ValueError,), 100),
    Target("address_packed", Address.unpack_untrusted, hold_packed_address, max_bytes=24),
    Target("devices", decode_devices_untrusted, hold_devices, max_bytes=800),
    Target("envelope", read_envelope, max_bytes=17_000),
    Target("text", read_text, hold_clean, (), 400),
]
