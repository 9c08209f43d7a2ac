"""What a conversation with strangers needs of a node: the shape of `p2pnode.Node`, and how a throw-away one is made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol

from p2pnode import (
    AccountKey,
    Address,
    Announced,
    Network,
    Node,
    NodeKey,
    PeerId,
    PeerSpec,
    Scope,
    TopicListing,
)
from p2pnode.chat.model import ChatEvent
from p2pnode.chat.ports import NodePort, SessionPort, StreamPort

__all__ = ["Host", "MaskNode", "throw_away_node", "ways_in"]


class MaskNode(Protocol):
    """`p2pnode.Node`."""

    @property
    def peer_id(self) -> PeerId: ...
    @property
    def network(self) -> Network: ...
    async def start(self) -> Any: ...
    async def stop(self) -> None: ...
    async def connect(
        self, peer: PeerId, *, addresses: Sequence[Address] = ..., timeout: float = ...
    ) -> SessionPort: ...
    def handle(self, protocol: str, handler: Callable[[SessionPort, StreamPort], Awaitable[None]]) -> None: ...
    async def join_through(self, host: str, port: int) -> PeerId: ...
    async def announce(
        self, topic: str | bytes, value: bytes, *, key: AccountKey | None = ..., life: float = ...
    ) -> Announced: ...
    async def unannounce(self, topic: str | bytes) -> bool: ...
    def abandon(self, topic: str | bytes, *, key: AccountKey | None = ...) -> None: ...
    async def topic(self, topic: str | bytes, *, limit: int = ..., sample: bool = ...) -> TopicListing: ...


class Host(Protocol):
    """What of a chat is needed."""

    @property
    def node(self) -> NodePort: ...
    def emit(self, event: ChatEvent) -> None: ...
    def start_task(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]: ...


def throw_away_node(host: NodePort, *, relay_only: bool) -> MaskNode:
    """Return a node, not started, with keys and ports of its own beside `host`, in the same network.

    It joins through nodes that `host` knows, not through `host`; only where that knows nobody else, or where all are on
    one machine or LAN, through `host` too. Nothing of it is written to the disk.
    """
    network, settings = host.network, host.settings
    return Node(
        key=NodeKey.generate(network.token_bytes),
        account=AccountKey.generate(network.token_bytes),
        settings=replace(
            settings,
            name="",
            listen=tuple(address._replace(port=0) for address in settings.listen),
            listen_explicit=False,
            tcp=(),
            bootstrap=ways_in(host),
            lan=False,
            portmap=False,
            relay_only=relay_only or settings.relay_only,
            relay=False,
            guest=True,
            record_file="",
            role="peer",
        ),
        network=network,
    )


def ways_in(host: NodePort) -> tuple[PeerSpec, ...]:
    """Return nodes to join through: those that `host` knows, and `host` itself where that tells nobody anything."""
    found = host.ways_in()
    own = host.addresses()[:1]
    if own and (not found or own[0].scope is not Scope.PUBLIC):
        hosts = ((own[0].ip, own[0].port),)
        found += (PeerSpec(f"{host.peer_id}@{own[0]}", peer=host.peer_id, hosts=hosts),)
    return found
