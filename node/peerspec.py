"""What people type to name a peer: a user id, a peer id, a prefix, a contact's name, `ID@HOST:PORT[,HOST:PORT]`.

Parsing only: whether a name or a prefix means anybody is for those who know the contacts (`p2pnode.api.resolve`).
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.core.address import DEFAULT_PORT, split_host_port
from p2pnode.core.errors import InvalidPeerError
from p2pnode.core.ids import PeerId, UserId

__all__ = ["DEFAULT_PORT", "PeerSpec", "parse_host_port", "parse_peer"]


# Chosen by us. Ids begin alike, so a prefix must reach beyond the common part; one that is nearly as long as an id is
# a truncated id, which deserves the id's own error sentence.
_PREFIX_MIN = 12
_PREFIX_MAX = 40
_NAME_MAX = 32
_HOSTS_MAX = 16
_USER_START = "p2p1"
_PEER_START = "12d3koo"


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """A PEER as typed. At most one of `user`, `peer`, `name` is set.

    `name`: a contact's name or the prefix of an id (`is_prefix`). `hosts`: (host, UDP port) to dial without a lookup,
    `tcp_hosts`: the same for `tcp:HOST:PORT`; both empty unless `@` was written.
    """

    text: str
    user: UserId | None = None
    peer: PeerId | None = None
    hosts: tuple[tuple[str, int], ...] = ()
    name: str | None = None
    tcp_hosts: tuple[tuple[str, int], ...] = ()

    @property
    def is_prefix(self) -> bool:
        """Whether `name` is the beginning of an id rather than a contact's name."""
        return self.name is not None and _begins_like_id(self.name)

    def __str__(self) -> str:
        return self.text


def parse_peer(text: str) -> PeerSpec:
    """Read a PEER. Raise InvalidPeerError with one sentence that says what is wrong.

    >>> parse_peer("alice").name
    'alice'
    """
    text = text.strip()
    if not text:
        raise InvalidPeerError("The peer is empty: give a user id (p2p1...), a peer id (12D3KooW...) or a name.")
    who, at, where = text.partition("@")
    if at:
        if not _begins_like_id(who):
            raise InvalidPeerError(f"{text[:80]!r}: before the @ stands a whole user id or peer id, not a name.")
        user, peer = _whole_id(who)
        hosts, tcp_hosts = _hosts(text, where)
        return PeerSpec(text, user, peer, hosts, None, tcp_hosts)
    if _begins_like_id(text):
        if _PREFIX_MIN <= len(text) <= _PREFIX_MAX:
            return PeerSpec(text, name=text)
        user, peer = _whole_id(text)
        return PeerSpec(text, user, peer)
    if len(text) > _NAME_MAX or not text.isprintable() or any(c in text for c in '/\\:"<>'):
        raise InvalidPeerError(
            f"{text[:80]!r} is not a peer: give a user id (p2p1...), a peer id (12D3KooW...), ID@HOST:PORT or a"
            " contact's name."
        )
    return PeerSpec(text, name=text)


def parse_host_port(text: str, *, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Read HOST, HOST:PORT or [IPv6]:PORT; ports 1..65535. Raise ValueError with the reason."""
    host, port = split_host_port(text, default_port=default_port)
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is not a port that can be dialled (1 to 65535)")
    if len(host) > 253 or any(c.isspace() or c in "@/,\\" for c in host) or not host.isprintable():
        raise ValueError(f"{host[:80]!r} is not a host")
    return host, port


def _begins_like_id(text: str) -> bool:
    lower = text.lower()
    return lower.startswith((_USER_START, _PEER_START))


def _whole_id(text: str) -> tuple[UserId | None, PeerId | None]:
    if text.lower().startswith(_USER_START):
        return UserId.parse(text), None
    return None, PeerId.parse(text)


def _hosts(text: str, where: str) -> tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]:
    udp: list[tuple[str, int]] = []
    tcp: list[tuple[str, int]] = []
    parts = where.split(",")
    if len(parts) > _HOSTS_MAX:
        raise InvalidPeerError(f"More than {_HOSTS_MAX} addresses after the @.")
    for part in parts:
        is_tcp = part.startswith("tcp:")
        try:
            (tcp if is_tcp else udp).append(parse_host_port(part.removeprefix("tcp:")))
        except ValueError as exc:
            raise InvalidPeerError(f"{text[:120]!r}: after the @ stands HOST:PORT, and {exc}.") from exc
    return tuple(udp), tuple(tcp)
