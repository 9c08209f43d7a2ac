"""The real network, on loopback only."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.require import require_namespaces

from p2pnode.core.address import Address
from p2pnode.core.network import DatagramSocket, TcpStream
from p2pnode.core.real_network import RealNetwork
from p2pnode.core.real_udp import BURST_DATAGRAMS

LOCAL = Address("127.0.0.1", 0)
LOCAL6 = Address("::1", 0)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 10))


def nothing(_data: bytes, _source: Address) -> None:
    """A handler that ignores what it is given."""


class Inbox:
    """Keeps datagrams and lets a test wait for a number of them."""

    def __init__(self) -> None:
        self.items: list[tuple[bytes, Address]] = []
        self._changed = asyncio.Event()

    def __call__(self, data: bytes, source: Address) -> None:
        self.items.append((data, source))
        self._changed.set()

    async def wait(self, count: int) -> None:
        while len(self.items) < count:
            self._changed.clear()
            await self._changed.wait()


@pytest.mark.parametrize("local", [LOCAL, LOCAL6], ids=["ipv4", "ipv6"])
def test_datagram_goes_there_and_back(local: Address) -> None:
    """A datagram arrives with the sender's address, which takes the answer."""

    async def main() -> None:
        network, asked, answered = RealNetwork(), Inbox(), Inbox()
        server = await network.open_udp(local, asked)
        client = await network.open_udp(local, answered)
        client.send(b"ping", server.local)
        await asked.wait(1)
        assert asked.items == [(b"ping", client.local)]
        server.send(b"pong", asked.items[0][1])
        await answered.wait(1)
        assert answered.items == [(b"pong", server.local)]
        client.close()
        server.close()

    run(main())


@pytest.mark.parametrize("local", [LOCAL, LOCAL6], ids=["ipv4", "ipv6"])
def test_port_in_use_raises(local: Address) -> None:
    """A second socket on the same address and port is refused, as is one on the wildcard."""

    async def main() -> None:
        network = RealNetwork()
        first = await network.open_udp(local, nothing)
        for ip in (local.ip, "::" if local.is_ipv6 else "0.0.0.0"):
            with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked below
                await network.open_udp(Address(ip, first.local.port), nothing)
            assert caught.value.errno == errno.EADDRINUSE
        first.close()
        again = await network.open_udp(first.local, nothing)
        again.close()

    run(main())


def test_address_that_is_not_ours_raises() -> None:
    """Binding to somebody else's address is EADDRNOTAVAIL."""

    async def main() -> None:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked below
            await RealNetwork().open_udp(Address("203.0.113.1", 0), nothing)
        assert caught.value.errno == errno.EADDRNOTAVAIL

    run(main())


def test_ipv6_wildcard_leaves_ipv4_free() -> None:
    """`::` and `0.0.0.0` hold the same port side by side: IPv6 sockets never carry IPv4."""

    async def main() -> None:
        network, four, six = RealNetwork(), Inbox(), Inbox()
        v6 = await network.open_udp(Address("::", 0), six)
        v4 = await network.open_udp(Address("0.0.0.0", v6.local.port), four)
        sender = await network.open_udp(LOCAL, nothing)
        sender.send(b"x", Address("127.0.0.1", v6.local.port))
        await four.wait(1)
        assert not six.items
        for each in (v4, v6, sender):
            each.close()

    run(main())


def test_all_of_a_burst_is_read() -> None:
    """Three wake-ups' worth of datagrams sent at once arrive, in order."""

    async def main() -> None:
        network, inbox = RealNetwork(), Inbox()
        count = 3 * BURST_DATAGRAMS
        server = await network.open_udp(LOCAL, inbox)
        client = await network.open_udp(LOCAL, nothing)
        for number in range(count):
            client.send(number.to_bytes(2, "big"), server.local)
        await inbox.wait(count)
        assert [data for data, _ in inbox.items] == [n.to_bytes(2, "big") for n in range(count)]
        client.close()
        server.close()

    run(main())


def test_close_inside_the_handler_ends_the_burst() -> None:
    """After the handler closed its socket it is not called again, whatever still waits in the buffer."""

    async def main() -> None:
        network = RealNetwork()
        seen: list[bytes] = []
        called = asyncio.Event()

        def handler(data: bytes, _source: Address) -> None:
            seen.append(data)
            server.close()
            called.set()

        server = await network.open_udp(LOCAL, handler)
        client = await network.open_udp(LOCAL, nothing)
        for number in range(5):
            client.send(bytes([number]), server.local)
        await called.wait()
        for _turn in range(10):
            await asyncio.sleep(0)
        assert seen == [b"\x00"]
        server.send(b"late", client.local)
        server.close()
        client.close()

    run(main())


def test_icmp_errors_do_not_disturb() -> None:
    """Sending to a closed port neither raises nor stops the socket from receiving."""

    async def main() -> None:
        network, inbox = RealNetwork(), Inbox()
        gone = await network.open_udp(LOCAL, nothing)
        gone.close()
        sock = await network.open_udp(LOCAL, inbox)
        for _ in range(3):
            sock.send(b"x", gone.local)
            await asyncio.sleep(0)
        sock.send(b"self", sock.local)
        await inbox.wait(1)
        assert inbox.items == [(b"self", sock.local)]
        sock.close()

    run(main())


def test_send_that_cannot_be_is_counted_and_never_raises() -> None:
    """Another family, an oversized datagram, port 0, an unroutable address and nonsense are counted as dropped."""

    async def main() -> None:
        sock = await RealNetwork().open_udp(LOCAL, nothing)
        for data, to in (
            (b"x", Address("::1", 4747)),
            (bytes(70_000), Address("127.0.0.1", 4747)),
            (b"x", Address("127.0.0.1", 0)),
            (b"x", Address("203.0.113.1", 4747)),  # a socket bound to loopback has no way out
            (b"x", Address("127.0.0.1", 70_000)),
        ):
            sock.send(data, to)
        assert sock.dropped == 5
        sock.close()

    run(main())


def test_loop_without_add_reader_still_receives(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a loop such as Windows' proactor the slower receive path takes over."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def refuse(*_args: object) -> None:
            raise NotImplementedError

        monkeypatch.setattr(loop, "add_reader", refuse)
        network, inbox = RealNetwork(), Inbox()
        server = await network.open_udp(LOCAL, inbox)
        monkeypatch.undo()
        server.send(b"x", server.local)
        await inbox.wait(1)
        server.close()
        await asyncio.sleep(0)

    run(main())


def test_uvloop_serves_alike() -> None:
    """The same sockets work on uvloop."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        network, inbox = RealNetwork(), Inbox()
        server: DatagramSocket = await network.open_udp(LOCAL, inbox)
        server.send(b"x", server.local)
        await inbox.wait(1)
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 10))


def test_tcp_stream_carries_bytes_and_ends() -> None:
    """A megabyte is echoed; the end is b"", a refused connection an OSError."""

    async def main() -> None:
        network = RealNetwork()
        tasks: list[asyncio.Task[None]] = []

        def handler(stream: TcpStream) -> None:
            tasks.append(asyncio.create_task(echo(stream)))

        async def echo(stream: TcpStream) -> None:
            while data := await stream.read(65_536):
                await stream.write(data)
            stream.close()

        port = free_tcp_port()
        cancel = await network.listen_tcp(Address("127.0.0.1", port), handler)
        with pytest.raises(OSError):  # noqa: PT011 - the port is taken
            await network.listen_tcp(Address("127.0.0.1", port), handler)
        stream = await network.connect_tcp(Address("127.0.0.1", port))
        assert stream.remote == Address("127.0.0.1", port)
        payload = bytes(range(256)) * 4096
        writing = asyncio.create_task(stream.write(payload))
        received = b""
        while len(received) < len(payload):
            received += await stream.read(65_536)
        await writing
        assert received == payload
        stream.close()
        with pytest.raises(BrokenPipeError):
            await stream.write(b"x")
        await asyncio.gather(*tasks)
        cancel()
        with pytest.raises(OSError):  # noqa: PT011 - nobody listens any more
            await network.connect_tcp(Address("127.0.0.1", port))

    run(main())


def test_resolve_knows_addresses_and_localhost_and_says_unknown() -> None:
    """An IP address stays as it is, localhost is a loopback address, nonsense is an empty list."""

    async def main() -> None:
        network = RealNetwork()
        assert await network.resolve("::FFFF:127.0.0.1", 5) == [Address("127.0.0.1", 5)]
        assert Address("127.0.0.1", 5) in await network.resolve("localhost", 5)
        assert await network.resolve("x" * 64 + ".invalid", 5) == []
        assert await network.resolve("no such host", 5) == []

    run(main())


def test_interfaces_contain_loopback() -> None:
    """The loopback interface is among those that are up, with canonical addresses."""
    by_ip = {ip: each.name for each in RealNetwork().interfaces() for ip in each.addresses}
    assert "127.0.0.1" in by_ip


def test_watch_tells_of_changes_until_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed list of interfaces leads to one call; after cancelling there is none."""

    async def main() -> None:
        network, changes = RealNetwork(), []
        loop = asyncio.get_running_loop()
        timers: list[Callable[[], None]] = []

        def call_later(_delay: float, callback: Callable[[], None], *_args: object) -> asyncio.TimerHandle:
            timers.append(callback)
            return asyncio.TimerHandle(0.0, callback, [], loop)

        monkeypatch.setattr(loop, "call_later", call_later)
        cancel = network.watch_interfaces(lambda: changes.append(1))
        timers[-1]()
        assert changes == []
        monkeypatch.setattr(network, "interfaces", list)
        timers[-1]()
        timers[-1]()
        assert changes == [1]
        cancel()
        cancel()
        monkeypatch.undo()

    asyncio.run(main())


def test_clocks_entropy_and_threads() -> None:
    """Monotonic follows the loop's clock, tokens differ, blocking work runs in another thread."""

    async def main() -> None:
        import threading

        network = RealNetwork()
        assert abs(network.monotonic() - asyncio.get_running_loop().time()) < 1
        assert network.wall() > 1_700_000_000
        assert network.token_bytes(16) != network.token_bytes(16)
        assert await network.run_blocking(threading.get_ident) != threading.get_ident()

    run(main())


MULTICAST_SCRIPT = """
import asyncio
from p2pnode.core.address import Address
from p2pnode.core.real_network import RealNetwork

async def main():
    network, group = RealNetwork(), Address("224.0.0.251", 5353)
    loop, got = asyncio.get_running_loop(), []
    done = loop.create_future()
    def take(data, source):
        got.append((data, source))
        if len(got) == 2:
            done.set_result(None)
    one = await network.open_multicast(group, take)
    two = await network.open_multicast(group, take)
    one.send(b"hello")
    await asyncio.wait_for(done, 5)
    two.refresh()
    assert got == [(b"hello", Address("127.0.0.1", 5353))] * 2, got
    stranger = await network.open_udp(Address("127.0.0.1", 0), lambda *_: None)
    stranger.send(b"unicast to the shared port", Address("127.0.0.1", 5353))
    one.close(); two.close(); stranger.close()
    one.send(b"late"); one.refresh()
    assert len(got) == 2
    print("interfaces", [each.name for each in network.interfaces()])

asyncio.run(main())
"""


@pytest.mark.namespace
@pytest.mark.slow
@pytest.mark.parametrize("flag", ["on", "off"])
def test_multicast_reaches_two_sockets_on_loopback(flag: str) -> None:
    """In a namespace with loopback alone, both sockets hear the group once, whether lo is flagged multicast or not."""
    command = require_namespaces()
    script = f'ip link set lo up multicast {flag} && exec "$0" -c "$1"'
    done = subprocess.run(
        [*command, "sh", "-c", script, sys.executable, MULTICAST_SCRIPT], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "interfaces ['lo']"


def free_tcp_port() -> int:
    """Return a loopback TCP port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
