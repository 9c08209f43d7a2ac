"""People who send each other files, on fake nodes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from support.chat_fakes import FakeWorld, Person, befriend

from p2pnode import AccountKey
from p2pnode.chat import ChatSettings, FileChanged, FileSettings, Transfer

MiB = 1 << 20


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def person(
    world: FakeWorld, name: str, home: Path, *, auto: int = 0, device: str = "", account: AccountKey | None = None
) -> Person:
    """Somebody with a home; `auto`: what is taken unasked."""
    home.mkdir(exist_ok=True)
    settings = ChatSettings(files=FileSettings(home / "downloads", auto))
    return Person(world, name, home / "chat.db", device=device, settings=settings, account=account)


async def pair(tmp_path: Path, *, auto: int = 0, bytes_per_s: float = 0.0) -> tuple[Person, Person]:
    """Alice and bob, contacts of each other; homes `a` and `b`."""
    world = FakeWorld(bytes_per_s=bytes_per_s)
    alice = await person(world, "alice", tmp_path / "a").start()
    bob = await person(world, "bob", tmp_path / "b", auto=auto).start()
    await befriend(alice, bob)
    return alice, bob


def last(one: Person, name: str) -> Transfer | None:
    """What was last heard of a file."""
    found = [e.transfer for e in one.events if isinstance(e, FileChanged) and e.transfer.name == name]
    return found[-1] if found else None


def reached(one: Person, name: str, state: str, reason: str | None = None) -> Callable[[], bool]:
    def holds() -> bool:
        found = last(one, name)
        return found is not None and found.state == state and reason in (None, found.reason)

    return holds


def downloads(home: Path) -> dict[str, bytes]:
    """Everything in the downloads folder, by path."""
    folder = home / "downloads"
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


async def stop(*people: Person) -> None:
    for one in people:
        await one.stop()
