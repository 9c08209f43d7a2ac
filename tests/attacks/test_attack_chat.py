"""Attacks on the chat: X1 (hostile texts), X3 (floods of strangers), V1 (hostile frames), Z1 (the database)."""

from __future__ import annotations

import asyncio
import random
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from support.chat_fakes import FakeNode, FakeWorld, Person

from p2pnode import Address, BadPacket, CorruptFileError, StorageError
from p2pnode.chat import ChatStore, Conversation
from p2pnode.chat import protocol as wire
from p2pnode.chat.limits import Buckets, StrangerGate, prefix_of
from p2pnode.simulations.virtual import VirtualLoop

FRAMES: dict[str, wire.Frame] = {
    "hello": wire.Hello(1, bytes(range(32)), bytes(64), "alice", True),
    "message": wire.TextMessage(bytes(range(16)), False, 7, 1_700_000_000_000, "hello wörld"),
    "ack": wire.Ack([bytes(range(16)), bytes(16)]),
    "refuse": wire.Refuse(bytes(range(16)), "request_pending"),
    "members": wire.Members(
        [wire.MemberEntry(bytes(range(32)), bytes(range(1, 33)), "bob", [Address("10.0.0.1", 4747).pack()])]
    ),
    "leave": wire.Leave(),
    "welcome": wire.Welcome(),
}
HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07", "\x9b31m", "a\u202egnp.exe", "\u2066x\u2069", "z\u200be\u200bro", "\U000e0041tag",
    "e" + "\u0301" * 5000, "line\u2028sep\u2029", "\r\nforged: line", "\x00\x08\x7f", "<script>alert(1)</script>",
    "\ue000private", "\ufeffbom",
]  # fmt: skip


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 10_000.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


def decoded_or_bad(body: bytes) -> None:
    try:
        wire.decode_untrusted(body)
    except BadPacket as bad:
        assert bad.reason in {"malformed", "too_long", "bad_key", "bad_address"}


@pytest.mark.parametrize("name", FRAMES)
def test_v1_every_prefix_of_a_frame_is_a_frame_or_bad(name: str) -> None:
    """Cut at each byte: BadPacket; the whole: the frame."""
    body = wire.encode(FRAMES[name])[4:]
    assert wire.decode_untrusted(body) == FRAMES[name]
    for end in range(len(body)):
        with pytest.raises(BadPacket):
            wire.decode_untrusted(body[:end])
    with pytest.raises(BadPacket):
        wire.decode_untrusted(body + b"\x00")


@pytest.mark.parametrize("name", FRAMES)
def test_v1_every_mutation_of_a_frame_is_a_frame_or_bad(name: str) -> None:
    """Each byte replaced, removed, doubled; two bytes swapped: a frame or BadPacket, nothing else."""
    body = wire.encode(FRAMES[name])[4:]
    rng = random.Random(name)
    for at in range(len(body)):
        for value in {0, 1, 0x7F, 0x80, 0x90, 0xC0, 0xC6, 0xDD, 0xFF, body[at] ^ 1, rng.randrange(256)}:
            decoded_or_bad(body[:at] + bytes([value]) + body[at + 1 :])
        decoded_or_bad(body[:at] + body[at + 1 :])
        decoded_or_bad(body[:at] + body[at : at + 1] + body[at:])
        other = rng.randrange(len(body))
        swapped = bytearray(body)
        swapped[at], swapped[other] = swapped[other], swapped[at]
        decoded_or_bad(bytes(swapped))


def test_v1_random_bytes_and_deep_nesting_are_bad() -> None:
    """Type confusion, nesting of 60,000 levels, lengths that lie."""
    rng = random.Random(5)
    for _ in range(2000):
        decoded_or_bad(rng.randbytes(rng.randrange(80)))
    for body in (
        b"\x91" * 60_000,
        b"\xdd\xff\xff\xff\xff",
        b"\x92\x02\xdb\xff\xff\xff\xff",
        b"\x92\x05" + b"\x91" * 9000,
    ):
        with pytest.raises(BadPacket):
            wire.decode_untrusted(body)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1, 1, bytes(32), bytes(64), "a", False], "bad_key"),
        ([1, 0, bytes(range(32)), bytes(64), "a", False], "malformed"),
        ([1, 1, bytes(range(32)), bytes(64), "a" * 33, False], "malformed"),
        ([2, bytes(16), False, -1, 0, "x"], "malformed"),
        ([2, bytes(16), False, 2**63, 0, "x"], "malformed"),
        ([2, bytes(16), 1, 1, 0, "x"], "malformed"),
        ([2, bytes(16), False, 1, 0, "é" * 7501], "too_long"),
        ([2, bytes(15), False, 1, 0, "x"], "malformed"),
        ([3, []], "malformed"),
        ([3, [bytes(16)] * 257], "malformed"),
        ([4, bytes(16), "Not A Code"], "malformed"),
        ([5, [[bytes(range(32)), bytes(range(32)), "x", [b"\x7f\0\0\x01\0\0"]]]], "bad_address"),
        ([5, [[bytes(range(32)), bytes(range(32)), "x", []]] * 65], "malformed"),
        ([6, 1], "malformed"),
        ([8], "malformed"),
        ({"a": 1}, "malformed"),
    ],
)
def test_v1_values_out_of_range_are_bad(values: object, reason: str) -> None:
    """Each field's limits hold."""
    with pytest.raises(BadPacket) as caught:
        wire.decode_untrusted(msgspec.msgpack.encode(values))
    assert caught.value.reason == reason


def test_v1_frames_cut_anywhere_give_the_same_frames() -> None:
    """However the stream is cut, and with a length that lies at the end."""
    data = b"".join(wire.encode(frame) for frame in FRAMES.values() if not isinstance(frame, wire.Hello))
    whole = wire.FrameBuffer().feed_untrusted(data)
    for step in (1, 2, 3, 7, 50):
        buffer = wire.FrameBuffer()
        pieces = [frame for at in range(0, len(data), step) for frame in buffer.feed_untrusted(data[at : at + step])]
        assert pieces == whole
    with pytest.raises(BadPacket, match="too_long"):
        wire.FrameBuffer().feed_untrusted((wire.MAX_FRAME_BYTES + 1).to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wire.encode(FRAMES["message"]), "no_hello"),
        (b"\0\0\0\x01\xc0", "malformed"),
        (b"\xff\xff\xff\xff", "too_long"),
        (b"", None),
    ],
)
def test_v1_hostile_stream_changes_nothing(data: bytes, reason: str | None) -> None:
    """The stream is dropped and counted; nothing is stored, nothing raised."""

    async def main(world: FakeWorld) -> None:
        bob, mallory = await Person(world, "bob").start(), FakeNode(world, "mallory")
        mallory.go_up()
        stream = await (await mallory.connect(bob.node.peer_id)).open_stream(wire.CHAT_PROTOCOL)
        await stream.write(data)
        await asyncio.sleep(30)
        assert sum(bob.chat.drops.values()) == (0 if reason is None else bob.chat.drops[reason])
        assert await bob.store.conversations() == []
        assert not bob.chat.reception._streams, "a stream that says nothing is not kept"

    run(main)


async def greeting_stream(world: FakeWorld, bob: Person, name: str, shown: str) -> tuple[FakeNode, object]:
    node = FakeNode(world, name)
    node.go_up()
    stream = await (await node.connect(bob.node.peer_id)).open_stream(wire.CHAT_PROTOCOL)
    proof = wire.device_proof(node.account, node.peer_id)
    await stream.write(wire.encode(wire.Hello(1, node.user_id.raw, proof, shown[:32], True)))
    return node, stream


def test_x1_hostile_names_and_messages_are_shown_harmlessly() -> None:
    """No control, bidi, zero-width or stacked characters reach database, events or console."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        lines: list[str] = []
        conversation = Conversation(bob.chat, own_port=4747, show=lines.append)
        for number, text in enumerate(HOSTILE):
            node, stream = await greeting_stream(world, bob, f"mallory{number}", text)
            for hall in (False, True):
                message = wire.TextMessage(bytes([number + 100 * hall]) * 16, hall, 1, 1, text)
                await stream.write(wire.encode(message))  # type: ignore[attr-defined]
            await asyncio.sleep(400)
            await conversation.handle(f"{text[:20]}/x")
            await conversation.handle(f"\\chat {text[:20]}")
            assert bob.chat.user_of(node.peer_id) == node.user_id
        await conversation.handle("\\users")
        stored = [
            m for c in await bob.store.conversations() for m in await bob.store.history(c.party) if not m.outgoing
        ]
        assert len(stored) == 2 * len(HOSTILE)
        shown = lines + [m.text for m in stored] + [m.author_name for m in stored]
        for line in shown:
            assert not set(line) & set("\x00\x07\x08\x1b\x7f\x9b\r\u202e\u2066\u2069\u200b\u2028\u2029\ufeff\ue000")
            assert all(c == "\n" or c.isprintable() for c in line), repr(line)
            assert "\u0301" * 5 not in line
        assert len({m.author_name for m in stored}) > 1

    run(main)


def test_x3_flood_from_one_stranger_stores_one_message() -> None:
    """10,000 messages of a stranger: one is kept, the stream is given up after 200 refusals, memory stays flat."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        node, stream = await greeting_stream(world, bob, "mallory", "mallory")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(2_000):
            frames = [
                wire.TextMessage((number * 5 + n).to_bytes(16, "big"), False, 1, 1, "x" * 15_000) for n in range(5)
            ]
            try:
                await stream.write(b"".join(map(wire.encode, frames)))  # type: ignore[attr-defined]
            except Exception:  # noqa: BLE001 - given up, as it should be
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        assert len(await bob.texts(node.user_id)) == 1
        assert bob.chat.drops["too_many_refused"] == 1
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"memory grown by {grown} KiB")
        assert grown < 32_768

    run(main)


def test_x3_many_strangers_from_one_network_leave_room_for_others() -> None:
    """60 identities in one /24 open 8 requests; a stranger from elsewhere still gets through."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        for number in range(60):
            _, stream = await greeting_stream(world, bob, f"sybil{number}", "x")
            await stream.write(wire.encode(wire.TextMessage(bytes([number]) * 16, False, 1, 1, "hi")))  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        opened = bob.chat.directory.open_requests()
        print(f"{opened} requests of 60 strangers in one /24")
        assert opened == 8
        honest = await Person(world, "honest").start()
        honest.node.address = Address("203.0.113.9", 4747)
        assert (await honest.chat.send(bob.node.user_id, "hello", wait=5.0)).delivered

    run(main)


def test_x3_gate_is_bounded_in_number_and_memory() -> None:
    """256 open requests at most; buckets forget the longest unused."""
    gate = StrangerGate()
    assert not gate.admits(Address("1.2.3.4", 1), StrangerGate.MAX_OPEN, 0.0)
    buckets = Buckets(rate=1.0, burst=2.0, capacity=10)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert buckets.take("a", 1.0)
    for number in range(1000):
        buckets.take(number, 1.0)
    assert len(buckets) == 10
    assert prefix_of("10.1.2.3") == "10.1.2.0/24"
    assert prefix_of("2001:db8:1:2::1") == "2001:db8:1::/48"


def test_x3_flood_of_a_member_does_not_fill_the_disk() -> None:
    """A hall member is held to 500 messages at once and 50 per second."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        _, stream = await greeting_stream(world, bob, "mallory", "mallory")
        for number in range(1_000):
            frame = wire.TextMessage(number.to_bytes(16, "big"), True, number, 1, "x")
            try:
                await stream.write(wire.encode(frame))  # type: ignore[attr-defined]
            except Exception:  # noqa: BLE001 - given up, as it should be
                break
        await asyncio.sleep(1)
        count = (await bob.store.conversations())[0].messages
        print(f"{count} of 1000 stored")
        assert 500 <= count <= 600

    run(main)


def test_x3_streams_per_peer_are_bounded() -> None:
    """The fifth stream of one peer is refused."""

    async def main(world: FakeWorld) -> None:
        bob, mallory = await Person(world, "bob").start(), FakeNode(world, "mallory")
        mallory.go_up()
        session = await mallory.connect(bob.node.peer_id)
        for _ in range(50):
            await session.open_stream(wire.CHAT_PROTOCOL)
        await asyncio.sleep(0.1)
        assert bob.chat.reception._streams[mallory.peer_id] == 4
        assert bob.chat.drops["too_many_streams"] == 46

    run(main)


def test_z1_full_disk_at_the_receiver_loses_nothing(tmp_path: Path) -> None:
    """It is refused as `storage`, stays queued at the sender, and arrives when there is room."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice").start()
        bob = await Person(world, "bob", tmp_path / "bob.db").start()
        await bob.chat.add_contact(alice.node.user_id)
        await alice.chat.send(bob.node.user_id, "1")
        writer = bob.store.database._writer
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages}")
        result = await alice.chat.send(bob.node.user_id, "x" * 15_000)
        assert (result.state, result.reason) == ("queued", "storage")
        writer.execute("PRAGMA max_page_count = 100000")
        await asyncio.sleep(120)
        assert await bob.texts(alice.node.user_id) == ["1", "x" * 15_000]

    run(main)


def test_z1_full_disk_at_the_sender_is_one_sentence(tmp_path: Path) -> None:
    """`send` raises StorageError; nothing was sent, and the chat goes on."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice", tmp_path / "alice.db").start()
        bob = await Person(world, "bob").start()
        writer = alice.store.database._writer
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageError, match="full"):
            await alice.chat.send(bob.node.user_id, "x" * 15_000)
        writer.execute("PRAGMA max_page_count = 100000")
        assert (await alice.chat.send(bob.node.user_id, "y", wait=5.0)).delivered
        assert await bob.texts(alice.node.user_id) == ["y"]

    run(main)


@pytest.mark.parametrize("size", [1, 15, 16, 100, 4096])
def test_z1_damaged_database_is_not_overwritten(tmp_path: Path, size: int) -> None:
    """Whatever stands in the file, it stays."""
    path = tmp_path / "chat.db"
    data = random.Random(size).randbytes(size)
    path.write_bytes(data)
    with pytest.raises(CorruptFileError):
        asyncio.run(ChatStore.open(path))
    assert path.read_bytes() == data


def test_v1_ids_of_small_order_are_refused() -> None:
    """A key under which any signature verifies is nobody's."""
    frame = wire.Members([wire.MemberEntry(bytes(32), bytes(range(32)), "x", [])])
    with pytest.raises(BadPacket, match="bad_key"):
        wire.decode_untrusted(wire.encode(frame)[4:])
