"""The control API over a node and a chat that do nothing but answer; and a bare HTTP client that can misbehave."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from p2pnode import AccountKey, Home, NodeKey, PeerId, PeerNotFoundError, UserId
from p2pnode.api.server import ApiServer
from p2pnode.api.service import Service
from p2pnode.chat import ChatStore, Directory
from p2pnode.relay_table import RelayStatistics
from p2pnode.status import FlowBudget

__all__ = ["Api", "running_api"]


class FakeNode:
    """A node that is alone."""

    def __init__(self) -> None:
        key, account = NodeKey(b"\1" * 32, b"\2" * 32), AccountKey(b"\3" * 32)
        self.peer_id, self.user_id = key.peer_id, account.user_id
        self.settings = SimpleNamespace(name="fake", network_id="public")
        self.network = SimpleNamespace(
            monotonic=lambda: 1.0,
            token_bytes=lambda count: b"\5" * count,
            resolve=self._resolve,
            run_blocking=asyncio.to_thread,
        )
        self.subscribers: list[Callable[[Any], None]] = []
        self.entered = 0

    async def _resolve(self, host: str, port: int) -> list[Any]:
        return []

    def subscribe(self, callback: Callable[[Any], None]) -> Callable[[], None]:
        self.subscribers.append(callback)
        return lambda: self.subscribers.remove(callback)

    def sessions(self) -> list[Any]:
        return []

    def lan_peers(self) -> dict[PeerId, Any]:
        return {}

    def status(self) -> Any:
        return SimpleNamespace(
            peer_id=str(self.peer_id), user_id=str(self.user_id), role="server", nat="unknown",
            addresses=("127.0.0.1:4747",), peers=0, routing_table=0, records=0, uptime_s=1.0, rss_bytes=1,
            clock_skew_s=None, seen_as=(), rendezvous=(), port_mapping=(),
            relay=RelayStatistics(0, 0, 0, 0, {}, {}), relayed_sessions=0, relayed_bytes=0,
            flows=FlowBudget(0, 25.0, None, 0), links=(),
        )  # fmt: skip

    async def find(self, peer: PeerId, *, timeout: float) -> Any:
        self.entered += 1
        raise PeerNotFoundError(f"Nobody knows {peer}.")

    async def connect(self, peer: PeerId, *, addresses: Any = (), timeout: float) -> Any:
        raise RuntimeError("a mistake of ours")


class FakeTable:
    """Nobody is at a fixed address."""

    async def wait_for(self, name: str) -> None:
        return


class FakeChat:
    """A chat with an empty database in memory."""

    table = FakeTable()

    def __init__(self, node: FakeNode, store: ChatStore) -> None:
        self.store = store
        self.directory = Directory(node.user_id, node.peer_id)
        self.table = SimpleNamespace(wait_for=self._nobody)
        self.subscribers: list[Callable[[Any], None]] = []

    def subscribe(self, callback: Callable[[Any], None]) -> Callable[[], None]:
        self.subscribers.append(callback)
        return lambda: self.subscribers.remove(callback)

    def user_of(self, peer: PeerId) -> UserId | None:
        return None

    async def _nobody(self, name: str) -> None:
        """There is no static table."""

    async def add_contact(self, party: Any, name: str | None) -> Any:
        contact = await self.store.put_contact(party, "accepted", now_ms=1000, petname=name)
        self.directory.put(contact)
        return contact


class Api:
    """A running server, seen from another thread."""

    def __init__(self, home: Home, port: int, token: str, loop: asyncio.AbstractEventLoop, node: FakeNode) -> None:
        self.home, self.port, self.token, self.loop, self.node = home, port, token, loop, node

    def request(
        self, method: str, path: str, body: bytes | None = None, *, drop: tuple[str, ...] = (), **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Return (status, headers, JSON). Headers are those of our client unless replaced or dropped."""
        sent = {"authorization": f"Bearer {self.token}", "host": f"127.0.0.1:{self.port}"}
        if body is not None:
            sent["content-type"] = "application/json"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            if body is not None and "content-length" not in sent:
                sent["content-length"] = str(len(body))
            for name, value in sent.items():
                if name not in drop:
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            data = response.read()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, json.loads(data)
        finally:
            connection.close()

    def raw(self) -> socket.socket:
        """Return a bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def emit(self, event: Any) -> None:
        """Let the node tell its subscribers."""
        self.loop.call_soon_threadsafe(lambda: [callback(event) for callback in self.node.subscribers])


@contextmanager
def running_api(path: Path) -> Iterator[Api]:
    """Serve on a real port, in a thread with a loop of its own."""
    home = Home(path)
    started: list[Any] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        node = FakeNode()
        store = await ChatStore.open(None)
        service = Service(cast("Any", node), cast("Any", FakeChat(node, store)))
        server = ApiServer(service, home)
        await server.start()
        started.extend([server.port, asyncio.get_running_loop(), node])
        ready.set()
        await stop.wait()
        await server.stop()
        await store.close()

    with home.locked():
        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        try:
            assert ready.wait(10)
            port, loop, node = started
            yield Api(home, port, json.loads(home.api.read_text())["token"], loop, node)
        finally:
            if started:
                started[1].call_soon_threadsafe(stop.set)
            thread.join(10)
        assert not thread.is_alive()
