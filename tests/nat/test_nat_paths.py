"""Connections with several paths: upgrade, death, late packets, a router that gives the acceptance another way."""

import asyncio

from support.nat_paths import joined

from p2pnode.core.address import Address
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

THERE, BY_RELAY = Address("10.0.0.2", 2000), Address("10.0.0.2", 2001)


def test_a_better_path_takes_over_and_the_other_side_follows() -> None:
    """The connection began on a relayed path; a direct one is added: both send by it after two round trips."""

    async def main(world: VirtualWorld) -> None:
        one, other = await joined(world)
        relay = await one.carrier(1001)
        await other.carrier(2001)
        connection = await one.endpoint.connect(other.peer_id, relay.path(BY_RELAY))
        server = other.endpoint.connections()[-1]
        assert server.remote == Address("10.0.0.1", 1001)
        moved: list[str] = []
        connection.on_moved = lambda before, path: moved.append(f"{before.kind} {path.kind}")
        connection.add_path(one.endpoint.path_to(THERE))
        await asyncio.sleep(2)
        assert moved == ["relay mux"]
        assert await connection.ping() > 0
        assert server.remote == Address("10.0.0.1", 1000)
        assert [path.kind for path in connection.spare_paths] == ["relay"]
        one.endpoint.close()
        other.endpoint.close()

    run_virtual(main, delay=0.04)


def test_either_side_leaves_a_dead_path_for_the_spare() -> None:
    """The socket in use is gone; who has something to send moves, within a second or so, and the other follows."""

    async def main(world: VirtualWorld) -> float:
        one, other = await joined(world)
        relay = await one.carrier(1001)
        await other.carrier(2001)
        connection, server = one.connection(), other.connection()
        connection.add_path(relay.path(BY_RELAY))
        await asyncio.sleep(2)
        assert len(server.spare_paths) == 1
        one.sockets.pop(1000).close()
        began = world.loop.time()
        assert await server.ping(timeout=4) > 0
        seconds = world.loop.time() - began
        assert connection.path.relayed
        assert server.remote == Address("10.0.0.1", 1001)
        one.endpoint.close()
        other.endpoint.close()
        return seconds

    seconds = run_virtual(main, delay=0.04)
    print(f"answered by the spare after {seconds:.2f} s")
    assert seconds < 2.5


def test_silence_calls_for_further_paths_once() -> None:
    """Half a second without an acknowledgement: `on_silent` is called, and not again until something came through."""

    async def main(world: VirtualWorld) -> None:
        one, other = await joined(world)
        connection = one.connection()
        called: list[float] = []
        connection.on_silent = lambda: called.append(world.loop.time())
        await asyncio.sleep(1)
        socket = other.sockets.pop(2000)
        socket.close()
        ping = asyncio.ensure_future(connection.ping(timeout=10))
        await asyncio.sleep(3)
        assert len(called) == 1
        await other.open(2000)
        assert await ping > 0
        one.endpoint.close()
        other.endpoint.close()

    run_virtual(main, delay=0.04)
