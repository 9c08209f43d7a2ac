"""Whether our TLS links still carry: a line that has another address breaks TCP connections without a word.

Who misses an answer that had to come by a link asks here. The far end answers a sign of life at once; where it does
not, another connection to the same node takes the link's place. Then the other links are asked as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from p2pnode.core.address import Address
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.nat import Link

__all__ = ["LinkCheck"]

log = structlog.get_logger(__name__)

SILENT_S = 0.6  # most round trips; TCP repeats what was lost after 0.2 s or more
POLL_S = 0.05
PAUSE_S = 5.0  # between two new connections to one node


class LinkCheck:
    """Of one node's links to others, 64 at most."""

    def __init__(
        self, network: Network, links: Callable[[], Mapping[Address, Link]],
        reopen: Callable[[Address], Coroutine[Any, Any, None]],
    ) -> None:  # fmt: skip
        """`links()`: those that carry now, by the nodes' UDP addresses. `reopen`: never raises."""
        self._network = network
        self._links, self._reopen = links, reopen
        self._asking: set[Address] = set()
        self._reopened: dict[Address, float] = {}
        self._tasks = TaskSet()

    async def stop(self) -> None:
        await self._tasks.cancel()

    async def ask(self, address: Address) -> None:
        """Nothing that was sent to this node is answered. Return when its link carries, as far as can be known."""
        link = self._links().get(address)
        if link is None or address in self._asking:
            return
        self._asking.add(address)
        try:
            if not await self._is_silent(link):
                return
            now = self._network.monotonic()
            self._reopened = {each: at for each, at in self._reopened.items() if now - at < PAUSE_S}
            if address in self._reopened:
                return
            self._reopened[address] = now
            log.info("link_silent", address=str(address))
            await self._reopen(address)
        finally:
            self._asking.discard(address)
        if self._links().get(address) not in (None, link):
            for other in list(self._links()):
                self._tasks.spawn(self.ask(other))

    async def _is_silent(self, link: Link) -> bool:
        """Whether the far end does not answer, and the link has not ended."""
        heard_at, until = link.heard_at, self._network.monotonic() + SILENT_S
        link.ask()
        while link.heard_at == heard_at and self._network.monotonic() < until:  # noqa: ASYNC110 - seldom, and short
            await asyncio.sleep(POLL_S)
        return link.heard_at == heard_at and self._links().get(link.address) is link
