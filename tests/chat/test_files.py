"""Files between two chats on fake nodes: offered, accepted, resumed, checked, refused."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from support.chat_fakes import Person, befriend, until
from support.files import MiB, content, downloads, last, pair, person, reached, stop

from p2pnode import P2PError
from p2pnode.chat import FileChanged
from p2pnode.chat.files.wire import FILE_PROTOCOL
from p2pnode.simulations.virtual import VirtualLoop


def test_file_is_offered_accepted_and_arrives(tmp_path: Path) -> None:
    """The receiver sees name and size, takes it, has the same bytes; both sides say done; nothing else is there."""

    async def main() -> None:
        alice, bob = await pair(tmp_path)
        data = content(3 * MiB + 77)
        (tmp_path / "photo.jpg").write_bytes(data)
        sent = await alice.chat.files.send(bob.node.user_id, str(tmp_path / "photo.jpg"))
        assert (sent.state, sent.outgoing, sent.size) == ("preparing", True, len(data))
        await until(bob, reached(bob, "photo.jpg", "offered"))
        offered = last(bob, "photo.jpg")
        assert offered is not None
        assert (offered.size, offered.id, offered.party) == (len(data), sent.id, alice.node.user_id)
        assert not (tmp_path / "b" / "downloads").exists()
        await bob.chat.files.accept(offered.id[:6])
        await until(alice, reached(alice, "photo.jpg", "done"))
        got = last(bob, "photo.jpg")
        assert got is not None
        assert (got.state, got.path) == ("done", str(tmp_path / "b" / "downloads" / "photo.jpg"))
        assert downloads(tmp_path / "b") == {"photo.jpg": data}
        assert [t.state for t in await bob.chat.files.transfers()] == ["done"]
        await stop(alice, bob)

    VirtualLoop().run(main())


@pytest.mark.parametrize("size", [0, 1, MiB - 1, MiB, MiB + 1])
def test_sizes_around_a_segment(size: int, tmp_path: Path) -> None:
    """Every size arrives, an empty file too; taken without asking where the setting says so."""

    async def main() -> None:
        alice, bob = await pair(tmp_path, auto=10 * MiB)
        (tmp_path / "x").write_bytes(content(size))
        await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
        await until(alice, reached(alice, "x", "done"))
        assert downloads(tmp_path / "b") == {"x": content(size)}
        await stop(alice, bob)

    VirtualLoop().run(main())


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["session", "receiver", "sender"])
def test_break_costs_next_to_nothing(broken: str, tmp_path: Path) -> None:
    """The session breaks twice, or a process dies twice as by `kill -9`: it goes on by itself, and only what was under
    way is sent again: below 1 %."""

    async def main() -> None:
        alice, bob = await pair(tmp_path, auto=100 * MiB, bytes_per_s=8e6)
        data = content(16 * MiB)
        (tmp_path / "x").write_bytes(data)
        await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
        wire = 0
        for _ in range(2):
            await asyncio.sleep(0.7)
            wire += sent_bytes(alice)
            if broken == "session":
                for session in alice.node.sessions():
                    session.break_off("lost")
            else:
                who = bob if broken == "receiver" else alice
                await who.crash()
                await asyncio.sleep(2.0)
                await who.start()
        await until(alice, reached(alice, "x", "done"), timeout=120)
        wire += sent_bytes(alice)
        assert downloads(tmp_path / "b") == {"x": data}
        again = wire - len(data)
        print(f"sent again: {again} bytes of {len(data)}")
        assert again < 2 * len(data) // 100  # two breaks
        await stop(alice, bob)

    VirtualLoop().run(main(), until=600)


def sent_bytes(one: Person) -> int:
    """What went out on its file streams since the last look."""
    total = 0
    for stream in one.node.world.streams:
        if stream.session.node is one.node and stream.protocol == FILE_PROTOCOL:
            total += len(stream.written)
            stream.written.clear()
    return total


@pytest.mark.slow
def test_several_at_once_within_a_bound(tmp_path: Path) -> None:
    """Seven files: two of one peer are fetched at a time, all arrive, none waits for ever."""

    async def main() -> None:
        alice, bob = await pair(tmp_path, auto=10 * MiB, bytes_per_s=4e6)
        most = 0
        for number in range(7):
            (tmp_path / f"f{number}").write_bytes(content(2 * MiB, number))
            await alice.chat.files.send(bob.node.user_id, str(tmp_path / f"f{number}"))

        def look(event: object) -> None:
            nonlocal most
            if isinstance(event, FileChanged):
                most = max(most, sum(job.moving for job in bob.chat.files.jobs.values()))

        alice.chat.subscribe(look)
        bob.chat.subscribe(look)
        await until(alice, lambda: all(reached(alice, f"f{n}", "done")() for n in range(7)), timeout=60)
        assert most == 2
        assert downloads(tmp_path / "b") == {f"f{n}": content(2 * MiB, n) for n in range(7)}
        assert not alice.chat.files.jobs
        assert not bob.chat.files.jobs
        await stop(alice, bob)

    VirtualLoop().run(main(), until=600)


def test_folder_with_everything_in_it(tmp_path: Path) -> None:
    """Files, folders and empty folders arrive; links and pipes are left out, and no link is made."""

    async def main() -> None:
        alice, bob = await pair(tmp_path, auto=10 * MiB)
        top = tmp_path / "holiday"
        (top / "a" / "b").mkdir(parents=True)
        (top / "empty").mkdir()
        (top / "a" / "b" / "one.txt").write_text("one")
        (top / "two.bin").write_bytes(content(MiB + 5))
        (top / "none").touch()
        (tmp_path / "secret").write_text("secret")
        (top / "link").symlink_to(tmp_path / "secret")
        (top / "up").symlink_to(tmp_path)
        os.mkfifo(top / "pipe")
        await alice.chat.files.send(bob.node.user_id, str(top))
        await until(alice, reached(alice, "holiday", "done"))
        got = tmp_path / "b" / "downloads" / "holiday"
        assert downloads(tmp_path / "b") == {
            "holiday/a/b/one.txt": b"one", "holiday/two.bin": content(MiB + 5), "holiday/none": b"",
        }  # fmt: skip
        assert (got / "empty").is_dir()
        assert not any(path.is_symlink() for path in got.rglob("*"))
        await stop(alice, bob)

    VirtualLoop().run(main())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A name that is taken gets a number; what was there stays."""

    async def main() -> None:
        alice, bob = await pair(tmp_path, auto=MiB)
        folder = tmp_path / "b" / "downloads"
        folder.mkdir()
        (folder / "x.txt").write_text("mine")
        (tmp_path / "x.txt").write_text("theirs")
        for number in range(2):
            await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x.txt"))
            wanted = number + 1
            await until(alice, lambda: len(done(alice)) == wanted)  # noqa: B023 - called at once
        assert downloads(tmp_path / "b") == {"x.txt": b"mine", "x (2).txt": b"theirs", "x (3).txt": b"theirs"}
        await stop(alice, bob)

    VirtualLoop().run(main())


def done(one: Person) -> list[FileChanged]:
    return [e for e in one.events if isinstance(e, FileChanged) and e.transfer.state == "done"]


@pytest.mark.slow
@pytest.mark.parametrize("who", ["refused", "sender", "receiver"])
def test_refused_and_given_up(who: str, tmp_path: Path) -> None:
    """Refused by the receiver, withdrawn by the sender, or given up half-way: both know, nothing remains."""

    async def main() -> None:
        alice, bob = await pair(tmp_path, bytes_per_s=4e6)
        (tmp_path / "x").write_bytes(content(20 * MiB))
        await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
        await until(bob, reached(bob, "x", "offered"))
        if who == "refused":
            await bob.chat.files.refuse()
        else:
            await bob.chat.files.accept()
            await asyncio.sleep(1.0)
            assert (await bob.chat.files.transfers())[0].done > MiB
            await (alice if who == "sender" else bob).chat.files.cancel()
        ends = {
            "refused": ("refused", "refused"),
            "sender": ("cancelled", "cancelled"),
            "receiver": ("refused", "cancelled"),
        }
        await until(alice, reached(alice, "x", ends[who][0]))
        await until(bob, reached(bob, "x", ends[who][1]))
        await asyncio.sleep(1.0)  # virtual: what was begun is taken away after the word
        assert downloads(tmp_path / "b") == {}
        assert not alice.chat.files.jobs
        assert not bob.chat.files.jobs
        with pytest.raises(P2PError):
            await bob.chat.files.accept()
        await stop(alice, bob)

    VirtualLoop().run(main())


def test_offline_receiver_gets_it_when_it_comes(tmp_path: Path) -> None:
    """Offered to somebody who is not there: told as soon as it comes back, although the sender was restarted."""

    async def main() -> None:
        alice, bob = await pair(tmp_path, auto=MiB)
        await bob.stop()
        (tmp_path / "x").write_text("x")
        await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
        await until(alice, reached(alice, "x", "offered", "peer_offline"))
        await alice.stop()
        await alice.start()
        await bob.start()
        await until(alice, reached(alice, "x", "done"), timeout=90)
        assert downloads(tmp_path / "b") == {"x": b"x"}
        await stop(alice, bob)

    VirtualLoop().run(main(), until=600)


def test_first_device_takes_it_and_the_other_is_told(tmp_path: Path) -> None:
    """A file to a user is offered on every device; one takes it, the other shows that."""

    async def main() -> None:
        alice, bob = await pair(tmp_path)
        phone = person(bob.node.world, "bob", tmp_path / "c", account=bob.node.account, device="phone")
        await phone.start()
        await befriend(phone, alice)
        (tmp_path / "x").write_text("x")
        await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
        await until(bob, reached(bob, "x", "offered"))
        await until(phone, reached(phone, "x", "offered"))
        await phone.chat.files.accept()
        await until(alice, reached(alice, "x", "done"))
        await until(bob, reached(bob, "x", "cancelled", "taken"))
        assert (downloads(tmp_path / "c"), downloads(tmp_path / "b")) == ({"x": b"x"}, {})
        await stop(alice, bob, phone)

    VirtualLoop().run(main())


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_file_that_changes_or_vanishes_ends_it_with_a_word(what: str, tmp_path: Path) -> None:
    """Both sides say so; nothing under the final name, nothing left over."""

    async def main() -> None:
        alice, bob = await pair(tmp_path, bytes_per_s=4e6)
        (tmp_path / "x").write_bytes(content(8 * MiB))
        await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
        await until(bob, reached(bob, "x", "offered"))
        if what == "gone":
            (tmp_path / "x").unlink()
            await bob.chat.files.accept()
        else:
            await bob.chat.files.accept()
            await asyncio.sleep(0.5)
            with (tmp_path / "x").open("r+b") as file:
                file.seek(7 * MiB)
                file.write(b"other")
        await until(alice, reached(alice, "x", "failed", what))
        await until(bob, reached(bob, "x", "failed", what))
        await asyncio.sleep(1.0)  # virtual: what was begun is taken away after the word
        assert downloads(tmp_path / "b") == {}
        await stop(alice, bob)

    VirtualLoop().run(main())


@pytest.mark.slow
def test_full_disk_waits_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room it says so and keeps what it has; with room it goes on, at once when the user asks for it."""
    from p2pnode.chat.files import disk

    room = [4 * MiB]
    whole = disk.PartFile.write

    def write(file: disk.PartFile, data: bytes) -> None:
        if file.have + len(data) > room[0]:
            raise OSError(28, os.strerror(28))
        whole(file, data)

    monkeypatch.setattr(disk.PartFile, "write", write)  # the system's answer, nothing of ours

    async def main() -> None:
        alice, bob = await pair(tmp_path, auto=100 * MiB, bytes_per_s=20e6)
        (tmp_path / "x").write_bytes(content(8 * MiB))
        await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
        await until(bob, reached(bob, "x", "active", "disk_full"))
        kept = (await bob.chat.files.transfers())[0].done
        assert kept > 3 * MiB
        room[0] = 100 * MiB
        await bob.chat.files.accept()
        await until(alice, reached(alice, "x", "done"), timeout=5)
        assert downloads(tmp_path / "b") == {"x": content(8 * MiB)}
        await stop(alice, bob)

    VirtualLoop().run(main())


def test_crash_while_it_is_looked_through(tmp_path: Path) -> None:
    """What was typed is not lost: the sender dies before the first word of it, and sends it when it is back."""

    async def main() -> None:
        alice, bob = await pair(tmp_path, auto=10 * MiB)
        (tmp_path / "x").write_bytes(content(MiB))
        await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
        await alice.crash()
        await alice.start()
        await until(alice, reached(alice, "x", "done"))
        assert downloads(tmp_path / "b") == {"x": content(MiB)}
        await stop(alice, bob)

    VirtualLoop().run(main())


@pytest.mark.parametrize("spoiled", [0, 3 * MiB + 5, 5 * MiB - 1])
def test_what_a_loss_of_power_spoiled_is_found(spoiled: int, tmp_path: Path) -> None:
    """A byte of the partial file is another one after the restart: it is fetched again from that MiB on."""

    async def main() -> None:
        alice, bob = await pair(tmp_path, auto=100 * MiB, bytes_per_s=8e6)
        data = content(8 * MiB)
        (tmp_path / "x").write_bytes(data)
        await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
        await until(bob, reached(bob, "x", "active"))
        await asyncio.sleep(0.75)
        [job] = bob.chat.files.jobs.values()
        part = Path(bob.chat.files.incoming.part_of(job.record))
        await bob.crash()
        spoil(part, spoiled)
        await bob.start()
        await until(alice, reached(alice, "x", "done"), timeout=60)
        assert downloads(tmp_path / "b") == {"x": data}
        await stop(alice, bob)

    VirtualLoop().run(main())


def spoil(part: Path, at: int) -> None:
    there = bytearray(part.read_bytes())
    assert len(there) > 5 * MiB
    there[at] ^= 1
    part.write_bytes(there)


@pytest.mark.parametrize("at", ["noted", "linked", "named"])
def test_crash_around_the_naming(at: str, tmp_path: Path) -> None:
    """Dead before, in and after the step that gives the name: one file of that name in the end, and no other."""
    from p2pnode.chat.files import disk

    async def main() -> None:
        alice, bob = await pair(tmp_path, auto=MiB)
        (tmp_path / "x").write_bytes(b"hello")
        place, died = disk.place, asyncio.Event()

        def dying(part: str, path: str) -> None:
            if at == "linked":
                os.link(part, path)
            elif at == "named":
                place(part, path)
            died.set()
            raise OSError(5, "the process dies here")

        disk.place = dying  # type: ignore[assignment]
        try:
            await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
            async with asyncio.timeout(10):
                await died.wait()
            await bob.crash()
        finally:
            disk.place = place
        await bob.start()
        await until(alice, reached(alice, "x", "done"), timeout=60)
        assert downloads(tmp_path / "b") == {"x": b"hello"}
        await stop(alice, bob)

    VirtualLoop().run(main())
