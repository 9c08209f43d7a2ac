"""The SQL of what was told. Each function runs inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from p2pnode import PeerId, UserId, clean, clean_name
from p2pnode.chat import queries
from p2pnode.chat.model import HALL, Message
from p2pnode.chat.protocol import MAX_TEXT_BYTES
from p2pnode.chat.told.wire import Told

__all__ = ["answer", "store"]

_LAST = """
    SELECT m.id, m.author, coalesce(d.name, t.name, ''), m.author_seq, m.sent_at, m.text FROM
        (SELECT position FROM messages WHERE conversation = (SELECT id FROM conversations WHERE kind = 'hall')
         ORDER BY ordinal DESC, author_seq DESC, position DESC LIMIT 1000) AS s
    CROSS JOIN messages AS m ON m.position = s.position
    LEFT JOIN devices AS d ON d.peer = m.author LEFT JOIN told AS t ON t.message = m.position
    WHERE m.received_at >= ? AND m.author != ?
    ORDER BY m.ordinal DESC, m.author_seq DESC, m.position DESC LIMIT ?
"""


def answer(
    connection: sqlite3.Connection, asker: PeerId, own: tuple[PeerId, str], since_ms: int, count: int, max_bytes: int
) -> list[Told]:
    """Return the last messages of the hall that were stored since `since_ms`, oldest first; `own`: our key and name."""
    found: list[Told] = []
    for message_id, author, name, sequence, sent_at, text in connection.execute(_LAST, (since_ms, asker.raw, count)):
        max_bytes -= len(text.encode())
        if max_bytes < 0:
            break
        shown = own[1] if author == own[0].raw else name
        found.append(Told(message_id, author, clean_name(shown), sequence, sent_at, text))
    return found[::-1]


def store(
    connection: sqlite3.Connection,
    messages: Sequence[tuple[Told, UserId | None]],
    teller: PeerId,
    entered_at: int,
    now_ms: int,
) -> list[Message]:
    """Store those messages that are not here yet, before what came since `entered_at` (a position); return them.

    The user of each author is what its own device has proven, None where that is not known.
    """
    new = [each for each in messages if not queries.has_message(connection, PeerId(each[0].author), each[0].id)]
    conversation = queries.conversation_id(connection, HALL)
    first, last = connection.execute(
        "SELECT (SELECT min(ordinal) FROM messages WHERE conversation = ?1 AND position > ?2), max(ordinal)"
        " FROM messages WHERE conversation = ?1",
        (conversation, entered_at),
    ).fetchone()
    if first is not None:  # make room before what was said since we came
        connection.execute(
            "UPDATE messages SET ordinal = ordinal + ? WHERE conversation = ? AND ordinal >= ?",
            (len(new), conversation, first),
        )
    start = first if first is not None else (last or 0) + 1
    stored = []
    for number, (told, user) in enumerate(new):
        author = PeerId(told.author)
        position = queries.insert_message(
            connection,
            message_id=told.id,
            author=author,
            author_user=user,
            conversation=conversation,
            sequence=told.sequence,
            outgoing=False,
            text=clean(told.text, limit=MAX_TEXT_BYTES, newline=True),
            sent_at_ms=told.sent_at,
            received_at_ms=now_ms,
            state="received",
            ordinal=start + number,
        )
        if author != teller:
            connection.execute(
                "INSERT INTO told (message, teller, name) VALUES (?, ?, ?)",
                (position, teller.raw, clean_name(told.name)),
            )
        stored.append(queries.message_at(connection, position))
    return stored
