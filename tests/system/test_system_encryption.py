"""Messages encrypted at rest, as users have it: a passphrase for the keys is one for the messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.processes import run
from support.require import require

from p2pnode.chat import encryption_available

LINE = (
    '{"with":"hall","id":"%s","from":"12D3KooWGrUdMBZbPB1dqKrABfWoYyVHVaoDmDkA9Mu2LLyEmzsB","direction":"in",'
    '"text":"the zebra walks at midnight","sent_at":"2026-01-01T12:00:00.000Z",'
    '"received_at":"2026-01-01T12:00:00.000Z","state":"received","sequence":1}'
)


@pytest.mark.long
def test_a_passphrase_encrypts_keys_and_messages_and_its_removal_ends_it(tmp_path: Path) -> None:
    require(encryption_available(), "sqlcipher3 is not installed (extra `encryption`)")
    home, export = tmp_path / "home", tmp_path / "export.jsonl"
    export.write_text('{"p2pnode":"history","format":1}\n' + LINE % ("0" * 32) + "\n")
    done = run(home, "import", str(export), timeout=60.0)
    assert done.code == 0, done.err
    database = home / "chat.db"
    assert b"zebra" in database.read_bytes()
    done = run(home, "id", "passphrase", timeout=60.0, P2PNODE_NEW_PASSPHRASE="open sesame")
    assert (done.code, done.out) == (0, "The keys are encrypted now, and so are the messages.\n"), done.err
    assert b"zebra" not in database.read_bytes()
    locked = run(home, "history", "hall", timeout=60.0)
    assert locked.code == 1
    assert "passphrase" in locked.err
    shown = run(home, "history", "hall", timeout=60.0, P2PNODE_PASSPHRASE="open sesame")
    assert "the zebra walks at midnight" in shown.out
    done = run(home, "id", "passphrase", "--remove", timeout=60.0, P2PNODE_PASSPHRASE="open sesame")
    assert (done.code, done.out) == (0, "The keys are stored unencrypted now, and so are the messages.\n"), done.err
    assert "the zebra walks at midnight" in run(home, "history", "hall", timeout=60.0).out
