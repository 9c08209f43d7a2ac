"""The tables of `chat.devices`; `chat.schema` runs them. Once released, never changed."""

from __future__ import annotations

__all__ = ["DEVICES"]

_CONTACT_CHANGED = """BEGIN
    DELETE FROM sync_changes WHERE what = 'contact' AND kind = {row}.kind AND key = {row}.key;
    INSERT INTO sync_changes (what, kind, key) VALUES ('contact', {row}.kind, {row}.key);
    INSERT INTO sync_contacts (kind, key, version) SELECT {row}.kind, {row}.key, 0
        WHERE NOT EXISTS (SELECT 1 FROM sync_contacts WHERE kind = {row}.kind AND key = {row}.key);
    UPDATE sync_contacts SET version = version + 1 WHERE kind = {row}.kind AND key = {row}.key;
END"""

DEVICES: tuple[str, ...] = (
    # Whether all devices that a message of ours goes to have it.
    "ALTER TABLE messages ADD COLUMN everywhere INTEGER NOT NULL DEFAULT 0",
    # The newest list of somebody's devices that we ever saw. number: larger is newer. signature: the account's; none
    # where it came out of the network's record.
    """CREATE TABLE device_lists (
        user BLOB PRIMARY KEY CHECK (length(user) = 32),
        number INTEGER NOT NULL,
        value BLOB NOT NULL,
        signature BLOB NOT NULL
    ) WITHOUT ROWID""",
    # Up to which position a device was told what we have read of its user. 32 zero bytes: nobody is told of any before.
    """CREATE TABLE read_told (
        device BLOB PRIMARY KEY CHECK (length(device) = 32),
        position INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # The user's other devices. sent_*: what each has of our log; log, got_*: its log's id, and what we have of that.
    """CREATE TABLE sync_peers (
        device BLOB PRIMARY KEY CHECK (length(device) = 32),
        sent_position INTEGER NOT NULL DEFAULT -1,
        sent_number INTEGER NOT NULL DEFAULT -1,
        log BLOB NOT NULL DEFAULT x'',
        got_position INTEGER NOT NULL DEFAULT 0,
        got_number INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    # The log's id, one row: positions of another database mean nothing.
    "CREATE TABLE sync_log (id BLOB NOT NULL CHECK (length(id) = 16))",
    # What changed last, once each: what: contact, state (key: a message's position), seen (key: a conversation's id).
    """CREATE TABLE sync_changes (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        what TEXT NOT NULL,
        kind TEXT NOT NULL,
        key NOT NULL,
        UNIQUE (what, kind, key)
    )""",
    # How often each contact was changed on all devices together: the larger wins. It stays when the contact is removed.
    """CREATE TABLE sync_contacts (
        kind TEXT NOT NULL,
        key BLOB NOT NULL,
        version INTEGER NOT NULL,
        PRIMARY KEY (kind, key)
    ) WITHOUT ROWID""",
    "INSERT INTO sync_contacts (kind, key, version) SELECT kind, key, 1 FROM contacts",
    "INSERT INTO sync_changes (what, kind, key) SELECT 'contact', kind, key FROM contacts",
    f"CREATE TRIGGER contacts_added AFTER INSERT ON contacts {_CONTACT_CHANGED.format(row='NEW')}",
    f"""CREATE TRIGGER contacts_changed AFTER UPDATE ON contacts
        WHEN (OLD.petname, OLD.state, OLD.verified) != (NEW.petname, NEW.state, NEW.verified)
        {_CONTACT_CHANGED.format(row="NEW")}""",
    f"CREATE TRIGGER contacts_removed AFTER DELETE ON contacts {_CONTACT_CHANGED.format(row='OLD')}",
    """CREATE TRIGGER messages_moved_on AFTER UPDATE OF state, everywhere ON messages
        WHEN NEW.outgoing AND (OLD.state, OLD.everywhere) != (NEW.state, NEW.everywhere)
            AND EXISTS (SELECT 1 FROM sync_peers)
        BEGIN
            DELETE FROM sync_changes WHERE what = 'state' AND kind = '' AND key = NEW.position;
            INSERT INTO sync_changes (what, kind, key) VALUES ('state', '', NEW.position);
        END""",
    """CREATE TRIGGER conversations_seen AFTER UPDATE OF seen ON conversations
        WHEN NEW.seen > OLD.seen AND EXISTS (SELECT 1 FROM sync_peers)
        BEGIN
            DELETE FROM sync_changes WHERE what = 'seen' AND kind = '' AND key = NEW.id;
            INSERT INTO sync_changes (what, kind, key) VALUES ('seen', '', NEW.id);
        END""",
)
