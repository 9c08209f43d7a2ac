"""Contacts as lines of JSON, out of the database and into it. SQL, and what a line is. No I/O.

What the user decided here stands: an import adds people, and names to those that have none; it unblocks nobody and
renames nobody. Whether safety numbers were compared is taken over only where the user says that the file is their own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Annotated

import msgspec

from p2pnode import InvalidPeerError, PeerId, UserId, clean, clean_name
from p2pnode.chat import queries
from p2pnode.chat.keeping.exchange import BadLineError
from p2pnode.chat.model import party_columns

__all__ = ["ExportedContact", "check_contact", "export_contacts", "import_contacts", "read_contact"]

MAX_LINE_BYTES = 4_096


class ExportedContact(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One person. `id`: user id or peer id. `name`: what we call them, `own_name`: what they call themselves."""

    id: Annotated[str, msgspec.Meta(max_length=128)]
    name: Annotated[str, msgspec.Meta(max_length=128)] = ""
    own_name: Annotated[str, msgspec.Meta(max_length=128)] = ""
    state: Annotated[str, msgspec.Meta(pattern=r"^(accepted|blocked)\Z")] = "accepted"
    verified: bool = False


_decoder = msgspec.json.Decoder(ExportedContact)


def read_contact(line: bytes) -> ExportedContact:
    """Read one line. Raise BadLineError."""
    if len(line) > MAX_LINE_BYTES:
        raise BadLineError("the line is too long")
    try:
        contact = _decoder.decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError) as exc:
        raise BadLineError(clean(str(exc), limit=120)) from exc
    check_contact(contact)
    return contact


def check_contact(contact: ExportedContact) -> None:
    """Raise BadLineError for what nobody can be."""
    try:
        _party(contact)
    except InvalidPeerError as exc:
        raise BadLineError(clean(exc.message, limit=120)) from exc


def export_contacts(connection: sqlite3.Connection) -> list[ExportedContact]:
    """Return contacts and blocked people, by name; not those who only asked."""
    return [
        ExportedContact(
            id=str(contact.party),
            name=contact.petname,
            own_name=contact.name,
            state=contact.state,
            verified=contact.verified,
        )
        for contact in queries.contacts(connection)
        if contact.state != "request"
    ]


def import_contacts(
    connection: sqlite3.Connection, contacts: Sequence[ExportedContact], now_ms: int, *, own: UserId, verified: bool
) -> int:
    """Add people; return how many are new or changed. `verified`: believe the file that numbers were compared."""
    changed = 0
    for each in contacts:
        party = _party(each)
        if party == own:
            continue
        state, name = queries.contact_state(connection, party), clean_name(each.name)
        columns = party_columns(party)
        before = connection.total_changes
        if state is None:
            queries.put_contact(connection, party, "blocked" if each.state == "blocked" else "accepted", now_ms)
            chosen = "UPDATE contacts SET name = ? WHERE kind = ? AND key = ? AND name = ''"
            connection.execute(chosen, (clean_name(each.own_name), *columns))
        elif state == "request":
            queries.set_contact_state(connection, party, "blocked" if each.state == "blocked" else "accepted")
        if name:
            petname = "UPDATE contacts SET petname = ? WHERE kind = ? AND key = ? AND petname = ''"
            connection.execute(petname, (name, *columns))
        if verified and each.verified:
            known = "UPDATE contacts SET verified = 1 WHERE kind = ? AND key = ? AND NOT verified"
            connection.execute(known, columns)
        changed += connection.total_changes > before
    return changed


def _party(contact: ExportedContact) -> UserId | PeerId:
    return UserId.parse(contact.id) if contact.id.lower().startswith("p2p1") else PeerId.parse(contact.id)
