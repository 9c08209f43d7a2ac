"""Attacks on topics (security.md P1, P2, A1, R1): floods of fresh keys, forged and replayed entries, memory, lies."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from typing import Any

import msgspec
import pytest
from support.dht_attacks import ELSEWHERE, captured, entry, pair, record, signed
from support.dht_network import DhtNode, make_network, stop_all
from support.dht_pair import SERVING, WALL
from support.dht_topics import CHESS, announce_all, announcers, values

from p2pnode.core.address import Realm
from p2pnode.core.ids import _load
from p2pnode.core.keys import NodeKey, SigningKey
from p2pnode.core.network_id import network_tag
from p2pnode.dht import DhtSettings, TopicEntry, topic_id
from p2pnode.dht.messages import Announce, Error, ErrorCode, ListTopic, Put, Stored, TopicPage, encode
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.topic_entries import MAX_DEPTH, Shard, _signature_holds
from p2pnode.dht.topics import PREFIX_SHARE, SIGNER_ENTRIES, TopicStorage
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

TAG = network_tag("public")
ROOT = Shard(0, 0, CHESS)


class Flood:
    """Entries of fresh keys, for a storage whose signatures are not the point: they are checked as always."""

    def __init__(self, storage: TopicStorage) -> None:
        self.storage, self.rng = storage, random.Random(7)
        self.codes: Counter[object] = Counter()

    def add(self, prefix: bytes, topic: bytes = CHESS, depth: int = 0, realm: Realm = Realm.PUBLIC) -> bytes:
        key = SigningKey(self.rng.randbytes(32))
        said = TopicEntry.sign(key, TAG, topic, 1, int(WALL) + 900, b"x")
        refusal = self.storage.store(Shard.of(topic, depth, key.public_raw), said, realm, prefix, 0.0, WALL)
        self.codes[refusal[0] if refusal else None] += 1
        return key.public_raw

    def held(self) -> Counter[bytes]:
        groups = self.storage._groups.values()
        return Counter(kept.prefix for group in groups for kept in group.kept.values())


def test_attack_p2_fresh_keys_from_one_block_push_nobody_out_of_a_topic() -> None:
    """600 keys from one /24, before and after 60 honest signers: all of these are held; the flood has what is left."""
    flood = Flood(TopicStorage(TAG, SERVING))
    for _ in range(300):
        flood.add(b"bad")
    honest = [flood.add(b"h%02d" % number) for number in range(60)]
    for _ in range(300):
        flood.add(b"bad")
    group = flood.storage._groups[Realm.PUBLIC, ROOT]
    print(f"P2: one /24 holds {flood.held()[b'bad']} of 128 places beside 60 honest signers; {dict(flood.codes)}")
    assert all(key in group.kept for key in honest)
    assert len(group.kept) == 128
    assert flood.codes[ErrorCode.DEEPER] == 0
    assert group.split_until < 0  # and no reader is sent after it


@pytest.mark.parametrize(("blocks", "splits"), [(8, False), (31, False), (64, True)])
def test_attack_p2_fresh_keys_from_many_blocks(blocks: int, splits: bool) -> None:
    """From fewer than 32 /24s honest signers always get in; from more the tree grows, and they go one deeper."""
    flood = Flood(TopicStorage(TAG, SERVING))
    for number in range(6 * blocks):
        flood.add(b"b%02d" % (number % blocks))
    honest = [flood.add(b"h%03d" % number) for number in range(100)]
    root = flood.storage._groups[Realm.PUBLIC, ROOT].kept
    got_in = sum(key in root for key in honest)
    room = 128 - min(blocks * PREFIX_SHARE, 128)
    print(f"P2: {blocks} /24s: {got_in} of 100 honest signers in the first shard, the others one deeper")
    assert got_in == min(room, 100)
    assert (flood.codes[ErrorCode.DEEPER] > 0) is (got_in < 100)
    below = [flood.add(b"h%03d" % number, depth=1) for number in range(100)]
    assert all(any(key in group.kept for group in flood.storage._groups.values()) for key in below)
    assert splits is (got_in == 0)


def test_attack_p2_a_wide_ipv6_prefix_is_one_attacker() -> None:
    """An IPv6 /32 of 65,536 /48s weighs as much as a few of them: honest signers get in."""
    flood = Flood(TopicStorage(TAG, SERVING))
    for number in range(300):
        flood.add(bytes.fromhex("2a00bad0") + number.to_bytes(2, "big"))
    honest = [flood.add(bytes.fromhex("2a010000") + number.to_bytes(2, "big")) for number in range(12)]
    honest += [flood.add(b"h%02d" % number) for number in range(80)]
    root = flood.storage._groups[Realm.PUBLIC, ROOT].kept
    print(f"P2: an IPv6 /32 holds {128 - len(honest)} of 128 places beside {len(honest)} honest signers")
    assert all(key in root for key in honest)


def test_attack_p1_topics_have_a_quota_of_their_own_and_memory_stays_flat() -> None:
    """2,400 keys from 300 /24s in 300 topics: bytes stay within the quota, the estimate is true, records are untouched.

    A single /24 that comes later finds its 256 places at the expense of nobody lighter.
    """
    settings = DhtSettings(serve=frozenset(Realm), topic_bytes=800_000)
    topics = [topic_id(str(number)) for number in range(300)]
    tracemalloc.start()
    flood = Flood(TopicStorage(TAG, settings))
    before = tracemalloc.get_traced_memory()[0]
    sizes = []
    for number in range(2_400):
        flood.add(b"b%03d" % (number % 300), topics[number * 7 % 300])
        if number % 800 == 799:
            _load.cache_clear()
            _signature_holds.cache_clear()
            sizes.append(tracemalloc.get_traced_memory()[0] - before)
    tracemalloc.stop()
    storage = flood.storage
    print(f"P1: {len(storage)} entries, {storage.held_bytes} bytes by our count, measured after 800 each: {sizes}")
    assert storage.held_bytes <= settings.topic_bytes
    assert max(sizes) < 1.1 * settings.topic_bytes
    assert sizes[2] < 1.05 * sizes[1]
    spread = flood.held()
    assert max(spread.values()) <= 2 * min(spread.values())
    for _ in range(100):
        flood.add(b"late", topics[0], depth=MAX_DEPTH)
    assert flood.held()[b"late"] <= max(spread.values()) + 1
    storage.expire(10_000.0)
    assert (len(storage), storage.held_bytes, storage.shards, len(storage._signers)) == (0, 0, 0, 0)
    assert len(storage._accounts) == 0


def test_attack_p1_one_signer_fills_no_node() -> None:
    """One key in 100 topics has 64 entries on one node."""
    storage = TopicStorage(TAG, SERVING)
    key = NodeKey.generate(random.Random(1).randbytes)
    codes = []
    for number in range(100):
        topic = topic_id(str(number))
        said = TopicEntry.sign(key, TAG, topic, 1, int(WALL) + 900, b"x")
        codes.append(storage.store(Shard.of(topic, 0, key.public_raw), said, Realm.PUBLIC, b"abc", 0.0, WALL))
    assert (len(storage), codes.count((ErrorCode.FULL, 0))) == (SIGNER_ENTRIES, 100 - SIGNER_ENTRIES)


def test_attack_p1_announcements_need_a_token_and_a_signature_for_this_topic_and_network() -> None:
    """Wrong token, forged, stolen, for another topic or network, far or past `expires`, lower `seq`: refused."""
    world, a, b = pair()
    world.introduce(a, b)

    def announce(said: TopicEntry, topic: bytes = CHESS, depth: int = 0, token: bytes | None = None) -> object:
        shard = Shard.of(topic, depth, said.public_key)
        token = b.service._tokens.issue(a.address.pack(), shard.key, world.now) if token is None else token
        outcomes = a.ask(b, Announce(token, topic, depth, said))
        world.run()
        answer = outcomes[0].answer
        return answer.code if isinstance(answer, Error) else type(answer)

    good = entry(a, CHESS, seq=5)
    other_shard = b.service._tokens.issue(a.address.pack(), Shard.of(CHESS, 1, good.public_key).key, world.now)
    elsewhere = b.service._tokens.issue(ELSEWHERE.pack(), ROOT.key, world.now)
    for token in (bytes(8), other_shard, elsewhere):
        assert announce(good, token=token) == ErrorCode.BAD_TOKEN
    foreign = TopicEntry.sign(a.key, network_tag("other"), CHESS, 5, int(WALL) + 900, b"here")
    for bad in (
        msgspec.structs.replace(good, value=b"forged"), msgspec.structs.replace(good, seq=6),
        msgspec.structs.replace(good, expires=good.expires + 1), foreign, entry(a, topic_id("checkers")),
        msgspec.structs.replace(good, public_key=b.key.public_raw), msgspec.structs.replace(good, public_key=bytes(32)),
    ):  # fmt: skip
        assert announce(bad) == ErrorCode.BAD_RECORD
    for late in (entry(a, CHESS, expires=3_600 + 301), entry(a, CHESS, expires=-301)):
        assert announce(late) == ErrorCode.EXPIRES
    assert len(b.topics) == 0
    assert announce(good) is Stored
    assert announce(good) is Stored
    assert announce(entry(a, CHESS, seq=4)) == announce(entry(a, CHESS, seq=5, value=b"two")) == ErrorCode.LOWER_SEQ
    assert announce(entry(a, CHESS, seq=6, value=b"")) is Stored  # withdrawn
    assert announce(good) == ErrorCode.LOWER_SEQ  # and not to be brought back
    b.members.set_serving(Overlay.PUBLIC_IPV4, False)
    assert announce(entry(a, CHESS, seq=7)) == ErrorCode.NOT_SERVING
    assert len(b.topics) == 1


@pytest.mark.parametrize("length", [1, 200])
def test_attack_a1_listing_a_topic_amplifies_nothing(length: int) -> None:
    """A full shard is listed to an unproven address in no more bytes than came: three entries at most, or none."""
    world, a, b = pair()
    for number in range(100):
        key = NodeKey.generate(random.Random(number).randbytes)
        said = entry(b, CHESS, value=bytes(length), key=key)
        assert b.topics.store(ROOT, said, Realm.PUBLIC, b"p%d" % number, world.now, WALL) is None
    request = ListTopic(CHESS, 0, 0, bytes(8), bytes(8))
    frames = [captured(world, a, b, request), signed(a, b.key.node_id, encode(request), size=0)]
    world.introduce(a, b)
    frames.append(captured(world, a, b, request))
    for frame in frames:
        b.receive(frame, ELSEWHERE)
        out = sum(len(data) for data, _, _ in world.wire)
        print(f"A1: ListTopic of entries with {length} bytes: in {len(frame)}, out {out}")
        assert out <= len(frame)
        world.wire.clear()
    outcomes = a.ask(b, request)
    sizes = []
    while world.wire:
        sizes.append(len(world.deliver()[0]))
    page = outcomes[0].answer
    assert isinstance(page, TopicPage)
    assert (page.held, page.more, len(page.entries)) == (100, True, {1: 10, 200: 3}[length])
    assert max(sizes) <= 1_200


def test_attack_r1_a_reader_believes_no_holder_that_lies() -> None:
    """Two of the holders return forged entries, others' entries, endless or unordered pages: readers see the truth."""
    good = announcers(6)
    stranger = NodeKey.generate(random.Random(99).randbytes)

    def liar(node: DhtNode, kind: int) -> None:
        answerer, service = node.dht._engine._answerer, node.dht._engine._answerer._service
        honest = service.respond

        def respond(request: Any, **facts: Any) -> bytes:
            if not isinstance(request, ListTopic):
                return honest(request, **facts)
            wall = int(facts["wall"])
            forged = TopicEntry(good[0].public_raw, 2**60, wall + 900, b"forged", bytes(64))
            other = TopicEntry.sign(stranger, TAG, topic_id("other"), 1, wall + 900, b"other topic")
            genuine = TopicEntry.sign(stranger, TAG, request.topic, 1, wall + 900, b"unordered")
            entries = [(forged,), (other,), (genuine, genuine), ()][kind]
            return encode(TopicPage(bytes(6), 9, True, True, entries))

        answerer._service.respond = respond  # type: ignore[method-assign]

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 12, DhtSettings(serve=frozenset(Realm), ksize=8))
        await announce_all(nodes[8:], good)
        for kind in range(4):
            liar(nodes[kind], kind)
        for reader in nodes[8:]:
            for sample in (False, True):
                result = await reader.dht.topic(CHESS, sample=sample)
                assert values(result) <= {b"player %d" % number for number in range(6)}
                assert sample or len(result.entries) == 6
                assert result.shards < 40
        drops = Counter[str]()
        for node in nodes[8:]:
            drops.update(node.dht.statistics().drops)
        print(f"R1: four liars among twelve nodes; dropped {dict(drops)}")
        assert drops["bad_entry_signature"] >= 1
        await stop_all(nodes)

    run_virtual(main, seed=6, delay=0.02)


def test_attack_v1_a_topic_entry_is_no_record_and_the_reverse() -> None:
    """Bytes of one message in the other's place: malformed, with nothing stored."""
    world, a, b = pair()
    world.introduce(a, b)
    said = entry(a, CHESS)
    for payload in (
        msgspec.msgpack.encode([4, bytes(8), msgspec.msgpack.decode(encode(said))]),
        msgspec.msgpack.encode([11, CHESS, 3, 8, bytes(8), bytes(8)]),  # only eight shards at depth 3
        msgspec.msgpack.encode([11, CHESS, MAX_DEPTH + 1, 0, bytes(8), bytes(8)]),
        encode(Put(bytes(8), record(a))).replace(b"\x93\x04", b"\x93\x0a"),
    ):
        before = b.state()
        b.receive(signed(a, b.key.node_id, payload), ELSEWHERE)
        assert b.state()[2:] == before[2:]
    assert b.drops["malformed"] == 4


def test_attack_p2_a_large_topic_has_room_below_for_a_crowded_block_but_not_for_its_flood() -> None:
    """Where others made the tree grow, a block that has its share may follow them; the flood of one grows no tree."""
    flood = Flood(TopicStorage(TAG, SERVING))
    for number in range(140):
        flood.add(b"h%03d" % number)
    crowded = [flood.add(b"cgn") for _ in range(20)]
    assert not any(key in flood.storage._groups[Realm.PUBLIC, ROOT].kept for key in crowded)
    assert flood.codes[ErrorCode.FULL] == 0
    before = flood.codes[ErrorCode.DEEPER]
    for _ in range(600):
        flood.add(b"cgn", depth=1)
    shards = [Shard(1, index, CHESS) for index in (0, 1)]
    groups = [flood.storage._groups[Realm.PUBLIC, shard] for shard in shards]
    assert all(group.split_until < 0 for group in groups)
    assert flood.codes[ErrorCode.DEEPER] == before
    honest = [flood.add(b"n%03d" % number, depth=1) for number in range(100)]
    print(f"P2: below a full shard one block fills {[len(group.kept) for group in groups]}; 100 others then get in")
    assert all(any(key in group.kept for group in groups) for key in honest)
