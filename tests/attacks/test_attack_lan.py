"""L1: hostile multicast on the LAN. Everything is bounded, counted by reason, and nothing raises."""

from __future__ import annotations

import asyncio
import gc
import random
import time
import tracemalloc
from collections import Counter

import pytest
from support.lan import TAG, Member, Stranger, announcement, key

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.lan_machine import MAX_PEERS, MAX_SOURCES, REPORT_BURST, TOTAL_BURST, LanMachine
from p2pnode.lan_wire import (
    MAX_ADDRESSES,
    MAX_DATAGRAM_BYTES,
    SERVICE,
    Announcement,
    encode_announcement,
    encode_query,
    instance_of,
    read_untrusted,
)
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

OWN = key(1).peer_id
HEADER = bytes.fromhex("000084000000000100000000")  # an answer with one record
NAME = b"\x08_p2pnode\x04_udp\x05local\x00"


def machine(seed: int = 1) -> LanMachine:
    own = Announcement(OWN, TAG, 0, "own", (Address("10.0.0.1", 4747),))
    return LanMachine(OWN, TAG, lambda: own, random.Random(seed))


def reason_of(data: bytes) -> str | None:
    """Return why `data` is refused; None when it is read. Anything but BadPacket escapes and fails the test."""
    try:
        read_untrusted(data)
    except BadPacket as exc:
        return exc.reason
    return None


def raw_answer(instance: bytes, txt: bytes, port: int = 4747, address: bytes = bytes([10, 0, 0, 2])) -> bytes:
    """Build an answer by hand: SRV, TXT and one address record, uncompressed."""
    host = b"\x04host\x05local\x00"
    srv = bytes(4) + port.to_bytes(2, "big") + host

    def record(name: bytes, kind: int, data: bytes) -> bytes:
        return (
            name
            + kind.to_bytes(2, "big")
            + b"\x80\x01"
            + (120).to_bytes(4, "big")
            + len(data).to_bytes(2, "big")
            + data
        )

    records = [
        record(instance, 33, srv),
        record(instance, 16, txt),
        record(host, 1 if len(address) == 4 else 28, address),
    ]
    return bytes.fromhex("0000840000000003") + bytes(4) + b"".join(records)


def txt_of(*entries: bytes) -> bytes:
    return b"".join(bytes([len(each)]) + each for each in entries)


def own_label(number: int) -> bytes:
    label = instance_of(key(number).peer_id).partition(".")[0].encode()
    return bytes([len(label)]) + label + NAME


def good_txt(number: int) -> list[bytes]:
    return [b"v=1", f"id={key(number).peer_id}".encode(), b"net=" + TAG.hex().encode()]


def test_l1_random_bytes_are_refused_and_counted() -> None:
    """20,000 random datagrams, a half with our service name inside, lead to refusals and nothing else."""
    rng = random.Random(1)
    reasons: Counter[str | None] = Counter()
    for number in range(20_000):
        data = rng.randbytes(rng.randint(0, 300))
        if number % 2:
            data = (
                bytes([0, 0, rng.choice((0, 0x84)), 0, 0, rng.randint(0, 2), 0, rng.randint(0, 4)]) + data + NAME + data
            )
        reasons[reason_of(data)] += 1
    print(f"L1 random bytes: {dict(reasons)}")
    assert reasons[None] == 0


def test_l1_every_truncation_of_a_valid_announcement_is_refused() -> None:
    """No prefix of a valid announcement counts as one with other contents; most are refused."""
    whole = announcement(2, "10.0.0.2", "10.0.0.3", "fd00::2")
    expected = read_untrusted(whole)
    assert expected is not None
    reasons: Counter[str | None] = Counter()
    for length in range(len(whole)):
        reasons[reason_of(whole[:length])] += 1
        if reason_of(whole[:length]) is None:
            # Only addresses are missing: those records stand last, and each is complete in itself.
            read = read_untrusted(whole[:length])
            assert read is not None
            assert read.addresses == expected.addresses[: len(read.addresses)]
            assert read.peer_id == expected.peer_id
    print(f"L1 truncations of {len(whole)} bytes: {dict(reasons)}")
    assert reasons[None] < len(whole) / 4


def test_l1_every_flipped_byte_is_refused_or_still_names_a_matching_key() -> None:
    """Whatever one byte becomes, what is read carries an id that fits its instance name, or it is refused."""
    whole = announcement(2, "10.0.0.2", "fd00::2")
    reasons: Counter[str | None] = Counter()
    rng = random.Random(2)
    for position in range(len(whole)):
        for value in {whole[position] ^ 0xFF, whole[position] ^ 1, 0, 0xC0, rng.randrange(256)}:
            data = whole[:position] + bytes([value]) + whole[position + 1 :]
            reason = reason_of(data)
            reasons[reason] += 1
            if reason is None:
                read = read_untrusted(data)
                assert read is None or read.peer_id == key(2).peer_id
    print(f"L1 flipped bytes: {dict(reasons)}")
    assert sum(count for reason, count in reasons.items() if reason) > len(whole)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (HEADER + b"\xc0\x0c" + bytes(10) + NAME, "malformed"),  # a pointer to itself
        (HEADER + b"\xc0\x0e\xc0\x0c" + bytes(10) + NAME, "malformed"),  # two that point at each other
        (HEADER + b"\x01a\xc0\x0c" + bytes(10) + NAME, "malformed"),  # grows with each round
        (HEADER + b"\xff\xff" + bytes(10) + NAME, "malformed"),  # beyond the datagram
        (HEADER + b"\x80\x01" + NAME, "malformed"),  # an unknown kind of label
        (HEADER + b"".join(b"\xc0" + bytes([i + 2]) for i in range(12, 250, 2)) + NAME, "incomplete"),  # a long chain
        (HEADER + b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 5 + NAME, "malformed"),  # a name of 400 bytes
        (bytes.fromhex("0000840000 00ffffffffffff".replace(" ", "")) + NAME, "malformed"),  # 196,605 records promised
        (HEADER + NAME, "malformed"),
        (b"", "foreign"),
        (b"\x00" * 12, "foreign"),
        (announcement(2, "10.0.0.2") + bytes(MAX_DATAGRAM_BYTES), "too_long"),
    ],
)
def test_l1_compression_loops_and_false_counts(data: bytes, reason: str) -> None:
    """Names that point in circles, beyond the end, or grow without end cost nothing and are refused."""
    started = time.process_time()
    assert reason_of(data) == reason
    assert time.process_time() - started < 0.25


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (raw_answer(own_label(2), txt_of(*good_txt(2))), None),
        (raw_answer(own_label(3), txt_of(*good_txt(2))), "wrong_instance"),  # another's name
        (raw_answer(own_label(2), txt_of(*good_txt(2)[1:])), "bad_version"),
        (raw_answer(own_label(2), txt_of(b"v=2", *good_txt(2)[1:])), "bad_version"),
        (raw_answer(own_label(2), txt_of(b"v=1")), "bad_id"),
        (raw_answer(own_label(2), txt_of(b"v=1", b"id=12D3KooW\xff")), "bad_id"),
        (raw_answer(own_label(2), txt_of(b"v=1", b"id=" + b"1" * 250)), "bad_id"),
        (raw_answer(own_label(2), txt_of(*good_txt(2)[:2], b"net=xyz")), "bad_txt"),
        (raw_answer(own_label(2), txt_of(*good_txt(2)[:2], b"net=\xff")), "bad_txt"),
        (raw_answer(own_label(2), txt_of(*good_txt(2), b"p6=0")), "bad_txt"),
        (raw_answer(own_label(2), txt_of(*good_txt(2), b"p6=65536")), "bad_txt"),
        (raw_answer(own_label(2), txt_of(*good_txt(2), b"p6=-1")), "bad_txt"),
        (raw_answer(own_label(2), txt_of(*good_txt(2), b"k0=x@nowhere")), "bad_txt"),
        (raw_answer(own_label(2), txt_of(*good_txt(2), b"k0=x@10.0.0.1:1")), "bad_id"),
        (raw_answer(own_label(2), txt_of(*good_txt(2)) + b"\xff"), "bad_txt"),  # an entry longer than the record
        (raw_answer(own_label(2), txt_of(*good_txt(2), *(b"x%d=1" % i for i in range(20)))), "bad_txt"),
        (raw_answer(own_label(2), txt_of(*good_txt(2)), port=0), "bad_address"),
    ],
)
def test_l1_each_refusal_of_contents(data: bytes, reason: str | None) -> None:
    """Each field of an announcement that is wrong has its own reason."""
    assert reason_of(data) == reason


def test_l1_nodes_and_addresses_in_one_announcement_are_bounded() -> None:
    """More addresses than 8 are cut; several nodes in one datagram are refused."""
    ips = [f"10.0.0.{i}" for i in range(1, 60)]
    whole = announcement(2, *ips)
    read = read_untrusted(whole)
    assert read is not None
    assert len(read.addresses) == MAX_ADDRESSES
    one, two = raw_answer(own_label(2), txt_of(*good_txt(2))), raw_answer(own_label(3), txt_of(*good_txt(3)))
    both = bytes.fromhex("0000840000000006") + bytes(4) + one[12:] + two[12:]
    assert reason_of(both) == "many_nodes"


@pytest.mark.slow
def test_l1_ten_thousand_announcements_from_many_forged_ids() -> None:
    """A flood from 10,000 forged sources in one second: work, memory and questions asked stay bounded."""
    rng = random.Random(3)
    template = announcement(2, "10.0.0.2")
    keys = [key(100 + number).peer_id for number in range(2_000)]
    datagrams = [encode_announcement(Announcement(each, TAG, 150, "", (Address("10.0.0.2", 4747),))) for each in keys]
    target = machine()
    reported = 0
    tracemalloc.start()
    held_before = tracemalloc.get_traced_memory()[0]
    started = time.process_time()
    for number in range(10_000):
        source = Address(f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}", 5353)
        reported += target.receive(datagrams[number % 2_000], source, number / 10_000, ["10.0.0.1"]) is not None
    seconds = time.process_time() - started
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - held_before
    tracemalloc.stop()
    counts = target.statistics()
    print(
        f"L1 flood: 10,000 announcements of 2,000 ids in 1 s: {counts}; {reported} questions; {seconds:.2f} s CPU; "
        f"holds {held // 1024} KiB"
    )
    assert counts["peers"] <= MAX_PEERS
    assert counts["sources"] <= MAX_SOURCES
    assert held < 1024 * 1024
    assert counts["announcements_in"] <= TOTAL_BURST + 110
    assert reported <= REPORT_BURST + 25
    assert counts["dropped_rate"] + counts["announcements_in"] == counts["datagrams_in"] == 10_000
    # An hour later the node is as good as new.
    assert target.receive(template, Address("10.0.0.2", 5353), 3_600, ["10.0.0.1"]) is not None
    target.start(3_600)
    target.tick(3_600)
    assert target.statistics()["peers"] == 1


@pytest.mark.slow
def test_l1_one_loud_host_does_not_push_others_out() -> None:
    """A host that announces a thousand ids, slowly enough, loses its own entries first; ten honest ones stay."""
    target = machine()
    honest = [announcement(number, f"10.0.0.{number}") for number in range(2, 12)]
    for number, data in enumerate(honest, 2):
        assert target.receive(data, Address(f"10.0.0.{number}", 5353), 0.0, ["10.0.0.1"]) is not None
    for number in range(1_000):
        forged = announcement(1_000 + number, "10.0.0.66")
        target.receive(forged, Address("10.0.0.66", 5353), number / 10, ["10.0.0.1"])
    kept = {peer.source.ip for peer in target.peers().values()} - {"10.0.0.66"}
    counts = target.statistics()
    print(f"L1 one loud host: {len(kept)} of 10 honest entries stay, {counts['peers']} in all, {counts}")
    assert len(kept) == 10
    assert counts["peers"] == MAX_PEERS
    # And they are still heard while the loud host sends at full speed.
    for _ in range(5_000):
        target.receive(announcement(1_001, "10.0.0.66"), Address("10.0.0.66", 5353), 101.0, ["10.0.0.1"])
    assert target.receive(honest[0], Address("10.0.0.2", 5353), 101.0, ["10.0.0.1"]) is not None


@pytest.mark.slow
def test_l1_questions_cannot_make_a_node_shout() -> None:
    """A thousand questions a second get at most one answer a second (RFC 6762 section 6)."""

    async def main(world: VirtualWorld) -> int:
        alice = Member(world.host("10.0.0.1"), 1)
        stranger = await Stranger(world.host("10.0.0.2")).start()
        await alice.discovery.start()
        await asyncio.sleep(10)
        before = len(world.trace)
        for _ in range(10_000):
            stranger.send(encode_query(key(2).peer_id))
            await asyncio.sleep(0.001)
        sent = [e for e in world.trace[before:] if e.source.ip == "10.0.0.1"]
        print(f"L1 10,000 questions in 10 s: {len(sent)} answers, {alice.discovery.statistics()}")
        return len(sent)

    assert run_virtual(main) <= 11


@pytest.mark.slow
def test_l1_hostile_multicast_does_not_stop_honest_nodes_from_meeting() -> None:
    """While a stranger floods the group with rubbish from one address, two nodes still find each other."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = Member(world.host("10.0.0.1"), 1), Member(world.host("10.0.0.2"), 2)
        stranger = await Stranger(world.host("10.0.0.66")).start()
        rng = random.Random(4)

        async def flood() -> None:
            while True:
                stranger.send(rng.randbytes(100) + b"\x08_p2pnode")
                stranger.send(announcement(rng.randrange(10, 400), "10.0.0.66"))
                await asyncio.sleep(0.002)

        flooding = asyncio.create_task(flood())
        await asyncio.sleep(2)
        await alice.discovery.start()
        await bob.discovery.start()
        await asyncio.sleep(3)
        flooding.cancel()
        assert bob.id in {peer.peer_id for peer in alice.found}
        assert alice.id in {peer.peer_id for peer in bob.found}
        print(f"L1 1,000 datagrams/s of rubbish: {alice.discovery.statistics()}")

    run_virtual(main)


def test_l1_other_services_do_not_use_up_the_rates() -> None:
    """The mDNS of printers is dropped before it counts: 10,000 such datagrams leave room for an announcement."""
    target = machine()
    for _ in range(10_000):
        target.receive(HEADER + b"\x04_ipp\x04_tcp\x05local\x00", Address("10.0.0.2", 5353), 0.0, ["10.0.0.1"])
    assert target.receive(announcement(2, "10.0.0.2"), Address("10.0.0.2", 5353), 0.0, ["10.0.0.1"]) is not None
    assert target.statistics()["dropped_foreign"] == 10_000


def test_l1_name_of_a_peer_is_harmless_to_show() -> None:
    """Control characters and bidi overrides in the announced name do not reach whoever shows it."""
    hostile = "\x1b[31mal\u202eice\x00/"
    read = read_untrusted(raw_answer(own_label(2), txt_of(*good_txt(2), b"n=" + hostile.encode() + b"\xff\xfe")))
    assert read is not None
    assert not any(ord(c) < 32 or c in "\u202e/" for c in read.name)
    assert SERVICE not in read.name
