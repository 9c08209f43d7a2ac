"""People, conversations, the outbox and the hall, on the public names of `p2pnode`.

    store = await ChatStore.open(home.chat_db, run_blocking=network.run_blocking)
    chat = Chat(node, store)
    await chat.start()
    result = await chat.send(chat.resolve("alice"), "hello", wait=5.0)     # SendResult(state="delivered", ...)
    cancel = chat.subscribe(print)                                         # MessageReceived(...), ...

Names are loaded when first used, so that `p2pnode --help` does not pay for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pnode.chat.contacts import Directory
    from p2pnode.chat.conversation import Conversation
    from p2pnode.chat.devices.codes import LinkCode
    from p2pnode.chat.devices.console import own_device
    from p2pnode.chat.devices.linking import Linked, link_account
    from p2pnode.chat.engine import DatabaseKey, encryption_available
    from p2pnode.chat.files.service import Files, FileSettings
    from p2pnode.chat.inspecting import Inspector, OwnDetails, PathDetails
    from p2pnode.chat.keeping.exchange import (
        MAX_LINE_BYTES,
        BadLineError,
        ExportedMessage,
        markdown_of,
        read_line,
    )
    from p2pnode.chat.keeping.moving import export_messages, export_people, import_messages, import_people
    from p2pnode.chat.keeping.people import ExportedContact, read_contact
    from p2pnode.chat.language import Command, parse_line
    from p2pnode.chat.model import (
        HALL,
        ChatEvent,
        Contact,
        ConversationSummary,
        Device,
        FileChanged,
        HallChanged,
        HallTold,
        Member,
        Message,
        MessageReceived,
        MessagesGone,
        MessagesSynced,
        MessageStateChanged,
        OwnDevicesChanged,
        Party,
        PresenceSeen,
        RequestReceived,
        RoomChanged,
        RoomId,
        RoomInfo,
        RoomMember,
        SendResult,
        StatusChanged,
        StrangerChanged,
        StrangerSaid,
        TableChanged,
        TimerChanged,
        Transfer,
    )
    from p2pnode.chat.noticing import Notice, notice_of
    from p2pnode.chat.people import People
    from p2pnode.chat.protocol import MAX_TEXT_BYTES
    from p2pnode.chat.rooms.service import Rooms
    from p2pnode.chat.service import Chat, ChatSettings
    from p2pnode.chat.store import ChatStore
    from p2pnode.chat.table.rows import MAX_TABLE_BYTES, TableRow, parse_table

__all__ = [
    "HALL",
    "MAX_LINE_BYTES",
    "MAX_TABLE_BYTES",
    "MAX_TEXT_BYTES",
    "BadLineError",
    "Chat",
    "ChatEvent",
    "ChatSettings",
    "ChatStore",
    "Command",
    "Contact",
    "Conversation",
    "ConversationSummary",
    "DatabaseKey",
    "Device",
    "Directory",
    "ExportedContact",
    "ExportedMessage",
    "FileChanged",
    "FileSettings",
    "Files",
    "HallChanged",
    "HallTold",
    "Inspector",
    "LinkCode",
    "Linked",
    "Member",
    "Message",
    "MessageReceived",
    "MessageStateChanged",
    "MessagesGone",
    "MessagesSynced",
    "Notice",
    "OwnDetails",
    "OwnDevicesChanged",
    "Party",
    "PathDetails",
    "People",
    "PresenceSeen",
    "RequestReceived",
    "RoomChanged",
    "RoomId",
    "RoomInfo",
    "RoomMember",
    "Rooms",
    "SendResult",
    "StatusChanged",
    "StrangerChanged",
    "StrangerSaid",
    "TableChanged",
    "TableRow",
    "TimerChanged",
    "Transfer",
    "encryption_available",
    "export_messages",
    "export_people",
    "import_messages",
    "import_people",
    "link_account",
    "markdown_of",
    "notice_of",
    "own_device",
    "parse_line",
    "parse_table",
    "read_contact",
    "read_line",
]

_MODULES = {
    "BadLineError": "keeping.exchange",
    "Chat": "service",
    "ExportedContact": "keeping.people",
    "ExportedMessage": "keeping.exchange",
    "MAX_LINE_BYTES": "keeping.exchange",
    "export_messages": "keeping.moving",
    "export_people": "keeping.moving",
    "import_messages": "keeping.moving",
    "import_people": "keeping.moving",
    "read_contact": "keeping.people",
    "markdown_of": "keeping.exchange",
    "read_line": "keeping.exchange",
    "ChatSettings": "service",
    "ChatStore": "store",
    "Command": "language",
    "Conversation": "conversation",
    "DatabaseKey": "engine",
    "encryption_available": "engine",
    "Directory": "contacts",
    "FileSettings": "files.service",
    "Files": "files.service",
    "Inspector": "inspecting",
    "LinkCode": "devices.codes",
    "Linked": "devices.linking",
    "MAX_TABLE_BYTES": "table.rows",
    "MAX_TEXT_BYTES": "protocol",
    "Notice": "noticing",
    "OwnDetails": "inspecting",
    "PathDetails": "inspecting",
    "People": "people",
    "Rooms": "rooms.service",
    "TableRow": "table.rows",
    "notice_of": "noticing",
    "link_account": "devices.linking",
    "own_device": "devices.console",
    "parse_line": "language",
    "parse_table": "table.rows",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'model')}"), name)
