"""Attacks found in a review of the whole: what single parts withstood, and their joints did not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import pytest
from support.chat_fakes import FakeNode, FakeWorld, Person, befriend
from support.dht_attacks import record
from support.dht_pair import WALL, World
from support.nat_peers import BareClient, make_peer

from p2pnode import BadPacket, NotFoundError, PeerId
from p2pnode.api.types import rfc3339
from p2pnode.chat import HallChanged
from p2pnode.chat import protocol as wire
from p2pnode.chat.contacts import MAX_USER_DEVICES
from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import P2PTimeoutError, RefusedError
from p2pnode.core.ids import NodeId
from p2pnode.core.keys import AccountKey
from p2pnode.dht import DhtSettings
from p2pnode.dht.contact import Contact
from p2pnode.dht.lookup import SILENT_PER_IP, Lookup
from p2pnode.dht.storage import RecordStorage
from p2pnode.lan import LanPeer
from p2pnode.lan_peers import LanPeers
from p2pnode.nat import Connection, QuicSettings
from p2pnode.nat.certificate import NodeCertificate, make_certificate
from p2pnode.nat.transport import make_configuration
from p2pnode.simulations.virtual import VirtualLoop, VirtualWorld, run_virtual
from p2pnode.state import MAX_SEEN, NodeState

# -- chat


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 10_000.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


async def greet(node: FakeNode, bob: Person, account: AccountKey, *, name: str = "m", hall: bool = False) -> object:
    """Open a stream to Bob and say Hello as a device of `account`."""
    stream = await (await node.connect(bob.node.peer_id)).open_stream(wire.CHAT_PROTOCOL)
    proof = wire.device_proof(account, node.peer_id)
    await stream.write(wire.encode(wire.Hello(1, account.user_id.raw, proof, name, hall)))
    return stream


def test_x3_a_message_dated_beyond_the_calendar_cannot_break_the_lists() -> None:
    """A `sent_at` of year 292 million would make every listing of messages fail for ever."""
    with pytest.raises(BadPacket, match="malformed"):
        wire.decode_untrusted(wire.encode(wire.TextMessage(bytes(16), False, 1, 2**63 - 1, "x"))[4:])
    last = 253_402_300_799_999
    wire.decode_untrusted(wire.encode(wire.TextMessage(bytes(16), False, 1, last, "x"))[4:])
    assert rfc3339(last / 1000).startswith("9999-12-31T23:59:59")
    assert rfc3339((2**63 - 1) / 1000).startswith("9999-12-31T23:59:59"), "in a database from before"


def test_x3_an_account_cannot_fill_memory_disk_and_outbox_with_devices() -> None:
    """300 keys that one requesting account vouches for: 23 are kept, and writing to it addresses no more."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        account = AccountKey.generate(lambda n: b"\x07" * n)
        for number in range(300):
            node = FakeNode(world, "mallory", account, device=str(number))
            node.go_up()
            stream = await greet(node, bob, account)
            if not number:
                message = wire.TextMessage(bytes(16), False, 1, 1, "hi")
                await stream.write(wire.encode(message))  # type: ignore[attr-defined]
            await asyncio.sleep(1)
            node.go_down()
        assert bob.chat.directory.state_of(account.user_id) == "request"
        assert len(bob.chat.directory.devices_of(account.user_id)) == MAX_USER_DEVICES
        assert len(bob.chat.directory._devices) == MAX_USER_DEVICES
        assert len(await bob.store.devices()) <= MAX_USER_DEVICES
        await bob.chat.post(account.user_id, "who are you?")
        assert len(await bob.store.outbox_devices()) <= MAX_USER_DEVICES

    run(main)


def test_x3_a_device_that_changes_its_account_leaves_nothing_behind() -> None:
    """One session, 500 greetings with a fresh account each: one user is remembered, not 500."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        node = FakeNode(world, "mallory")
        node.go_up()
        for number in range(500):
            account = AccountKey.generate(lambda n, number=number: number.to_bytes(n, "big"))  # type: ignore[misc]
            stream = await greet(node, bob, account)
            await asyncio.sleep(0.05)
            stream.finish()  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
        assert bob.chat.directory.user_of(node.peer_id) == account.user_id
        assert len(bob.chat.directory._by_user) == 1

    run(main)


def test_x3_greetings_under_changing_names_do_not_cost_a_commit_each() -> None:
    """A contact that greets 400 times within a minute under new names: some 30 commits, not 400."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        node = FakeNode(world, "mallory")
        node.go_up()
        await bob.chat.add_contact(node.user_id)
        before = bob.store.database.commits
        for number in range(400):
            stream = await greet(node, bob, node.account, name=f"m{number}")
            await asyncio.sleep(0.05)
            stream.finish()  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
        commits = bob.store.database.commits - before
        print(f"{commits} commits for 400 greetings")
        assert commits <= 40
        assert bob.chat.directory.name_of(node.peer_id) == "m399"

    run(main)


def test_x3_a_new_device_of_a_blocked_user_is_sent_away() -> None:
    """Its first greeting shows whose it is: the session ends, nothing is written down."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        account = AccountKey.generate(lambda n: b"\x08" * n)
        await bob.chat.block(account.user_id)
        node = FakeNode(world, "mallory", account, device="new")
        node.go_up()
        await greet(node, bob, account)
        await asyncio.sleep(1)
        assert node.session(bob.node.peer_id) is None
        assert bob.chat.drops["blocked"] == 1
        assert await bob.store.devices() == []

    run(main)


def test_x3_entering_and_leaving_the_hall_in_a_loop_is_noticed_ten_times() -> None:
    """1,000 pairs of Members and Leave on one stream: ten entries, not a thousand lines and transactions."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        node = FakeNode(world, "mallory")
        node.go_up()
        stream = await greet(node, bob, node.account)
        pair = wire.encode(wire.Members([])) + wire.encode(wire.Leave())
        for _ in range(20):
            await stream.write(pair * 50)  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        assert len(bob.of_type(HallChanged)) <= 2 * 11
        assert bob.chat.drops["hall_too_often"] > 900

    run(main)


def test_x3_a_name_with_a_tilde_takes_nobodys_place() -> None:
    """Whoever types a name with the end of an id means that id, not a stranger who calls himself so."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        node = FakeNode(world, "mallory")
        node.go_up()
        await greet(node, bob, node.account, name="alice~7x2k9q")
        await asyncio.sleep(1)
        with pytest.raises(NotFoundError):
            bob.chat.resolve("alice~7x2k9q")

    run(main)


def test_x3_message_ids_and_acks_of_others_change_nothing() -> None:
    """Carol repeats the id of Alice's message and acknowledges it: both messages are kept, Bob's stays queued."""

    async def main(world: FakeWorld) -> None:
        bob, alice, carol = [await Person(world, name).start() for name in ("bob", "alice", "carol")]
        await befriend(bob, alice)
        await befriend(bob, carol)
        seen = (await alice.chat.send(bob.node.user_id, "from alice")).id
        alice.node.go_down()
        queued = await bob.chat.send(alice.node.user_id, "to alice", wait=0.1)
        await carol.chat.send(bob.node.user_id, "hello", wait=5.0)
        stream = await greet(carol.node, bob, carol.node.account)
        forged = wire.TextMessage(bytes.fromhex(seen), False, 1, 1, "from carol")
        await stream.write(wire.encode(forged))  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        assert "from alice" in await bob.texts(alice.node.user_id)
        assert "from carol" in await bob.texts(carol.node.user_id)
        link = bob.chat.links.get(carol.node.peer_id)
        session = bob.node.session(carol.node.peer_id)
        assert session is not None
        link._answer(session, wire.Ack([bytes.fromhex(queued.id)]), 0.0)
        assert (await bob.store.message(queued.id)).state == "queued"

    run(main)


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
        mallory.endpoint._server_configuration = make_configuration(
            client=False, alpn=mallory.endpoint.alpn, idle_timeout_s=60.0, initial_rtt_s=0.1,
            certificate=NodeCertificate(der=shown.der, pem=shown.pem, key_pem=own.key_pem),
        )  # fmt: skip
        with pytest.raises(RefusedError):
            await alice.endpoint.connect(bob.key.peer_id, mallory.address, timeout=3.0)
        assert mallory.endpoint.connections() == []

    run_virtual(main)


# -- DHT


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


def test_c1_a_lookup_sends_few_queries_to_an_address_that_never_answers() -> None:
    """C1: a liar names a victim under 60 ids and ports: 4 queries go there, and the lookup still ends, and finds."""
    lookup = Lookup(NodeId(bytes(20)), own_id=NodeId(b"\xff" * 20), ksize=20, alpha=6, max_queries=160, diverse=True)

    def contact(number: int, address: Address) -> Contact:
        return Contact(NodeId(number.to_bytes(20, "big")), address, Realm.PUBLIC)

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
    state = NodeState(None)
    devices = bytes(32) + b"devices"
    assert state.accept_seq(devices, 5)
    for number in range(10_000):
        assert state.accept_seq(number.to_bytes(32, "big") + b"presence/public", 1)
    assert not state.accept_seq(devices, 4), "the older list would be a revoked device's way back"
    assert len(state._file.seen_seq) <= MAX_SEEN


def test_r2_a_liar_cannot_raise_our_sequence_beyond_use() -> None:
    """R2: "I hold seq 2^63-1" is not believed; what a clock wrong by hours makes, is."""
    state, wall = NodeState(None), 1_700_000_000.0
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
            network=network, peer_id=PeerId(bytes([9] * 32)), name="", network_tag=bytes(8),
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
