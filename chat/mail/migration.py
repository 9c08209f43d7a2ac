"""Tables of letters that we carry for contacts, and of first letters."""

from __future__ import annotations

__all__ = ["CARRIED", "FIRST_LETTERS"]

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

FIRST_LETTERS: tuple[str, ...] = (
    # Keys that strangers' first letters to us are sealed to (X25519, chat/mail/epochs.py); Unix seconds.
    """CREATE TABLE mail_epochs (
        private BLOB PRIMARY KEY CHECK (length(private) = 32),
        made_at INTEGER NOT NULL,
        published_at INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # Which message we left in whose pool, and until when it waits there (Unix seconds).
    """CREATE TABLE mail_left (
        device BLOB PRIMARY KEY CHECK (length(device) = 32),
        message INTEGER NOT NULL REFERENCES messages (position) ON DELETE CASCADE,
        expires INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX mail_left_message ON mail_left (message)",
)
