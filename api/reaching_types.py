"""Parts of the API's answers about how a node is reached. See `types`."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["LinkInfo", "LinkSummary", "PortMapping", "RelayService", "RelayUse"]


class PortMapping(Struct, kw_only=True):
    """A port that the router was asked for. `state`: off, not-needed, no-gateway, searching, silent, refused, unproven
    or believed; `reason`: a sentence."""

    state: str
    reason: str
    protocol: str | None
    gateway: str | None
    internal: str | None
    external: str | None
    lifetime_left_s: float | None


class LinkInfo(Struct, kw_only=True):
    """A TLS link: it carries datagrams where UDP is blocked. `kind`: who opened it: ours, theirs, or punched (both).
    `peer`: the node at its far end, None while it has not proven itself; `address`: HOST:PORT of its TCP; `proxy`: an
    HTTP proxy carries it. Bytes are those inside TLS; `dropped`: datagrams that there was no room for."""

    kind: str
    peer: str | None
    address: str
    proxy: bool
    age_s: float
    bytes_sent: int
    bytes_received: int
    dropped: int


class LinkSummary(Struct, kw_only=True):
    """TLS links that are open now: to public nodes, of others to this one, punched with a peer; `proxied`: how many of
    all go through an HTTP proxy. Bytes are those of the links that are open, inside TLS."""

    ours: int
    theirs: int
    punched: int
    proxied: int
    bytes_sent: int
    bytes_received: int


class RelayService(Struct, kw_only=True):
    """What this node relays for others. `flows`: those that it joins now; `bytes`, `refused` since the start."""

    flows: int
    datagrams: int
    bytes: int
    refused: int


class RelayUse(Struct, kw_only=True):
    """A session's traffic through relays since the start. `reason`: why no direct path was there."""

    reason: str
    bytes_sent: int
    bytes_received: int
