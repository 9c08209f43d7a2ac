"""Attacks found in a review: sessions, DHT, node. See test_attack_review.py for the chat."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine

import pytest
from support.dht_attacks import ELSEWHERE, pair, record
from support.dht_pair import WALL, World
from support.nat_peers import BareClient, make_peer

from p2pnode import PeerId
from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import P2PError, P2PTimeoutError, RefusedError
from p2pnode.core.ids import NodeId
from p2pnode.dht import DhtSettings
from p2pnode.dht.contact import Contact
from p2pnode.dht.lookup import SILENT_PER_IP, Lookup
from p2pnode.dht.messages import DialBackAccepted, DialFor, FindNode, Ping, Pong, encode
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.storage import RecordStorage
from p2pnode.dht.wire import SEALED, SIGNED_REQUEST, sealed_answer_text
from p2pnode.dht.writing import OWN_PREFIX
from p2pnode.dial_pace import DialPace
from p2pnode.dialing import Dialer, OnFound
from p2pnode.lan import LanPeer
from p2pnode.lan_peers import LanPeers
from p2pnode.nat import Connection, QuicSettings
from p2pnode.nat.certificate import NodeCertificate, make_certificate
from p2pnode.nat.path import MuxCarrier, Path
from p2pnode.nat.transport import Configurations
from p2pnode.presence import FindResult
from p2pnode.sessions import SessionTable
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.state import MAX_SEEN, NodeState

# -- sessions


def test_t3_many_keys_from_one_network_do_not_take_all_sessions() -> None:
    """T3: 12 proven connections of one /24 fill the table of 8; peers from elsewhere get in, nobody else loses."""

    async def main(world: VirtualWorld) -> None:
        bob = await make_peer(world, "20.0.0.2", settings=QuicSettings(max_connections=8))
        honest = await make_peer(world, "20.1.0.1")
        first = await honest.endpoint.connect(bob.key.peer_id, bob.address)
        sybils: list[Connection] = []
        for number in range(12):
            mallory = await make_peer(world, f"20.9.9.{number + 1}")
            try:
                sybils.append(await mallory.endpoint.connect(bob.key.peer_id, bob.address))
            except RefusedError:
                continue
        assert len(bob.endpoint.connections()) == 8
        for number in range(3):
            late = await make_peer(world, f"20.{number + 2}.0.1")
            connection = await late.endpoint.connect(bob.key.peer_id, bob.address)
            await asyncio.sleep(0.1)
            assert not connection.closed
        assert len(bob.endpoint.connections()) == 8
        assert not first.closed
        assert sum(not sybil.closed for sybil in sybils) == 4

    run_virtual(main)


def test_t3_half_open_handshakes_of_four_networks_do_not_lock_others_out() -> None:
    """T3: real addresses, tokens included, that never send a proof hold every place; a real client displaces one."""

    async def main(world: VirtualWorld) -> None:
        settings = QuicSettings(retry_above=2, max_unproven=16, max_unproven_per_prefix=4)
        bob = await make_peer(world, "20.0.0.2", settings=settings)
        for number in range(24):
            client = await BareClient.open(world, f"20.9.{number % 4}.{number + 1}", bob)
            client.connect()
        await asyncio.sleep(0.5)
        assert bob.endpoint.statistics().unproven == 16
        alice = await make_peer(world, "20.0.0.1")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address, timeout=2.0)
        assert connection.peer == bob.key.peer_id
        assert bob.endpoint.statistics().dropped["unproven_displaced"] == 1

    run_virtual(main, delay=0.01)


def test_v1_streams_refused_for_their_header_are_forgotten_at_their_end() -> None:
    """V1: a bad header first, the end of the stream later: 300 of them leave nothing behind."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        other = await bob.first_incoming()
        handle = connection._handle
        connection._handle = lambda event: None  # type: ignore[method-assign]  # Mallory heeds no STOP_SENDING
        for _ in range(300):
            stream_id = connection.transport.next_stream_id()
            assert stream_id is not None
            connection.stream_write(stream_id, b"\x00", False)
            await asyncio.sleep(0.001)
            connection.stream_write(stream_id, b"x", True)
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        connection._handle = handle  # type: ignore[method-assign]
        assert bob.endpoint.statistics().dropped["bad_stream_header"] == 300
        assert len(other._refused) == 0

    run_virtual(main)


def test_m1_a_copied_certificate_without_its_key_is_refused() -> None:
    """M1: Mallory shows Bob's certificate and signs the handshake with another key: no session, no proof is sent."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        mallory = await make_peer(world, "10.0.0.3")
        own, shown = make_certificate(mallory.key, world.rng.randbytes), bob.endpoint._certificate
        copied = NodeCertificate(der=shown.der, pem=shown.pem, key_pem=own.key_pem)
        mallory.endpoint._configurations = Configurations(mallory.endpoint.alpn, 60.0, 0.1, copied)
        with pytest.raises(RefusedError):
            await alice.endpoint.connect(bob.key.peer_id, mallory.address, timeout=3.0)
        assert mallory.endpoint.connections() == []

    run_virtual(main)


# -- DHT


def test_a1_a_guessed_counter_proves_no_address() -> None:
    """A1: told that Mallory, with whom she has keys, is at a victim's address, Alice asks there in a signed request.

    A sealed one Mallory could answer from a forged source without having seen it: the next counter is known to her.
    """
    world, mallory, alice = pair()
    world.introduce(mallory, alice)
    session = mallory.engine.keyring.for_sending(alice.key.node_id, world.now)
    assert session is not None
    sent = alice.engine.keyring.for_sending(mallory.key.node_id, world.now)._sent  # type: ignore[union-attr]
    alice.engine.call(
        ELSEWHERE, mallory.key.node_id, FindNode(NodeId(bytes(20))), now=world.now, wall=world.wall,
        on_done=lambda _: None,
    )  # fmt: skip
    data, _, to = world.wire.pop()
    assert to == ELSEWHERE
    assert data[0] == SIGNED_REQUEST
    guess = (sent + 1).to_bytes(8, "big")
    alice.receive(session.seal(sealed_answer_text(7, guess, encode(Pong(alice.address.pack())))), ELSEWHERE)
    proven = alice.engine.keyring.for_sending(mallory.key.node_id, world.now)
    assert proven is not None
    assert ELSEWHERE not in proven.paths
    assert all(contact.address != ELSEWHERE for contact in alice.members.tables[Overlay.PUBLIC_IPV4])
    mallory.ask(alice, Ping())
    assert world.wire.pop()[0][0] == SEALED, "proven addresses still cost no signature"


def test_p1_no_address_shares_the_account_of_our_own_records() -> None:
    """P1: prefixes have 3 or 6 bytes; b"own" would be 111.119.110.0/24."""
    assert len(OWN_PREFIX) not in (3, 6)


def test_p1_updates_that_grow_stay_within_the_quota() -> None:
    """P1: a store full of empty records is not grown by half through longer updates of them."""
    settings = DhtSettings(storage_bytes=200_000)
    peer = World().peer("5.0.0.1")
    storage = RecordStorage(peer.tag, settings)
    salts = [number.to_bytes(4, "big") for number in range(200)]
    held = [salt for salt in salts if not storage.store(record(peer, 1, b"", salt), Realm.PUBLIC, b"bad", 0.0, WALL)]
    assert len(held) < 200
    for salt in held:
        storage.store(record(peer, 2, b"x" * 800, salt), Realm.PUBLIC, b"bad", 0.0, WALL)
    assert storage.bytes <= settings.storage_bytes
    assert len(storage) == len(held), "whom there was no room for keeps what he had"
    last = held[-1]
    assert storage.store(record(peer, 3, b"", last), Realm.PUBLIC, b"bad", 0.0, WALL) is None, "shorter ones always fit"
    assert storage.bytes == sum(entry.size for _, entry in storage)


def test_c1_many_keys_of_one_network_do_not_use_up_the_dial_backs() -> None:
    """C1: 20 keys in one /24 order 400 dials; a helper from elsewhere is still dialled for."""
    world = World()
    dialler, honest = world.peer("5.0.1.1"), world.peer("5.0.2.1")
    frames: list[Address] = []
    dialler.engine.dial_backs.dial = lambda _data, to: frames.append(to)
    world.introduce(honest, dialler)
    for number in range(20):
        hostile = world.peer(f"5.66.0.{number + 1}")
        world.introduce(hostile, dialler)
        for dial in range(20):
            hostile.ask(dialler, DialFor(Address(f"5.{number + 70}.{dial}.1", 53).pack(), bytes(16)))
            world.run()
    assert len(frames) <= 21
    outcomes = honest.ask(dialler, DialFor(Address("5.9.0.1", 4747).pack(), bytes(16)))
    world.run()
    assert isinstance(outcomes[0].answer, DialBackAccepted)
    assert frames[-1] == Address("5.9.0.1", 4747)


def test_c1_a_lookup_sends_few_queries_to_an_address_that_never_answers() -> None:
    """C1: a liar names a victim under 60 ids and ports: 4 queries go there, and the lookup still ends, and finds."""
    lookup = Lookup(NodeId(bytes(20)), own_id=NodeId(b"\xff" * 20), ksize=20, alpha=6, max_queries=160, diverse=True)

    def contact(number: int, address: Address) -> Contact:
        return Contact(NodeId(number.to_bytes(20, "big")), address, Overlay.PUBLIC_IPV4)

    liar = contact(10_000, Address("5.0.0.1", 4747))
    victims = [contact(number, Address("9.9.9.9", 1000 + number)) for number in range(1, 61)]
    honest = [contact(1000 + number, Address(f"5.0.{number}.1", 4747)) for number in range(1, 31)]
    crowded = [contact(2000 + number, Address("5.1.1.1", 4000 + number)) for number in range(1, 11)]
    lookup.add([liar])
    assert lookup.next_queries() == [liar]
    lookup.answered(liar, [*victims, *honest, *crowded])
    to_victim = 0
    while queries := lookup.next_queries():
        for query in queries:
            if query.address.ip == "9.9.9.9":
                to_victim += 1
                lookup.late(query)
                lookup.failed(query)
            else:
                lookup.answered(query, [])
    assert lookup.finished
    assert to_victim <= SILENT_PER_IP
    assert len(lookup.closest()) == 20


# -- node


def test_v3_thousands_of_presences_do_not_push_a_device_record_out() -> None:
    """V3: the highest `seq` of a device list stays remembered while strangers make us look for 10,000 nodes."""
    state = NodeState(None, os.urandom)
    devices = bytes(32) + b"devices"
    assert state.accept_seq(devices, 5)
    for number in range(10_000):
        assert state.accept_seq(number.to_bytes(32, "big") + b"presence/public", 1)
    assert not state.accept_seq(devices, 4), "the older list would be a revoked device's way back"
    assert len(state._file.seen_seq) <= MAX_SEEN


def test_r2_a_liar_cannot_raise_our_sequence_beyond_use() -> None:
    """R2: "I hold seq 2^63-1" is not believed; what a clock wrong by hours makes, is."""
    state, wall = NodeState(None, os.urandom), 1_700_000_000.0
    state.raise_seq(b"s", 2**63 - 1, wall)
    assert state.next_seq(b"s", wall) == int(wall * 1000)
    ahead = int((wall + 3600) * 1000)
    state.raise_seq(b"s", ahead, wall)
    assert state.next_seq(b"s", wall) == ahead + 1


def test_l1_forged_announcements_of_one_host_leave_room_for_others() -> None:
    """L1: 200 ids at silent addresses, said by one host: a neighbour is proven within 20 s."""

    async def main(world: VirtualWorld) -> None:
        network = world.host("10.0.0.2")
        seen: list[PeerId] = []
        tasks: set[asyncio.Task[None]] = set()

        class SlowDht:
            async def hello(self, address: Address, *, expect: PeerId) -> None:
                if address.ip != "10.0.0.1":
                    await asyncio.sleep(3)
                    raise P2PTimeoutError("silence")

            async def bootstrap(self, _contacts: object) -> None: ...

        def spawn(work: Coroutine[None, None, None]) -> None:
            tasks.add(asyncio.ensure_future(work))

        peers = LanPeers(
            enabled=True, network=network, peer_id=PeerId(bytes([9] * 32)), name="", network_tag=bytes(8),
            dht=SlowDht(),  # type: ignore[arg-type]  # what is asked of it
            own_addresses=list, usable=lambda _: True, seen=lambda event: seen.append(event.peer), spawn=spawn,
        )  # fmt: skip
        for number in range(200):
            addresses = tuple(Address(f"10.0.{number}.{last}", 1) for last in range(10, 14))
            peers._found(LanPeer(PeerId(bytes([7, number] * 16)), addresses, Address("10.0.0.66", 5353)))
        honest = PeerId(bytes([3] * 32))
        peers._found(LanPeer(honest, (Address("10.0.0.1", 4747),), Address("10.0.0.1", 5353)))
        assert len(peers._waiting) == 65
        await asyncio.sleep(20)
        assert seen == [honest]
        await asyncio.gather(*tasks)

    run_virtual(main)


def test_c1_dials_to_an_address_where_nobody_answers_are_paced() -> None:
    """C1: 256 addresses of one host, told by a hall member: 16 dials, then one per 10 s, until the peer is there."""

    async def main(world: VirtualWorld) -> None:
        pace, host = DialPace(), "20.9.9.9"
        assert sum(pace.take(Address(host, port), 0.0) for port in range(1, 257)) == 16
        assert sum(pace.take(Address(host, port), 60.0) for port in range(1, 257)) == 6
        assert all(pace.take(Address("192.168.1.9", port), 0.0) for port in range(1, 100)), "our own network"
        pace.reached(Address(host, 1))
        assert pace.take(Address(host, 2), 60.0)
        for number in range(5_000):
            pace.take(Address(f"20.{number % 250}.{number // 250}.1", 1), 60.0)
        assert len(pace) <= 1024
        dialled: list[Address] = []

        class DeafEndpoint:
            mux = MuxCarrier(lambda _data, _to: None)

            def path_to(self, address: Address) -> Path:
                return Path(address, self.mux)

            async def connect(self, peer: PeerId, path: Path, **_: object) -> Connection:
                dialled.append(path.remote)
                raise P2PTimeoutError("silence")

        async def find(peer: PeerId, _timeout: float, _on_found: OnFound) -> FindResult:
            addresses = tuple(Address(host, 1000 + port) for port in range(8))
            return FindResult(peer, True, 1.0, addresses, "", None, 1, 0.1)

        sessions = SessionTable(
            PeerId(bytes([9] * 32)), world.host("20.0.0.1"), 300.0,
            serve=lambda _: None, opened=lambda _: None, ended=lambda _session, _reason: None,
        )  # fmt: skip
        dialer = Dialer(
            endpoint=DeafEndpoint(), sessions=sessions, find=find, local_addresses=lambda _: (),  # type: ignore[arg-type]
            usable=lambda _: True, allow_documentation=False,
        )  # fmt: skip
        for number in range(64):
            with pytest.raises(P2PError):
                await dialer.connect(PeerId(bytes([number] * 31 + [3])), [], 5.0)
        assert len(dialled) == 16

    run_virtual(main)
