"""Tables of letters that we carry for contacts."""

from __future__ import annotations

__all__ = ["CARRIED"]

CARRIED: tuple[str, ...] = (
    # Letters that contacts gave us for contacts that we share, because the network did not take them (chat/mail). slot:
    # its public key; giver, reader: devices. taken_at: Unix seconds.
    """CREATE TABLE mail_carried (
        slot BLOB PRIMARY KEY CHECK (length(slot) = 32),
        giver BLOB NOT NULL CHECK (length(giver) = 32),
        reader BLOB NOT NULL CHECK (length(reader) = 32),
        letter BLOB NOT NULL,
        taken_at INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX mail_carried_to ON mail_carried (reader)",
    "CREATE INDEX mail_carried_of ON mail_carried (giver)",
)
