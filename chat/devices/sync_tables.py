"""The SQL of keeping the devices of an account in step. Each function runs inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from p2pnode import PeerId, UserId, clean, clean_name
from p2pnode.chat import queries
from p2pnode.chat.devices.sync_wire import (
    BATCH_BYTES,
    BATCH_MAX,
    Batch,
    ContactEntry,
    From,
    Mark,
    MessageEntry,
    SeenEntry,
    StateEntry,
)
from p2pnode.chat.model import Message, party_from_columns
from p2pnode.chat.protocol import MAX_TEXT_BYTES

__all__ = ["Applied", "apply", "batch", "end_of_log", "got", "log_id", "sent", "set_log_id", "set_peers", "set_sent"]

HISTORY = 10_000  # of messages that a new device gets
SEEN_LOOK_BACK = 256  # messages in which the authors are looked for whose messages were seen
_DECISION = {"request": 0, "removed": 1, "accepted": 2, "blocked": 3}
"""Of two changes of a contact at the same time the greater wins: what the user decided before what came by itself."""
_RANK = {"queued": 0, "refused": 1, "stored": 1, "delivered": 2, "read": 3}


@dataclass(slots=True)
class Applied:
    """What a batch changed here. `states`: (id, conversation, state, everywhere)."""

    messages: list[Message] = field(default_factory=list)
    states: list[tuple[str, UserId | PeerId, str, bool]] = field(default_factory=list)
    contacts: list[UserId | PeerId] = field(default_factory=list)
    seen: list[UserId | PeerId] = field(default_factory=list)


# the own log


def log_id(connection: sqlite3.Connection) -> bytes | None:
    row = connection.execute("SELECT id FROM sync_log").fetchone()
    return bytes(row[0]) if row is not None else None


def set_log_id(connection: sqlite3.Connection, log: bytes) -> None:
    connection.execute("INSERT INTO sync_log (id) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM sync_log)", (log,))


def set_peers(connection: sqlite3.Connection, devices: Sequence[PeerId]) -> None:
    """The other devices of the account are these from now on."""
    known = {bytes(row[0]) for row in connection.execute("SELECT device FROM sync_peers")}
    wanted = {device.raw for device in devices}
    for gone in known - wanted:
        connection.execute("DELETE FROM sync_peers WHERE device = ?", (gone,))
    for new in sorted(wanted - known):
        connection.execute("INSERT INTO sync_peers (device) VALUES (?)", (new,))
    if wanted and not known:  # nothing noted what was seen before there was another device
        connection.execute(
            "INSERT OR IGNORE INTO sync_changes (what, kind, key) SELECT 'seen', '', id FROM conversations"
            " WHERE kind IN ('user', 'peer') AND seen > 0"
        )
    if not wanted:
        connection.execute("DELETE FROM sync_changes WHERE what != 'contact'")


def end_of_log(connection: sqlite3.Connection) -> From:
    """Return how far the own log goes."""
    number = connection.execute("SELECT coalesce(max(number), 0) FROM sync_changes").fetchone()[0]
    return From(queries.last_position(connection), number)


def sent(connection: sqlite3.Connection, device: PeerId) -> tuple[int, int]:
    """Return (position, number) up to which a device has the own log; below 0: nothing was sent yet."""
    row = connection.execute(
        "SELECT sent_position, sent_number FROM sync_peers WHERE device = ?", (device.raw,)
    ).fetchone()
    return (row[0], row[1]) if row is not None else (-1, -1)


def set_sent(connection: sqlite3.Connection, device: PeerId, there: From) -> None:
    connection.execute(
        "UPDATE sync_peers SET sent_position = ?, sent_number = ? WHERE device = ?",
        (there.position, there.number, device.raw),
    )
    # states that all others have are no news any more
    connection.execute(
        "DELETE FROM sync_changes WHERE what = 'state' AND number <= (SELECT min(sent_number) FROM sync_peers)"
    )


def batch(connection: sqlite3.Connection, start: From) -> Batch | None:
    """Return what comes after `start` in the own log, as much as one batch holds; None when there is nothing."""
    end = end_of_log(connection)
    if start.position >= end.position and start.number >= end.number:
        return None
    after = max(start.position, end.position - HISTORY) if start.position == 0 else start.position
    messages, position = _messages(connection, after, end.position)
    found = Batch(position, start.number, [], messages, [], [])
    if position < end.position:
        return found  # what follows may be about messages that are still to come
    rows = connection.execute(
        "SELECT number, what, kind, key FROM sync_changes WHERE number > ? ORDER BY number LIMIT ?",
        (start.number, BATCH_MAX),
    ).fetchall()
    number = end.number if len(rows) < BATCH_MAX else rows[-1][0]
    for _, what, kind, key in rows:
        if what == "contact":
            found.contacts.append(_contact_entry(connection, kind, key))
        elif what == "state":
            found.states.extend(_state_entry(connection, key))
        else:
            found.seen.extend(_seen_entry(connection, key))
    return Batch(position, number, found.contacts, messages, found.states, found.seen)


def _messages(connection: sqlite3.Connection, after: int, end: int) -> tuple[list[MessageEntry], int]:
    rows = connection.execute(
        "SELECT m.position, m.id, m.author, coalesce(m.author_user, x''), coalesce(d.name, ''), c.kind, c.key,"
        " m.author_seq, m.outgoing, m.text, m.sent_at, m.received_at, m.state, m.everywhere FROM messages AS m"
        " JOIN conversations AS c ON c.id = m.conversation LEFT JOIN devices AS d ON d.peer = m.author"
        " WHERE m.position > ? AND m.position <= ? AND c.kind IN ('user', 'peer') ORDER BY m.position LIMIT ?",
        (after, end, BATCH_MAX),
    ).fetchall()
    entries: list[MessageEntry] = []
    size, last = 0, after
    for row in rows:
        if size > BATCH_BYTES:
            return entries, last
        id_, author, user, name, kind, key, sequence, outgoing, text, sent_at, received_at, state, everywhere = row[1:]
        entries.append(
            MessageEntry(
                id_,
                author,
                user,
                name,
                kind,
                key,
                sequence,
                bool(outgoing),
                text,
                sent_at,
                received_at,
                state,
                bool(everywhere),
            )
        )
        size += len(text.encode())
        last = int(row[0])
    return entries, end if len(rows) < BATCH_MAX else last


def _contact_entry(connection: sqlite3.Connection, kind: str, key: bytes) -> ContactEntry:
    version = connection.execute("SELECT version FROM sync_contacts WHERE kind = ? AND key = ?", (kind, key)).fetchone()
    row = connection.execute(
        "SELECT state, petname, verified, added_at FROM contacts WHERE kind = ? AND key = ?", (kind, key)
    ).fetchone()
    state, petname, verified, added_at = row or ("removed", "", 0, 0)
    return ContactEntry(kind, key, version[0] if version else 0, state, petname, bool(verified), added_at)  # type: ignore[arg-type]


def _state_entry(connection: sqlite3.Connection, position: int) -> list[StateEntry]:
    row = connection.execute(
        "SELECT author, id, state, everywhere FROM messages WHERE position = ? AND outgoing", (position,)
    ).fetchone()
    return [StateEntry(row[0], row[1], row[2], bool(row[3]))] if row is not None else []


def _seen_entry(connection: sqlite3.Connection, conversation: int) -> list[SeenEntry]:
    row = connection.execute("SELECT kind, key, seen FROM conversations WHERE id = ?", (conversation,)).fetchone()
    if row is None or row[0] not in ("user", "peer"):
        return []
    marks = connection.execute(
        "SELECT author, max(author_seq) FROM (SELECT author, author_seq FROM messages WHERE conversation = ?1"
        " AND NOT outgoing AND position <= ?2 ORDER BY position DESC LIMIT ?3) GROUP BY author",
        (conversation, row[2], SEEN_LOOK_BACK),
    ).fetchall()
    return [SeenEntry(row[0], row[1], [Mark(author, sequence) for author, sequence in marks[:BATCH_MAX]])]


# the other's log


def got(connection: sqlite3.Connection, device: PeerId, log: bytes) -> From:
    """Return how far we have a device's log; another log than the last one begins anew."""
    row = connection.execute(
        "SELECT log, got_position, got_number FROM sync_peers WHERE device = ?", (device.raw,)
    ).fetchone()
    return From(row[1], row[2]) if row is not None and row[0] == log else From(0, 0)


def apply(connection: sqlite3.Connection, device: PeerId, own: UserId, log: bytes, found: Batch) -> Applied:
    """Take a batch, all of it or nothing, and note that we have it."""
    applied = Applied()
    for contact in found.contacts:
        if _apply_contact(connection, contact):
            applied.contacts.append(_party(contact.kind, contact.key))
    for message in found.messages:
        if message.kind == "user" and message.key == own.raw:
            continue
        _apply_message(connection, own, message, applied)
    for state in found.states:
        _apply_state(connection, state, applied)
    for seen in found.seen:
        if _apply_seen(connection, seen):
            applied.seen.append(_party(seen.kind, seen.key))
    connection.execute(
        "UPDATE sync_peers SET log = ?, got_position = ?, got_number = ? WHERE device = ?",
        (log, found.position, found.number, device.raw),
    )
    return applied


def _party(kind: str, key: bytes) -> UserId | PeerId:
    return UserId(key) if kind == "user" else PeerId(key)


def _apply_contact(connection: sqlite3.Connection, entry: ContactEntry) -> bool:
    where = (entry.kind, entry.key)
    ours = _contact_entry(connection, *where)
    # of two changes made at the same time the same one wins everywhere: whichever it is
    if (entry.version, _ordered(entry)) <= (ours.version, _ordered(ours)):
        return False
    if entry.state == "removed":
        connection.execute("DELETE FROM contacts WHERE kind = ? AND key = ?", where)
    else:
        connection.execute(
            "INSERT INTO contacts (kind, key, petname, state, verified, added_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
            " ON CONFLICT (kind, key) DO UPDATE SET petname = ?3, state = ?4, verified = ?5",
            (*where, clean_name(entry.petname), entry.state, int(entry.verified), entry.added_at),
        )
    connection.execute(
        "INSERT INTO sync_contacts (kind, key, version) VALUES (?1, ?2, ?3)"
        " ON CONFLICT (kind, key) DO UPDATE SET version = ?3",
        (*where, entry.version),
    )
    return True


def _ordered(entry: ContactEntry) -> tuple[int, bool, str]:
    return (_DECISION[entry.state], entry.verified, entry.petname)


def _apply_message(connection: sqlite3.Connection, own: UserId, entry: MessageEntry, applied: Applied) -> None:
    author = PeerId(entry.author)
    if queries.has_message(connection, author, entry.id):
        if entry.outgoing:
            _apply_state(connection, StateEntry(entry.author, entry.id, entry.state, entry.everywhere), applied)
        return
    user = UserId(entry.user) if entry.user else None
    if user is not None and user != own and not entry.outgoing:
        queries.learn_device(connection, author, user, clean_name(entry.name), entry.received_at)
    position = queries.insert_message(
        connection,
        message_id=entry.id,
        author=author,
        author_user=user,
        conversation=queries.conversation_id(connection, party_from_columns(entry.kind, entry.key)),
        sequence=entry.sequence,
        outgoing=entry.outgoing,
        text=clean(entry.text, limit=MAX_TEXT_BYTES, newline=True),
        sent_at_ms=entry.sent_at,
        received_at_ms=entry.received_at,
        state=entry.state,
    )
    if entry.everywhere:
        connection.execute("UPDATE messages SET everywhere = 1 WHERE position = ?", (position,))
    applied.messages.append(queries.message_at(connection, position))


def _apply_state(connection: sqlite3.Connection, entry: StateEntry, applied: Applied) -> None:
    row = connection.execute(
        "SELECT m.position, m.state, m.everywhere, c.kind, c.key FROM messages AS m"
        " JOIN conversations AS c ON c.id = m.conversation WHERE m.author = ? AND m.id = ? AND m.outgoing",
        (entry.author, entry.id),
    ).fetchone()
    if row is None or row[3] not in ("user", "peer"):
        return
    position, state, everywhere, kind, key = row
    newer = entry.state if _RANK[entry.state] > _RANK[state] else state
    if newer == state and bool(everywhere) >= entry.everywhere:
        return
    everywhere = bool(everywhere) or entry.everywhere
    connection.execute(
        "UPDATE messages SET state = ?, everywhere = ?, reason = '' WHERE position = ?", (newer, everywhere, position)
    )
    applied.states.append((entry.id.hex(), _party(kind, key), newer, everywhere))


def _apply_seen(connection: sqlite3.Connection, entry: SeenEntry) -> bool:
    """See what the other device has seen: up to the first message of somebody that it had not."""
    row = connection.execute(
        "SELECT id, seen FROM conversations WHERE kind = ? AND key = ?", (entry.kind, entry.key)
    ).fetchone()
    if row is None:
        return False
    conversation, seen = row
    marks = {bytes(mark.author): mark.sequence for mark in entry.marks}
    unseen = connection.execute(
        "SELECT position, author, author_seq FROM messages WHERE conversation = ? AND NOT outgoing AND position > ?"
        " ORDER BY position",
        (conversation, seen),
    )
    reached = seen
    for position, author, sequence in unseen:
        if sequence > marks.get(bytes(author), -1):
            break
        reached = position
    if reached > seen:
        connection.execute("UPDATE conversations SET seen = ? WHERE id = ?", (reached, conversation))
    return bool(reached > seen)
