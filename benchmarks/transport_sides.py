"""The two sides of benchmarks/transport.py, each a process of its own: bytes through the whole stack, or bare qh3.

    transport_sides.py serve whole|bare IP            prints its port and node key, serves until its input ends
    transport_sides.py call whole|bare IP PORT KEY WHAT COUNT     prints figures as JSON

A stream's name says what is done with it: `sink` counts and answers with the count, `messages` likewise but reads 100
bytes at a time, `echo` sends back. Bare: the same socket (`core.real_udp`), qh3's own QuicConnection, nothing between.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from qh3._hazmat import pull_quic_header
from qh3.quic import events
from qh3.quic.connection import QuicConnection

from p2pnode.core.address import Address
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import DatagramSocket
from p2pnode.core.real_network import RealNetwork
from p2pnode.nat import Connection, ConnectionClosedError, QuicEndpoint, Stream, UdpMux
from p2pnode.nat.certificate import make_certificate
from p2pnode.nat.headers import CID_BYTES
from p2pnode.nat.transport import make_configuration

TAG = bytes(8)
MESSAGE_BYTES = 100
WRITE_BYTES = 64 << 10
QUEUE_BYTES = 256 << 10  # as nat.streams.SEND_BUFFER
_ADDRESS = ("192.0.2.1", 4433)


class Whole:
    """A mux and an endpoint, as a node has them."""

    def __init__(self) -> None:
        self.network = RealNetwork()
        self.mux = UdpMux(self.network)
        self.key = NodeKey.generate(os.urandom)
        self.endpoint = QuicEndpoint(
            key=self.key, network=self.network, send=self.mux.send, send_many=self.mux.send_many, network_tag=TAG
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, ip: str) -> None:
        self.mux.on("quic", self.endpoint.datagram_received, self.endpoint.datagrams_received)
        self.mux.on("relay", self.endpoint.probe_received)
        self.endpoint.on_connection = self._serve
        await self.mux.open([Address(ip, 0)])

    @property
    def port(self) -> int:
        return self.mux.local[0].port

    def _serve(self, connection: Connection) -> None:
        connection.on_stream = self._serve_stream

    def _serve_stream(self, _connection: Connection, name: str, stream: Stream) -> None:
        task = asyncio.ensure_future({"sink": _sink, "messages": _messages, "echo": _echo}[name](stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def connect(self, to: Address, key: str) -> Connection:
        return await self.endpoint.connect(PeerId.parse(key), to)


async def _sink(stream: Stream) -> None:
    total = 0
    while data := await stream.read(1 << 20):
        total += len(data)
    await stream.write(total.to_bytes(8, "big"))
    stream.finish()


async def _messages(stream: Stream) -> None:
    total = 0
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            total += len(await stream.readexactly(MESSAGE_BYTES))
    await stream.write(total.to_bytes(8, "big"))
    stream.finish()


async def _echo(stream: Stream) -> None:
    with contextlib.suppress(ConnectionClosedError):
        while data := await stream.read():
            await stream.write(data)
        stream.finish()


class BareConnection:
    """qh3 on a socket: one flush per loop turn, one timer, as few steps as it takes."""

    def __init__(self, bare: Bare, quic: QuicConnection, to: Address) -> None:
        self.quic, self.to, self._bare = quic, to, bare
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled = False
        self.ready = self._loop.create_future()
        self.heard = asyncio.Event()
        self.flushed = asyncio.Event()
        self.incoming = bytearray()
        self._kind: bytes = b""
        self._total = 0

    def received(self) -> None:
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, events.HandshakeCompleted) and not self.ready.done():
                self.ready.set_result(None)
            elif isinstance(event, events.StreamDataReceived):
                self._data(event.stream_id, event.data, event.end_stream)
        self.schedule()

    def _data(self, stream_id: int, data: bytes, fin: bool) -> None:
        if self._bare.client:
            self.incoming += data
            self.heard.set()
            return
        if not self._kind:
            self._kind, data = data[:1], data[1:]
        self._total += len(data)
        if self._kind == b"e":
            self.quic.send_stream_data(stream_id, data, fin)
        elif fin:
            self.quic.send_stream_data(stream_id, self._total.to_bytes(8, "big"), True)

    def schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        self._scheduled = False
        datagrams = [data for data, _ in self.quic.datagrams_to_send(time.monotonic())]
        if datagrams:
            self._bare.socket.send_many(datagrams, self.to)
            self.flushed.set()
        at = self.quic.get_timer()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(max(at, time.monotonic() + 0.001), self._fired)

    def _fired(self) -> None:
        self._timer = None
        self.quic.handle_timer(time.monotonic())
        self.received()

    async def write(self, stream_id: int, data: bytes) -> None:
        while self.quic.get_send_buffer_size(stream_id) >= QUEUE_BYTES:
            self.flushed.clear()
            self.schedule()
            await self.flushed.wait()
        self.quic.send_stream_data(stream_id, data)
        self.schedule()

    async def answer(self, count: int) -> bytes:
        while len(self.incoming) < count:
            self.heard.clear()
            await self.heard.wait()
        data = bytes(self.incoming[:count])
        del self.incoming[:count]
        return data


class Bare:
    """qh3 alone, on the same socket."""

    socket: DatagramSocket

    def __init__(self, *, client: bool) -> None:
        self.client = client
        self._connections: dict[bytes, BareConnection] = {}
        certificate = None if client else make_certificate(NodeKey.generate(os.urandom), os.urandom)
        self._configuration = make_configuration(
            client=client, alpn="bare", idle_timeout_s=60, initial_rtt_s=0.1, certificate=certificate
        )

    async def open(self, ip: str) -> None:
        self.socket = await RealNetwork().open_udp(Address(ip, 0), self._received, self._received_many)

    @property
    def port(self) -> int:
        return self.socket.local.port

    def _received(self, data: bytes, source: Address) -> None:
        cid = pull_quic_header(data, 0, CID_BYTES)[3]
        connection = self._connections.get(cid)
        if connection is None:
            if self.client:
                return
            quic = QuicConnection(configuration=self._configuration, original_destination_connection_id=cid)
            connection = self._connections[cid] = self._connections[quic.host_cid] = BareConnection(self, quic, source)
        connection.quic.receive_datagram(data, _ADDRESS, time.monotonic())
        connection.received()

    def _received_many(self, buffer: bytes, size: int, source: Address) -> None:
        connection = self._connections.get(buffer[1 : 1 + CID_BYTES])
        if connection is None:
            for start in range(0, len(buffer), size):
                self._received(buffer[start : start + size], source)
            return
        connection.quic.receive_gro_buffer(buffer, size, _ADDRESS, time.monotonic())
        connection.received()

    async def connect(self, to: Address) -> BareConnection:
        quic = QuicConnection(configuration=self._configuration)
        connection = self._connections[quic.host_cid] = BareConnection(self, quic, to)
        quic.connect(_ADDRESS, time.monotonic())
        connection.flush()
        await connection.ready
        return connection


async def call_whole(ip: str, to: Address, key: str, what: str, count: int) -> dict[str, Any]:
    side = Whole()
    await side.open(ip)
    if what == "idle":
        return await _idle(side, to, key, count)
    if what == "connect":
        return {"times": [await _timed(lambda: _first_echo(side, to, key)) for _ in range(count)]}
    stream = await (await side.connect(to, key)).open_stream({"bulk": "sink", "ping": "echo"}.get(what, what))

    async def ping() -> None:
        await stream.write(b"x")
        await stream.readexactly(1)

    async def finish() -> int:
        stream.finish()
        return int.from_bytes(await stream.readexactly(8), "big")

    return await _run(what, count, stream.write, ping, finish)


async def _first_echo(side: Whole, to: Address, key: str) -> None:
    """A handshake, and the first byte there and back."""
    connection = await side.endpoint.connect(PeerId.parse(key), to, early=True)
    stream = await connection.open_stream("echo")
    await stream.write(b"x")
    await stream.readexactly(1)
    connection.close()


async def _idle(side: Whole, to: Address, key: str, count: int) -> dict[str, Any]:
    for start in range(0, count, 8):
        await asyncio.gather(*(side.connect(to, key) for _ in range(start, min(count, start + 8))))
    print(json.dumps({"connected": count}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    return {}


async def call_bare(ip: str, to: Address, _key: str, what: str, count: int) -> dict[str, Any]:
    side = Bare(client=True)
    await side.open(ip)
    connection = await side.connect(to)
    quic = connection.quic
    stream_id = quic.get_next_available_stream_id()
    quic.send_stream_data(stream_id, b"e" if what == "ping" else b"s")

    async def ping() -> None:
        quic.send_stream_data(stream_id, b"x")
        connection.schedule()
        await connection.answer(1)

    async def finish() -> int:
        quic.send_stream_data(stream_id, b"", True)
        connection.schedule()
        return int.from_bytes(await connection.answer(8), "big")

    async def write(data: bytes) -> None:
        await connection.write(stream_id, data)

    return await _run(what, count, write, ping, finish)


async def _run(
    what: str,
    count: int,
    write: Callable[[bytes], Awaitable[None]],
    ping: Callable[[], Awaitable[None]],
    finish: Callable[[], Awaitable[int]],
) -> dict[str, Any]:
    if what == "ping":
        for _ in range(20):
            await ping()
        return {"times": [await _timed(ping) for _ in range(count)]}
    piece = bytes(MESSAGE_BYTES if what == "messages" else WRITE_BYTES)
    used, began = _cpu(), time.perf_counter()
    for _ in range(count):
        await write(piece)
    assert await finish() == count * len(piece)
    return {"bytes": count * len(piece), "seconds": time.perf_counter() - began, "cpu": _cpu() - used}


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def serve(stack: str, ip: str) -> None:
    side = Whole() if stack == "whole" else Bare(client=False)
    await side.open(ip)
    key = str(side.key.peer_id) if isinstance(side, Whole) else "-"
    print(json.dumps({"port": side.port, "key": key}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps({"cpu": _cpu()}) if line == "cpu\n" else "", flush=True)


def main() -> None:
    role, stack, ip, *rest = sys.argv[1:]
    run: Callable[..., Any] = asyncio.run
    with contextlib.suppress(ImportError):
        if os.environ.get("P2PNODE_BENCHMARK_LOOP") != "asyncio":
            import uvloop

            run = uvloop.run
    if role == "serve":
        run(serve(stack, ip))
    else:
        call = call_whole if stack == "whole" else call_bare
        port, key, what, count = rest
        local = os.environ.get("P2PNODE_BENCHMARK_LOCAL", ip)
        print(json.dumps(run(call(local, Address(ip, int(port)), key, what, int(count)))), flush=True)


if __name__ == "__main__":
    main()
