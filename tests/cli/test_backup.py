"""`id export`, `id import`: the device's keys as an encrypted backup, as a user types it."""

from __future__ import annotations

from pathlib import Path

from support.cli import p2pnode

WORDS = {"P2PNODE_NEW_PASSPHRASE": "correct horse"}


def test_keys_move_to_another_home_by_a_backup(tmp_path: Path) -> None:
    """The same ids there, what was there is kept; a wrong passphrase and an existing file are refused."""
    old, new, backup = tmp_path / "old", tmp_path / "new", tmp_path / "keys.backup"
    ids = p2pnode("id", "--json", home=old).json
    done = p2pnode("id", "export", str(backup), "--json", home=old, env=WORDS)
    assert (done.code, done.json["user_id"]) == (0, ids["user_id"])
    again = p2pnode("id", "export", str(backup), "--json", home=old, env=WORDS)
    assert (again.code, again.json["error"]["code"]) == (1, "storage")

    before = p2pnode("id", "--json", home=new).json
    wrong = p2pnode("id", "import", str(backup), "--json", home=new, env={"P2PNODE_PASSPHRASE": "wrong horse"})
    assert (wrong.code, wrong.json["error"]["code"]) == (1, "key_file")
    assert p2pnode("id", "--json", home=new).json == before
    done = p2pnode("id", "import", str(backup), "--json", home=new, env={"P2PNODE_PASSPHRASE": "correct horse"})
    assert (done.code, done.json["peer_id"], len(done.json["kept"])) == (0, ids["peer_id"], 2)
    assert p2pnode("id", "--json", home=new).json == ids
    assert all((new / name).exists() for name in done.json["kept"])
