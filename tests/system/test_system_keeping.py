"""What is kept, as users have it: real processes, the commands that they type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.processes import Peer, eventually, processes, run

from p2pnode import Home
from p2pnode.api import types as t
from p2pnode.api.client import Client


def texts(peer: Peer, other: str) -> list[str]:
    answer = Client(Home(peer.home)).get("/v1/history", t.Messages, t.HistoryQuery(other))
    return [message.text for message in answer.messages]


@pytest.mark.long
def test_export_import_and_disappearing(tmp_path: Path) -> None:
    with processes(tmp_path) as running:
        bert = running.join("bert")
        bert.ready(timeout=60.0)
        table = tmp_path / "friends"
        place = bert.ready()["bootstrap"].partition("@")[2]
        table.write_text(f"bert {place} {bert.id}\n")
        anna = running.join("anna", "--peers", str(table))
        anna.ready(timeout=60.0)
        assert bert.cli("contacts", "add", anna.user, "--name", "anna", timeout=60.0).code == 0
        for text in ("one", "two\n# three"):
            assert anna.cli("send", "bert", text, "--wait", "30", timeout=60.0).code == 0
        # both agree, and what comes after it disappears on both sides
        done = anna.cli("history", "bert", "--disappear", "5s", "--keep", "30", timeout=60.0)
        assert done.code == 0, done.err
        assert "are kept 30 days" in done.out
        assert "disappear 5 s after they were read" in done.out
        bert.wait_event(lambda e: e["event"] == "timer" and e["state"] == "agreed", timeout=60.0)
        assert anna.cli("send", "bert", "secret", "--wait", "30", timeout=60.0).code == 0
        bert.wait_event(lambda e: e["event"] == "message" and e["text"] == "secret", timeout=60.0)
        assert texts(bert, "anna") == ["one", "two\n# three", "secret"]  # and so it was read
        for peer, other in ((anna, "bert"), (bert, "anna")):
            eventually(lambda p=peer, o=other: len(texts(p, o)) == 2, timeout=60.0, what="disappearing")
        # while the node runs
        export = tmp_path / "history.jsonl"
        assert anna.cli("export", "--output", str(export), timeout=60.0).code == 0
        assert export.stat().st_mode & 0o777 == 0o600
        assert anna.cli("export", "--output", str(export), timeout=60.0).code == 1  # nothing is overwritten
        shown = anna.cli("export", "--with", "bert", "--format", "markdown", timeout=60.0).out
        assert shown.startswith("# bert\n")
        assert "\\# three" in shown
        again = anna.cli("import", str(export), "--json", timeout=60.0)
        assert (again.code, again.json) == (0, {"imported": 0})
        people = tmp_path / "people.jsonl"
        assert anna.cli("contacts", "export", "--output", str(people), timeout=60.0).code == 0
    # a home on which no node runs
    home = tmp_path / "new"
    for count in (2, 0):
        done = run(home, "import", str(export), "--json", timeout=60.0)
        assert (done.code, done.json) == (0, {"imported": count}), done.err
    assert run(home, "contacts", "import", str(people), "--json", timeout=60.0).json == {"imported": 1}
    found = json.loads(run(home, "history", "bert", "--json", timeout=60.0).out)
    assert [message["text"] for message in found["messages"]] == ["one", "two\n# three"]
    lines = run(home, "export", timeout=60.0).out.splitlines()
    assert len(lines) == 3
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text("\n".join([*lines[:2], "{}"]))
    refused = run(home, "import", str(damaged), timeout=60.0)
    assert refused.code == 2
    assert f"{damaged}, line 3: " in refused.err
