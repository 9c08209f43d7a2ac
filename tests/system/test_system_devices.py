"""Several devices of one user as users have them: real processes on loopback, what they type, what they see."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.processes import LAUNCH, QUIET, Peer, environment, eventually, processes, run

from p2pnode import Home
from p2pnode.api import types as t
from p2pnode.api.client import Client


def texts(peer: Peer, whom: str) -> list[tuple[str, str]]:
    return [(message.direction, message.text) for message in messages(peer, whom)]


def messages(peer: Peer, whom: str) -> list[t.Message]:
    return Client(Home(peer.home)).get("/v1/history", t.Messages, t.HistoryQuery(whom)).messages


def link(old: Peer, home: Path) -> dict[str, Any]:
    """Type `id link` on one, the code on the other; return what the new one prints."""
    home.mkdir(mode=0o700)
    with subprocess.Popen(
        [*LAUNCH, "--home", str(old.home), "id", "link", "--json"],
        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment(),
    ) as showing:  # fmt: skip
        try:
            assert showing.stdout is not None
            code = json.loads(showing.stdout.readline())["code"]
            linked = run(home, "id", "link", code, "--json", "--listen", "127.0.0.1:0", *QUIET, timeout=60.0)
            assert linked.code == 0, linked.out + linked.err
            told = json.loads(showing.stdout.readline())
            assert showing.wait(20) == 0
        finally:
            showing.kill()
    answer: dict[str, Any] = linked.json
    assert told["peer"] == answer["peer_id"]
    again = run(home, "id", "link", code, "--json", "--listen", "127.0.0.1:0", *QUIET, timeout=60.0)
    assert (again.code, again.json["error"]["code"]) == (1, "link_code")
    return answer


@pytest.mark.long
def test_a_second_device_is_linked_shares_everything_and_is_revoked(tmp_path: Path) -> None:
    """One code, once; messages reach both and what one sends the other shows; a lost one gets nothing any more."""
    with processes(tmp_path) as running:
        boot = running.bootstrap("boot")
        boot.ready(timeout=60.0)
        laptop = running.join("laptop", bootstrap=[boot])
        bert = running.join("bert", bootstrap=[boot])
        laptop.ready(timeout=60.0)
        bert.ready(timeout=60.0)
        answer = link(laptop, tmp_path / "phone")
        assert (answer["user_id"], answer["devices"]) == (laptop.user, 2)
        assert bert.cli("contacts", "add", laptop.user, "--name", "anna").code == 0
        assert laptop.cli("contacts", "add", bert.user, "--name", "bert").code == 0
        phone = running.join("phone", bootstrap=[boot])
        phone.ready(timeout=60.0)
        assert phone.user == laptop.user
        listed = laptop.cli("id", "devices", "--json").json["devices"]
        assert {device["peer"] for device in listed} == {laptop.id, phone.id}

        assert laptop.cli("send", "bert", "from the laptop", "--wait", "20", timeout=60.0).code == 0
        eventually(lambda: texts(phone, "bert") == [("out", "from the laptop")], timeout=60.0, what="on the phone")

        assert bert.cli("send", "anna", "to both", "--wait", "20", "--json", timeout=60.0).json["delivered"]
        wanted = [("out", "from the laptop"), ("in", "to both")]
        eventually(lambda: texts(phone, "bert") == wanted == texts(laptop, "bert"), timeout=60.0, what="on both")
        eventually(
            lambda: messages(bert, "anna")[-1].everywhere, timeout=60.0,
            what="on all devices",
        )  # fmt: skip

        refused = laptop.cli("id", "revoke", laptop.id, "--json")
        assert refused.code == 1
        left = laptop.cli("id", "revoke", phone.id, "--json", timeout=60.0).json["devices"]
        assert [device["peer"] for device in left] == [laptop.id]
        gone = phone.wait_event(lambda e: e["event"] == "devices" and e["state"] == "revoked", timeout=60.0)
        assert gone["members"] == [laptop.id]
        assert phone.cli("send", "bert", "still here?", "--json").json["error"]["code"] == "device_revoked"
        eventually(
            lambda: bert.cli("send", "anna", "secret", "--wait", "20", "--json", timeout=60.0).json["devices"] == 1,
            timeout=90.0, what="one device only",
        )  # fmt: skip
        assert ("in", "secret") not in texts(phone, "bert")


@pytest.mark.long
def test_the_older_process_of_a_copied_home_stops_and_says_so(tmp_path: Path) -> None:
    """The copy is joined; the first one ends with exit 1 and one sentence, the copy stays."""
    with processes(tmp_path) as running:
        boot = running.bootstrap("boot")
        boot.ready(timeout=60.0)
        first = running.join("first", bootstrap=[boot])
        first.ready(timeout=60.0)
        eventually((first.home / "state.msgpack").exists, timeout=60.0, what="its state on the disk")
        (tmp_path / "copy").mkdir(mode=0o700)
        for name in ("node.key", "account.key", "state.msgpack"):
            shutil.copy2(first.home / name, tmp_path / "copy" / name)
        copy = running.join("copy", bootstrap=[boot])
        copy.ready(timeout=60.0)
        assert copy.id == first.id
        assert first.process.wait(60) == 1
        assert "from a copy of this home" in first.log()
        assert copy.process.poll() is None
