"""The history as lines of JSON, out of the database and into it. SQL, and what a line is. No I/O.

One line per message, in the order of showing, conversation after conversation. What will disappear is left out. A line
that is here already is passed over, so importing a file twice, or a file that overlaps, changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from p2pnode import BadPacket, InvalidPeerError, PeerId, UserId, clean, clean_name
from p2pnode.chat import queries
from p2pnode.chat.model import Party, party_columns
from p2pnode.chat.protocol import MAX_TEXT_BYTES

__all__ = [
    "MAX_LINE_BYTES", "START", "BadLineError", "ExportedMessage", "check", "export_page", "import_lines", "markdown_of",
    "read_line",
]  # fmt: skip

MAX_LINE_BYTES = 256 * 1024  # a message of 15,000 bytes, each of them escaped, and the rest
CLOCK_MS = 86_400_000  # how far ahead a message's number may be of our clock: ours continue the highest one
_MAX_INTEGER = 2**63 - 1
_LAST_MS = 253_402_300_799_999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Text = Annotated[str, msgspec.Meta(max_length=128)]
Number = Annotated[int, msgspec.Meta(ge=0, le=_MAX_INTEGER)]


class BadLineError(ValueError):
    """A line of an export that is none; says why."""


class ExportedMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message. `with`: the conversation, a user id, a peer id, `hall`, or `KIND:HEX`. `from`: the device that wrote
    it. `sequence`: its number there. `told_by`: as in `Message`. Times in RFC 3339, UTC."""

    with_: Annotated[str, msgspec.Meta(max_length=200)] = msgspec.field(name="with")
    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    from_: Text = msgspec.field(name="from")
    from_user: Text | None = None
    from_name: Text = ""
    direction: Annotated[str, msgspec.Meta(pattern=r"^(in|out)\Z")]
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_BYTES)]
    sent_at: Text
    received_at: Text
    state: Annotated[str, msgspec.Meta(pattern=r"^(queued|stored|delivered|read|refused|received)\Z")]
    sequence: Number
    told_by: Text | None = None


_decoder = msgspec.json.Decoder(ExportedMessage)


def check(message: ExportedMessage) -> None:
    """Raise BadLineError for what no message can be."""
    try:
        _row(message)
    except (ValueError, InvalidPeerError, BadPacket) as exc:
        raise BadLineError(clean(str(exc), limit=120)) from exc


def read_line(line: bytes) -> ExportedMessage:
    """Read one line. Raise BadLineError."""
    if len(line) > MAX_LINE_BYTES:
        raise BadLineError("the line is too long")
    try:
        message = _decoder.decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError) as exc:
        raise BadLineError(clean(str(exc), limit=120)) from exc
    check(message)
    return message


_PAGE = """
    SELECT m.position, c.kind, c.key, m.id, m.author, m.author_user, coalesce(d.name, t.name, ''), m.outgoing, m.text,
           m.sent_at, m.received_at, m.state, m.author_seq, t.teller, m.ordinal, m.conversation
    FROM messages AS m JOIN conversations AS c ON c.id = m.conversation
    LEFT JOIN devices AS d ON d.peer = m.author LEFT JOIN told AS t ON t.message = m.position
    WHERE (m.conversation, m.ordinal, m.author_seq, m.position) > (?, ?, ?, ?) AND (? IS NULL OR m.conversation = ?)
          AND NOT EXISTS (SELECT 1 FROM fleeting WHERE message = m.position)
    ORDER BY m.conversation, m.ordinal, m.author_seq, m.position LIMIT ?
"""
START = (0, 0, 0, 0)


def export_page(
    connection: sqlite3.Connection, party: Party | None, after: tuple[int, int, int, int], limit: int
) -> tuple[list[ExportedMessage], tuple[int, int, int, int] | None]:
    """Return the next messages (of one conversation, None: all) and where to go on, None at the end; begin at START."""
    conversation = None
    if party is not None:
        query = "SELECT id FROM conversations WHERE kind = ? AND key = ?"
        row = connection.execute(query, party_columns(party)).fetchone()
        if row is None:
            return [], None
        conversation = row[0]
        after = max(after, (conversation, -1, 0, 0))
    rows = connection.execute(_PAGE, (*after, conversation, conversation, limit)).fetchall()
    last = (rows[-1][15], rows[-1][14], rows[-1][12], rows[-1][0]) if len(rows) == limit else None
    return [_exported(row) for row in rows], last


def _exported(row: Sequence[Any]) -> ExportedMessage:
    return ExportedMessage(
        with_=_with(row[1], row[2]),
        id=row[3].hex(),
        from_=str(PeerId(row[4])),
        from_user=None if row[5] is None else str(UserId(row[5])),
        from_name=row[6],
        direction="out" if row[7] else "in",
        text=row[8],
        sent_at=_time(row[9]),
        received_at=_time(row[10]),
        state=row[11],
        sequence=row[12],
        told_by=None if row[13] is None else str(PeerId(row[13])),
    )


def import_lines(connection: sqlite3.Connection, messages: Sequence[ExportedMessage], now_ms: int) -> int:
    """Store what is not here yet; return how many those were. What was never delivered is not sent again."""
    imported = 0
    timers: dict[int, int] = {}
    for message in messages:
        kind, key, author, user, teller, sent_at, received_at = _row(message)
        raw_id = bytes.fromhex(message.id)
        if message.sequence > now_ms + CLOCK_MS or queries.has_message(connection, author, raw_id):
            continue
        connection.execute("INSERT OR IGNORE INTO conversations (kind, key) VALUES (?, ?)", (kind, key))
        query = "SELECT id, timer, seen FROM conversations WHERE kind = ? AND key = ?"
        conversation, timer, seen = connection.execute(query, (kind, key)).fetchone()
        if timer:  # what was kept elsewhere is kept here
            timers[conversation] = timer
            connection.execute("UPDATE conversations SET timer = 0 WHERE id = ?", (conversation,))
        unread = "SELECT 1 FROM messages WHERE conversation = ? AND position > ? AND NOT outgoing"
        all_seen = connection.execute(unread, (conversation, seen)).fetchone() is None
        open_ = message.state in ("queued", "stored")
        position = queries.insert_message(
            connection,
            message_id=raw_id,
            author=author,
            author_user=user,
            conversation=conversation,
            sequence=message.sequence,
            outgoing=message.direction == "out",
            text=clean(message.text, limit=MAX_TEXT_BYTES, newline=True),
            sent_at_ms=sent_at,
            received_at_ms=received_at,
            state="refused" if open_ else message.state,
        )
        if open_:
            connection.execute("UPDATE messages SET reason = 'imported' WHERE position = ?", (position,))
        if teller is not None:
            name = clean_name(message.from_name)
            connection.execute("INSERT INTO told (message, teller, name) VALUES (?, ?, ?)", (position, teller, name))
        if all_seen:
            connection.execute("UPDATE conversations SET seen = ? WHERE id = ?", (position, conversation))
        imported += 1
    for conversation, timer in timers.items():
        connection.execute("UPDATE conversations SET timer = ? WHERE id = ?", (timer, conversation))
    return imported


def _row(message: ExportedMessage) -> tuple[str, bytes, PeerId, UserId | None, bytes | None, int, int]:
    """Return (kind, key, author, its user, teller, sent and received in Unix milliseconds). Raise ValueError,
    InvalidPeerError."""
    kind, key = _conversation(message.with_)
    user = None if message.from_user is None else UserId.parse(message.from_user)
    teller = None if message.told_by is None else PeerId.parse(message.told_by).raw
    times = _milliseconds(message.sent_at), _milliseconds(message.received_at)
    return kind, key, PeerId.parse(message.from_), user, teller, *times


def _with(kind: str, key: bytes) -> str:
    if kind == "user":
        return str(UserId(key))
    if kind == "peer":
        return str(PeerId(key))
    return f"{kind}:{key.hex()}" if key else kind


def _conversation(text: str) -> tuple[str, bytes]:
    if text == "hall":
        return "hall", b""
    kind, colon, key = text.partition(":")
    if colon:
        if not (kind.isascii() and kind.isalpha()) or len(kind) > 16 or kind in ("user", "peer", "hall"):
            raise ValueError("with: no kind of conversation")
        return kind, bytes.fromhex(key)
    if text.startswith("p2p1"):
        return "user", UserId.parse(text).raw
    return "peer", PeerId.parse(text).raw


def _time(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(min(max(milliseconds, 0), _LAST_MS) // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def _milliseconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    found = round((moment - _EPOCH).total_seconds() * 1000)
    if not 0 <= found <= _LAST_MS:
        raise ValueError("a time that no calendar has")
    return found


_SPECIAL = str.maketrans({char: "\\" + char for char in "\\`*_{}[]<>#+-!|~"})


def markdown_of(message: ExportedMessage, previous: ExportedMessage | None, name: str) -> str:
    """Return one message as Markdown, a heading before the first of each conversation and day. `name`: the
    conversation's. What people wrote stays text: it is escaped."""
    lines = []
    if previous is None or previous.with_ != message.with_:
        lines += [f"# {name.translate(_SPECIAL)}", ""]
        previous = None
    day = message.sent_at[:10]
    if previous is None or previous.sent_at[:10] != day:
        lines += [f"## {day}", ""]
    who = "you" if message.direction == "out" else message.from_name or message.from_[-6:]
    told = f" (told by {message.told_by[-6:]})" if message.told_by else ""
    text = message.text.translate(_SPECIAL).replace("\n", "  \n")
    lines += [f"**{who.translate(_SPECIAL)}**{told} {message.sent_at[11:16]}  ", text, ""]
    return "\n".join(lines) + "\n"
