"""The SQL. Each function runs inside a transaction of `chat.store` and returns plain values or the model's classes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from p2pnode import NotFoundError, PeerId, UserId
from p2pnode.chat.model import Contact, ContactState, ConversationSummary, Message, Party, party_columns
from p2pnode.chat.model import party_from_columns as party_of

_COLUMNS = """
    SELECT m.position, m.id, c.kind, c.key, m.author, m.author_user, coalesce(d.name, t.name, ''), m.outgoing, m.text,
           m.sent_at, m.received_at, m.state, m.reason, m.author_seq, t.teller,
           m.everywhere, m.ordinal
"""
_JOINED = """JOIN conversations AS c ON c.id = m.conversation LEFT JOIN devices AS d ON d.peer = m.author
    LEFT JOIN told AS t ON t.message = m.position"""
_MESSAGE = f"{_COLUMNS} FROM messages AS m {_JOINED}"
MESSAGE_OF = f"{_COLUMNS} FROM {{}} AS s CROSS JOIN messages AS m ON m.position = s.position {_JOINED}"
"""The same, of the positions that a subquery gives, in its order of reading."""
MAX_USER_DEVICES = 23
_PLACE = "(SELECT ordinal, author_seq, position FROM messages WHERE position = ?)"
_SHOWN_BEFORE = f"(m.ordinal, m.author_seq, m.position) < {_PLACE}"
_SHOWN_AFTER = f"(m.ordinal, m.author_seq, m.position) > {_PLACE}"
_SHOWN = "ORDER BY m.ordinal, m.author_seq, m.position"
SHOWN_BACKWARDS = "ORDER BY m.ordinal DESC, m.author_seq DESC, m.position DESC"


def message_of(row: Sequence[Any]) -> Message:
    return Message(
        position=row[0],
        id=row[1].hex(),
        party=party_of(row[2], row[3]),
        author=PeerId.of(row[4]),
        author_user=UserId.of(row[5]) if row[5] is not None else None,
        author_name=row[6],
        outgoing=bool(row[7]),
        text=row[8],
        sent_at=row[9] / 1000,
        received_at=row[10] / 1000,
        state=row[11],
        reason=row[12],
        sequence=row[13],
        told_by=PeerId.of(row[14]) if row[14] is not None else None,
        everywhere=bool(row[15]),
        ordinal=row[16],
    )


def conversation_id(connection: sqlite3.Connection, party: Party) -> int:
    """Return the row of a conversation, made when there is none."""
    columns = party_columns(party)
    connection.execute("INSERT OR IGNORE INTO conversations (kind, key) VALUES (?, ?)", columns)
    row = connection.execute("SELECT id FROM conversations WHERE kind = ? AND key = ?", columns).fetchone()
    return int(row[0])


def next_sequence(connection: sqlite3.Connection, now_ms: int) -> int:
    """Return the number of our next message: above all earlier ones, and by the clock.

    So it also rises when the database was lost, or when a conversation with a device becomes its user's.
    """
    row = connection.execute("SELECT max(author_seq) FROM messages WHERE outgoing").fetchone()
    return max((row[0] or 0) + 1, now_ms)


def has_message(connection: sqlite3.Connection, author: PeerId, message_id: bytes) -> bool:
    """Whether a message is here, or was and is gone for good."""
    for table in ("messages", "removed"):
        query = f"SELECT 1 FROM {table} WHERE author = ? AND id = ?"  # noqa: S608 - names of ours
        if connection.execute(query, (author.raw, message_id)).fetchone() is not None:
            return True
    return False


def insert_message(
    connection: sqlite3.Connection,
    *,
    message_id: bytes,
    author: PeerId,
    author_user: UserId | None,
    conversation: int,
    sequence: int,
    outgoing: bool,
    text: str,
    sent_at_ms: int,
    received_at_ms: int,
    state: str,
    ordinal: int | None = None,
) -> int:
    """Store a message and return its position. `chat.store` explains the ordinal, which None makes the usual one."""
    if ordinal is None:
        ordinal = connection.execute(
            "SELECT min(ordinal) FROM messages WHERE conversation = ? AND author = ? AND author_seq > ?",
            (conversation, author.raw, sequence),
        ).fetchone()[0]
    if ordinal is None:
        last = connection.execute("SELECT max(ordinal) FROM messages WHERE conversation = ?", (conversation,))
        ordinal = (last.fetchone()[0] or 0) + 1
    cursor = connection.execute(
        "INSERT INTO messages (id, author, author_user, conversation, ordinal, author_seq, outgoing, text, sent_at,"
        " received_at, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            message_id,
            author.raw,
            author_user.raw if author_user is not None else None,
            conversation,
            ordinal,
            sequence,
            int(outgoing),
            text,
            sent_at_ms,
            received_at_ms,
            state,
        ),
    )
    assert cursor.lastrowid is not None  # noqa: S101 - sqlite3 sets it after every INSERT
    position = cursor.lastrowid
    connection.execute(  # what will disappear is found among the newest messages only: see the schema, `fleeting`
        "INSERT INTO messages_text (rowid, text) SELECT ?1, ?2 WHERE NOT EXISTS"
        " (SELECT 1 FROM fleeting WHERE message = ?1)",
        (position, text.casefold()),
    )
    return position


def message_at(connection: sqlite3.Connection, position: int) -> Message:
    return message_of(connection.execute(f"{_MESSAGE} WHERE m.position = ?", (position,)).fetchone())


def message_by_id(connection: sqlite3.Connection, message_id: str) -> Message | None:
    try:
        raw = bytes.fromhex(message_id)
    except ValueError:
        return None
    row = connection.execute(f"{_MESSAGE} WHERE m.id = ? ORDER BY m.outgoing DESC LIMIT 1", (raw,)).fetchone()
    return message_of(row) if row is not None else None


def history(
    connection: sqlite3.Connection,
    party: Party,
    limit: int,
    before: int | None,
    search: str | None,
    after: int | None = None,
) -> list[Message]:
    where, values = ["c.kind = ?", "c.key = ?"], list[object](party_columns(party))
    for bound, position in ((_SHOWN_BEFORE, before), (_SHOWN_AFTER, after)):
        if position is not None:
            where.append(bound)
            values.append(position)
    if search:
        where.append("instr(fold(m.text), ?) > 0")
        values.append(search.casefold())
    order = SHOWN_BACKWARDS if after is None else _SHOWN
    rows = connection.execute(
        f"{_MESSAGE} WHERE {' AND '.join(where)} {order} LIMIT ?", (*values, max(limit, 0))
    ).fetchall()
    return [message_of(row) for row in (reversed(rows) if after is None else rows)]


def messages_after(connection: sqlite3.Connection, after: int, limit: int, party: Party | None) -> list[Message]:
    where, values = "m.position > ?", list[object]([after])
    if party is not None:
        where += " AND c.kind = ? AND c.key = ?"
        values += party_columns(party)
    rows = connection.execute(f"{_MESSAGE} WHERE {where} ORDER BY m.position LIMIT ?", (*values, max(limit, 0)))
    return [message_of(row) for row in rows]


def last_position(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(position), 0) FROM messages").fetchone()[0])


def conversations(connection: sqlite3.Connection) -> list[ConversationSummary]:
    rows = connection.execute(
        "SELECT c.kind, c.key, count(m.position), max(m.position),"
        " (SELECT count(*) FROM messages AS u WHERE u.conversation = c.id AND u.position > c.seen AND NOT u.outgoing)"
        " FROM conversations AS c LEFT JOIN messages AS m ON m.conversation = c.id GROUP BY c.id"
        " ORDER BY max(m.position) DESC"
    ).fetchall()
    return [
        ConversationSummary(
            party_of(kind, key), count, message_at(connection, last) if last is not None else None, unread
        )
        for kind, key, count, last, unread in rows
    ]


def mark_seen(connection: sqlite3.Connection, party: Party, position: int) -> None:
    connection.execute(
        "UPDATE conversations SET seen = max(seen, ?) WHERE kind = ? AND key = ?", (position, *party_columns(party))
    )


# outbox


def outbox_devices(connection: sqlite3.Connection) -> list[PeerId]:
    rows = connection.execute("SELECT DISTINCT device FROM outbox WHERE device != x'' ORDER BY device")
    return [PeerId.of(row[0]) for row in rows]


def outbox_unresolved(connection: sqlite3.Connection) -> list[Party]:
    rows = connection.execute(
        "SELECT DISTINCT c.kind, c.key FROM outbox AS o JOIN messages AS m ON m.position = o.message"
        " JOIN conversations AS c ON c.id = m.conversation WHERE o.device = x'' ORDER BY c.key"
    )
    return [party_of(*row) for row in rows]


def outbox_rows(
    connection: sqlite3.Connection, device: PeerId, after: int, limit: int, hall: bool
) -> list[tuple[Any, ...]]:
    rows = connection.execute(
        "SELECT m.position, m.id, c.kind, c.key, m.author_seq, m.sent_at, m.text FROM outbox AS o"
        " JOIN messages AS m ON m.position = o.message JOIN conversations AS c ON c.id = m.conversation"
        " WHERE o.device = ? AND o.message > ? AND (c.kind = 'hall') = ? ORDER BY o.message LIMIT ?",
        (device.raw, after, hall, limit),
    )
    return [(row[0], row[1], row[2] == "hall", party_of(row[2], row[3]), row[4], row[5], row[6]) for row in rows]


def add_devices_to_outbox(
    connection: sqlite3.Connection, author: PeerId, party: UserId, devices: Sequence[PeerId], since_ms: int
) -> None:
    if not devices:
        return
    conversation = conversation_id(connection, party)
    unresolved = (
        "SELECT m.position FROM messages AS m JOIN outbox AS o ON o.message = m.position AND o.device = x''"
        " WHERE m.conversation = ?"
    )
    queued = (
        "SELECT position FROM messages WHERE conversation = ? AND outgoing AND state IN ('queued', 'stored')"
        " AND sent_at >= ? AND author = ?"
    )
    for device in devices:
        connection.execute(
            f"INSERT OR IGNORE INTO outbox (device, message) SELECT ?, position FROM ({unresolved} UNION {queued})",  # noqa: S608
            (device.raw, conversation, conversation, since_ms, author.raw),
        )
    connection.execute(
        f"DELETE FROM outbox WHERE device = x'' AND message IN ({unresolved})",  # noqa: S608 - constants of ours
        (conversation,),
    )


def mark_delivered(connection: sqlite3.Connection, device: PeerId, positions: Sequence[int]) -> None:
    for position in positions:
        connection.execute("DELETE FROM outbox WHERE device = ? AND message = ?", (device.raw, position))
        connection.execute(
            "UPDATE messages SET state = CASE state WHEN 'read' THEN state ELSE 'delivered' END, reason = '',"
            " everywhere = NOT EXISTS (SELECT 1 FROM outbox WHERE message = ?1) WHERE position = ?1",
            (position,),
        )


def mark_refused(connection: sqlite3.Connection, device: PeerId, position: int, reason: str) -> None:
    connection.execute("DELETE FROM outbox WHERE device = ? AND message = ?", (device.raw, position))
    connection.execute(
        "UPDATE messages SET state = 'refused', reason = ? WHERE position = ? AND state IN ('queued', 'stored')"
        " AND NOT EXISTS (SELECT 1 FROM outbox WHERE message = ?)",
        (reason, position, position),
    )


def mark_attempt(connection: sqlite3.Connection, device: PeerId, reason: str) -> None:
    connection.execute("UPDATE outbox SET attempts = attempts + 1 WHERE device = ?", (device.raw,))
    connection.execute(
        "UPDATE messages SET reason = ? WHERE state = 'queued' AND position IN"
        " (SELECT message FROM outbox WHERE device = ?)",
        (reason, device.raw),
    )


def forget_hall_outbox(connection: sqlite3.Connection, device: PeerId | None, before_ms: int) -> None:
    hall_messages = (
        "SELECT m.position FROM messages AS m JOIN conversations AS c ON c.id = m.conversation"
        " WHERE c.kind = 'hall' AND m.sent_at < ?"
    )
    if device is None:
        connection.execute(f"DELETE FROM outbox WHERE message IN ({hall_messages})", (before_ms,))  # noqa: S608
    else:
        connection.execute(
            f"DELETE FROM outbox WHERE device = ? AND message IN ({hall_messages})",  # noqa: S608 - a constant
            (device.raw, before_ms),
        )


# people


def contact_state(connection: sqlite3.Connection, party: Party) -> ContactState | None:
    row = connection.execute("SELECT state FROM contacts WHERE kind = ? AND key = ?", party_columns(party)).fetchone()
    state: ContactState | None = row[0] if row is not None else None
    return state


def put_contact(connection: sqlite3.Connection, party: Party, state: ContactState, now_ms: int) -> None:
    connection.execute(
        "INSERT INTO contacts (kind, key, state, added_at) VALUES (?, ?, ?, ?)", (*party_columns(party), state, now_ms)
    )


def set_contact_state(connection: sqlite3.Connection, party: Party, state: ContactState) -> None:
    connection.execute("UPDATE contacts SET state = ? WHERE kind = ? AND key = ?", (state, *party_columns(party)))


_CONTACT = "SELECT kind, key, petname, name, state, verified, added_at FROM contacts"


def _contact(connection: sqlite3.Connection, row: Sequence[Any]) -> Contact:
    party = party_of(row[0], row[1])
    assert isinstance(party, UserId | PeerId)  # noqa: S101 - the hall is never a contact
    name: str = row[3]
    devices: tuple[PeerId, ...] = (party,) if isinstance(party, PeerId) else ()
    if isinstance(party, UserId):
        rows = connection.execute("SELECT peer, name FROM devices WHERE user = ? ORDER BY seen_at DESC", (party.raw,))
        found = rows.fetchall()
        devices = tuple(PeerId.of(peer) for peer, _ in found)
        name = next((device_name for _, device_name in found if device_name), name)
    taken = "SELECT 1 FROM mail_taken WHERE device = ?"
    mail = any(connection.execute(taken, (device.raw,)).fetchone() for device in devices)
    return Contact(party, row[2], name, row[4], bool(row[5]), row[6] / 1000, devices, mail)


def contact(connection: sqlite3.Connection, party: UserId | PeerId) -> Contact:
    """Return the contact. Raise NotFoundError."""
    row = connection.execute(f"{_CONTACT} WHERE kind = ? AND key = ?", party_columns(party)).fetchone()
    if row is None:
        raise NotFoundError("This is not one of your contacts.")
    return _contact(connection, row)


def contacts(connection: sqlite3.Connection) -> list[Contact]:
    found = [_contact(connection, row) for row in connection.execute(_CONTACT).fetchall()]
    return sorted(found, key=lambda c: ((c.petname or c.name).casefold(), str(c.party)))


def devices(connection: sqlite3.Connection) -> list[tuple[PeerId, UserId | None, str]]:
    rows = connection.execute("SELECT peer, user, name FROM devices ORDER BY peer")
    return [(PeerId.of(peer), UserId.of(user) if user is not None else None, name) for peer, user, name in rows]


def device_count(connection: sqlite3.Connection, party: Party) -> int:
    if not isinstance(party, UserId):
        return 1
    return int(connection.execute("SELECT count(*) FROM devices WHERE user = ?", (party.raw,)).fetchone()[0])


def learn_device(connection: sqlite3.Connection, peer: PeerId, user: UserId | None, name: str, now_ms: int) -> None:
    connection.execute(
        "INSERT INTO devices (peer, user, name, seen_at) VALUES (?1, ?2, ?3, ?4)"
        " ON CONFLICT (peer) DO UPDATE SET user = coalesce(?2, user), name = ?3, seen_at = ?4",
        (peer.raw, user.raw if user is not None else None, name, now_ms),
    )
    if user is not None:
        # An account can vouch for any number of keys: the longest unseen beyond what a device record holds go.
        connection.execute(
            "DELETE FROM devices WHERE user = ?1 AND peer IN"
            " (SELECT peer FROM devices WHERE user = ?1 ORDER BY peer != ?2, seen_at DESC LIMIT -1 OFFSET ?3)",
            (user.raw, peer.raw, MAX_USER_DEVICES),
        )
        _adopt(connection, peer, user)


def _adopt(connection: sqlite3.Connection, peer: PeerId, user: UserId) -> None:
    """Turn what was kept under the bare device (conversation, contact) into the user's."""
    old = connection.execute("SELECT id FROM conversations WHERE kind = 'peer' AND key = ?", (peer.raw,)).fetchone()
    if old is not None:
        new = conversation_id(connection, user)
        # appended after what the user's conversation has, in its own order
        last = connection.execute("SELECT max(ordinal) FROM messages WHERE conversation = ?", (new,)).fetchone()[0]
        connection.execute(
            "UPDATE messages SET conversation = ?, ordinal = ordinal + ? WHERE conversation = ?",
            (new, last or 0, old[0]),
        )
        connection.execute(
            "UPDATE conversations SET seen = max(seen, (SELECT seen FROM conversations WHERE id = ?)) WHERE id = ?",
            (old[0], new),
        )
        connection.execute("DELETE FROM conversations WHERE id = ?", old)
    row = connection.execute(
        "SELECT petname, state, verified, added_at FROM contacts WHERE kind = 'peer' AND key = ?", (peer.raw,)
    ).fetchone()
    if row is None:
        return
    connection.execute("DELETE FROM contacts WHERE kind = 'peer' AND key = ?", (peer.raw,))
    # a decision (accepted, blocked) about the device is one about its user, and stronger than "has to be decided"
    connection.execute(
        "INSERT INTO contacts (kind, key, petname, state, verified, added_at) VALUES ('user', ?, ?, ?, ?, ?)"
        " ON CONFLICT (kind, key) DO UPDATE SET state = CASE WHEN state = 'request' THEN excluded.state ELSE state END,"
        " petname = CASE WHEN petname = '' THEN excluded.petname ELSE petname END",
        (user.raw, *row),
    )
