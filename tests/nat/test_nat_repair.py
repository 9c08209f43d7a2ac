"""Repair packets: what a burst lost is made anew, and congestion still shows."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.nat_paths import Side

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.nat import PROBE, Stream
from p2pnode.nat.repair import GROUP, REPAIR, RepairReceiver, RepairSender, repair_frames
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

TAG = bytes(range(8))


def burst(count: int, *, last: int = 1_200, seed: int = 1) -> list[bytes]:
    """Packets with short headers of one connection, as good as random behind the id."""
    rng = random.Random(seed)
    return [bytes([0x40]) + bytes(8) + rng.randbytes((last if n == count - 1 else 1_200) - 9) for n in range(count)]


def receiver(*packets: bytes) -> RepairReceiver:
    made = RepairReceiver()
    for packet in packets:
        made.keep(packet, len(packet))
    return made


@pytest.mark.parametrize("count", [4, 5, 16, 20])
@pytest.mark.parametrize("last", [1_200, 40])
def test_any_one_packet_of_a_group_is_made_anew(count: int, last: int) -> None:
    packets = burst(count, last=last)
    before, behind = burst(9, seed=2), burst(9, seed=3)
    frames = repair_frames(TAG, packets)
    assert len(frames) == (2 if count == 20 else 1)
    assert max(map(len, frames)) <= 1_232  # what every path must carry, less the headers of IP and UDP
    assert all(frame.startswith(bytes((PROBE, REPAIR)) + TAG) for frame in frames)
    for lost in range(count):
        there = receiver(*before, *packets[:lost], *packets[lost + 1 :], *behind)
        made = [there.missing_untrusted(frame, 0.0) for frame in frames]
        assert made == [packets[lost] if lost // GROUP == n else None for n in range(len(frames))]


def test_packets_that_came_together_are_told_apart() -> None:
    packets = burst(10, last=77)
    there = RepairReceiver()
    there.keep(b"".join(packets[:4]), 1_200)
    there.keep(b"".join(packets[5:]), 1_200)
    (frame,) = repair_frames(TAG, packets)
    assert there.missing_untrusted(frame, 0.0) == packets[4]


def test_what_lacks_nothing_or_two_packets_is_left_alone() -> None:
    packets = burst(16)
    (frame,) = repair_frames(TAG, packets)
    assert receiver(*packets).missing_untrusted(frame, 0.0) is None
    for one in range(16):
        for other in range(one):
            left = [packet for n, packet in enumerate(packets) if n not in (one, other)]
            assert receiver(*left).missing_untrusted(frame, 0.0) is None
    assert RepairReceiver().missing_untrusted(frame, 0.0) is None


def test_more_than_one_packet_in_a_hundred_is_not_repaired() -> None:
    """Else a queue that overflows would never be heard of."""
    there, repaired, came = RepairReceiver(), 0, 0
    for seed in range(300):
        packets = burst(10, seed=seed)
        for packet in packets[1:]:
            there.keep(packet, len(packet))
        came += 9
        repaired += there.missing_untrusted(repair_frames(TAG, packets)[0], 0.0) is not None
    assert 0.9 * came / 100 <= repaired <= came / 100 + 6
    assert repaired == there.repaired


def test_packets_are_kept_only_while_repair_packets_come() -> None:
    there = RepairReceiver()
    assert not there.keeps(0.0)
    packets = burst(5)
    (frame,) = repair_frames(TAG, packets)
    there.missing_untrusted(frame, 0.0)
    assert there.keeps(29.0)
    there.keep(b"".join(packets[:4]), 1_200)
    assert not there.keeps(31.0)
    assert there.missing_untrusted(frame, 31.0) is None  # forgotten


@pytest.mark.parametrize("frame", [b"", bytes(20), bytes(12), bytes((PROBE, REPAIR)) + bytes(400)])
def test_what_is_no_repair_packet_is_refused(frame: bytes) -> None:
    with pytest.raises(BadPacket):
        RepairReceiver().missing_untrusted(frame, 0.0)


def sent(sender: RepairSender, lost: int, now: float, *, rtt_s: float = 0.001, packets: int = 16) -> int:
    return len(sender.frames(burst(packets), lost, rtt_s, TAG, now))


def test_repair_packets_follow_losses_as_long_as_these_are_few() -> None:
    sender = RepairSender(0.0)
    assert sent(sender, 0, 1.0) == 0
    assert sent(sender, 1, 2.0) == 1
    assert sent(sender, 1, 31.0) == 1
    assert sent(sender, 1, 33.0) == 0
    for n in range(100):  # one in ten: the way is full
        last = sent(sender, 1 + 2 * n, 40.0 + n / 100)
    assert last == 0
    for n in range(400):
        last = sent(sender, 200, 42.0 + n / 100)
    assert last == 1


def test_a_long_way_is_guarded_from_the_beginning_and_messages_are_not() -> None:
    sender = RepairSender(0.0)
    assert sent(sender, 0, 1.0, rtt_s=0.04) == 1
    assert sent(sender, 0, 31.0, rtt_s=0.04) == 0
    sender = RepairSender(0.0)
    assert [sent(sender, 0, 1 + n / 1_000, rtt_s=0.04, packets=1) for n in range(8)] == [0, 0, 0, 1] * 2
    assert [sent(sender, 0, 2 + n / 10, rtt_s=0.04, packets=1) for n in range(8)] == [0] * 8


class Plain(Side):
    """A side whose repair packets do not leave."""

    def write(self, port: int, data: bytes, to: Address) -> None:
        if data[:2] != bytes((PROBE, REPAIR)):
            super().write(port, data, to)


def transfer(kind: type[Side], loss: float, seed: int) -> tuple[float, int, int]:
    """Return seconds for 3 MB over 20 ms one way, losses that QUIC saw, repairs."""

    async def main(world: VirtualWorld) -> tuple[float, int, int]:
        one, other = kind(world.host("10.0.0.1"), 1), Side(world.host("10.0.0.2"), 2)
        await one.open(1000)
        await other.open(2000)
        connection = await one.endpoint.connect(other.peer_id, Address("10.0.0.2", 2000))
        await asyncio.sleep(0.2)
        world.loss = loss
        came = bytearray()
        taking = asyncio.Event()
        size = 3_000_000

        async def take() -> None:
            name, stream = await arrived
            assert name == "bulk"
            while data := await stream.read():
                came.extend(data)
            taking.set()

        arrived: asyncio.Future[tuple[str, Stream]] = asyncio.get_running_loop().create_future()
        other.connection().on_stream = lambda _connection, name, stream: arrived.set_result((name, stream))
        task = asyncio.ensure_future(take())
        began = world.loop.time()
        stream = await connection.open_stream("bulk")
        data = random.Random(seed).randbytes(size)
        await stream.write(data)
        stream.finish()
        await taking.wait()
        await task
        seconds = world.loop.time() - began
        assert came == data
        return seconds, connection.transport.lost, other.connection()._repairs.repaired

    return run_virtual(main, delay=0.02, seed=seed, keep_trace=False)


@pytest.mark.slow
def test_a_transfer_with_one_loss_in_three_hundred_goes_on_as_without() -> None:
    """Less than half of the losses show, and it takes less than half of the time."""
    with_them = [transfer(Side, 0.003, seed) for seed in range(3)]
    without = [transfer(Plain, 0.003, seed) for seed in range(3)]
    print(with_them, without)
    assert all(repaired > 0 for _, _, repaired in with_them)
    assert not any(repaired for _, _, repaired in without)
    assert sum(lost for _, lost, _ in with_them) < sum(lost for _, lost, _ in without) / 2
    assert sum(seconds for seconds, _, _ in with_them) < sum(seconds for seconds, _, _ in without) / 2


def test_attack_m1_forged_repair_packets_change_nothing() -> None:
    """The tag travels in clear: who is on the way can make such packets. What comes of them is no packet of QUIC's."""

    async def main(world: VirtualWorld) -> None:
        one, other = Side(world.host("10.0.0.1"), 1), Side(world.host("10.0.0.2"), 2)
        await one.open(1000)
        await other.open(2000)
        connection = await one.endpoint.connect(other.peer_id, Address("10.0.0.2", 2000))
        await asyncio.sleep(0.2)
        there = other.connection()
        heard = bytearray()

        async def take(stream: Stream) -> None:
            while data := await stream.read():
                heard.extend(data)

        tasks: list[asyncio.Task[None]] = []
        there.on_stream = lambda _connection, _name, stream: tasks.append(asyncio.ensure_future(take(stream)))
        stream = await connection.open_stream("bulk")
        tag = there.path_tag
        assert tag is not None
        rng = random.Random(1)
        source = Address("10.0.0.1", 1000)
        for n in range(200):
            await stream.write(bytes([n]) * 1_000)
            await asyncio.sleep(0.005)
            seen = [data for _, data, _ in one.sent[-6:] if data[0] != PROBE and len(data) > 100] or burst(1)
            forged = [*seen, *burst(5, seed=n)]
            for frame in repair_frames(tag, forged):
                other.endpoint.probe_received(frame, source)
                other.endpoint.probe_received(frame[: rng.randrange(len(frame))], source)
                other.endpoint.probe_received(frame, Address("10.0.0.66", 66))
        stream.finish()
        await asyncio.sleep(1)
        await asyncio.gather(*tasks)
        assert heard == b"".join(bytes([n]) * 1_000 for n in range(200))
        assert not there.closed
        assert there._repairs.repaired <= 5 + len(one.sent) / 50
        assert len(there._repairs._kept) <= 512

    run_virtual(main, delay=0.02)
