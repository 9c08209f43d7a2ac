"""Keys that strangers' letters are sealed to: a new one each day, destroyed once no letter can need it. No I/O.

A key is named by its public half, never by a number, so writer and reader need not agree on the time: whoever has an
old note seals to an old key, which is kept for as long as a note lives and a letter after it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["KEEP_S", "MAX_EPOCHS", "ROTATE_S", "Epoch", "current", "destroy", "epochs", "put_epoch"]

ROTATE_S = 86_400
NOTE_S = LETTER_S = 7 * 86_400  # how long a note can be found, and a letter that was sealed to it
KEEP_S = NOTE_S + LETTER_S + 86_400  # after it was published last; a day for clocks
MAX_EPOCHS = 32  # sixteen days, and some for clocks that were wrong


@dataclass(frozen=True, slots=True)
class Epoch:
    """A key (X25519, private). `made_at`, `published_at`: by our clock, Unix seconds; `published_at`: last."""

    private: bytes
    made_at: int
    published_at: int

    def __repr__(self) -> str:
        return f"<Epoch of {self.made_at}>"


def current(kept: Sequence[Epoch], now_s: int) -> Epoch | None:
    """Return the key to publish, None: it is time for a new one. A key from the future was made by a clock that was
    wrong; it serves no longer than others."""
    newest = max(kept, key=lambda each: each.made_at, default=None)
    return newest if newest is not None and abs(now_s - newest.made_at) < ROTATE_S else None


def epochs(connection: sqlite3.Connection) -> list[Epoch]:
    """Return all keys, newest first."""
    rows = connection.execute("SELECT private, made_at, published_at FROM mail_epochs ORDER BY made_at DESC").fetchall()
    return [Epoch(*row) for row in rows]


def put_epoch(connection: sqlite3.Connection, epoch: Epoch) -> None:
    """Keep a key from before it is published, or note that it was published again."""
    connection.execute(
        "INSERT OR REPLACE INTO mail_epochs (private, made_at, published_at) VALUES (?, ?, ?)",
        (epoch.private, epoch.made_at, epoch.published_at),
    )


def destroy(connection: sqlite3.Connection, now_s: int) -> int:
    """Destroy the keys that no letter needs any more; return how many. Whoever's clock jumps by half a month destroys
    them early: letters are lost then, not secrets."""
    old = connection.execute("DELETE FROM mail_epochs WHERE abs(? - published_at) > ?", (now_s, KEEP_S)).rowcount
    many = connection.execute(
        "DELETE FROM mail_epochs WHERE private IN"
        " (SELECT private FROM mail_epochs ORDER BY published_at DESC LIMIT -1 OFFSET ?)",
        (MAX_EPOCHS,),
    ).rowcount
    return old + many
