"""The SQL of retention and of disappearing messages. Each function runs inside a transaction."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from p2pnode import PeerId
from p2pnode.chat import queries
from p2pnode.chat.model import Party, party_columns
from p2pnode.chat.model import party_from_columns as party_of

__all__ = [
    "KeepState", "Timer", "any_fleeting", "begin", "forget_removed", "keep_states", "next_end", "remove_due",
    "remove_old", "set_keep", "set_timer", "timer_of", "timers",
]  # fmt: skip

DAY_MS = 86_400_000
BATCH = 500  # messages removed in one transaction: some milliseconds
COMES_BACK_MS = 8 * DAY_MS  # mail lives for a week: a message younger than that might come once more
REMOVED_KEPT_MS = 30 * DAY_MS


@dataclass(frozen=True, slots=True)
class Timer:
    """When messages of a conversation disappear, seconds after they were read or handed over; 0: never.

    `agreed`: a device of the other side has it as well. `since`: our number of the first message that it is meant for.
    """

    seconds: int = 0
    version: int = 0
    since: int = 0
    agreed: bool = False

    def beats(self, other: Timer) -> bool:
        return (self.version, self.seconds) > (other.version, other.seconds)


@dataclass(frozen=True, slots=True)
class KeepState:
    """How long a conversation is kept. `keep`: days, 0 for ever, None as set for all."""

    party: Party
    keep: int | None
    timer: Timer


_TIMER = "SELECT timer, timer_version, timer_since, timer_agreed FROM conversations WHERE kind = ? AND key = ?"


def timer_of(connection: sqlite3.Connection, party: Party) -> Timer:
    row = connection.execute(_TIMER, party_columns(party)).fetchone()
    return Timer() if row is None else Timer(row[0], row[1], row[2], bool(row[3]))


def set_timer(connection: sqlite3.Connection, party: Party, timer: Timer, author: PeerId | None, since: int) -> bool:
    """Set a timer unless a newer one is there; whether it was set. What `author` wrote from its number `since` on
    gets it, too. `author` None: it is ours."""
    conversation = queries.conversation_id(connection, party)
    known = timer_of(connection, party)
    if not timer.beats(known):
        same = (timer.seconds, timer.version) == (known.seconds, known.version)
        if same and timer.agreed and not known.agreed:
            connection.execute("UPDATE conversations SET timer_agreed = 1 WHERE id = ?", (conversation,))
        return False
    connection.execute(
        "UPDATE conversations SET timer = ?, timer_version = ?, timer_since = ?, timer_agreed = ? WHERE id = ?",
        (timer.seconds, timer.version, timer.since, int(timer.agreed), conversation),
    )
    if author is not None and timer.seconds:
        rows = connection.execute(
            "SELECT position, text FROM messages WHERE conversation = ? AND author = ? AND author_seq >= ? AND"
            " NOT EXISTS (SELECT 1 FROM fleeting WHERE message = position) LIMIT ?",
            (conversation, author.raw, since, BATCH),
        ).fetchall()
        for position, text in rows:
            index = "INSERT INTO messages_text (messages_text, rowid, text) VALUES ('delete', ?, fold(?))"
            connection.execute(index, (position, text))
            connection.execute("INSERT INTO fleeting (message, seconds) VALUES (?, ?)", (position, timer.seconds))
    return True


def timers(connection: sqlite3.Connection) -> dict[Party, Timer]:
    """Return the timers that were ever set."""
    return {state.party: state.timer for state in keep_states(connection) if state.timer.version}


def set_keep(connection: sqlite3.Connection, party: Party, days: int | None) -> None:
    conversation = queries.conversation_id(connection, party)
    connection.execute("UPDATE conversations SET keep = ? WHERE id = ?", (days, conversation))


def keep_states(connection: sqlite3.Connection) -> list[KeepState]:
    query = "SELECT kind, key, keep, timer, timer_version, timer_since, timer_agreed FROM conversations"
    return [
        KeepState(party_of(row[0], row[1]), row[2], Timer(row[3], row[4], row[5], bool(row[6])))
        for row in connection.execute(query)
    ]


def begin(connection: sqlite3.Connection, now_ms: int) -> int:
    """Let the time run of what was read here, or handed over; return how many have not begun."""
    connection.execute(
        "UPDATE fleeting SET ends_at = ?1 + 1000 * seconds WHERE ends_at IS NULL AND EXISTS"
        " (SELECT 1 FROM messages AS m JOIN conversations AS c ON c.id = m.conversation WHERE m.position = message AND"
        " CASE WHEN m.outgoing THEN m.state IN ('delivered', 'read', 'refused') ELSE m.position <= c.seen END)",
        (now_ms,),
    )
    return int(connection.execute("SELECT count(*) FROM fleeting WHERE ends_at IS NULL").fetchone()[0])


def any_fleeting(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM fleeting LIMIT 1").fetchone() is not None


def next_end(connection: sqlite3.Connection) -> int | None:
    """Return when the next message disappears, Unix milliseconds; None: none does so far."""
    found: int | None = connection.execute("SELECT min(ends_at) FROM fleeting").fetchone()[0]
    return found


def remove_due(connection: sqlite3.Connection, now_ms: int) -> list[tuple[Party, int]]:
    """Remove what has had its time; return (conversation, position) of each."""
    rows = connection.execute("SELECT message FROM fleeting WHERE ends_at <= ? LIMIT ?", (now_ms, BATCH))
    return _remove(connection, [row[0] for row in rows], now_ms)


def remove_old(connection: sqlite3.Connection, keep_days: int, now_ms: int) -> list[tuple[Party, int]]:
    """Remove up to BATCH messages that are older than their conversation is kept (`keep_days` where that says nothing,
    0 for ever), but none that is still to be sent; return as `remove_due`."""
    shortest = connection.execute("SELECT min(keep) FROM conversations WHERE keep > 0").fetchone()[0]
    days = min((each for each in (shortest, keep_days) if each), default=0)
    if not days:
        return []
    rows = connection.execute(
        "SELECT m.position FROM messages AS m INDEXED BY messages_by_age"
        " CROSS JOIN conversations AS c ON c.id = m.conversation"
        " WHERE m.received_at < ?2 - ?3 * ?4 AND coalesce(c.keep, ?1) > 0"
        " AND m.received_at < ?2 - ?3 * coalesce(c.keep, ?1)"
        " AND NOT EXISTS (SELECT 1 FROM outbox WHERE message = m.position) ORDER BY m.received_at LIMIT ?5",
        (keep_days, now_ms, DAY_MS, days, BATCH),
    )
    return _remove(connection, [row[0] for row in rows.fetchall()], now_ms)


def forget_removed(connection: sqlite3.Connection, now_ms: int) -> None:
    connection.execute("DELETE FROM removed WHERE removed_at < ?", (now_ms - REMOVED_KEPT_MS,))


def _remove(connection: sqlite3.Connection, positions: list[int], now_ms: int) -> list[tuple[Party, int]]:
    gone: list[tuple[Party, int]] = []
    for position in positions:
        kind, key, author, message_id, received_at = connection.execute(
            "SELECT c.kind, c.key, m.author, m.id, m.received_at FROM messages AS m"
            " JOIN conversations AS c ON c.id = m.conversation WHERE m.position = ?",
            (position,),
        ).fetchone()
        if received_at > now_ms - COMES_BACK_MS:
            query = "INSERT OR REPLACE INTO removed (author, id, removed_at) VALUES (?, ?, ?)"
            connection.execute(query, (author, message_id, now_ms))
        connection.execute("DELETE FROM messages WHERE position = ?", (position,))
        gone.append((party_of(kind, key), position))
    return gone
