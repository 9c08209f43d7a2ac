"""A static table as its users have it: five processes, one file, nothing else to find each other by."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from support.processes import Peer, Processes, processes, run

from p2pnode import Home
from p2pnode.api import types as t
from p2pnode.api.client import Client

NAMES = ("anna", "bert", "cora", "dora", "emil")


def places() -> dict[str, str]:
    """An address of the loopback network for each, that no other test uses: nobody else can take the port."""
    pid = os.getpid()
    return {name: f"127.{64 + pid % 128}.{pid // 128 % 256}.{number}" for number, name in enumerate(NAMES, 1)}


def join(running: Processes, name: str, place: str, table: Path) -> Peer:
    return running.join(name, "--peers", str(table), "--idle-timeout", "1", listen=f"{place}:4747")


def write(peer: Peer, to: str, text: str) -> str:
    client = Client(Home(peer.home))
    return client.post("/v1/messages", t.SendAnswer, t.SendRequest(to, text, 30.0), timeout=60.0).state


def has(peer: Peer, event: str, **fields: str) -> dict[str, object]:
    return peer.wait_event(
        lambda e: e["event"] == event and all(e.get(name) == value for name, value in fields.items()), timeout=60.0
    )


@pytest.mark.long
def test_five_with_one_table_write_to_each_other_by_name(tmp_path: Path) -> None:
    """No bootstrap node, no LAN, idle time-out of a second; then another key sits at an address."""
    where = places()
    table = tmp_path / "friends.csv"
    table.write_text("name,host,port\n" + "".join(f"{name},{place},4747\n" for name, place in where.items()))
    with processes(tmp_path) as running:
        people = {name: join(running, name, place, table) for name, place in where.items()}
        for name, peer in people.items():
            for other in NAMES:
                if other != name:
                    has(peer, "table", name=other, state="known")
        for name, peer in people.items():
            for other in NAMES:
                if other != name:
                    assert write(peer, other, f"{name} to {other}") == "delivered"
        for name, peer in people.items():
            for other in NAMES:
                if other != name:
                    assert has(peer, "message", text=f"{other} to {name}")["from_name"] == other
        anna, bert = people["anna"], people["bert"]
        has(anna, "session", state="closed", reason="idle")
        assert write(anna, "bert", "after a pause") == "delivered"
        has(bert, "message", text="after a pause")
        anna.stop(timeout=20.0)
        bert.stop(timeout=20.0)
        shutil.rmtree(bert.home)  # a new bert, with a new key
        bert = join(running, "bert", where["bert"], table)
        bert.ready(timeout=60.0)
        anna = join(running, "anna", where["anna"], table)
        assert "answered there before for bert" in str(has(anna, "table", name="bert", state="wrong_key")["text"])
        refused = anna.cli("send", "bert", "secret", "--json", timeout=60.0)
        assert (refused.code, json.loads(refused.out)["error"]["code"]) == (1, "wrong_key")
        assert not bert.messages()


def test_a_table_that_cannot_be_read_names_file_and_line(tmp_path: Path) -> None:
    table = tmp_path / "friends.txt"
    table.write_text("# people\nanna 192.0.2.7 4747\nbert 192.0.2.8 none\n")
    done = run(tmp_path / "home", "join", "--headless", "--no-lan", "--peers", str(table))
    assert done.code != 0
    assert f"{table}, line 3: " in done.err
