"""What mail keeps in the chat's database: grants given and taken, letters on their way. Operations of one transaction.

Secrets that were used are deleted in the transaction that says so (`secure_delete` overwrites them in the file).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from p2pnode import PeerId
from p2pnode.chat.model import party_from_columns
from p2pnode.chat.store import OutboxItem

__all__ = [
    "Given",
    "Missing",
    "StoredLetter",
    "Taken",
    "advance",
    "awaited",
    "contents",
    "drop_device",
    "drop_letter",
    "due_letters",
    "forget_unknown",
    "found_missing",
    "given",
    "look_at_all",
    "mark_stored",
    "missing",
    "newest_given",
    "next_look",
    "open_letters",
    "put_given",
    "put_letter",
    "put_taken",
    "replaced",
    "retire",
    "taken",
    "unwritten",
    "wait_for",
]

MAX_GIVEN = 4  # chains of one device that are kept: the newest, and older ones that may hold letters
MAX_UNKNOWN = 128  # chains from, and to, devices that are not among those on the disk
MAX_MISSING = 64  # skipped slots of a device that are looked for: as many letters of one writer wait at once


@dataclass(frozen=True, slots=True)
class Given:
    """A chain that `device` may write in. `made_at`: Unix seconds. The rest: see the migration."""

    id: bytes
    device: PeerId
    secret: bytes
    private: bytes
    base: int
    used: int | None
    made_at: int


@dataclass(frozen=True, slots=True)
class Missing:
    """A slot that was skipped."""

    slot: int
    secret: bytes
    missed_at: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The means to leave `device` mail."""

    device: PeerId
    id: bytes
    secret: bytes
    key: bytes
    used: int


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A letter of ours that waits to be read. `expires`: 0 until it is stored. `awaited`: something in it is not
    delivered yet."""

    id: int
    device: PeerId
    seed: bytes
    letter: bytes
    expires: int
    checks: int
    awaited: bool


# grants that we gave

_GIVEN = "SELECT id, device, secret, private, base, used, made_at FROM mail_given"


def given(connection: sqlite3.Connection) -> list[Given]:
    """Return all chains that others may write in, newest first."""
    rows = connection.execute(f"{_GIVEN} ORDER BY made_at DESC, id").fetchall()
    return [Given(row[0], PeerId(row[1]), *row[2:]) for row in rows]


def newest_given(connection: sqlite3.Connection, device: PeerId) -> Given | None:
    """Return the chain that `device` should write in."""
    row = connection.execute(
        f"{_GIVEN} WHERE device = ? AND used IS NULL ORDER BY made_at DESC LIMIT 1", (device.raw,)
    ).fetchone()
    return Given(row[0], PeerId(row[1]), *row[2:]) if row is not None else None


def put_given(connection: sqlite3.Connection, grant: Given) -> None:
    """Add a chain; of one device's, the oldest beyond four go."""
    connection.execute(
        "INSERT OR REPLACE INTO mail_given (id, device, secret, private, base, used, made_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (grant.id, grant.device.raw, grant.secret, grant.private, grant.base, grant.used, grant.made_at),
    )
    connection.execute(
        "DELETE FROM mail_given WHERE device = ?1 AND id IN (SELECT id FROM mail_given WHERE device = ?1"
        " ORDER BY made_at DESC, id = ?2 DESC LIMIT -1 OFFSET ?3)",
        (grant.device.raw, grant.id, MAX_GIVEN),
    )


def replaced(connection: sqlite3.Connection, device: PeerId, newest: bytes, used: int) -> None:
    """`device` has the grant `newest` now, and had written `used` slots of the one before."""
    before = connection.execute(
        "SELECT id FROM mail_given WHERE device = ? AND id != ? AND used IS NULL", (device.raw, newest)
    ).fetchall()
    for (grant,) in before:
        connection.execute("UPDATE mail_given SET used = ? WHERE id = ?", (used, grant))
    retire(connection, before_s=0)


def retire(connection: sqlite3.Connection, *, before_s: int) -> bool:
    """Throw away replaced chains in which nothing can come any more, and all replaced ones made before that time.
    Return whether there were any."""
    chains = connection.execute(
        "DELETE FROM mail_given WHERE used IS NOT NULL AND (made_at < ? OR (base >= used AND NOT EXISTS"
        " (SELECT 1 FROM mail_missing WHERE grant_id = mail_given.id)))",
        (before_s,),
    )
    slots = connection.execute("DELETE FROM mail_missing WHERE missed_at < ?", (before_s,))
    return bool(chains.rowcount + slots.rowcount)


def forget_unknown(connection: sqlite3.Connection) -> None:
    """Throw away what devices gave and got that we know no more: an account can vouch for any number of them.

    The newest are kept: not every device that we know is on the disk.
    """
    known = "SELECT peer FROM devices UNION SELECT key FROM contacts WHERE kind = 'peer'"
    for table, made in (("mail_given", "made_at"), ("mail_taken", "taken_at")):
        connection.execute(
            f"DELETE FROM {table} WHERE device IN (SELECT device FROM {table} WHERE device NOT IN ({known})"  # noqa: S608
            f" ORDER BY {made} DESC LIMIT -1 OFFSET ?)",
            (MAX_UNKNOWN,),
        )


def advance(connection: sqlite3.Connection, grant: bytes, base: int, secret: bytes, skipped: Sequence[Missing]) -> None:
    """Everything before slot `base` was read, but `skipped`."""
    connection.execute(
        "UPDATE mail_given SET base = ?, secret = ? WHERE id = ? AND base < ?", (base, secret, grant, base)
    )
    connection.executemany(
        "INSERT OR IGNORE INTO mail_missing (grant_id, slot, secret, missed_at) SELECT id, ?, ?, ? FROM mail_given"
        " WHERE id = ?",
        [(each.slot, each.secret, each.missed_at, grant) for each in skipped],
    )
    connection.execute(
        "DELETE FROM mail_missing WHERE (grant_id, slot) IN (SELECT m.grant_id, m.slot FROM mail_missing AS m"
        " JOIN mail_given AS g ON g.id = m.grant_id WHERE g.device = (SELECT device FROM mail_given WHERE id = ?)"
        " ORDER BY m.missed_at DESC, m.slot DESC LIMIT -1 OFFSET ?)",
        (grant, MAX_MISSING),
    )


def missing(connection: sqlite3.Connection, grant: bytes) -> list[Missing]:
    """Return the skipped slots of a chain."""
    rows = connection.execute(
        "SELECT slot, secret, missed_at FROM mail_missing WHERE grant_id = ? ORDER BY slot", (grant,)
    )
    return [Missing(*row) for row in rows]


def found_missing(connection: sqlite3.Connection, grant: bytes, slot: int) -> None:
    connection.execute("DELETE FROM mail_missing WHERE grant_id = ? AND slot = ?", (grant, slot))


# grants that we took


def taken(connection: sqlite3.Connection, device: PeerId) -> Taken | None:
    """Return what we have from `device`."""
    row = connection.execute("SELECT id, secret, key, used FROM mail_taken WHERE device = ?", (device.raw,)).fetchone()
    return Taken(device, *row) if row is not None else None


def put_taken(connection: sqlite3.Connection, grant: Taken, now_s: int) -> int:
    """Keep it in the place of the one before; return how many slots of that were written."""
    before = taken(connection, grant.device)
    connection.execute(
        "INSERT OR REPLACE INTO mail_taken (device, id, secret, key, used, taken_at) VALUES (?, ?, ?, ?, ?, ?)",
        (grant.device.raw, grant.id, grant.secret, grant.key, grant.used, now_s),
    )
    return before.used if before is not None else 0


def drop_device(connection: sqlite3.Connection, device: PeerId) -> None:
    """Neither write to a device nor read from it any more."""
    for table in ("mail_given", "mail_taken", "mail_letters"):
        connection.execute(f"DELETE FROM {table} WHERE device = ?", (device.raw,))  # noqa: S608 - literals of ours


# letters of ours


def unwritten(connection: sqlite3.Connection, device: PeerId, limit: int) -> list[OutboxItem]:
    """Return what `device` has not acknowledged and is in no letter to it, oldest first; not the hall's."""
    rows = connection.execute(
        "SELECT m.position, m.id, c.kind, c.key, m.author_seq, m.sent_at, m.text FROM outbox AS o"
        " JOIN messages AS m ON m.position = o.message JOIN conversations AS c ON c.id = m.conversation"
        " WHERE o.device = ?1 AND c.kind IN ('user', 'peer') AND NOT EXISTS (SELECT 1 FROM mail_contents AS t"
        " JOIN mail_letters AS l ON l.id = t.letter WHERE t.message = m.position AND l.device = ?1)"
        " ORDER BY o.message LIMIT ?2",
        (device.raw, limit),
    )
    return [OutboxItem(row[0], row[1], False, party_from_columns(row[2], row[3]), *row[4:]) for row in rows]


def awaited(connection: sqlite3.Connection) -> list[PeerId]:
    """Return the devices that we have the means to write to, and that messages wait for outside letters."""
    rows = connection.execute(
        "SELECT DISTINCT o.device FROM outbox AS o JOIN mail_taken AS t ON t.device = o.device"
        " WHERE NOT EXISTS (SELECT 1 FROM mail_contents AS e JOIN mail_letters AS l ON l.id = e.letter"
        " WHERE e.message = o.message AND l.device = o.device)"
    )
    return [PeerId(device) for (device,) in rows]


def put_letter(
    connection: sqlite3.Connection, grant: Taken, seed: bytes, letter: bytes, messages: Sequence[int]
) -> int | None:  # fmt: skip
    """Keep a letter until it was read; `grant`: as it is behind the letter's slot. Return the letter's number.

    None: the slot is not the next one any more, nothing is done.
    """
    moved = connection.execute(
        "UPDATE mail_taken SET secret = ?, used = ? WHERE device = ? AND id = ? AND used = ?",
        (grant.secret, grant.used, grant.device.raw, grant.id, grant.used - 1),
    )
    if not moved.rowcount:
        return None
    number = connection.execute(
        "INSERT INTO mail_letters (device, seed, letter) VALUES (?, ?, ?)", (grant.device.raw, seed, letter)
    ).lastrowid
    connection.executemany(
        "INSERT INTO mail_contents (letter, message) VALUES (?, ?)", [(number, position) for position in messages]
    )
    return number


def open_letters(connection: sqlite3.Connection, device: PeerId) -> int:
    """Return how many letters wait for a device."""
    count: int = connection.execute("SELECT count(*) FROM mail_letters WHERE device = ?", (device.raw,)).fetchone()[0]
    return count


def due_letters(connection: sqlite3.Connection, now_s: int, limit: int) -> list[StoredLetter]:
    """Return letters that have to be looked after: their time has come, or all that is in them is delivered."""
    rows = connection.execute(
        "SELECT * FROM (SELECT l.id, l.device, l.seed, l.letter, l.expires, l.checks, l.next_at, EXISTS ("
        " SELECT 1 FROM mail_contents AS t JOIN outbox AS o ON o.message = t.message AND o.device = l.device"
        " WHERE t.letter = l.id) AS awaited FROM mail_letters AS l)"
        " WHERE next_at <= ? OR NOT awaited ORDER BY next_at LIMIT ?",
        (now_s, limit),
    ).fetchall()
    return [StoredLetter(row[0], PeerId(row[1]), row[2], row[3], row[4], row[5], bool(row[7])) for row in rows]


def look_at_all(connection: sqlite3.Connection) -> None:
    """Every letter's time has come: nobody looked after them for a while."""
    connection.execute("UPDATE mail_letters SET checks = 0, next_at = 0")


def next_look(connection: sqlite3.Connection) -> int | None:
    """Return when the first letter has to be looked after (Unix seconds), None when there is none."""
    at: int | None = connection.execute("SELECT min(next_at) FROM mail_letters").fetchone()[0]
    return at


def wait_for(connection: sqlite3.Connection, letter: int, checks: int, next_at: int) -> None:
    """Look after a letter again at `next_at` (Unix seconds)."""
    connection.execute("UPDATE mail_letters SET checks = ?, next_at = ? WHERE id = ?", (checks, next_at, letter))


def mark_stored(connection: sqlite3.Connection, letter: int, expires: int, next_at: int) -> list[OutboxItem]:
    """The holders have it; return the messages in it whose state is `stored` from now on."""
    connection.execute(
        "UPDATE mail_letters SET expires = ?, checks = 0, next_at = ? WHERE id = ?", (expires, next_at, letter)
    )
    return [
        item
        for item in contents(connection, letter)
        if connection.execute(
            "UPDATE messages SET state = 'stored', reason = '' WHERE position = ? AND state = 'queued'",
            (item.position,),
        ).rowcount
    ]


def contents(connection: sqlite3.Connection, letter: int) -> list[OutboxItem]:
    """Return the messages in a letter, oldest first."""
    rows = connection.execute(
        "SELECT m.position, m.id, c.kind, c.key, m.author_seq, m.sent_at, m.text FROM mail_contents AS t"
        " JOIN messages AS m ON m.position = t.message JOIN conversations AS c ON c.id = m.conversation"
        " WHERE t.letter = ? ORDER BY m.position",
        (letter,),
    )
    return [OutboxItem(row[0], row[1], False, party_from_columns(row[2], row[3]), *row[4:]) for row in rows]


def drop_letter(connection: sqlite3.Connection, letter: int) -> None:
    connection.execute("DELETE FROM mail_letters WHERE id = ?", (letter,))
