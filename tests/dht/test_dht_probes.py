"""Probes: a helper sends one frame to another port of ours, from its socket or from a fresh port that answers STUN."""

from __future__ import annotations

import asyncio

from support.dht_network import PUBLIC, make_network, start_node, stop_all

from p2pnode.core.address import Address
from p2pnode.dht import DhtSettings
from p2pnode.dht.probes import FRESH_S
from p2pnode.dht.wire import dialled_frame
from p2pnode.nat import StunServer
from p2pnode.nat.stun import binding_request, parse_stun_untrusted
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

NONCE = bytes(range(16))


def test_a_probe_comes_from_the_helpers_socket_or_from_a_fresh_port() -> None:
    """To the port that was named, of the address that the helper sees; nobody but a server helps."""

    async def main(world: VirtualWorld) -> None:
        helper, other = await make_network(world, 2)
        asker = await start_node(world, "5.9.0.1", DhtSettings(dial_back=False), [helper])
        got: list[tuple[bytes, Address]] = []
        await asker.network.open_udp(Address("5.9.0.1", 5000), lambda data, source: got.append((data, source)))
        plain = await asker.dht.probing.ask(helper.contact, 5000, NONCE, fresh=False, timeout=3)
        assert plain is not None
        assert (plain.observed, plain.port) == (asker.address, 0)
        assert got == [(dialled_frame(NONCE), helper.address)]
        fresh = await asker.dht.probing.ask(helper.contact, 5000, NONCE, fresh=True, timeout=3)
        assert fresh is not None
        await asyncio.sleep(1)
        assert got[1:] == [(dialled_frame(NONCE), Address(helper.address.ip, fresh.port))]
        assert fresh.port not in (0, 4747)
        client = await start_node(world, "5.9.1.1", DhtSettings(dial_back=False), [helper])
        assert await other.dht.probing.ask(client.contact, 5000, NONCE, fresh=False, timeout=1) is None
        await stop_all([helper, other, asker, client])

    run_virtual(main, delay=0.02)


def test_a_fresh_port_answers_stun_for_the_asker_only_and_not_for_long() -> None:
    """Eight answers at most, within 15 s, to no other IP address."""

    async def main(world: VirtualWorld) -> None:
        helper = await start_node(world, "5.0.0.1", PUBLIC)
        server = StunServer(lambda _data, _to: None)
        helper.dht.probing.answer = server.answer_untrusted
        asker = await start_node(world, "5.9.0.1", DhtSettings(dial_back=False), [helper])
        got: list[bytes] = []
        subject = await asker.network.open_udp(Address("5.9.0.1", 5000), lambda data, _source: got.append(data))
        stranger = await world.host("5.9.9.1").open_udp(Address("5.9.9.1", 9), lambda data, _source: got.append(data))
        probed = await asker.dht.probing.ask(helper.contact, 5000, NONCE, fresh=True, timeout=3)
        assert probed is not None
        port = Address("5.0.0.1", probed.port)
        await asyncio.sleep(0.1)
        got.clear()
        stranger.send(binding_request(bytes(12)), port)
        subject.send(b"noise", port)
        await asyncio.sleep(0.1)
        assert got == []
        for _ in range(12):
            subject.send(binding_request(bytes(12)), port)
            await asyncio.sleep(0.1)
        assert len(got) == 8
        assert parse_stun_untrusted(got[0]).mapped_address_untrusted() == Address("5.9.0.1", 5000)
        assert len(helper.network.host.udp) == 2
        await asyncio.sleep(FRESH_S)
        assert len(helper.network.host.udp) == 1
        assert helper.dht._engine.probes.fresh == 0
        await stop_all([helper, asker])

    run_virtual(main, delay=0.02)
