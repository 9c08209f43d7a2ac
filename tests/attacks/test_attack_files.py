"""X2, X3: hostile offers, lists, names, sizes and bytes, in virtual time over fake streams; the bytes are real."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from support.chat_fakes import FakeWorld, Person, befriend, until
from support.files import MiB, content, downloads, last, person, reached, stop
from support.rooms import eventually

from p2pnode import P2PError
from p2pnode.chat.files import wire
from p2pnode.chat.files.incoming import MAX_OFFERED_MEMBERS, MAX_OFFERED_PER_USER
from p2pnode.chat.files.talk import Talk
from p2pnode.chat.model import RoomId
from p2pnode.simulations.virtual import VirtualLoop

ID = bytes(range(16))


class Mallory(Person):
    """Speaks the protocol by hand. `manifest`, `leaves`, `data`: what it sends to who takes its offer."""

    manifest = b""
    leaves: bytes | None = None
    data = b""
    wants: list[wire.Want]

    def listen(self) -> None:
        self.wants = []
        self.node.handle(wire.FILE_PROTOCOL, self.serve)

    async def serve(self, _session: Any, stream: Any) -> None:
        talk = Talk(stream)
        while (frame := await talk.next_frame(None)) is not None:
            if isinstance(frame, wire.Want):
                self.wants.append(frame)
                await self.give(talk, frame)

    async def give(self, talk: Talk, want: wire.Want) -> None:
        if want.manifest:
            await talk.data(self.manifest)
        leaves = leaves_of(self.data) if self.leaves is None else self.leaves
        await talk.data(leaves)
        for at in range(want.offset, len(self.data), MiB):
            await talk.data(self.data[at : at + MiB])

    async def say(self, victim: Person, *frames: wire.Frame) -> list[wire.Frame | bytes | None]:
        """Send frames on one stream; return what came back to each."""
        session = await self.node.connect(victim.node.peer_id)
        talk = Talk(await session.open_stream(wire.FILE_PROTOCOL))
        await talk.say(self.chat.links.own_hello(victim.node.peer_id))
        answers = []
        for frame in frames:
            await talk.say(frame)
            answers.append(await talk.next())
        return answers


def leaves_of(data: bytes) -> bytes:
    return b"".join(hashlib.sha256(data[at : at + MiB]).digest() for at in range(0, len(data), MiB))


def entry(path: tuple[str, ...], data: bytes) -> wire.Entry:
    return wire.Entry(path, len(data), wire.root_of(len(data), leaves_of(data)))


def offer(manifest: bytes, *, name: str = "x", size: int = 0, count: int = 1, folder: bool = False) -> wire.Offer:
    return wire.Offer(ID, b"", folder, name, size, count, len(manifest), wire.manifest_root(manifest))


async def scene(tmp_path: Path, *, auto: int = 1 << 30, known: bool = True) -> tuple[Mallory, Person]:
    world = FakeWorld()
    (tmp_path / "m").mkdir()
    mallory = Mallory(world, "mallory", tmp_path / "m" / "chat.db")
    await mallory.start()
    mallory.listen()
    victim = await person(world, "victim", tmp_path / "v", auto=auto).start()
    if known:
        await befriend(mallory, victim)
    return mallory, victim


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/etc/passwd",
        "..",
        ".bashrc",
        "CON",
        "a\u202egpj.exe",
        "\x1b]0;x\x07",
        "a" * 255,
        "\ud7ff\u0301" * 120,
    ],
)
def test_x2_a_name_stays_one_harmless_name_below_the_folder(name: str, tmp_path: Path) -> None:
    """Whatever a file is called, it lands in the downloads folder itself, visible, without control characters."""

    async def main() -> None:
        mallory, victim = await scene(tmp_path)
        mallory.data = b"hello"
        mallory.manifest = wire.encode_manifest([entry((name,), b"hello")])
        await mallory.say(victim, offer(mallory.manifest, name=name, size=5))
        await until(victim, lambda: any(t.transfer.state == "done" for t in victim.events if hasattr(t, "transfer")))
        [(got, data)] = downloads(tmp_path / "v").items()
        print(f"{name[:20]!r} -> {got[:40]!r}")
        assert data == b"hello"
        assert "/" not in got
        assert not got.startswith(".")
        assert not {unicodedata.category(char) for char in got} & {"Cc", "Cf", "Co", "Cs"}
        assert sorted(os.listdir(tmp_path)) == ["m", "v"]
        await stop(mallory, victim)

    VirtualLoop().run(main())


def test_x2_a_folder_full_of_traps(tmp_path: Path) -> None:
    """A list with `..`, absolute paths, two names that are one: all below the one folder, all there."""

    async def main() -> None:
        mallory, victim = await scene(tmp_path)
        paths = [("..", "..", "x"), ("/etc", "passwd"), ("a",), ("A",), ("a\u200b",), ("a", "b")]
        mallory.data = b"hello"
        mallory.manifest = wire.encode_manifest([entry(path, b"hello") for path in paths])

        async def give(talk: Talk, want: wire.Want) -> None:
            await talk.data(mallory.manifest)
            for _ in paths:
                await talk.data(leaves_of(b"hello"))
                await talk.data(b"hello")

        mallory.give = give  # type: ignore[method-assign]
        await mallory.say(victim, offer(mallory.manifest, name="../f", size=30, count=6, folder=True))
        await until(victim, reached(victim, "_f", "done"))
        got = downloads(tmp_path / "v")
        assert sorted(got) == [
            "_f/A (2)", "_f/_etc/passwd", "_f/a", "_f/a (3)", "_f/a (4)/b", "_f/file/file/x",
        ]  # fmt: skip
        await stop(mallory, victim)

    VirtualLoop().run(main())


@pytest.mark.parametrize("lie", ["data", "leaves", "manifest", "size", "count", "more"])
def test_x2_what_is_not_what_was_offered_never_appears(lie: str, tmp_path: Path) -> None:
    """Wrong bytes, wrong leaves, another list, other sums, more than was said: failed, and nothing on the disk."""

    async def main() -> None:
        mallory, victim = await scene(tmp_path)
        data = content(2 * MiB + 9)
        mallory.data = data
        mallory.manifest = wire.encode_manifest([entry(("x",), data)])
        said = offer(mallory.manifest, size=len(data) + (lie == "size"), count=1 + (lie == "count"))
        if lie == "data":
            mallory.leaves, mallory.data = leaves_of(data), data[:-1] + b"?"
        elif lie == "leaves":
            mallory.leaves = bytes(len(leaves_of(data)))
        elif lie == "manifest":
            mallory.manifest = mallory.manifest[:-1] + b"?"
        elif lie == "more":
            mallory.data = data + b"more"
            mallory.leaves = leaves_of(data)
        await mallory.say(victim, said)
        await until(victim, reached(victim, "x", "failed", "damaged"), timeout=60)
        await asyncio.sleep(1.0)
        assert downloads(tmp_path / "v") == {}
        print(f"{lie}: asked {len(mallory.wants)} times")
        assert len(mallory.wants) <= 3
        await stop(mallory, victim)

    VirtualLoop().run(main(), until=600)


def test_x2_declared_sizes_beyond_the_disk_cost_nothing(tmp_path: Path) -> None:
    """10^12 bytes cannot be said; 256 GiB can, and wait for room that is not there: nothing is written."""

    async def main() -> None:
        mallory, victim = await scene(tmp_path, auto=0)
        manifest = wire.encode_manifest([wire.Entry(("x",), wire.MAX_SIZE, bytes(32))])
        huge = wire.encode(offer(manifest, size=wire.MAX_SIZE)).replace(
            b"\xcf" + wire.MAX_SIZE.to_bytes(8, "big"), b"\xcf" + (10**12).to_bytes(8, "big")
        )
        session = await mallory.node.connect(victim.node.peer_id)
        stream = await session.open_stream(wire.FILE_PROTOCOL)
        await stream.write(wire.encode(mallory.chat.links.own_hello(victim.node.peer_id)) + huge)
        await asyncio.sleep(1.0)
        assert victim.chat.drops["malformed"] == 1
        mallory.manifest = manifest
        free = os.statvfs(tmp_path)
        if free.f_bavail * free.f_frsize > wire.MAX_SIZE:
            pytest.skip("this disk has room for 256 GiB")
        await mallory.say(victim, offer(manifest, size=wire.MAX_SIZE))
        await victim.chat.files.accept()
        await until(victim, reached(victim, "x", "active", "disk_full"))
        assert not mallory.wants
        assert downloads(tmp_path / "v") == {}
        await stop(mallory, victim)

    VirtualLoop().run(main())


def test_x2_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    """A link under the name of a partial file or of the file itself: nothing is written through it."""

    async def main() -> None:
        mallory, victim = await scene(tmp_path, auto=0)
        mallory.data = b"hello"
        mallory.manifest = wire.encode_manifest([entry(("x",), b"hello")])
        await mallory.say(victim, offer(mallory.manifest, size=5))
        [job] = victim.chat.files.jobs.values()
        prize = tmp_path / "prize"
        prize.write_text("mine")
        part = Path(victim.chat.files.incoming.part_of(job.record))
        part.parent.mkdir()
        os.symlink(prize, part)
        os.symlink(prize, part.parent / "x")
        await victim.chat.files.accept()
        await until(victim, reached(victim, "x", "active", "storage"))
        os.unlink(part)
        await victim.chat.files.accept()
        await until(victim, reached(victim, "x", "done"))
        done = last(victim, "x")
        assert done is not None
        assert Path(done.path).name == "x (2)"
        assert prize.read_text() == "mine"
        await stop(mallory, victim)

    VirtualLoop().run(main())


def test_x3_strangers_wait_and_floods_end(tmp_path: Path) -> None:
    """A stranger's offer is not even shown; a contact has 16 that wait; a blocked one none. Nothing grows beyond."""

    async def main() -> None:
        mallory, victim = await scene(tmp_path, auto=0, known=False)
        manifest = wire.encode_manifest([entry(("x",), b"")])

        def offers(count: int) -> list[wire.Offer]:
            root, size = wire.manifest_root(manifest), len(manifest)
            return [wire.Offer(os.urandom(16), b"", False, "x", 0, 1, size, root) for _ in range(count)]

        answers = await mallory.say(victim, *offers(3))
        assert [a.code for a in answers if isinstance(a, wire.Answer)] == ["request_pending"] * 3
        assert not victim.chat.files.jobs
        await victim.chat.add_contact(mallory.node.user_id)
        answers = await mallory.say(victim, *offers(200))
        taken = [a for a in answers if isinstance(a, wire.Answer) and a.state == "pending"]
        print(f"of 200 offers {len(taken)} are shown")
        assert len(taken) == len(victim.chat.files.jobs) == MAX_OFFERED_PER_USER
        assert len(await victim.chat.files.transfers(10_000)) == MAX_OFFERED_PER_USER
        await victim.chat.block(mallory.node.user_id)
        assert mallory.node.session(victim.node.peer_id) is None
        await stop(mallory, victim)

    VirtualLoop().run(main())


def test_x3_what_was_offered_to_somebody_else_is_not_given(tmp_path: Path) -> None:
    """Who knows the id of an offer gets nothing, and learns nothing of it."""

    async def main() -> None:
        world = FakeWorld()
        alice = await person(world, "alice", tmp_path / "a").start()
        bob = await person(world, "bob", tmp_path / "b").start()
        (tmp_path / "m").mkdir()
        mallory = Mallory(world, "mallory", tmp_path / "m" / "chat.db")
        await mallory.start()
        await befriend(alice, bob)
        await befriend(alice, mallory)
        (tmp_path / "x").write_bytes(b"secret")
        sent = await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
        await until(bob, reached(bob, "x", "offered"))
        offer_id = bytes.fromhex(sent.id)
        [answer] = await mallory.say(alice, wire.Want(offer_id, True, 0, 0))
        assert answer == wire.Withdraw(offer_id, "cancelled")
        assert await mallory.say(alice, wire.Want(bytes(16), True, 0, 0)) == [wire.Withdraw(bytes(16), "cancelled")]
        session = await mallory.node.connect(alice.node.peer_id)
        talk = Talk(await session.open_stream(wire.FILE_PROTOCOL))
        hello = mallory.chat.links.own_hello(alice.node.peer_id)
        await talk.say(hello, wire.Answer(offer_id, "done", ""), wire.Answer(offer_id, "refused", "refused"))
        await asyncio.sleep(1.0)
        assert [t.state for t in await alice.chat.files.transfers()] == ["offered"]
        await stop(alice, bob, mallory)

    VirtualLoop().run(main())


async def in_a_room(tmp_path: Path, world: FakeWorld, *others: Person) -> tuple[Person, RoomId]:
    """A victim that takes files of contacts unasked, in an open room with the others, who are strangers."""
    victim = await person(world, "victim", tmp_path / "v", auto=1 << 30).start()
    room = (await victim.chat.rooms.create("garden", open=True)).id
    for other in others:
        await other.chat.rooms.join("garden")
    await eventually(lambda: victim.chat.rooms.rooms[room].info().members == len(others) + 1)
    return victim, room


def to_room(room: bytes, count: int) -> list[wire.Offer]:
    manifest = wire.encode_manifest([entry(("x",), b"")])
    root, size = wire.manifest_root(manifest), len(manifest)
    return [wire.Offer(os.urandom(16), room, False, "x", 0, 1, size, root) for _ in range(count)]


def test_x3_members_of_a_room_who_are_no_contacts_have_few_places(tmp_path: Path) -> None:
    """Strangers in an open room: two offers of each wait, 16 of all; none is taken unasked, contacts still get in."""

    async def main() -> None:
        world = FakeWorld()
        (tmp_path / "m").mkdir()
        crowd = []
        for number in range(10):
            one = Mallory(world, f"mallory{number}", tmp_path / "m" / f"{number}.db")
            await one.start()
            crowd.append(one)
        victim, room = await in_a_room(tmp_path, world, *crowd)
        said = [answer for one in crowd for answer in await one.say(victim, *to_room(room.raw, 10))]
        answers = [answer for answer in said if isinstance(answer, wire.Answer)]
        waiting = len(victim.chat.files.jobs)
        print(f"of {len(answers)} offers of {len(crowd)} strangers {waiting} are shown")
        assert waiting == MAX_OFFERED_MEMBERS
        assert {answer.state for answer in answers} == {"pending", "waits"}
        assert {answer.code for answer in answers} == {"", "busy"}
        friend = Mallory(world, "friend", tmp_path / "m" / "friend.db")
        await friend.start()
        await befriend(friend, victim)
        assert [a.state for a in await friend.say(victim, *to_room(b"", 1)) if isinstance(a, wire.Answer)] == [
            "accepted"
        ]
        await stop(victim, friend, *crowd)

    VirtualLoop().run(main(), until=600)


@pytest.mark.parametrize("who", ["outsider", "removed", "blocked", "unknown room"])
def test_x3_who_is_not_in_the_room_offers_nothing_there(who: str, tmp_path: Path) -> None:
    """Somebody outside, removed or blocked, or a room that nobody knows: nothing is shown."""

    async def main() -> None:
        world = FakeWorld()
        (tmp_path / "m").mkdir()
        mallory = Mallory(world, "mallory", tmp_path / "m" / "chat.db")
        await mallory.start()
        victim, room = await in_a_room(tmp_path, world, *([mallory] if who in ("removed", "blocked") else []))
        target = bytes(32) if who == "unknown room" else room.raw
        if who == "removed":
            await victim.chat.rooms.remove(room, mallory.node.user_id)
        elif who == "blocked":
            await victim.chat.block(mallory.node.user_id)
        with contextlib.suppress(P2PError):
            for said in await mallory.say(victim, *to_room(target, 3)):
                assert said is None or (isinstance(said, wire.Answer) and said.code == "unknown_room")
        assert not victim.chat.files.jobs
        await stop(victim, mallory)

    VirtualLoop().run(main(), until=600)


def test_x3_what_was_offered_to_a_room_is_given_to_members_only(tmp_path: Path) -> None:
    """Who was removed, or takes the id of another member's offer, gets nothing."""

    async def main() -> None:
        world = FakeWorld()
        (tmp_path / "m").mkdir()
        mallory = Mallory(world, "mallory", tmp_path / "m" / "chat.db")
        await mallory.start()
        other = await person(world, "other", tmp_path / "o").start()
        owner, room = await in_a_room(tmp_path, world, mallory, other)
        (tmp_path / "x").write_bytes(b"secret")
        await owner.chat.files.send(room, str(tmp_path / "x"))
        await until(other, reached(other, "x", "offered"))
        [whole] = [job for job in owner.chat.files.jobs.values() if job.parts]
        others, own = (whole.parts[one.node.user_id].record.id for one in (other, mallory))
        for offer_id in (others, whole.record.id):
            assert await mallory.say(owner, wire.Want(offer_id, True, 0, 0)) == [wire.Withdraw(offer_id, "cancelled")]
        await owner.chat.rooms.remove(room, mallory.node.user_id)
        await asyncio.sleep(1.0)
        assert await mallory.say(owner, wire.Want(own, True, 0, 0)) == [wire.Withdraw(own, "cancelled")]
        await stop(owner, mallory, other)

    VirtualLoop().run(main(), until=600)
