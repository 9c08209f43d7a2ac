"""People who look for strangers: whole nodes with chats, on public hosts of the virtual world."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.virtual_nodes import make_node

from p2pnode import Node
from p2pnode.chat import Chat, ChatEvent, ChatStore
from p2pnode.chat.model import StrangerChanged, StrangerSaid
from p2pnode.chat.strangers.service import Strangers
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld

__all__ = ["Someone", "lobby_of"]


class Someone:
    """A user. `events`: what was told about strangers, in order."""

    def __init__(self, network: VirtualNetwork, node: Node, chat: Chat, store: ChatStore) -> None:
        self.network, self.node, self.chat, self.store = network, node, chat, store
        self.events: list[StrangerChanged] = []
        self.texts: asyncio.Queue[str] = asyncio.Queue()
        self._news = asyncio.Event()
        self._stopped = False
        chat.subscribe(self._on_event)

    @property
    def strangers(self) -> Strangers:
        return self.chat.strangers

    def _on_event(self, event: ChatEvent) -> None:
        if isinstance(event, StrangerChanged):
            self.events.append(event)
            self._news.set()
        elif isinstance(event, StrangerSaid) and not event.own:
            self.texts.put_nowait(event.text)

    async def until(self, phase: str, timeout: float = 60.0) -> StrangerChanged:
        """Return the last event once its phase is this. Raise TimeoutError."""
        async with asyncio.timeout(timeout):
            while not self.events or self.events[-1].phase != phase:
                self._news.clear()
                await self._news.wait()
        return self.events[-1]

    async def heard(self, timeout: float = 10.0) -> str:
        """Return the next text of the stranger. Raise TimeoutError."""
        async with asyncio.timeout(timeout):
            return await self.texts.get()

    async def stop(self) -> None:
        """Leave; twice is harmless."""
        if self._stopped:
            return
        self._stopped = True
        await self.chat.stop()
        await self.node.stop()
        await self.store.close()


@asynccontextmanager
async def lobby_of(world: VirtualWorld, count: int, **settings: Any) -> AsyncIterator[list[Someone]]:
    """`count` users; the first five nodes are bootstrap nodes that nobody sits at."""
    nodes: list[Node] = []
    people: list[Someone] = []
    try:
        for number in range(5 + count):
            network = world.host(f"9.{number}.0.1")
            role = "bootstrap" if number < 5 else "peer"
            node = make_node(network, number, through=nodes[:5], role=role, **settings)
            nodes.append(node)
            if number < 5:
                await node.start()
                continue
            store = await ChatStore.open(None, run_blocking=network.run_blocking)
            chat = Chat(node, store)
            people.append(Someone(network, node, chat, store))
            await chat.start()
            await node.start()
        yield people
    finally:
        for person in people:
            await person.stop()
        for node in nodes[:5]:
            await node.stop()
