"""What the control API takes and gives: msgspec structs, from which the OpenAPI document is made.

Times are RFC 3339 UTC texts, durations seconds (`_s`) or milliseconds (`_ms`). Field names are those of docs/cli.md and
never change; new ones may come.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta, Struct, field

from p2pnode.api.event_types import Event
from p2pnode.api.netcheck_types import FlowInfo
from p2pnode.api.reaching_types import LinkInfo, LinkSummary, PortMapping, RelayService, RelayUse

__all__ = [
    "Block", "ConnectAnswer", "ConnectRequest", "Contact", "ContactAdd", "ContactChange", "ContactQuery", "Contacts",
    "DhtAnswer", "DhtTable", "Done", "ErrorAnswer", "ErrorBody", "Event", "FindAnswer", "HelloAnswer", "HelloRequest",
    "HistoryQuery", "LinkInfo", "LinkSummary", "Message", "Messages", "MessagesQuery", "PeerQuery", "Peers",
    "PingAnswer", "PingRequest", "PortMapping", "PublishedInfo", "RelayService", "RelayUse", "SendAnswer",
    "SendRequest", "SessionInfo", "Status", "TraceEntry", "rfc3339",
]  # fmt: skip

MAX_PEER = 2000  # characters of an ID@HOST:PORT,... with 16 long host names; far below the body limit
MAX_TEXT = 20_000  # characters; the exact limit (15,000 bytes) is chat's, which says so in its own sentence
MAX_SECONDS = 3600.0
_LAST_SECOND = 253_402_300_799.0

PeerText = Annotated[str, Meta(min_length=1, max_length=MAX_PEER, description="A PEER, as in docs/cli.md")]
Name = Annotated[str, Meta(max_length=128)]
Timeout = Annotated[float, Meta(ge=0, le=MAX_SECONDS, description="Seconds")]
Limit = Annotated[int, Meta(ge=1, le=10_000)]


def rfc3339(unix_seconds: float) -> str:
    """Return a time as 2026-01-31T12:00:00.123Z; what no calendar holds is cut to the years 1970 to 9999."""
    moment = datetime.fromtimestamp(min(max(unix_seconds, 0.0), _LAST_SECOND), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TraceEntry(Struct):
    """One step of an attempt."""

    at_s: float
    step: str
    result: str


class ErrorBody(Struct, omit_defaults=True):
    """`code` is stable, `message` one sentence for people. `trace`: what was tried, where something was."""

    code: str
    message: str
    trace: list[TraceEntry] | None = None


class ErrorAnswer(Struct):
    """Every answer with a status of 400 or more."""

    error: ErrorBody


class Done(Struct):
    """The request was carried out."""

    done: bool = True


class Status(Struct, kw_only=True):
    """The node as a whole."""

    peer_id: str
    user_id: str
    name: str
    network: str
    role: str
    nat: str
    addresses: list[str]
    bootstrap: str | None
    alone: bool
    peers: int
    routing_table: int
    records: int
    uptime_s: float
    rss_bytes: int
    seen_as: list[str]
    rendezvous: list[str]
    flows: FlowInfo
    port_mapping: list[PortMapping]
    relay: RelayService
    relayed_sessions: int
    relayed_bytes: int
    links: LinkSummary
    clock_skew_s: float | None = None


class SessionInfo(Struct, kw_only=True):
    """One open session. `reason`: why its path is what it is, a stable word (docs/reasons.md); `explanation`: the same
    in a sentence or two. `link`: the TLS link that carries it, where one does."""

    peer: str
    name: str
    user: str | None
    path: str
    remote: str
    rtt_ms: float | None
    age_s: float
    bytes_sent: int
    bytes_received: int
    initiator: bool
    relay: RelayUse | None
    link: LinkInfo | None
    reason: str
    explanation: str
    trace: list[TraceEntry]


class Peers(Struct):
    """All open sessions, and all TLS links."""

    peers: list[SessionInfo]
    links: list[LinkInfo]


class DhtTable(Struct, kw_only=True):
    """The routing table of one realm and address family. `buckets`: verified contacts in each, far to near."""

    realm: str
    family: str
    contacts: int
    buckets: list[int]
    estimated_nodes: float


class PublishedInfo(Struct, kw_only=True):
    """A record of ours, read back `age_s` ago: `held` of the `asked` nodes nearest to its key had it."""

    realm: str
    record: str
    held: int
    asked: int
    age_s: float


class DhtAnswer(Struct, kw_only=True):
    """The DHT as this node sees it. Traffic is by kind of frame, since the node started."""

    tables: list[DhtTable]
    records: int
    record_bytes: int
    record_bytes_limit: int
    topic_entries: int
    topic_shards: int
    topic_bytes: int
    topic_bytes_limit: int
    registered: int
    keyed_peers: int
    lookups: int
    lookup_mean_s: float | None
    published: list[PublishedInfo]
    rtt_s: float | None
    datagrams_in: dict[str, int]
    datagrams_out: dict[str, int]
    bytes_in: dict[str, int]
    bytes_out: dict[str, int]
    drops: dict[str, int]
    signatures_checked: int
    verification_s: float


class PeerQuery(Struct):
    """Which peer, and how long it may take."""

    peer: PeerText
    timeout: Timeout = 15.0


class FindAnswer(Struct, kw_only=True):
    """Presence as found in the network. `age_s`: how old the evidence is. `queried`: nodes asked; `late`: those of them
    that did not answer in their usual time; `elapsed_s`: the lookup alone, while `seconds` is the whole request.
    `state`: online, last_seen (there a moment ago, perhaps not any more) or offline; `evidence`: session, session_lost,
    goodbye, record (its own, found now), notice (its own, told by its holders), lan; `holders`: nodes that returned the
    record; `last_seen`: when it was surely there."""

    peer: str
    online: bool
    age_s: float
    addresses: list[str]
    name: str
    user: str | None
    hops: int
    seconds: float
    queried: int = 0
    late: int = 0
    elapsed_s: float = 0.0
    state: str = ""
    evidence: str = ""
    holders: int = 0
    last_seen: str | None = None


class PresenceEntry(Struct, kw_only=True):
    """A watched peer: a contact's device or a member of the hall. The fields are those of FindAnswer."""

    peer: str
    online: bool
    state: str
    age_s: float
    evidence: str
    holders: int
    last_seen: str | None
    addresses: list[str]
    name: str
    user: str | None


class Presences(Struct):
    """All watched peers of which something is known."""

    presences: list[PresenceEntry]


class ConnectRequest(Struct):
    """Open a session, or use the open one."""

    peer: PeerText
    timeout: Timeout = 15.0


class ConnectAnswer(Struct, kw_only=True):
    """`seconds`: from the request to a byte echoed by the proven peer, lookup included. `reason`, `explanation`: as in
    SessionInfo."""

    connected: bool
    peer: str
    path: str
    seconds: float
    rtt_ms: float | None
    reason: str
    explanation: str
    trace: list[TraceEntry]


class PingRequest(Struct):
    """One round trip over a session, which is opened when there is none."""

    peer: PeerText
    timeout: Timeout = 15.0


class PingAnswer(Struct, kw_only=True):
    """`rtt_ms`: until the peer's program echoed one byte."""

    peer: str
    path: str
    rtt_ms: float


class HelloRequest(Struct):
    """Ask who listens at an address. `join`: also use it as a way into the network, and enter its hall."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65535)]
    join: bool = False
    timeout: Timeout = 5.0


class HelloAnswer(Struct, kw_only=True):
    """Who answered. `observed`: our own address as seen from there."""

    peer: str
    rtt_ms: float
    observed: str


class SendRequest(Struct):
    """One message. `wait`: seconds to wait for the delivery before answering `queued`."""

    peer: PeerText
    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    wait: Timeout = 10.0


class SendAnswer(Struct, kw_only=True):
    """`state`: delivered (on the other's disk), stored or queued (on ours). `reason`: why not delivered, a word.
    `devices`: how many of the other side's have it; `everywhere`: all of them."""

    id: str
    state: str
    delivered: bool
    seconds: float
    devices: int
    reason: str = ""
    everywhere: bool = False


class Message(Struct, kw_only=True):
    """A message of the history. `from` and `to` are peer or user ids; `to` is `hall` for the hall, `#ID` for a room.
    `told_by`: the peer who told us what was said in the hall before we came, where that is not the author.
    `everywhere`: all devices that it goes to have it."""

    id: str
    from_: str = field(name="from")
    from_user: str | None
    from_name: str
    to: str
    text: str
    sent_at: str
    received_at: str | None
    direction: str
    state: str
    told_by: str | None = None
    everywhere: bool = False


class Messages(Struct):
    """Messages, oldest first."""

    messages: list[Message]


class MessagesQuery(Struct, rename={"with_": "with"}):
    """`with`: only the conversation with this PEER. `limit`: the newest so many."""

    with_: Annotated[str, Meta(max_length=MAX_PEER)] | None = None
    limit: Limit = 100


class HistoryQuery(Struct):
    """A conversation, optionally only the messages that contain a text."""

    peer: PeerText
    search: Annotated[str, Meta(max_length=1000)] | None = None
    limit: Limit = 1000


class Contact(Struct, kw_only=True):
    """`state`: request, accepted or blocked. `safety_number`: to compare over another channel. `mail`: what you send
    while they are away can wait in the network."""

    name: str
    user: str | None
    peer: str | None
    state: str
    verified: bool
    added_at: str
    safety_number: str | None
    mail: bool


class Contacts(Struct):
    """All contacts and requests."""

    contacts: list[Contact]


class ContactQuery(Struct):
    """Which contact."""

    peer: PeerText


class ContactAdd(Struct):
    """Add a peer, or accept its request. An empty name takes the peer's own."""

    peer: PeerText
    name: Name = ""


class ContactChange(Struct):
    """A new petname, or that the safety numbers were compared; None leaves as it is."""

    peer: PeerText
    name: Name | None = None
    verified: bool | None = None


class Block(Struct):
    """Block a peer or user, or end that."""

    peer: PeerText
    blocked: bool = True
