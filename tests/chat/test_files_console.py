"""`\\file` as it is typed, in line mode and on the screen alike: one interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.chat_fakes import until
from support.files import downloads, last, pair, reached, stop

from p2pnode.chat import Conversation
from p2pnode.chat.files.text import size_text
from p2pnode.simulations.virtual import VirtualLoop


def test_file_typed_to_a_name_to_the_conversation_and_accepted(tmp_path: Path) -> None:
    """By name, by name with a path in quotes, to the open conversation; listed, accepted by the shown id, refused."""

    async def main() -> None:
        alice, bob = await pair(tmp_path)
        said: dict[str, list[str]] = {"alice": [], "bob": []}
        one = Conversation(alice.chat, own_port=1, show=said["alice"].append)
        two = Conversation(bob.chat, own_port=1, show=said["bob"].append)
        await alice.chat.add_contact(bob.node.user_id, "bob b")
        (tmp_path / "a.txt").write_text("a")
        (tmp_path / "b c.txt").write_text("b")
        await one.handle(rf"\file bob b {tmp_path}/a.txt")
        assert said["alice"][-1] == "* a.txt (1 B) is offered to bob b."
        await until(bob, reached(bob, "a.txt", "offered"))
        offered = last(bob, "a.txt")
        assert offered is not None
        assert any(f"offers you a.txt (1 B); \\file accept {offered.id[:6]}" in line for line in said["bob"])
        await two.handle(r"\file accept")
        await until(alice, reached(alice, "a.txt", "done"))
        assert said["alice"][-1] == "* bob b has a.txt (1 B)."
        assert said["bob"][-1] == f"* a.txt (1 B) is here: {tmp_path}/b/downloads/a.txt"
        await one.handle(r"\chat bob b")
        await one.handle(rf"\file '{tmp_path}/b c.txt'")
        await until(bob, reached(bob, "b c.txt", "offered"))
        await two.handle(r"\file refuse")
        await until(alice, reached(alice, "b c.txt", "refused"))
        assert said["alice"][-1] == "! bob b does not take b c.txt (1 B)."
        await one.handle(r"\file")
        assert [line.split("  ")[-1] for line in said["alice"][-2:]] == [
            "done", "refused: the other side does not want it",
        ]  # fmt: skip
        assert downloads(tmp_path / "b") == {"a.txt": b"a"}
        await stop(alice, bob)

    VirtualLoop().run(main())


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (r"\file", "* No files yet; \\file NAME PATH sends one."),
        (r"\file x.txt", "! A file goes to a person or a room: \\file NAME PATH, or \\chat NAME before."),
        (r"\file bob /nowhere/x", "! There is no file '/nowhere/x'."),
        (r"\file accept", "! Nothing is offered."),
        (r"\file accept zz", "! 'zz' is no id of a file: 4 to 32 hex digits, as `file list` shows."),
        (r"\file cancel abcd", "! There is no file 'abcd'; `file list` shows all."),
        (r"\file bob /dev/null", "! '/dev/null' is neither a file nor a folder."),
    ],
)
def test_mistakes_are_one_sentence(line: str, answer: str, tmp_path: Path) -> None:
    """What cannot be done is said, and nothing is begun."""

    async def main() -> None:
        alice, bob = await pair(tmp_path)
        await alice.chat.add_contact(bob.node.user_id, "bob")
        said: list[str] = []
        await Conversation(alice.chat, own_port=1, show=said.append).handle(line)
        assert said == [answer]
        assert not alice.chat.files.jobs
        await stop(alice, bob)

    VirtualLoop().run(main())


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_200_000, "3.2 MB"), (2.5e9, "2.5 GB")]
)
def test_sizes_as_people_read_them(count: float, text: str) -> None:
    assert size_text(count) == text
