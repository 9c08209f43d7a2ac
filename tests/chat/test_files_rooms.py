"""Files for rooms, between fake nodes: each member takes or refuses for itself, the sender sees who has it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.chat_fakes import FakeWorld, Person, until
from support.files import MiB, content, downloads, last, person, reached, stop
from support.rooms import eventually

from p2pnode import InvalidPeerError, NotFoundError, RefusedError
from p2pnode.chat import Conversation, FileChanged, Transfer
from p2pnode.chat.model import HALL, RoomId
from p2pnode.simulations.virtual import VirtualLoop


async def room_of(tmp_path: Path, *names: str, bytes_per_s: float = 0.0) -> tuple[RoomId, list[Person]]:
    """An open room; nobody is anybody's contact. Homes `alice`, `bob`, ..."""
    world = FakeWorld(bytes_per_s=bytes_per_s)
    people = [await person(world, name, tmp_path / name).start() for name in names]
    room = (await people[0].chat.rooms.create("garden", open=True)).id
    for one in people[1:]:
        await one.chat.rooms.join("garden")
    await eventually(lambda: all(one.chat.rooms.rooms[room].info().members == len(names) for one in people))
    return room, people


async def only(one: Person) -> Transfer:
    [found] = await one.chat.files.transfers()
    return found


def states(transfer: Transfer, people: list[Person]) -> list[str]:
    """Of the receivers, in the order of `people`."""
    found = {each.receiver: each.state for each in transfer.receivers}
    return [found[one.node.user_id] for one in people]


def test_file_to_a_room_is_taken_or_refused_by_each_member(tmp_path: Path) -> None:
    """One offer, hashed once; two take it, one refuses; the sender sees each; all say what they know in lines."""

    async def main() -> None:
        room, (alice, bob, carol, dave) = await room_of(tmp_path, "alice", "bob", "carol", "dave")
        said: dict[str, list[str]] = {"alice": [], "bob": []}
        one = Conversation(alice.chat, own_port=1, show=said["alice"].append)
        Conversation(bob.chat, own_port=1, show=said["bob"].append)
        data = content(2 * MiB + 5)
        (tmp_path / "photo.jpg").write_bytes(data)
        await one.handle(r"\chat garden")
        await one.handle(rf"\file {tmp_path}/photo.jpg")
        assert said["alice"][-1] == "* photo.jpg (2.1 MB) is offered to #garden."
        others = [bob, carol, dave]
        for other in others:
            await until(other, reached(other, "photo.jpg", "offered"))
            offered = last(other, "photo.jpg")
            assert offered is not None
            assert (offered.party, offered.author, offered.size) == (room, alice.node.peer_id, len(data))
        name = bob.chat.display_name(alice.node.user_id)
        mark = (await only(bob)).id[:6]
        assert f"* {name} offers the room photo.jpg (2.1 MB); \\file accept {mark} or \\file refuse {mark}." in [
            line.partition(" ")[2] if line.startswith("[") else line for line in said["bob"]
        ]
        await bob.chat.files.accept()
        await dave.chat.files.refuse()
        await eventually(lambda: sum("photo.jpg" in line for line in said["alice"]) == 3)
        shown = await only(alice)
        assert states(shown, others) == ["done", "offered", "refused"]
        assert (shown.state, shown.party) == ("offered", room)
        lines = said["alice"].copy()
        await one.handle(r"\file")
        assert said["alice"][len(lines)].endswith("to #garden  1 of 3 have it, 1 refused")
        assert len(said["alice"]) == len(lines) + 4
        await carol.chat.files.accept()
        await eventually(lambda: not alice.chat.files.jobs)
        shown = await only(alice)
        assert (shown.state, states(shown, others)) == ("done", ["done", "done", "refused"])
        for other, there in ((bob, True), (carol, True), (dave, False)):
            assert downloads(tmp_path / other.node.settings.name) == ({"photo.jpg": data} if there else {})
        assert not alice.chat.directory.contacts()  # nobody becomes a contact by that
        await stop(alice, bob, carol, dave)

    VirtualLoop().run(main(), until=600)


@pytest.mark.slow
def test_who_is_away_or_comes_later_gets_it_and_progress_is_each_ones_own(tmp_path: Path) -> None:
    """The sender is restarted; a member that was away, and one that joined later, are offered it and take it."""

    async def main() -> None:
        room, (alice, bob, carol) = await room_of(tmp_path, "alice", "bob", "carol", bytes_per_s=4e6)
        await carol.stop()
        (tmp_path / "x").write_bytes(content(8 * MiB))
        await alice.chat.files.send(room, str(tmp_path / "x"))
        await until(bob, reached(bob, "x", "offered"))
        await bob.chat.files.accept()
        await asyncio.sleep(1.0)
        shown = await only(alice)
        assert states(shown, [bob, carol]) == ["active", "offered"]
        assert 0 < {each.receiver: each.done for each in shown.receivers}[bob.node.user_id] < 8 * MiB
        await alice.crash()
        await asyncio.sleep(1.0)
        await alice.start()
        await until(bob, reached(bob, "x", "done"), timeout=120)
        dave = await person(bob.node.world, "dave", tmp_path / "dave").start()
        await dave.chat.rooms.join("garden")
        await until(dave, reached(dave, "x", "offered"), timeout=60)
        await carol.start()
        await until(carol, reached(carol, "x", "offered"), timeout=120)
        await carol.chat.files.accept()
        await dave.chat.files.accept()
        await eventually(lambda: not alice.chat.files.jobs, timeout=120)
        assert states(await only(alice), [bob, carol, dave]) == ["done"] * 3
        for name in ("bob", "carol", "dave"):
            assert downloads(tmp_path / name) == {"x": content(8 * MiB)}
        await stop(alice, bob, carol, dave)

    VirtualLoop().run(main(), until=2_000)


def test_what_is_taken_back_and_who_leaves(tmp_path: Path) -> None:
    """A member that leaves or is removed is offered nothing any more; the sender takes it back from all, or leaves."""

    async def main() -> None:
        room, (alice, bob, carol, dave) = await room_of(tmp_path, "alice", "bob", "carol", "dave")
        (tmp_path / "x").write_text("x")
        await alice.chat.files.send(room, str(tmp_path / "x"))
        for other in (bob, carol, dave):
            await until(other, reached(other, "x", "offered"))
        await alice.chat.rooms.remove(room, bob.node.user_id)
        await until(bob, reached(bob, "x", "cancelled", "withdrawn"))
        await carol.chat.rooms.leave(room)
        await until(carol, reached(carol, "x", "cancelled", "withdrawn"))
        assert states(await only(alice), [bob, carol, dave]) == ["cancelled", "cancelled", "offered"]
        await alice.chat.files.cancel()
        await until(dave, reached(dave, "x", "cancelled", "withdrawn"))
        assert not alice.chat.files.jobs
        (tmp_path / "y").write_text("y")
        await alice.chat.files.send(room, str(tmp_path / "y"))
        await until(dave, reached(dave, "y", "offered"))
        await alice.chat.rooms.leave(room)
        await until(dave, reached(dave, "y", "cancelled", "withdrawn"))
        with pytest.raises(NotFoundError):
            await alice.chat.files.send(room, str(tmp_path / "y"))
        with pytest.raises(InvalidPeerError):
            await alice.chat.files.send(HALL, str(tmp_path / "y"))
        alone = (await alice.chat.rooms.create("alone")).id
        with pytest.raises(RefusedError, match="Nobody else"):
            await alice.chat.files.send(alone, str(tmp_path / "y"))
        assert all(e.transfer.party == room for e in alice.of_type(FileChanged))
        await stop(alice, bob, carol, dave)

    VirtualLoop().run(main(), until=600)


def test_half_given_up_is_given_up_after_a_crash(tmp_path: Path) -> None:
    """What goes to the room is over, what goes to its members is not yet: they hear it after the start."""

    async def main() -> None:
        room, (alice, bob) = await room_of(tmp_path, "alice", "bob")
        (tmp_path / "x").write_text("x")
        await alice.chat.files.send(room, str(tmp_path / "x"))
        await until(bob, reached(bob, "x", "offered"))
        whole = next(job for job in alice.chat.files.jobs.values() if job.parts)
        await alice.chat.files.change(whole, "cancelled", "")
        await alice.crash()
        await alice.start()
        await until(bob, reached(bob, "x", "cancelled", "withdrawn"))
        assert states(await only(alice), [bob]) == ["cancelled"]
        await stop(alice, bob)

    VirtualLoop().run(main(), until=600)
