"""The SQL of device lists, revoked devices and what was read. Each function runs inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from p2pnode import BadPacket, PeerId, UserId, decode_devices_untrusted
from p2pnode.chat.devices.lists import KnownList

__all__ = ["drop_device", "lists", "mark_read", "put_list", "set_floor", "tell_position", "told", "unread_told"]

_NOBODY = bytes(32)  # the row of `read_told` before which nobody is told
_OFF = -1  # its position while nobody is told at all
READ_DAYS_MS = 7 * 86_400_000  # what was read longer ago is no news to anybody


def lists(connection: sqlite3.Connection) -> list[KnownList]:
    """Return all lists."""
    found = []
    for user, value, signature in connection.execute("SELECT user, value, signature FROM device_lists"):
        try:
            found.append(KnownList(UserId(user), decode_devices_untrusted(value), signature))
        except BadPacket:
            continue  # of a later version: it is looked up again
    return found


def put_list(connection: sqlite3.Connection, known: KnownList) -> None:
    """Store a list unless a newer one is there."""
    connection.execute(
        "INSERT INTO device_lists (user, number, value, signature) VALUES (?1, ?2, ?3, ?4)"
        " ON CONFLICT (user) DO UPDATE SET number = ?2, value = ?3, signature = ?4 WHERE number <= ?2",
        (known.user.raw, known.devices.number, known.value, known.signature),
    )


def drop_device(connection: sqlite3.Connection, user: UserId, device: PeerId, others: Sequence[PeerId]) -> None:
    """Address nothing to a revoked device any more; what nobody else was to get goes to the `others`, or waits for the
    user's devices to be looked up."""
    rows = connection.execute("SELECT message FROM outbox WHERE device = ?", (device.raw,)).fetchall()
    connection.execute("DELETE FROM outbox WHERE device = ?", (device.raw,))
    for (message,) in rows:
        left = connection.execute("SELECT 1 FROM outbox WHERE message = ?", (message,)).fetchone()
        if left is not None:
            continue
        delivered = connection.execute(
            "UPDATE messages SET everywhere = 1 WHERE position = ? AND state IN ('delivered', 'read')", (message,)
        )
        if not delivered.rowcount:
            for other in [each.raw for each in others] or [b""]:
                connection.execute(
                    "INSERT OR IGNORE INTO outbox (device, message) SELECT ?1, m.position FROM messages AS m"
                    " JOIN conversations AS c ON c.id = m.conversation"
                    " WHERE m.position = ?2 AND c.kind = 'user' AND c.key = ?3",
                    (other, message, user.raw),
                )
    connection.execute("DELETE FROM devices WHERE peer = ?", (device.raw,))
    connection.execute("DELETE FROM read_told WHERE device = ?", (device.raw,))


# what was read


def set_floor(connection: sqlite3.Connection, *, telling: bool) -> None:
    """Note at the start whether others are told what we read: what was read while they were not, they never are."""
    row = connection.execute("SELECT position FROM read_told WHERE device = ?", (_NOBODY,)).fetchone()
    if telling and (row is None or row[0] != _OFF):
        return
    position = _OFF
    if telling:
        position = connection.execute("SELECT coalesce(max(position), 0) FROM messages").fetchone()[0]
    connection.execute("INSERT OR REPLACE INTO read_told (device, position) VALUES (?, ?)", (_NOBODY, position))


def told(connection: sqlite3.Connection, device: PeerId) -> int:
    """Return up to which position a device was told what we have read."""
    rows = connection.execute("SELECT position FROM read_told WHERE device IN (?, ?)", (_NOBODY, device.raw))
    return max((int(row[0]) for row in rows), default=0)


def unread_told(
    connection: sqlite3.Connection, user: UserId, device: PeerId, limit: int, now_ms: int
) -> tuple[list[bytes], int]:
    """Return (ids of the user's messages that were read and the device was not told of, oldest first; up to which
    position that is all). Position 0: there is nothing to tell, nor to note."""
    row = connection.execute(
        "SELECT id, seen FROM conversations WHERE kind = 'user' AND key = ?", (user.raw,)
    ).fetchone()
    after = told(connection, device)
    if row is None or row[1] <= after:
        return [], 0
    conversation, seen = row
    since = now_ms - READ_DAYS_MS
    if not after:  # the first time: a long history is not gone through
        first = connection.execute("SELECT min(position) FROM messages WHERE received_at > ?", (since,)).fetchone()[0]
        after = seen if first is None else first - 1
    rows = connection.execute(
        "SELECT id, position FROM messages WHERE conversation = ?1 AND NOT outgoing AND author_user = ?2"
        " AND position > ?3 AND position <= ?4 AND received_at > ?5 ORDER BY position LIMIT ?6",
        (conversation, user.raw, after, seen, since, limit),
    ).fetchall()
    return [found[0] for found in rows], rows[-1][1] if len(rows) == limit else seen


def tell_position(connection: sqlite3.Connection, device: PeerId, position: int) -> None:
    """Note up to where a device was told."""
    connection.execute(
        "INSERT INTO read_told (device, position) VALUES (?1, ?2)"
        " ON CONFLICT (device) DO UPDATE SET position = max(position, ?2)",
        (device.raw, position),
    )


def mark_read(
    connection: sqlite3.Connection, user: UserId, authors: Iterable[PeerId], ids: Sequence[bytes]
) -> list[bytes]:
    """Note that the user has read messages that one of our devices (`authors`) wrote to it; return those that it is
    news of."""
    changed = []
    for author in authors:
        for message_id in ids:
            done = connection.execute(
                "UPDATE messages SET state = 'read', reason = '' WHERE author = ?1 AND id = ?2 AND outgoing"
                " AND state IN ('queued', 'stored', 'delivered')"
                " AND conversation = (SELECT id FROM conversations WHERE kind = 'user' AND key = ?3)",
                (author.raw, message_id, user.raw),
            )
            if done.rowcount:
                changed.append(message_id)
    return changed
