"""What chat talks about: people, messages, events. Immutable; no I/O.

Texts that came from others (`text`, `name`) were passed through `clean()` on their way in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from p2pnode import Address, PeerId, UserId
from p2pnode.chat.places import HALL, STRANGER, Hall, RoomId, Stranger
from p2pnode.chat.rooms.model import RoomChanged, RoomInfo, RoomMember

__all__ = [
    "HALL",
    "STRANGER",
    "ChatEvent",
    "Contact",
    "ContactState",
    "ConversationSummary",
    "Device",
    "FileChanged",
    "FileState",
    "Hall",
    "HallChanged",
    "HallTold",
    "Member",
    "Message",
    "MessageReceived",
    "MessageState",
    "MessageStateChanged",
    "MessagesGone",
    "MessagesSynced",
    "OwnDevicesChanged",
    "Party",
    "PresenceSeen",
    "RequestReceived",
    "RoomChanged",
    "RoomId",
    "RoomInfo",
    "RoomMember",
    "SendResult",
    "StatusChanged",
    "Stranger",
    "StrangerChanged",
    "StrangerSaid",
    "TableChanged",
    "TableState",
    "TimerChanged",
    "Transfer",
    "party_columns",
    "party_from_columns",
    "short_id",
]


Party = UserId | PeerId | Hall
"""Whom a conversation is with: a user (all devices), a node whose user is not known yet, a room, or the hall."""

MessageState = Literal["queued", "stored", "delivered", "read", "refused", "received"]
"""queued: on our disk · stored: sealed in mailbox nodes · delivered: on the other's disk · read · refused: the other
side will not take it · received: an incoming one."""

ContactState = Literal["request", "accepted", "blocked"]

TableState = Literal["waiting", "known", "wrong_key", "blocked", "self"]
"""Of somebody in the static table: nobody has answered yet · its key is known · somebody else's answers there · blocked
by us · our own line."""

FileState = Literal["preparing", "offered", "active", "done", "refused", "failed", "cancelled"]
"""preparing: what we send is looked through · offered: waits for the other side · active: accepted, under way or
waiting to go on · done: checked, and under its name · refused, failed, cancelled: `reason` says why."""


def party_columns(party: Party) -> tuple[str, bytes]:
    """Return (kind, key) as the database names a party: kind `user`, `peer`, `room` or `hall`, key 32 bytes or none."""
    if isinstance(party, RoomId):
        return "room", party.raw
    if isinstance(party, UserId):
        return "user", party.raw
    if isinstance(party, PeerId):
        return "peer", party.raw
    return str(party), b""


def party_from_columns(kind: str, key: bytes) -> Party:
    """The inverse of `party_columns`."""
    if kind == "user":
        return UserId.of(key)
    if kind == "peer":
        return PeerId.of(key)
    return RoomId(key) if kind == "room" else HALL


def short_id(who: UserId | PeerId) -> str:
    """Return six characters that tell two people of one name apart; ids begin alike, so their ends are used."""
    return str(who)[-6:]


@dataclass(frozen=True, slots=True)
class Message:
    """One line of the history.

    `position`: place in this database, rising with each stored message: the cursor for those who follow.
    `id`: 32 hex digits, chosen by the author. `party`: the conversation. `author`: the device that wrote it, proven.
    `sent_at`: by the author's clock, `received_at`: by ours; Unix seconds.
    `reason`: why it is not delivered yet, or was refused; a stable word, empty otherwise.
    `told_by`: of a message to the hall that another member gave us: nothing proves that `author` wrote it.
    `everywhere`: all devices that it goes to have it.
    """

    position: int
    id: str
    party: Party
    author: PeerId
    author_user: UserId | None
    author_name: str
    outgoing: bool
    text: str
    sent_at: float
    received_at: float
    state: MessageState
    reason: str = ""
    sequence: int = 0
    told_by: PeerId | None = None
    everywhere: bool = False
    ordinal: int = 0
    """Where a conversation shows it: rising; in a room the same on every device."""


@dataclass(frozen=True, slots=True)
class Contact:
    """A person that the user decided about, or has to: `request` until then. `name`: self-chosen. Unix seconds.

    `mail`: messages for one of the devices can wait in the network (it gave us the means in a session).
    """

    party: UserId | PeerId
    petname: str
    name: str
    state: ContactState
    verified: bool
    added_at: float
    devices: tuple[PeerId, ...] = ()
    mail: bool = False


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """A conversation with its last message. `unread`: messages of others that the user has not seen."""

    party: Party
    messages: int
    last: Message | None
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody in the hall. `addresses`: where others reached it, most useful first."""

    peer: PeerId
    user: UserId | None
    name: str
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of a sent message. `devices`: how many of the recipients' devices have it on disk.

    `reason`: `request_pending`, `offline`, ... when it is still queued. `seconds`: from the call to this result.
    """

    id: str
    state: MessageState
    delivered: bool
    seconds: float
    devices: int
    reason: str = ""
    everywhere: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the own account. `name`: as it calls itself, empty while we have not met it. `this`: we are it."""

    peer: PeerId
    name: str
    this: bool
    online: bool


@dataclass(frozen=True, slots=True)
class OwnDevicesChanged:
    """A device of the account was linked or revoked, here or elsewhere. `revoked`: this one was taken out."""

    devices: tuple[Device, ...]
    revoked: bool


@dataclass(frozen=True, slots=True)
class MessagesSynced:
    """Another device of the account told us of these, ours among them (`outgoing`), and of what was seen there."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message of somebody else is on our disk."""

    message: Message


@dataclass(frozen=True, slots=True)
class MessageStateChanged:
    """One of our messages moved on. `id`: hex, as in `Message`. `everywhere`: all devices that it goes to have it."""

    id: str
    party: Party
    state: MessageState
    reason: str = ""
    everywhere: bool = False


@dataclass(frozen=True, slots=True)
class PresenceSeen:
    """Somebody known came or went. `age_s`: age of the evidence; `state` and `evidence` as in `p2pnode.FindResult`."""

    peer: PeerId
    user: UserId | None
    online: bool
    age_s: float
    state: str = ""
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """A contact shows another status text, cleaned; empty: none. `peer`: the device that said so."""

    peer: PeerId
    user: UserId
    text: str


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A stranger wrote for the first time; its `MessageReceived` follows."""

    contact: Contact
    message: Message


@dataclass(frozen=True, slots=True)
class HallChanged:
    """Members came or left. `members`: all others that are there now."""

    joined: tuple[Member, ...]
    left: tuple[Member, ...]
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class HallTold:
    """A member told us what was said in the hall before we came; oldest first, already stored."""

    teller: PeerId
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class TimerChanged:
    """Messages of a conversation disappear `seconds` after they were read or handed over; 0: never. `agreed`: the other
    side's program has it too. `by`: the device that set it, None for us."""

    party: Party
    seconds: int
    agreed: bool
    by: PeerId | None = None


@dataclass(frozen=True, slots=True)
class MessagesGone:
    """Messages were removed for good: their time was over. `positions`: their places in the database."""

    party: Party
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """A file or folder that is offered, under way or done.

    `id`: 32 hex digits, chosen by `author`, the device that offers. `name`: made harmless. `count`: files and folders
    in it. `done`, `size`: bytes. `path`: what we send, or where it is once it is done. `rate`: bytes per second of the
    last seconds, `eta_s`: seconds to the end, None while nobody knows. Times in Unix seconds.
    `reason`: why it ended, or why it does not go on just now (`offline`, `disk_full`, ...); a stable word.
    `receivers`: of what we send to a room, how far each member is; `receiver`: of one of these, who that is.
    """

    position: int
    id: str
    outgoing: bool
    party: Party
    author: PeerId
    name: str
    folder: bool
    size: int
    count: int
    done: int
    state: FileState
    reason: str
    path: str
    created_at: float
    changed_at: float
    rate: float = 0.0
    eta_s: float | None = None
    receiver: UserId | None = None
    receivers: tuple[Transfer, ...] = ()


@dataclass(frozen=True, slots=True)
class FileChanged:
    """A transfer moved on; `progress`: only its bytes did (at most every 5 s)."""

    transfer: Transfer
    progress: bool = False


@dataclass(frozen=True, slots=True)
class StrangerChanged:
    """The search for a stranger, or the conversation with one, went on (docs/random.md).

    `phase`: `searching`, `found`, `ended`, `off`. `reason`: while searching `next`, `still`, `waiting` (our own
    reports), `no_network`; of an end `left`, `lost`, `broken`, `next`, `reported`, `quit`. `path`: as of a session;
    while searching `relay` for relays only. `seconds`: that the search or the conversation took. `reports`: how many
    strangers have reported us this week.
    """

    phase: str
    reason: str = ""
    path: str = ""
    seconds: float = 0.0
    reports: int = 0


@dataclass(frozen=True, slots=True)
class StrangerSaid:
    """A text in the conversation with a stranger, cleaned. `own`: ours. It is stored nowhere."""

    text: str
    own: bool
    at: float


@dataclass(frozen=True, slots=True)
class TableChanged:
    """Somebody of the static table was found, or not. `why`: a sentence, where there is something to say.

    `place`: host and port as they stand in the table.
    """

    name: str
    place: str
    state: TableState
    party: UserId | PeerId | None = None
    peer: PeerId | None = None
    why: str = ""


ChatEvent = (
    MessageReceived
    | MessagesSynced
    | OwnDevicesChanged
    | MessageStateChanged
    | PresenceSeen
    | StatusChanged
    | RequestReceived
    | HallChanged
    | HallTold
    | FileChanged
    | StrangerChanged
    | StrangerSaid
    | TableChanged
    | RoomChanged
    | TimerChanged
    | MessagesGone
)
