"""A TLS link between two whole nodes over the kernel's TCP on the loopback interface."""

import asyncio
import socket

from support.virtual_nodes import make_node

from p2pnode import Address, RealNetwork
from p2pnode.tcp_outside import TcpOutside


def test_a_session_runs_over_a_link_of_the_kernels_tcp() -> None:
    """The certificate is the node's, the DHT's hello and a session go by the link."""

    async def main() -> None:
        local = {"listen": (Address("127.0.0.1", 0),), "portmap": False}
        one = make_node(RealNetwork(), 1, role="bootstrap", **local)  # type: ignore[arg-type]
        two = make_node(RealNetwork(), 2, **local)  # type: ignore[arg-type]
        await one.start()
        await two.start()
        try:
            where = one.mux.local[0]
            assert one.links.server.listening() == (where,)
            assert await two.links.open(where.ip, where.port, one.peer_id) == where
            assert two.links.open_links() == [where]
            hello = await two.hello(where.ip, where.port)
            assert hello.peer_id == one.peer_id
            session = await two.connect(one.peer_id, addresses=[where])
            assert await session.ping() < 1
            assert str(one.session(two.peer_id).connection.remote).startswith("tcp:127.0.0.1:")  # type: ignore[union-attr]
        finally:
            await two.stop()
            await one.stop()

    asyncio.run(main())


def test_the_outside_of_a_tcp_port_is_asked_again_and_again() -> None:
    """Two at once share a connection; the same two ends can be connected again as soon as it is closed."""

    async def main() -> None:
        local = {"listen": (Address("127.0.0.1", 0),), "portmap": False}
        one = make_node(RealNetwork(), 1, role="bootstrap", **local)  # type: ignore[arg-type]
        await one.start()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        outside = TcpOutside(RealNetwork(), lambda: port, lambda frame: frame)
        try:
            for _ in range(3):
                seen = await asyncio.gather(*(outside.ask(one.mux.local[0]) for _ in range(2)))
                assert seen == [Address("127.0.0.1", port)] * 2
                await outside.stop()
        finally:
            await outside.stop()
            await one.stop()

    asyncio.run(main())
