"""A connection follows its other side to a new address: only for genuine packets, with few unanswered ones."""

import asyncio
import contextlib

import pytest
from support.moving_peers import connected

from p2pnode.core.address import Address
from p2pnode.nat import ConnectionClosedError
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.faults import partition


def test_connection_follows_a_new_mapping() -> None:
    """The client's port changes in the middle; its next packet leads the server there, and a ping comes back."""

    async def main(world: VirtualWorld) -> None:
        one, other = await connected(world)
        await asyncio.sleep(2)
        one.socket.close()
        await one.open(1001)
        client, server = one.endpoint.connections()[0], other.endpoint.connections()[0]
        assert await client.ping() < 1
        assert server.remote == Address("10.0.0.1", 1001)
        assert await server.ping() < 1
        assert other.endpoint.moved == 1
        one.endpoint.close()
        other.endpoint.close()

    run_virtual(main)


def test_c1_copied_packets_from_elsewhere_draw_few_and_lead_back() -> None:
    """Somebody on the path sends a genuine packet from a victim's address first: ten packets at most go there."""

    async def main(world: VirtualWorld) -> None:
        one, other = await connected(world)
        await asyncio.sleep(2)
        client, server = one.endpoint.connections()[0], other.endpoint.connections()[0]
        victim = Address("10.0.0.9", 9)
        one.socket.close()  # the original is held back, its copy comes from the victim's address
        copied = len(one.sent)
        ping = asyncio.ensure_future(client.ping(timeout=4))
        await asyncio.sleep(0.01)
        data = one.sent[copied][0]
        other.endpoint.datagram_received(data, victim)
        for _ in range(50):
            server.send_datagram(bytes(100))
        await asyncio.sleep(0.9)
        drawn = sum(1 for _, to in other.sent if to == victim)
        assert server.remote == victim
        assert 0 < drawn <= 10
        await asyncio.sleep(0.5)
        await one.open(1000)
        assert await ping > 0
        assert server.remote == Address("10.0.0.1", 1000)
        print(f"C1: a copied packet drew {drawn} packets to the victim's address")
        one.endpoint.close()
        other.endpoint.close()

    run_virtual(main)


def test_replayed_or_changed_packets_from_elsewhere_do_nothing() -> None:
    """A packet that was received before, or that does not decrypt, moves nothing."""

    async def main(world: VirtualWorld) -> None:
        one, other = await connected(world)
        await asyncio.sleep(2)
        server = other.endpoint.connections()[0]
        assert await one.endpoint.connections()[0].ping() < 1
        for data in [d for d, _ in one.sent if not d[0] & 0x80]:
            other.endpoint.datagram_received(data, Address("10.0.0.9", 9))
            other.endpoint.datagram_received(data[:-1] + bytes([data[-1] ^ 1]), Address("10.0.0.9", 9))
        assert server.remote == Address("10.0.0.1", 1000)
        assert other.endpoint.moved == 0
        one.endpoint.close()
        other.endpoint.close()

    run_virtual(main)


@pytest.mark.parametrize("every_s", [0.02, 0.25, 2.0])
def test_a_dead_path_is_noticed_by_who_writes_all_the_time(every_s: float) -> None:
    """QUIC's own timer begins anew with each packet that is sent, so it never fires for small messages in a row."""

    async def main(world: VirtualWorld) -> tuple[float, float]:
        one, other = await connected(world)
        connection, loop = one.endpoint.connections()[0], asyncio.get_running_loop()
        stream = await connection.open_stream("messages/1")
        silent = loop.create_future()
        connection.on_silent = lambda: silent.done() or silent.set_result(loop.time())

        async def write() -> None:
            with contextlib.suppress(ConnectionClosedError):
                while True:
                    await stream.write(b"message")
                    await asyncio.sleep(every_s)

        writing = asyncio.ensure_future(write())
        await asyncio.sleep(5)
        assert not silent.done()
        began = loop.time()
        partition(world, [one.network], [other.network])
        await connection.wait_closed()
        lost_s = loop.time() - began
        await writing
        other.endpoint.close()
        return await silent - began, lost_s

    noticed_s, lost_s = run_virtual(main, delay=0.04)
    print(f"a message each {every_s} s: noticed after {noticed_s:.2f} s, given up after {lost_s:.2f} s")
    assert noticed_s <= 1.2 + every_s
    assert lost_s <= 6 + every_s


def test_who_only_listens_asks_ever_less_often() -> None:
    """After use: a ping after a second of silence, then at growing pauses; at last the keep-alive's."""

    async def main(world: VirtualWorld) -> list[float]:
        one, other = await connected(world)
        connection, loop = one.endpoint.connections()[0], asyncio.get_running_loop()
        await connection.ping()
        began, asked = loop.time(), list[float]()
        ping = connection._ping
        connection._ping = lambda: (asked.append(round(loop.time() - began, 1)), ping())[1]  # type: ignore[method-assign]
        await asyncio.sleep(120)
        one.endpoint.close()
        other.endpoint.close()
        return asked

    asked = run_virtual(main, delay=0.04)
    print(f"pings after {asked} s")
    assert asked[0] <= 1.2
    assert len(asked) <= 16
    assert asked[-1] - asked[-2] >= 15
