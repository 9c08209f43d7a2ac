"""Real bootstrap nodes that are killed, and still hold the records that others stored on them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from support.processes import eventually, processes

from p2pnode.core.address import Realm
from p2pnode.core.ids import PeerId
from p2pnode.dht import record_key
from p2pnode.presence import presence_salt


def kept(home: Path) -> set[bytes]:
    """Return the keys in a node's file."""
    with closing(sqlite3.connect(f"file:{home / 'records.db'}?mode=ro", uri=True, timeout=5)) as connection:
        return {key for (key,) in connection.execute("SELECT key FROM records")}


def test_w1_a_killed_bootstrap_node_still_holds_what_it_was_given(tmp_path: Path) -> None:
    """Alice's presence and devices reach the file; then she and the only holder are killed. On the same home it starts
    again, and a newcomer finds her: nobody else could know."""
    with processes(tmp_path) as running:
        boot = running.bootstrap("boot")
        address = boot.ready()["addresses"][0]
        alice = running.join("alice", bootstrap=[boot])
        alice_id = alice.id
        presence = record_key(PeerId.parse(alice_id).raw, presence_salt(Realm.LOOPBACK))
        eventually(lambda: presence in kept(boot.home), 10, "the writing of the records")
        alice.kill()
        boot.kill()
        again = running.bootstrap("boot", listen=address)
        assert again.id == boot.id
        bob = running.join("bob", bootstrap=[again])
        bob.ready()
        outcome = bob.cli("find", alice_id, "--json")
        assert outcome.code == 0, outcome.err
        found = outcome.json
        assert found["peer"] == alice_id
        assert found["online"] is True  # she said no goodbye
        assert (boot.home / "records.db").stat().st_mode & 0o777 == 0o600
        assert not (bob.home / "records.db").exists()
        assert again.stop() == 0
