"""T1, T2, M1, A1 (relay): limits and fair shares, a relay that dies or throttles, what it sees."""

import asyncio
import random
from typing import Any

import pytest
from support.street import ONE_WAY_S, Street, reach, street
from support.transfer import Receiver, send_file

from p2pnode import Node, Session
from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.relay_table import RelaySettings, RelayTable
from p2pnode.relay_wire import SEND
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


def table_of(**settings: Any) -> RelayTable:
    return RelayTable(RelaySettings(**settings), random.Random(7).randbytes)


def node_id(number: int) -> bytes:
    return number.to_bytes(20, "big")


def pair(table: RelayTable, number: int, at: Address, to: Address, now: float) -> int:
    """Open both sides of a flow; return the number of the first."""
    one, other = node_id(2 * number), node_id(2 * number + 1)
    first = table.open(one, other, at, 100, now)
    assert first is not None
    second = table.open(other, one, to, 100, now)
    assert second is not None
    assert second.paired
    assert second.told == (first.flow, at)
    return first.flow


def test_t1_ten_thousand_flows_of_one_block_take_its_share_only() -> None:
    """One /24 under ever new ids gets 128 sides, one id 32; others open theirs, also when 80 blocks have filled it."""
    table = table_of()
    opened = 0
    for number in range(10_000):
        at = Address("6.6.6.6", 1024 + number % 60_000)
        opened += table.open(node_id(number + 1), node_id(99_999), at, 100, number * 0.01) is not None
    now = 100.0
    assert opened <= 300  # leases end meanwhile, and places are taken again
    assert table.statistics().flows == 128
    one = sum(
        table.open(node_id(1 << 40), node_id(n), Address("7.7.7.7", 1), 100, now + n / 5) is not None for n in range(90)
    )
    assert one == 32
    for block in range(80):
        for number in range(20):
            at = Address(f"8.{block}.0.1", number + 1)
            table.open(node_id(1_000_000 + 100 * block + number), node_id(5), at, 120, now + 0.5 * block)
    print(f"T1: {opened} of 10,000 opened by one /24, {table.statistics()}")
    assert table.statistics().flows == 1024
    pair(table, 7_000_000, Address("5.5.5.5", 5), Address("5.4.4.4", 4), now + 41)


def test_t1_sides_that_move_into_one_block_are_held_to_its_limit() -> None:
    """Opened from eight blocks, renewed from one: 128 go there, the others stay where they are until they end."""
    table = table_of()
    opened = [number for number in range(400) if at_block(table, number, f"9.{number % 8}.0.1", 0.1 * number)]
    moved = sum(at_block(table, number, "9.77.0.1", 50.0) for number in opened)
    print(f"T1: {len(opened)} sides of eight blocks, {moved} moved into one")
    assert len(opened) == 400
    assert moved == 128
    assert table.statistics().refused == {"too_many": 272}


def at_block(table: RelayTable, number: int, ip: str, now: float) -> bool:
    return table.open(node_id(10 + number), node_id(5), Address(ip, 1 + number), 120, now) is not None


def test_t1_full_speed_leaves_others_their_share() -> None:
    """One floods with 20 MB/s, three blocks send 300 kB/s each: these lose nothing, the flood gets its limit."""
    table = table_of()
    flows = [(pair(table, n, Address(f"9.{n}.0.1", 9), Address(f"9.{n}.9.9", 9), 0.0), f"9.{n}.0.1") for n in range(4)]
    rates = [20e6, 3e5, 3e5, 3e5]
    passed = [0, 0, 0, 0]
    offered = [0, 0, 0, 0]
    owed = [0.0] * 4
    for tick in range(10_000):  # ten seconds
        now = 0.001 * tick
        for i, (flow, ip) in enumerate(flows):
            owed[i] += rates[i] * 0.001
            while owed[i] >= 1200:
                owed[i] -= 1200
                offered[i] += 1200
                try:
                    table.forward_untrusted(flow, bytes(1200), Address(ip, 9), now)
                    passed[i] += 1200
                except BadPacket as bad:
                    assert bad.reason == "over_rate"
    print(f"T1: offered {[o // 10 for o in offered]}, passed {[p // 10 for p in passed]} bytes/s")
    assert passed[1:] == offered[1:]
    assert passed[0] <= 1.05e7


def test_t1_ten_floods_and_forty_others() -> None:
    """More than the whole is wanted: who is below the equal part gets 98 %, floods share the rest, the total holds."""
    table = table_of(total_rate=2e6, each_rate=1e6)
    count = 50
    flows = [
        (pair(table, n, Address(f"9.{n}.0.1", 9), Address(f"9.{n}.9.9", 9), 0.0), f"9.{n}.0.1") for n in range(count)
    ]
    passed, offered, owed = [0] * count, [0] * count, [0.0] * count
    for tick in range(2_000):
        now = 0.005 * tick
        for i, (flow, ip) in enumerate(flows):
            owed[i] += (2e6 if i < 10 else 2e4) * 0.005
            while owed[i] >= 1000:
                owed[i] -= 1000
                if now < 1:
                    continue  # the level settles
                offered[i] += 1000
                try:
                    table.forward_untrusted(flow, bytes(1000), Address(ip, 9), now)
                    passed[i] += 1000
                except BadPacket:
                    pass
    share = sum(passed[10:]) / sum(offered[10:])
    print(f"T1: modest ones {share:.3f}, floods {sum(passed[:10]) / 9:.0f} bytes/s, all {sum(passed) / 9:.0f}")
    assert share >= 0.98
    assert sum(passed) / 9 <= 2.1e6
    assert sum(passed[:10]) / 9 >= 0.8 * (2e6 - 40 * 2e4)


def test_a1_nothing_leaves_but_what_both_ends_asked_for() -> None:
    """Unpaired, from another address, after the lease, with another number: dropped; else as many bytes as came."""
    table = table_of()
    a, b, victim = Address("9.1.0.1", 9), Address("9.2.0.1", 9), Address("9.3.0.1", 9)
    half = table.open(node_id(1), node_id(2), a, 100, 0.0)
    assert half is not None

    def refused(flow: int, source: Address, now: float) -> str:
        with pytest.raises(BadPacket) as info:
            table.forward_untrusted(flow, bytes(100), source, now)
        return info.value.reason

    assert refused(half.flow, a, 1.0) == "unpaired"
    assert table.open(node_id(3), node_id(1), victim, 100, 1.0) is not None  # whom nobody asked for
    assert refused(half.flow, a, 1.0) == "unpaired"
    other = table.open(node_id(2), node_id(1), b, 50, 1.0)
    assert other is not None
    frame, to = table.forward_untrusted(half.flow, bytes(100), a, 2.0)
    assert (len(frame), to) == (103, b)
    assert refused(half.flow, victim, 2.0) == "other_address"
    assert refused(half.flow ^ 1, a, 2.0) == "no_flow"
    assert refused(half.flow, a, 52.0) == "unpaired"  # b has not renewed


def relay_of(there: Street, session: Session) -> Node:
    """The public node through which a session goes."""
    return next(node for node in there.public if session.remote in node.addresses())


@pytest.mark.parametrize(
    ("how", "writer"),
    [
        ("killed", "caller"),
        ("throttles", "callee"),
        pytest.param("killed", "callee", marks=pytest.mark.slow),
        pytest.param("throttles", "caller", marks=pytest.mark.slow),
    ],
)
def test_t2_relay_fails_while_a_file_flows(how: str, writer: str) -> None:
    """The session leaves it for its spare: at most 5 s without a byte, the same session, the hash equal."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home("symmetric"), await there.home("symmetric")
            await asyncio.sleep(5)
            session, _ = await reach(world, a, b)
            assert session.path == "relay"
            await asyncio.sleep(3)
            other = b.session(a.peer_id)
            assert other is not None
            source, sink = (session, b) if writer == "caller" else (other, a)
            receiver = Receiver(world, sink)
            content = world.rng.randbytes(3_000_000)
            sending = asyncio.ensure_future(send_file(source, content))
            await receiver.reached(1_000_000)
            first = relay_of(there, session)
            if how == "killed":
                first.network.host.up = False
            else:
                first.mux.on("relay", lambda _data, _source: None)  # answers the DHT, forwards nothing
            async with asyncio.timeout(60):
                await receiver.done.wait()
            await sending
            assert receiver.has(content)
            assert a.session(b.peer_id) is session
            assert not session.closed
            assert relay_of(there, session) is not first
            if how == "killed":
                await asyncio.sleep(60)
                assert await session.ping() > 0
                assert len(session.connection.spare_paths) == 1  # another one in place of the dead
            first.network.host.up = True
            return receiver.gap

    gap = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"T2: relay {how}, {writer} writes: longest time without a byte {gap:.2f} s")
    assert gap <= 5


def test_m1_relay_sees_no_content() -> None:
    """What passes the relay holds no byte of the messages; a bit that it changes reaches nobody."""

    async def main(world: VirtualWorld) -> int:
        async with street(world) as there:
            a, b = await there.home("symmetric"), await there.home("symmetric")
            await asyncio.sleep(5)
            seen: list[bytes] = []
            for node in there.public:
                forward = node.reaching.pathways.relaying.frame_received

                def look(data: bytes, source: Address, forward: Any = forward) -> None:
                    if data[0] == SEND:
                        seen.append(data)
                        if len(seen) % 10 == 9:
                            data = data[:-3] + bytes((data[-3] ^ 1,)) + data[-2:]
                    forward(data, source)

                node.reaching.pathways.relaying.frame_received = look  # type: ignore[method-assign]
            session, _ = await reach(world, a, b)
            assert session.path == "relay"
            receiver = Receiver(world, b)
            content = b"a secret that nobody else may read " * 1000
            await send_file(session, content)
            async with asyncio.timeout(60):
                await receiver.done.wait()
            assert receiver.has(content)
            whole = b"".join(seen)
            assert b"secret" not in whole
            assert a.peer_id.raw not in whole
            assert b.peer_id.raw not in whole
            return len(seen)

    print(f"M1: {run_virtual(main, delay=ONE_WAY_S, keep_trace=False)} frames looked at")
