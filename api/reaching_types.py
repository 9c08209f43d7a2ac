"""Parts of the API's answers about how a node is reached. See `types`."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["PortMapping", "RelayService", "RelayUse"]


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
