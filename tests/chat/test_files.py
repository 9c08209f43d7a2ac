"""Files between two chats on fake nodes: offered, accepted, resumed, checked, refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pnode.chat import ChatSettings, FileChanged, FileSettings, Transfer
from p2pnode.simulations.virtual import run_virtual
from tests.support.chat_fakes import FakeWorld, Person, befriend, until

MiB = 1 << 20


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def person(world: FakeWorld, name: str, home: Path, *, auto: int = 0, device: str = "", **more: object) -> Person:
    home.mkdir(exist_ok=True)
    files = FileSettings(home / "downloads", auto)
    return Person(world, name, home / "chat.db", device=device, settings=ChatSettings(files=files), **more)  # type: ignore[arg-type]


def last(one: Person, name: str) -> Transfer | None:
    found = [e.transfer for e in one.events if isinstance(e, FileChanged) and e.transfer.name == name]
    return found[-1] if found else None


def reached(one: Person, name: str, state: str) -> Callable[[], bool]:
    return lambda: (found := last(one, name)) is not None and found.state == state


def downloads(one: Path) -> dict[str, bytes]:
    folder = one / "downloads"
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_file_is_offered_accepted_and_arrives(tmp_path: Path) -> None:
    """The receiver sees name and size, takes it, has the same bytes; both sides say done; nothing else is there."""

    async def scenario(_world: object) -> None:
        world = FakeWorld()
        alice, bob = (
            await person(world, "alice", tmp_path / "a").start(),
            await person(world, "bob", tmp_path / "b").start(),
        )
        await befriend(alice, bob)
        data = content(3 * MiB + 77)
        (tmp_path / "photo.jpg").write_bytes(data)
        sent = await alice.chat.files.send(bob.node.user_id, str(tmp_path / "photo.jpg"))
        assert (sent.state, sent.outgoing, sent.size) == ("preparing", True, len(data))
        await until(bob, reached(bob, "photo.jpg", "offered"))
        offered = last(bob, "photo.jpg")
        assert offered is not None
        assert (offered.size, offered.id, offered.party) == (
            len(data),
            sent.id,
            alice.node.user_id,
        )
        assert not (tmp_path / "b" / "downloads").exists()
        await bob.chat.files.accept(offered.id[:6])
        await until(alice, reached(alice, "photo.jpg", "done"))
        got = last(bob, "photo.jpg")
        assert got is not None
        assert got.state == "done"
        assert got.path == str(tmp_path / "b" / "downloads" / "photo.jpg")
        assert downloads(tmp_path / "b") == {"photo.jpg": data}
        assert [t.state for t in await bob.chat.files.transfers()] == ["done"]
        await alice.stop()
        await bob.stop()

    run_virtual(scenario)


@pytest.mark.parametrize("size", [0, 1, MiB - 1, MiB, MiB + 1])
def test_sizes_around_a_segment(size: int, tmp_path: Path) -> None:
    """Every size arrives, an empty file too; taken without asking where the setting says so."""

    async def scenario(_world: object) -> None:
        world = FakeWorld()
        alice = await person(world, "alice", tmp_path / "a").start()
        bob = await person(world, "bob", tmp_path / "b", auto=10 * MiB).start()
        await befriend(alice, bob)
        (tmp_path / "x").write_bytes(content(size))
        await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
        await until(alice, reached(alice, "x", "done"))
        assert downloads(tmp_path / "b") == {"x": content(size)}
        await alice.stop()
        await bob.stop()

    run_virtual(scenario)
