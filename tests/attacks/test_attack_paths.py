"""C1, A1, T2, R1, M1: packets and path probes with forged sources, copied, held back, handed over by a relay."""

import asyncio
from collections.abc import Sequence

from support.moving_peers import Peer, connected

from p2pnode.core.address import Address
from p2pnode.nat import PROBE, Path, PathKind
from p2pnode.nat.path_choice import FIRST_PROBES_S, MAX_PATHS
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

VICTIM = "10.0.9.9"


class Relay:
    """A carrier that hands each side's datagrams to the other, and keeps what it saw."""

    kind: PathKind = "relay"
    peer = None

    def __init__(self, at: str, to: Peer) -> None:
        self.path = Path(Address(at, 9), self)
        self.to = to
        self.other: Relay | None = None
        self.seen: list[bytes] = []

    def send(self, data: bytes, to: Address) -> None:
        del to
        self.seen.append(data)
        asyncio.get_running_loop().call_later(0.02, self.deliver, data)

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        for data in datagrams:
            self.send(data, to)

    def deliver(self, data: bytes) -> None:
        assert self.other is not None
        arrived = self.other.path
        take = self.to.endpoint.probe_received if data[0] == PROBE else self.to.endpoint.datagram_received
        take(data, arrived.remote, arrived.carrier)


def relay_between(one: Peer, other: Peer) -> tuple[Relay, Relay]:
    """Return the flows of the two, through 10.0.0.3."""
    first, second = Relay("10.0.0.3", other), Relay("10.0.0.3", one)
    first.other, second.other = second, first
    return first, second


def stop(*peers: Peer) -> None:
    for peer in peers:
        peer.endpoint.close()


def test_a1_who_has_the_keys_cannot_aim_a_session_at_a_victim() -> None:
    """A client writes a victim's address on all that it sends, and acknowledges what it never got: the victim gets no
    more than ten packets and three times what the client sent."""

    async def main(world: VirtualWorld) -> None:
        one, other = await connected(world)
        await asyncio.sleep(2)
        client, server = one.endpoint.connections()[0], other.endpoint.connections()[0]
        victim, home, loop = Address(VICTIM, 9), Address("10.0.0.2", 2000), asyncio.get_running_loop()
        paid = drawn = 0

        def forged(data: bytes, _: Address) -> None:
            nonlocal paid
            paid += len(data)
            if data[0] != PROBE:
                loop.call_later(0.02, other.endpoint.datagram_received, data, victim)

        def sent(data: bytes, to: Address) -> None:
            nonlocal drawn
            if to == victim:
                drawn += len(data)
                if data[0] != PROBE:  # acknowledgements could be guessed as well, a probe's number could not
                    loop.call_later(0.02, one.endpoint.datagram_received, data, home)

        one.socket.close()
        one.socket.send = forged  # type: ignore[method-assign]
        other.socket.send = sent  # type: ignore[method-assign]
        stream = await client.open_stream("flood/1")
        await stream.write(b"send me all")
        await asyncio.sleep(0.1)

        async def write() -> None:
            answer = await server.open_stream("flood/1")
            for _ in range(200):
                await answer.write(bytes(10_000))

        writing = asyncio.ensure_future(write())
        await asyncio.sleep(5)
        writing.cancel()
        print(f"A1: a forged source drew {drawn} bytes to the victim for {paid}")
        assert server.remote == victim
        assert drawn <= 3 * paid + 10 * 1200
        stop(one, other)

    run_virtual(main)


def test_c1_a_copied_probe_draws_few_packets_to_others() -> None:
    """The same probe, seen once, from 5,000 forged addresses within 50 s: few are answered and probed."""

    async def main(world: VirtualWorld) -> None:
        one, other = await connected(world)
        await asyncio.sleep(2)
        client = one.endpoint.connections()[0]
        client.add_path(Path(Address("10.0.0.2", 2001), client.path.carrier))
        await asyncio.sleep(0.05)
        probe = next(data for data, _ in one.sent if data[0] == PROBE)
        before = len(other.sent)
        for number in range(5_000):
            other.endpoint.probe_received(probe, Address(VICTIM, 1024 + number))
            await asyncio.sleep(0.01)
        drawn = [len(data) for data, to in other.sent[before:] if to.ip == VICTIM]
        print(f"C1: 5,000 copies of a probe drew {len(drawn)} datagrams, {sum(drawn)} bytes for {5_000 * len(probe)}")
        learnt = MAX_PATHS + 50 * MAX_PATHS / 30
        assert len(drawn) <= learnt * (1 + len(FIRST_PROBES_S))
        assert sum(drawn) < 5_000 * len(probe)
        assert await client.ping() < 1
        stop(one, other)

    run_virtual(main)


def test_t2_a_relay_cannot_pass_itself_off_as_a_direct_path() -> None:
    """It hands both sides' relayed probes and packets over from its own address: neither side takes that for better."""

    async def main(world: VirtualWorld) -> None:
        one, other = await connected(world)
        flow, back = relay_between(one, other)
        client, server = one.endpoint.connections()[0], other.endpoint.connections()[0]
        client.add_path(flow.path)
        server.add_path(back.path)
        await asyncio.sleep(2)
        at = Address("10.0.0.3", 4747)
        for data in list(flow.seen):
            if data[0] == PROBE:
                other.endpoint.probe_received(data, at)
        await asyncio.sleep(1)
        assert not [to for _, to in other.sent if to == at]
        assert other.endpoint.statistics().dropped["other_way"] > 0
        stop(one, other)

    run_virtual(main)


def test_r1_m1_what_a_relay_held_back_or_replays_moves_nothing() -> None:
    """A relay keeps ten packets for itself, and all others in copy. The session has moved on to a direct path and is
    idle; then the relay delivers all of them, twice: what QUIC still waits for is taken, and neither side moves."""

    async def main(world: VirtualWorld) -> None:
        one, other = await connected(world)
        flow, back = relay_between(one, other)
        client, server = one.endpoint.connections()[0], other.endpoint.connections()[0]
        direct = client.path
        client.add_path(flow.path)
        server.add_path(back.path)
        await asyncio.sleep(2)
        moves: list[str] = []
        for name, connection in (("client", client), ("server", server)):
            connection.on_moved = lambda _, path, name=name: moves.append(f"{name} to {path}")  # type: ignore[misc]

        client.take_path(flow.path)
        await client.ping()
        await asyncio.sleep(0.9)  # after a second of silence it pings, by the path that it would rather have
        assert server.path == back.path
        delivering, held = flow.deliver, []
        flow.deliver = held.append  # type: ignore[method-assign,assignment]
        for _ in range(10):
            client.take_path(flow.path)  # it would rather have the direct one
            client._ping()
            client._schedule_flush()
            await asyncio.sleep(0.01)
        client.take_path(direct)
        client._ping()  # answered by a mere ACK, which is not acknowledged: QUIC still waits for what is missing
        client._schedule_flush()
        await asyncio.sleep(2)
        flow.deliver = delivering  # type: ignore[method-assign]
        assert server.path.remote == Address("10.0.0.1", 1000)
        packets = [data for data in held if data[0] != PROBE]
        assert len(packets) >= 10
        assert set(moves[-2:]) == {f"client to {direct}", f"server to {server.path}"}

        moves.clear()
        received = server.bytes_received
        for _ in range(2):
            for data in [*held, *flow.seen]:
                flow.deliver(data)
                await asyncio.sleep(0.1)
            for data in list(back.seen):
                back.deliver(data)
                await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        taken = server.bytes_received - received
        copied = len(flow.seen) + len(back.seen)
        print(f"R1, M1: of {len(held)} held back {taken} bytes were new; they and {copied} copied: {len(moves)} moves")
        assert moves == []
        assert taken > 0
        assert await client.ping() < 1
        stop(one, other)

    run_virtual(main)


def test_c1_a_path_that_was_followed_in_vain_is_left_again() -> None:
    """Packets of the other side come through somebody who cannot answer probes: after two seconds it goes back."""

    async def main(world: VirtualWorld) -> None:
        one, other = await connected(world)
        await asyncio.sleep(2)
        client, server = one.endpoint.connections()[0], other.endpoint.connections()[0]
        somebody, loop = Address("10.0.0.3", 9), asyncio.get_running_loop()
        straight = other.socket.send

        def back(data: bytes, to: Address) -> None:
            if to != somebody:
                straight(data, to)
            elif data[0] != PROBE:
                loop.call_later(0.02, one.endpoint.datagram_received, data, Address("10.0.0.2", 2000))

        other.socket.send = back  # type: ignore[method-assign]
        sending = one.socket.send

        def there(data: bytes, to: Address) -> None:
            if data[0] == PROBE:
                sending(data, to)
            else:
                loop.call_later(0.02, other.endpoint.datagram_received, data, somebody)

        one.socket.send = there  # type: ignore[method-assign]
        assert await client.ping() < 1
        assert server.remote == somebody
        await asyncio.sleep(3)
        assert server.remote == Address("10.0.0.1", 1000)
        stop(one, other)

    run_virtual(main)


def test_paths_of_a_wandering_peer_are_bounded() -> None:
    """It goes on from another address each second, and answers everywhere: twelve paths are remembered."""

    async def main(world: VirtualWorld) -> None:
        one, other = await connected(world)
        client, server = one.endpoint.connections()[0], other.endpoint.connections()[0]
        for port in range(1001, 1041):
            await asyncio.sleep(1.1)
            one.socket.close()
            await one.open(port)
            await client.ping()
            assert server.remote.port == port
        assert len(server.known_paths) <= MAX_PATHS
        stop(one, other)

    run_virtual(main)
