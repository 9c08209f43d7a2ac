"""Finds messages that contain a text, whatever its case, among a million in milliseconds. SQL, as in `chat.queries`.

First the newest messages of the conversation are read, where a common text is found often enough; for a rare one the
index of three characters (`messages_text`) tells the few that may contain it, and these are read. Less than three
characters are in no index: every message is read.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from p2pnode.chat.model import Message, Party, party_columns
from p2pnode.chat.queries import MESSAGE_OF, SHOWN_BACKWARDS, message_of

__all__ = ["found"]

READ_FIRST = 4000  # messages: 10 ms
MAX_GRAMS = 12  # of the text that is looked for: each makes the candidates fewer, the first ones most

_NEWEST = f"(SELECT position FROM messages AS m WHERE m.conversation = ? {SHOWN_BACKWARDS} LIMIT ?)"  # noqa: S608
# what will disappear is in no index, and never much
_MATCHING = """(SELECT rowid AS position FROM messages_text WHERE messages_text MATCH ?
    UNION SELECT message FROM fleeting)"""
_CONTAINS = f" WHERE m.conversation = ? AND instr(fold(m.text), ?) > 0 {SHOWN_BACKWARDS} LIMIT ?"


def found(connection: sqlite3.Connection, party: Party, limit: int, text: str) -> list[Message]:
    """Return the last `limit` messages of a conversation that contain `text`, in order of showing."""
    row = connection.execute("SELECT id FROM conversations WHERE kind = ? AND key = ?", party_columns(party)).fetchone()
    if row is None:
        return []
    conversation, text = row[0], text.casefold()
    rest = (conversation, text, max(limit, 0))
    grams = sorted({text[at : at + 3] for at in range(len(text) - 2)})[:MAX_GRAMS]
    newest = (conversation, READ_FIRST if grams else -1)
    rows: list[Any] = connection.execute(MESSAGE_OF.format(_NEWEST) + _CONTAINS, (*newest, *rest)).fetchall()
    if len(rows) < limit and grams:
        wanted = " AND ".join('"' + gram.replace('"', '""') + '"' for gram in grams)
        rows = connection.execute(MESSAGE_OF.format(_MATCHING) + _CONTAINS, (wanted, *rest)).fetchall()
    return [message_of(row) for row in reversed(rows)]
