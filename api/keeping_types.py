"""What the control API takes and gives about what is kept. As `types`: names never change, new ones may come."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2pnode.api.types import MAX_PEER, PeerText
from p2pnode.chat import ExportedContact, ExportedMessage

__all__ = [
    "ContactsImport", "ConversationChange", "ConversationInfo", "Conversations", "ExportQuery", "ExportedContact",
    "ExportedContacts", "ExportedMessage", "HistoryImport", "Imported",
]  # fmt: skip


class ConversationInfo(Struct, kw_only=True):
    """`id`: user id, peer id or `hall`. `keep_days`: days, 0 for ever, null as set for all (`keep_days_all`).
    `disappear_s`: new messages disappear so long after reading, 0: they stay; `agreed`: the other side does so."""

    id: str
    name: str
    messages: int
    unread: int
    keep_days: int | None
    disappear_s: int
    agreed: bool


class Conversations(Struct):
    """All conversations, the one with the newest message first."""

    conversations: list[ConversationInfo]
    keep_days_all: int


class ConversationChange(Struct):
    """`keep_days`: days, 0 for ever, -1 as set for all. `disappear_s`: 5 s to a year, 0: off. None: as it is."""

    peer: PeerText
    keep_days: Annotated[int, Meta(ge=-1, le=36_500)] | None = None
    disappear_s: Annotated[int, Meta(ge=0, le=31_536_000)] | None = None


class ExportQuery(Struct, rename={"with_": "with"}):
    """`with`: only the conversation with this PEER, or `hall`."""

    with_: Annotated[str, Meta(max_length=MAX_PEER)] | None = None


class HistoryImport(Struct):
    """Messages of an export, in its order."""

    messages: Annotated[list[ExportedMessage], Meta(max_length=1_000)]


class Imported(Struct):
    """`imported`: what was not here yet, or was changed by it."""

    imported: int


class ExportedContacts(Struct):
    """Contacts and blocked people, by name."""

    contacts: list[ExportedContact]


class ContactsImport(Struct):
    """People of an export. `verified`: believe it that safety numbers were compared: the file is the user's own."""

    contacts: Annotated[list[ExportedContact], Meta(max_length=1_000)]
    verified: bool = False
