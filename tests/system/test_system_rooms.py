"""Rooms between real processes: by commands, and typed into two terminals."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.processes import Peer, eventually, processes
from support.terminals import terminals

pytestmark = pytest.mark.long


def texts(peer: Peer) -> list[str]:
    found = peer.cli("history", "#garden", "--json")
    assert found.code == 0, found.out + found.err
    return [message["text"] for message in found.json["messages"]]


def test_rooms_by_commands(tmp_path: Path) -> None:
    """Made, found by name, written to, listed, removed, left; the same history on all; errors in one sentence."""
    with processes(tmp_path) as running:
        alice = running.join("alice")
        bob = running.join("bob", bootstrap=[alice])
        alice.ready()
        bob.ready()
        made = alice.cli("rooms", "create", "garden", "--open", "--json")
        assert made.code == 0, made.out + made.err
        assert (made.json["name"], made.json["state"], made.json["role"]) == ("garden", "joined", "owner")
        joined = bob.cli("rooms", "join", "garden", "--wait", "20", "--json", timeout=60)
        assert joined.code == 0, joined.out + joined.err
        assert (joined.json["id"], joined.json["members"]) == (made.json["id"], 2)
        sent = bob.cli("send", "#garden", "hello from bob", "--wait", "15", "--json", timeout=60)
        assert (sent.code, sent.json["state"]) == (0, "delivered"), sent.out + sent.err
        came = alice.wait_event(lambda e: e["event"] == "message" and e["text"] == "hello from bob")
        assert (came["to"], came["from_user"]) == (made.json["id"], bob.user)
        assert alice.cli("send", "#garden", "hello bob", "--wait", "15", timeout=60).code == 0
        bob.wait_event(lambda e: e["event"] == "message" and e["text"] == "hello bob")
        eventually(lambda: texts(alice) == texts(bob) == ["hello from bob", "hello bob"], what="the same history")
        [listed] = bob.cli("rooms", "list", "--json").json["rooms"]
        assert (listed["state"], listed["role"], listed["neighbours"]) == ("joined", "member", 1)
        members = alice.cli("rooms", "members", "garden", "--json").json["members"]
        assert [(m["role"], m["state"], m["here"]) for m in members] == [
            ("owner", "member", True),
            ("member", "member", True),
        ]
        (tmp_path / "plan.txt").write_text("dig")
        offered = alice.cli("file", "send", "#garden", str(tmp_path / "plan.txt"), "--wait", "3", "--json", timeout=60)
        assert offered.code == 0, offered.out + offered.err
        assert (offered.json["room"], offered.json["receivers"][0]["user"]) == (made.json["id"], bob.user)
        bob.wait_event(lambda e: e["event"] == "file" and e["state"] == "offered" and e["to"] == made.json["id"])
        accepted = bob.cli("file", "accept", "--json", timeout=60)
        assert (accepted.code, accepted.json["state"]) == (0, "done"), accepted.out + accepted.err
        assert Path(accepted.json["path"]).read_text() == "dig"
        eventually(lambda: "1 of 1 have it" in alice.cli("file", "list").out, what="the sender sees who has it")
        last = alice.cli("rooms", "step-down", "garden", "--json")
        assert (last.code, last.json["error"]["code"]) == (1, "refused")
        assert alice.cli("rooms", "owner", "garden", bob.user, "--json").code == 0
        bob.wait_event(lambda e: e["event"] == "room" and e["state"] == "owner")
        assert bob.cli("rooms", "step-down", "garden", "--json").json["role"] == "member"
        alice.wait_event(lambda e: e["event"] == "room" and e["state"] == "stepped_down")
        removed = alice.cli("rooms", "remove", "garden", bob.user, "--json")
        assert removed.json["members"] == 1
        bob.wait_event(lambda e: e["event"] == "room" and e["state"] == "removed")
        refused = bob.cli("send", "#garden", "still here?", "--json")
        assert (refused.code, refused.json["error"]["code"]) == (1, "not_found")
        nobody = bob.cli("rooms", "join", "no-such-room", "--json", timeout=60)
        assert (nobody.code, nobody.json["error"]["code"]) == (1, "not_found")
        assert alice.cli("rooms", "leave", "garden", "--json").json["state"] == "left"
        assert bob.stop() == 0
        assert texts(bob) == ["hello from bob", "hello bob"]  # the history needs no node


def test_two_terminals_in_a_room(tmp_path: Path) -> None:
    """`\\room create`, invited, joined, plain text, `ROOM/text`, members; both read what the other types."""
    with terminals(tmp_path) as desk:
        anna = desk.open("anna", "join", "anna", "--plain", width=160)
        bert = desk.open("bert", "join", "bert", "--plain", width=160)
        anna.wait_for(r"bert~\w+ has entered the hall|In the hall: bert")
        bert.wait_for(r"anna~\w+ has entered the hall|In the hall: anna")
        bert.type(r"\add anna")
        bert.wait_for("is a contact now")
        anna.type(r"\room create attic")
        anna.wait_for("You are in #attic")
        anna.type(r"\room invite bert")
        anna.wait_for(r"bert~\w+ is invited to #attic")
        bert.wait_for(r"anna~\w+ invites you to #attic: \\room join attic")
        bert.type(r"\room join attic")
        bert.wait_for("You are in #attic, 2 members")
        anna.wait_for(r"bert~\w+ is in #attic now")
        bert.type("who cleans it up?")
        anna.wait_for(r"bert~\w+: who cleans it up\?")
        anna.type(r"\chat")
        anna.type("#attic/not me")
        bert.wait_for(r"anna~\w+: not me")
        bert.type(r"\who")
        bert.wait_for(r"anna~\w+ +owner, connected")
        anna.type(r"\room owner attic bert")
        anna.wait_for(r"bert~\w+ owns #attic as well; only bert~\w+ can end that")
        bert.wait_for("You own #attic as well")
        bert.type(r"\room stepdown")
        anna.wait_for(r"bert~\w+ does not own #attic any more")
        bert.type(r"\room leave")
        anna.wait_for(r"bert~\w+ left #attic")
        anna.type(r"\room")
        anna.wait_for(r"#attic +1 member, by invitation, yours")
