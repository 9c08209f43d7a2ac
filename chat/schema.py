"""The database's tables and how older files become newer ones.

`PRAGMA user_version` counts the migrations a file has seen. Each migration runs in one transaction together with the
new number, so a crash in the middle leaves the old version. Never change a migration that was released; append one.
A file of a newer version is refused: an older program would not know what it breaks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from p2pnode import StorageError
from p2pnode.chat.devices.migration import DEVICES
from p2pnode.chat.mail.migration import CARRIED, FIRST_LETTERS

__all__ = ["MIGRATIONS", "Migration", "migrate"]

Migration = tuple[str, ...]
"""Statements; not one script, because sqlite3's executescript commits behind our back."""

_FIRST: Migration = (
    # What a conversation is with. kind: user, peer, hall (later: room); key: 32-byte public key, empty for the hall.
    """CREATE TABLE conversations (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        key BLOB NOT NULL,
        UNIQUE (kind, key)
    )""",
    # position: order of storing here, never used twice (AUTOINCREMENT), the cursor of those who follow.
    # ordinal, author_seq: order of showing; a message that comes after a later one of its author is shown before it.
    # UNIQUE (author, id): exactly once. Not id alone: others could take an id that they saw, and suppress its message.
    """CREATE TABLE messages (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL CHECK (length(id) = 16),
        author BLOB NOT NULL CHECK (length(author) = 32),
        author_user BLOB,
        conversation INTEGER NOT NULL REFERENCES conversations (id),
        ordinal INTEGER NOT NULL,
        author_seq INTEGER NOT NULL,
        outgoing INTEGER NOT NULL,
        text TEXT NOT NULL,
        sent_at INTEGER NOT NULL,
        received_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        UNIQUE (author, id)
    )""",
    "CREATE INDEX messages_shown ON messages (conversation, ordinal, author_seq)",
    "CREATE INDEX messages_own ON messages (author_seq) WHERE outgoing",
    "CREATE INDEX messages_by_author ON messages (conversation, author, author_seq)",
    # What is still to be sent: one row per message and device; an empty device: those of the user are not known yet.
    """CREATE TABLE outbox (
        device BLOB NOT NULL,
        message INTEGER NOT NULL REFERENCES messages (position) ON DELETE CASCADE,
        attempts INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (device, message)
    ) WITHOUT ROWID""",
    "CREATE INDEX outbox_by_message ON outbox (message)",
    # People that the user decided about, or has to. state: request, accepted, blocked.
    """CREATE TABLE contacts (
        kind TEXT NOT NULL,
        key BLOB NOT NULL,
        petname TEXT NOT NULL DEFAULT '',
        name TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL CHECK (state IN ('request', 'accepted', 'blocked')),
        verified INTEGER NOT NULL DEFAULT 0,
        added_at INTEGER NOT NULL,
        PRIMARY KEY (kind, key)
    ) WITHOUT ROWID""",
    # Devices that proved whose they are. name: as they last called themselves.
    """CREATE TABLE devices (
        peer BLOB PRIMARY KEY CHECK (length(peer) = 32),
        user BLOB,
        name TEXT NOT NULL DEFAULT '',
        seen_at INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX devices_by_user ON devices (user)",
)

_SEEN: Migration = (
    # Up to which message the user has seen a conversation. What was there before this column counts as seen.
    "ALTER TABLE conversations ADD COLUMN seen INTEGER NOT NULL DEFAULT 0",
    """UPDATE conversations SET seen =
        coalesce((SELECT max(position) FROM messages WHERE conversation = conversations.id), 0)""",
    # counting what is unread must not read the messages: there may be a million
    "CREATE INDEX messages_unread ON messages (conversation, position) WHERE NOT outgoing",
)

_SEARCH: Migration = (
    # Which messages hold which three characters, of the text as `fold` gives it (chat/database.py). It says where to
    # look; whether a text is really there, the message says. Whoever deletes a message has to take it out here as well:
    # INSERT INTO messages_text (messages_text, rowid, text) VALUES ('delete', position, fold(text)).
    """CREATE VIRTUAL TABLE messages_text
        USING fts5(text, content='', detail='none', columnsize=0, tokenize='trigram case_sensitive 1')""",
    "INSERT INTO messages_text (rowid, text) SELECT position, fold(text) FROM messages",
)

_FILES: Migration = (
    # Files and folders that are offered, under way or done. author: the device that offers (ours too). kind, key: the
    # conversation, as in `conversations`. taker: the device that takes it. root, manifest: what the offer promises, and
    # the list of files behind it. source: what we send. place: the final name, noted before it is given. known: bytes
    # there when that was last written; what is really there, the partial file says.
    """CREATE TABLE files (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL CHECK (length(id) = 16),
        author BLOB NOT NULL CHECK (length(author) = 32),
        outgoing INTEGER NOT NULL,
        kind TEXT NOT NULL,
        key BLOB NOT NULL,
        taker BLOB,
        folder INTEGER NOT NULL,
        name TEXT NOT NULL,
        size INTEGER NOT NULL,
        count INTEGER NOT NULL,
        manifest_size INTEGER NOT NULL,
        root BLOB NOT NULL,
        manifest BLOB,
        source TEXT NOT NULL DEFAULT '',
        place TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        known INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        UNIQUE (author, id)
    )""",
    "CREATE INDEX files_by_state ON files (state)",
    # Of each file that we send: where it is, what it was when it was hashed, and the hashes of its segments.
    """CREATE TABLE file_sources (
        file INTEGER NOT NULL REFERENCES files (position) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        path TEXT NOT NULL,
        size INTEGER NOT NULL,
        stamp INTEGER NOT NULL,
        leaves BLOB NOT NULL,
        PRIMARY KEY (file, number)
    ) WITHOUT ROWID""",
    # To which devices something was offered, and what each said.
    """CREATE TABLE file_devices (
        file INTEGER NOT NULL REFERENCES files (position) ON DELETE CASCADE,
        device BLOB NOT NULL,
        state TEXT NOT NULL,
        PRIMARY KEY (file, device)
    ) WITHOUT ROWID""",
)

_MAIL: Migration = (
    # Chains of slots that others may leave us letters in (chat/mail). device: who got it. base: the first slot that was
    # not read yet, secret: its secret; those before are thrown away. used: how many were written, once its writer has a
    # newer grant. private: X25519.
    """CREATE TABLE mail_given (
        id BLOB PRIMARY KEY,
        device BLOB NOT NULL CHECK (length(device) = 32),
        secret BLOB NOT NULL,
        private BLOB NOT NULL,
        base INTEGER NOT NULL DEFAULT 0,
        used INTEGER,
        made_at INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX mail_given_to ON mail_given (device)",
    # Slots before the base that could not be read: looked for again until no letter could be there any more.
    """CREATE TABLE mail_missing (
        grant_id BLOB NOT NULL REFERENCES mail_given (id) ON DELETE CASCADE,
        slot INTEGER NOT NULL,
        secret BLOB NOT NULL,
        missed_at INTEGER NOT NULL,
        PRIMARY KEY (grant_id, slot)
    ) WITHOUT ROWID""",
    # What others gave us: the next slot's secret, and the key that letters to the device are sealed to.
    """CREATE TABLE mail_taken (
        device BLOB PRIMARY KEY CHECK (length(device) = 32),
        id BLOB NOT NULL,
        secret BLOB NOT NULL,
        key BLOB NOT NULL,
        used INTEGER NOT NULL DEFAULT 0,
        taken_at INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # Letters that we wrote and that nobody has read yet. seed: of the key that signs the slot's records. expires: 0
    # until the holders have it.
    """CREATE TABLE mail_letters (
        id INTEGER PRIMARY KEY,
        device BLOB NOT NULL CHECK (length(device) = 32),
        seed BLOB NOT NULL,
        letter BLOB NOT NULL,
        expires INTEGER NOT NULL DEFAULT 0,
        checks INTEGER NOT NULL DEFAULT 0,
        next_at INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX mail_letters_to ON mail_letters (device)",
    """CREATE TABLE mail_contents (
        letter INTEGER NOT NULL REFERENCES mail_letters (id) ON DELETE CASCADE,
        message INTEGER NOT NULL REFERENCES messages (position) ON DELETE CASCADE,
        PRIMARY KEY (letter, message)
    ) WITHOUT ROWID""",
    "CREATE INDEX mail_contents_of ON mail_contents (message)",
)

_STRANGERS: Migration = (
    # The secret that this device's weekly blinded ids come out of (docs/random.md); one row.
    "CREATE TABLE stranger_device (secret BLOB NOT NULL CHECK (length(secret) = 32))",
    # Valid reports that were seen, and those that we made: these have the value that is announced. at: Unix seconds.
    """CREATE TABLE stranger_reports (
        device BLOB NOT NULL CHECK (length(device) = 32),
        reporter BLOB NOT NULL CHECK (length(reporter) = 32),
        at INTEGER NOT NULL,
        value BLOB,
        PRIMARY KEY (device, reporter)
    ) WITHOUT ROWID""",
)

_KEEPING: Migration = (
    # Which key answered first for a name of the static table (`join --peers`). name: case-folded.
    """CREATE TABLE pins (
        name TEXT PRIMARY KEY,
        peer BLOB NOT NULL CHECK (length(peer) = 32),
        pinned_at INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # Messages of the hall that somebody else than their author gave us. name: the author's, as the teller says.
    """CREATE TABLE told (
        message INTEGER PRIMARY KEY REFERENCES messages (position) ON DELETE CASCADE,
        teller BLOB NOT NULL CHECK (length(teller) = 32),
        name TEXT NOT NULL
    )""",
    # keep: days; NULL: as set for all, 0: for ever. timer: seconds after which new messages disappear, 0: never.
    # timer_version: the larger wins (Unix milliseconds, always rising), 0: nobody ever set one. timer_since: our number
    # of the first message that it is meant for. timer_agreed: whether a device of the other side has it.
    "ALTER TABLE conversations ADD COLUMN keep INTEGER",
    "ALTER TABLE conversations ADD COLUMN timer INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE conversations ADD COLUMN timer_version INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE conversations ADD COLUMN timer_since INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE conversations ADD COLUMN timer_agreed INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX messages_by_age ON messages (received_at)",
    # Messages that will disappear. ends_at: Unix milliseconds, NULL until it was read. They are not in `messages_text`,
    # so that nothing of them stays in its segments.
    """CREATE TABLE fleeting (
        message INTEGER PRIMARY KEY REFERENCES messages (position) ON DELETE CASCADE,
        seconds INTEGER NOT NULL,
        ends_at INTEGER
    )""",
    "CREATE INDEX fleeting_ends ON fleeting (ends_at)",
    """CREATE TRIGGER messages_fleeting AFTER INSERT ON messages
        WHEN (SELECT timer FROM conversations WHERE id = NEW.conversation) > 0
        BEGIN
            INSERT INTO fleeting (message, seconds, ends_at)
            SELECT NEW.position, timer, CASE WHEN NEW.outgoing THEN NEW.sent_at + 1000 * timer END
            FROM conversations WHERE id = NEW.conversation;
        END""",
    """CREATE TRIGGER messages_unindexed BEFORE DELETE ON messages
        WHEN NOT EXISTS (SELECT 1 FROM fleeting WHERE message = OLD.position)
        BEGIN
            INSERT INTO messages_text (messages_text, rowid, text) VALUES ('delete', OLD.position, fold(OLD.text));
        END""",
    # Messages that are gone, so that none comes back when it is sent or told again.
    """CREATE TABLE removed (
        author BLOB NOT NULL CHECK (length(author) = 32),
        id BLOB NOT NULL CHECK (length(id) = 16),
        removed_at INTEGER NOT NULL,
        PRIMARY KEY (author, id)
    ) WITHOUT ROWID""",
    "CREATE INDEX removed_by_age ON removed (removed_at)",
)

_ROOMS: Migration = (
    # Rooms (chat/rooms). state: invited, joined, left, removed. via: the device that told us, empty where nobody did.
    """CREATE TABLE rooms (
        id BLOB PRIMARY KEY CHECK (length(id) = 32),
        name TEXT NOT NULL,
        open INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('invited', 'joined', 'left', 'removed')),
        via BLOB NOT NULL DEFAULT x'',
        made_at INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # The signed entries of each device, as they came; what goes on without a gap from 1. kind: what the body is (6: a
    # text). message: its place in the history, NULL while it is locked (no key) or hidden.
    """CREATE TABLE room_entries (
        room BLOB NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
        device BLOB NOT NULL CHECK (length(device) = 32),
        seq INTEGER NOT NULL,
        id BLOB NOT NULL CHECK (length(id) = 16),
        depth INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        raw BLOB NOT NULL,
        message INTEGER,
        PRIMARY KEY (room, device, seq)
    ) WITHOUT ROWID""",
    "CREATE INDEX room_entries_control ON room_entries (room) WHERE kind != 6",
    "CREATE INDEX room_entries_locked ON room_entries (room) WHERE kind = 6 AND message IS NULL",
    # Keys of the contents, by epoch: the id of the entry that began it.
    """CREATE TABLE room_keys (
        room BLOB NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
        epoch BLOB NOT NULL CHECK (length(epoch) = 16),
        key BLOB NOT NULL CHECK (length(key) = 32),
        PRIMARY KEY (room, epoch)
    ) WITHOUT ROWID""",
    # Proofs that a device signed two entries of one number: from there on nothing of it counts.
    """CREATE TABLE room_forks (
        room BLOB NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
        device BLOB NOT NULL CHECK (length(device) = 32),
        seq INTEGER NOT NULL,
        one BLOB NOT NULL,
        other BLOB NOT NULL,
        PRIMARY KEY (room, device)
    ) WITHOUT ROWID""",
    # Whom we invited and have not told yet.
    """CREATE TABLE room_invitations (
        room BLOB NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
        user BLOB NOT NULL CHECK (length(user) = 32),
        PRIMARY KEY (room, user)
    ) WITHOUT ROWID""",
)

_GOSSIP: Migration = (
    # What we say of ourselves (one row; at: of the last statement, Unix milliseconds), and what contacts' devices said
    # last: the signed statement as it came (chat/gossip).
    "CREATE TABLE gossip_own (text TEXT NOT NULL, invisible INTEGER NOT NULL, at INTEGER NOT NULL)",
    """CREATE TABLE gossip_heard (
        device BLOB PRIMARY KEY CHECK (length(device) = 32),
        at INTEGER NOT NULL,
        packed BLOB NOT NULL
    ) WITHOUT ROWID""",
)

_NAMES: Migration = (
    # Since when we have claimed a name (chat/names). since: Unix seconds.
    "CREATE TABLE names_claimed (name TEXT PRIMARY KEY, since INTEGER NOT NULL) WITHOUT ROWID",
)

_HANDED_OVER: Migration = (
    # The time of a message of ours runs from when it was handed over, not from when it was written.
    "DROP TRIGGER messages_fleeting",
    """CREATE TRIGGER messages_fleeting AFTER INSERT ON messages
        WHEN (SELECT timer FROM conversations WHERE id = NEW.conversation) > 0
        BEGIN
            INSERT INTO fleeting (message, seconds)
            SELECT NEW.position, timer FROM conversations WHERE id = NEW.conversation;
        END""",
)

_ROOM_FILES: Migration = (
    # parent: of what goes to one member of a room, the row of what goes to the room, which holds list and sources.
    "ALTER TABLE files ADD COLUMN parent INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX files_by_parent ON files (parent) WHERE parent != 0",
)

MIGRATIONS: tuple[Migration, ...] = (
    _FIRST, _SEEN, _SEARCH, _FILES, _MAIL, _STRANGERS, _KEEPING, _ROOMS, DEVICES, _GOSSIP, _NAMES, _HANDED_OVER,
    CARRIED, _ROOM_FILES, FIRST_LETTERS,
)  # fmt: skip


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring the file to the version of this program; return how many migrations ran.

    Raise StorageError when the file comes from a newer program, sqlite3.Error as it comes.
    """
    version = _version(connection)
    if version > len(migrations):
        raise StorageError(
            f"The database was written by a newer p2pnode (version {version}, this one knows {len(migrations)}):"
            " update p2pnode.",
            version=version,
        )
    done = 0
    for number in range(version, len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[number]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        done += 1
    return done


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
