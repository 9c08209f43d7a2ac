"""Files between real processes: by commands, through `kill -9`, and typed into two terminals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.processes import Peer, eventually, processes
from support.terminals import terminals

from p2pnode import Home
from p2pnode.api.client import Client
from p2pnode.api.file_types import FileInfo, FileQuery

SIZE = 48 << 20


def befriended(one: Peer, other: Peer) -> None:
    for a, b in ((one, other), (other, one)):
        a.ready()
        outcome = a.cli("contacts", "add", b.user, "--name", b.home.name)
        assert outcome.code == 0, outcome.err


@pytest.mark.long
def test_folder_by_commands_through_kill_9(tmp_path: Path) -> None:
    """Offered, listed, accepted; the receiver is killed under way and started again: it goes on by itself, whole."""
    top = tmp_path / "holiday"
    (top / "sea").mkdir(parents=True)
    (top / "sea" / "wave.bin").write_bytes(os.urandom(SIZE))
    (top / "words.txt").write_text("hello")
    with processes(tmp_path) as running:
        alice = running.join("alice")
        bob = running.join("bob", bootstrap=[alice])
        befriended(alice, bob)
        sent = alice.cli("file", "send", "bob", str(top), "--wait", "60", "--json", timeout=90)
        assert sent.code == 0, sent.out + sent.err
        assert (sent.json["state"], sent.json["reason"], sent.json["files"]) == ("offered", "pending", 2)
        bob.wait_event(lambda e: e["event"] == "file" and e["state"] == "offered")
        [offered] = bob.cli("file", "list", "--json").json["files"]
        assert (offered["direction"], offered["name"], offered["size"]) == ("in", "holiday", SIZE + 5)
        accepted = bob.cli("file", "accept", offered["id"][:8], "--wait", "0", "--json")
        assert accepted.json["state"] in ("active", "done")

        client = Client(Home(bob.home))

        def begun() -> bool:
            return client.get("/v1/files/one", FileInfo, FileQuery(offered["id"])).done > SIZE // 10

        eventually(begun, timeout=60, what="a tenth of the folder")
        bob.kill()
        bob = running.join("bob", bootstrap=[alice])
        done = alice.wait_event(lambda e: e["event"] == "file" and e["state"] == "done", timeout=90)
        assert (done["id"], done["name"], done["direction"]) == (offered["id"], "holiday", "out")
        [got] = bob.cli("file", "list", "--json").json["files"]
        assert (got["state"], got["path"]) == ("done", str(bob.home / "downloads" / "holiday"))
        here = bob.home / "downloads"
        assert sorted(p.name for p in here.iterdir()) == ["holiday"]
        assert (here / "holiday" / "sea" / "wave.bin").read_bytes() == (top / "sea" / "wave.bin").read_bytes()
        assert (here / "holiday" / "words.txt").read_text() == "hello"
        refused = alice.cli("file", "send", "bob", str(tmp_path / "none"), "--json")
        assert (refused.code, refused.json["error"]["code"]) == (1, "no_such_file")


def test_two_terminals_send_a_file(tmp_path: Path) -> None:
    """`\\file NAME PATH` on one, `\\add`, `\\file accept` on the other; both read what became of it."""
    (tmp_path / "my photo.jpg").write_bytes(os.urandom(300_000))
    with terminals(tmp_path) as desk:
        anna = desk.open("anna", "join", "anna", "--plain", width=160)
        bert = desk.open("bert", "join", "bert", "--plain", width=160)
        anna.wait_for(r"bert~\w+ has entered the hall|In the hall: bert")
        bert.wait_for(r"anna~\w+ has entered the hall|In the hall: anna")
        anna.type(rf"\file bert '{tmp_path}/my photo.jpg'")
        anna.wait_for("waits until you are accepted there as a contact")
        bert.type(r"\add anna")
        bert.wait_for(r"offers you my photo.jpg \(300.0 kB\)")
        bert.type(r"\file accept")
        bert.wait_for("my photo.jpg .* is here: ")
        anna.wait_for("has my photo.jpg")
        assert (tmp_path / "bert" / "downloads" / "my photo.jpg").stat().st_size == 300_000
        bert.type(r"\file")
        bert.wait_for("my photo.jpg  300.0 kB  from anna.* done")
