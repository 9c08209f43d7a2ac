"""A connection follows its other side to a new address: only for genuine packets, with few unanswered ones."""

import asyncio

from support.moving_peers import connected

from p2pnode.core.address import Address
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


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
