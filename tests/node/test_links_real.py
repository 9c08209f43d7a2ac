"""A TLS link between two whole nodes over the kernel's TCP on the loopback interface."""

import asyncio

from support.virtual_nodes import make_node

from p2pnode import Address, RealNetwork


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
