"""Tunables of the DHT, with safe defaults. Tests pass other values; nothing patches a module."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pnode.core.address import Realm
from p2pnode.dht.keyring import CIPHERS_AT_HAND

__all__ = ["DhtSettings"]


@dataclass(frozen=True, slots=True)
class DhtSettings:
    """All times in seconds, all rates per second."""

    network_id: str = "public"
    """Name of the network; messages of another one are dropped."""
    network_key: bytes = field(default=b"", repr=False)
    """A private network's key, which enters the tag."""
    ksize: int = 20
    """Bucket size, and number of holders of a record. Kademlia (2002), section 2.4 chose it, we keep it."""
    alpha: int = 5
    """Queries of one lookup in flight; late ones do not count, and let one more out each."""
    paths: int = 2
    """Node-disjoint paths of a lookup: one liar leads at most one of them astray."""
    serve: frozenset[Realm] = frozenset({Realm.LOOPBACK, Realm.PRIVATE})
    """Realms in which this node says that it serves, and so enters others' tables."""
    guest: bool = False
    """Ask others, and serve nobody in any realm: what will be gone in minutes is no holder, and no place in a table."""
    allow_documentation: bool = False
    """Treat documentation networks as public: laboratories only."""
    read_quorum: int = 5
    """A read ends early when so many nodes returned a valid record: one or two liars cannot hide a newer one."""
    max_queries: int = 160
    """Queries of one lookup at most: a hostile region cannot keep a lookup alive for ever."""

    rto_initial: float = 0.5
    """When a request to an unknown node is late, before anything was measured."""
    rto_min: float = 0.1
    """Never call a node late before this: a busy loopback peer answers after 50 ms now and then."""
    rto_max: float = 2.0
    give_up_factor: float = 4.0
    """A request fails after so many late times ..."""
    give_up_min: float = 1.5
    """... but not before this."""

    clock_window: float = 600.0
    """A signed request is refused when its wall time differs more: two clocks wrong by 5 minutes each still talk."""
    session_max_age: float = 21_600.0
    """Pairwise keys are agreed anew after this."""
    max_sessions: int = 8_192
    """Peers with agreed keys (about 1.5 kB each, 12 MB); the least recently used goes first."""
    max_unconfirmed: int = 2_048
    """Keys agreed with requesters that have not used them (about 1 kB each, 2 MB)."""
    ciphers_at_hand: int = CIPHERS_AT_HAND
    """Ciphers kept made, of the keys used of late (2.6 kB each)."""
    max_nonces: int = 65_536
    """Remembered nonces of signed requests: the window's 20 minutes at 54 per second (about 8 MB)."""

    signature_rate: float = 300.0
    """Signed requests of unproven addresses verified per second, all together (0.2 ms each: 6 % of a core)."""
    signature_burst: float = 600.0
    prefix_rate: float = 30.0
    """The same, per /24 (IPv4) or /48 (IPv6)."""
    prefix_burst: float = 120.0
    token_rate: float = 1_500.0
    """Signed requests that carry a valid token, all together: 30 % of a core."""
    token_prefix_rate: float = 100.0
    """The same, per prefix."""
    forgot_rate: float = 200.0
    """"Forgot" frames sent, and obeyed, per second."""

    max_registrations: int = 4_096
    """Nodes that we forward to, and as many that asked us to forward of late (about 500 bytes each)."""
    forward_rate: float = 500.0
    """Blobs forwarded per second, all together (50 us each: 3 % of a core)."""
    forward_prefix_rate: float = 25.0
    """The same, per /24 or /48 of the senders."""
    forward_prefix_burst: float = 100.0
    forward_sender_rate: float = 5.0
    """The same, per sender's id."""
    forward_sender_burst: float = 20.0
    forward_target_rate: float = 10.0
    """Strangers' blobs per target: an offer a second for each of ten at once."""
    forward_target_burst: float = 30.0
    deliver_rate: float = 30.0
    """Blobs taken per second from one node that forwards to us, twice as many at once: more than an honest one has."""
    max_watches: int = 8_192
    """Leases of nodes that want to be told of changes (about 600 bytes each, 5 MB) ..."""
    max_watches_of_key: int = 512
    """... and those for one key."""
    dial_back: bool = True
    """Find out by dial-back whether we can serve in the public realm; never where `serve` says so from the start."""
    dial_back_interval: float = 900.0
    """Between two such checks that say the same."""

    storage_bytes: int = 32 * 1024 * 1024
    """Records kept, with their overhead."""
    mail_bytes: int = 16 * 1024 * 1024
    """Mail kept (records that wait a week), with its overhead: 10,000 of them. Beside the other records."""
    pool_bytes: int = 1024 * 1024
    """Records of pools kept, with their overhead: 500 of them. Beside the mail."""
    prefix_pool_records: int = 8
    """Records of pools per prefix beyond which only free room is given."""
    record_file: str = ""
    """SQLite file in which records survive a restart; empty: in memory only."""
    prefix_records: int = 64
    """Records per prefix beyond which only free room is given."""
    topic_bytes: int = 8 * 1024 * 1024
    """Topic entries kept, with their overhead: 5,500 of them. Beside the records: neither takes room from the other."""
    prefix_topic_entries: int = 256
    """Topic entries per prefix beyond which only free room is given."""
    topic_shard_entries: int = 128
    """Entries of one shard; the next one goes deeper in the topic's tree."""
    max_record_life: float = 86_400.0
    """`expires` at most this far ahead ..."""
    clock_tolerance: float = 300.0
    """... plus this; and an expired record is still good for so long."""

    maintenance_interval: float = 60.0
    """Between two rounds of upkeep."""
    pings_per_round: int = 4
    """Silent contacts pinged in that time, evenly spread (at most 10 datagrams a minute)."""
    silent_after: float = 600.0
    """A contact is doubtful when nothing was heard from it for so long."""
    neighbour_silent_after: float = 120.0
    """The same for the k nearest to us, who hold what we hold."""
    check_rate: float = 0.5
    """Quick pings of neighbours per second, while some of them are missing ..."""
    check_burst: float = 60.0
    """... and at once: twenty neighbours, three times each."""
    repair_rate: float = 0.1
    """Records brought to those who should have them, per second: one lookup each (about 60 datagrams) ..."""
    repair_burst: float = 10.0
    repair_put_rate: float = 5.0
    """... and stores for it, per second."""
    repair_put_burst: float = 40.0
    repair_interval: float = 300.0
    """The same record is not repaired again before this."""
    handover_rate: float = 1.0
    """Records offered to newcomers per second (2 datagrams, 4 when it lacks them) ..."""
    handover_burst: float = 10.0
    read_repair_rate: float = 2.0
    """Records brought to holders that a read found to lack them, per second ..."""
    read_repair_burst: float = 40.0
    """... and at once: a publisher that reads back may have to mend all twenty."""
    refresh_interval: float = 4_800.0
    """A bucket in which nothing was looked up for so long is refreshed, one per `refresh_pause`."""
    refresh_pause: float = 900.0
    """One costs 50 datagrams."""

    def __post_init__(self) -> None:
        if not 1 <= self.ksize <= 20:
            raise ValueError("ksize is 1 to 20: an answer holds 20 contacts")
        if not 1 <= self.alpha <= 32:
            raise ValueError("alpha is 1 to 32")
        if not 1 <= self.paths <= 8:
            raise ValueError("paths is 1 to 8")
        if self.rto_min <= 0 or self.rto_max < self.rto_min:
            raise ValueError("0 < rto_min <= rto_max")
