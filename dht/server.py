"""The DHT of one node: join, look up, read, write, stay useful. A thin shell; decisions are in the pure modules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

import structlog
from kademlia.network import Server

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import BadPacket, NoPathError, P2PTimeoutError, WrongKeyError
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import Network
from p2pnode.core.network_id import network_tag
from p2pnode.dht.contact import Contact, KnownContact, unpack_address_untrusted
from p2pnode.dht.engine import Engine
from p2pnode.dht.holders import HolderBook
from p2pnode.dht.joining import Joining
from p2pnode.dht.members import Members
from p2pnode.dht.messages import Error, ErrorCode, Ping
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.probing import Probing
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.reading import Reader
from p2pnode.dht.record_file import RecordFile
from p2pnode.dht.records import SignedRecord, record_key
from p2pnode.dht.results import GetResult, HelloResult, PutResult, ReadBack
from p2pnode.dht.service import Service
from p2pnode.dht.serving import Serving
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.signalling import Signalling
from p2pnode.dht.statistics import DhtStatistics, kinds_of
from p2pnode.dht.storage import RecordStorage
from p2pnode.dht.table import MISSES_TO_DROP
from p2pnode.dht.tokens import PutTokens
from p2pnode.dht.topic_calls import Topics
from p2pnode.dht.topics import TopicStorage
from p2pnode.dht.upkeep import Upkeep
from p2pnode.dht.watching import Watcher
from p2pnode.dht.writing import Writer

__all__ = ["Dht"]

log = structlog.get_logger(__name__)


class Dht(Signalling, Topics, Server):
    """A Kademlia node whose every message is authenticated.

    `kademlia.network.Server` with its own socket, its crawling and its pickled state replaced.
    """

    def __init__(
        self, *, key: NodeKey, network: Network, settings: DhtSettings, send: Callable[[bytes, Address], None]
    ) -> None:
        """`send`: the mux's; datagrams with first byte 0x04 to 0x0A come in through `datagram_received`."""
        self.network_tag = network_tag(settings.network_id, settings.network_key)
        storage = RecordStorage(self.network_tag, settings)
        super().__init__(settings.ksize, settings.alpha, key.node_id, storage)
        self.storage: RecordStorage = storage
        self.settings, self.network, self.key = settings, network, key
        self._members = Members(key.node_id, settings)
        topics = TopicStorage(self.network_tag, settings)
        service = Service(self._members, storage, topics, PutTokens(network.token_bytes), settings)
        self._engine = Engine(
            key=key, tag=self.network_tag, settings=settings, members=self._members, service=service, send=send,
            token_bytes=network.token_bytes,
        )  # fmt: skip
        self.protocol: DhtProtocol = DhtProtocol(self._engine, network, storage)
        book = HolderBook()
        self._writer = Writer(self.protocol, self._members, storage, topics, network, book, settings)
        self._reader = Reader(self.protocol, storage, book, network, self.network_tag, settings)
        self._start_topics(topics)
        self._serving = Serving(self.protocol, network, settings)
        self.probing = Probing(self.protocol, network)
        self.watcher = Watcher(self.protocol, storage, network)
        self._upkeep = Upkeep(self.protocol, storage, topics, network, settings)
        self._members.on_joined = self._serving.joined
        self._joining = Joining(self.protocol, network, settings)
        self._record_file: RecordFile | None = None
        if settings.record_file:
            self._record_file = RecordFile(
                settings.record_file, storage, network, self.network_tag, settings, self._engine.counters.drops
            )

    # -- set-up -------------------------------------------------------------------------------------------------

    @property
    def on_observed(self) -> Callable[[PeerId, Address, Address], None] | None:
        """Called with (peer, its address, our address as it sees it) when a node says something new about it."""
        return self._engine.on_observed

    @on_observed.setter
    def on_observed(self, callback: Callable[[PeerId, Address, Address], None] | None) -> None:
        self._engine.on_observed = callback

    @property
    def on_own_key(self) -> Callable[[], None]:
        """Called when somebody else signs with our key: another process of a copied home."""
        return self._engine.own_key_used

    @on_own_key.setter
    def on_own_key(self, callback: Callable[[], None]) -> None:
        self._engine.own_key_used = callback

    @property
    def on_contact(self) -> Callable[[Realm], None] | None:
        """Called when a realm gets its first verified contact."""
        return self._members.on_contact

    @on_contact.setter
    def on_contact(self, callback: Callable[[Realm], None] | None) -> None:
        self._members.on_contact = callback

    @property
    def on_filled(self) -> Callable[[Realm], None] | None:
        """Called when a table of the realm has as many contacts as a record has holders."""
        return self._members.on_filled

    @on_filled.setter
    def on_filled(self, callback: Callable[[Realm], None] | None) -> None:
        self._members.on_filled = callback

    def use_families(self, families: Collection[bool]) -> None:
        """Say of which address families we have a socket (True stands for IPv6); until then, of both."""
        self._members.use_families(families)

    def datagram_received(self, data: bytes, source: Address) -> None:
        """Take a datagram with first byte 0x04 to 0x0A. Never raises."""
        self.protocol.datagram_received(data, source)

    async def start(self) -> None:
        """Read the records of the last run, if they are kept, and begin the upkeep."""
        if not self._upkeep.running:
            if self._record_file is not None:
                await self._record_file.open()
            self._upkeep.start()
            self._serving.start()
            self._joining.settles = True

    async def stop(self) -> None:
        """End everything; whoever waits for an answer gets a failure at once. Calling it twice is harmless."""
        await self.watcher.stop()
        await self._upkeep.stop()
        await self._announcer.stop()
        await self._writer.stop()
        await self._reader.stop()
        self.protocol.close()
        await self._joining.stop()
        await self._serving.stop()
        await self.probing.stop()
        if self._record_file is not None:
            await self._record_file.close()

    # -- joining ------------------------------------------------------------------------------------------------

    async def bootstrap(self, contacts: Iterable[KnownContact]) -> int:
        """Ask these nodes for our own neighbourhood, all at once, and search on from there, in each overlay.

        Return how many of them answered. The first question is already the lookup's: it costs one round trip.
        """
        return await self._joining.through(contacts)

    async def hello(self, address: Address, *, expect: PeerId | None = None, timeout: float = 3.0) -> HelloResult:
        """Ask who is at `address`. Raise WrongKeyError, P2PTimeoutError, NoPathError (nobody can be there)."""
        if self._members.overlay_of(address.ip) is None or not address.port:
            raise NoPathError(f"Nobody can answer at {address}.", address=str(address))
        outcome = await self.protocol.request(address, None, Ping(), timeout)
        if outcome.answer is None or outcome.peer_id is None:
            raise P2PTimeoutError(f"Nobody answered at {address}.", address=str(address))
        if isinstance(outcome.answer, Error) and outcome.answer.code == ErrorCode.CLOCK:
            raise P2PTimeoutError(
                f"The clock of this machine and that of {address} differ by more than ten minutes: set it.",
                address=str(address),
            )
        if expect is not None and outcome.peer_id != expect:
            raise WrongKeyError(
                f"At {address} answers {outcome.peer_id}, not {expect}.", expected=str(expect), got=str(outcome.peer_id)
            )
        try:
            observed = unpack_address_untrusted(outcome.answer.observed)
        except BadPacket as bad:
            raise P2PTimeoutError(f"{address} gave a useless answer.", address=str(address)) from bad
        return HelloResult(outcome.peer_id, outcome.rtt_s, observed)

    async def ping(self, contact: KnownContact | Contact, timeout: float | None = None) -> float:
        """Return the round trip in seconds. Raise P2PTimeoutError."""
        node_id = contact.node_id if isinstance(contact, KnownContact) else NodeId(contact.id)
        outcome = await self.protocol.request(contact.address, node_id, Ping(), timeout)
        if outcome.answer is None:
            raise P2PTimeoutError(f"Nobody answered at {contact.address}.", address=str(contact.address))
        return outcome.rtt_s

    # -- reading and writing ------------------------------------------------------------------------------------

    async def lookup(self, target: NodeId, *, realm: Realm) -> list[Contact]:
        """Return the live nodes nearest to `target`, nearest first: up to ksize of each address family."""
        crawls = await asyncio.gather(*(self.protocol.crawl(target, overlay) for overlay in self._overlays({realm})))
        found = {contact.id: crawl.answered[contact.id] for crawl in crawls for contact in crawl.lookup.closest()}
        goal = int.from_bytes(target, "big")
        return sorted(found.values(), key=lambda contact: contact.long_id ^ goal)

    async def get(
        self, public_key: bytes, salt: bytes, *, realms: Iterable[Realm] | None = None, fast: bool = False,
        on_newer: Callable[[GetResult], None] | None = None,
    ) -> GetResult:  # fmt: skip
        """Return the author's record with the highest valid `seq` among the answers of all `realms` (None: ours).

        `fast`: return with the first valid one, which a single liar may have made an old one, and search on: `on_newer`
        is then called with the result whenever a higher `seq` turns up, and at the end (`settled`). Holders that lack
        the record get it. Never raises for a record that is not there.
        """
        wanted = frozenset(Realm if realms is None else realms)
        key = record_key(public_key, salt)
        return await self._reader.get(key, self._overlays(wanted), wanted, fast=fast, on_newer=on_newer)

    async def put(
        self, record: SignedRecord, *, realms: Iterable[Realm], enough: int | None = None, again: bool = False,
        on_settled: Callable[[PutResult], None] | None = None,
    ) -> PutResult:  # fmt: skip
        """Store the record on the nodes nearest to its key in each realm, and say honestly how many confirmed.

        `enough`: return as soon as so many have it in each realm; the rest goes on. None: wait for all. `on_settled`:
        called once, when every store was answered or given up. `again`: straight to those that the last `put` or
        `read_back` under this key found, for a round trip; searched for only when fewer than half of them take it.
        """
        return await self._writer.put(record, self._overlays(frozenset(realms)), enough, on_settled, again=again)

    async def read_back(self, record: SignedRecord, realm: Realm) -> ReadBack:
        """Ask the nodes nearest to our own record for it; those that lack it get it. Costs a search to the end."""
        return await self._reader.read_back(record, self._overlays({realm}))

    # -- what is known ------------------------------------------------------------------------------------------

    def realms(self) -> frozenset[Realm]:
        """Return the realms with at least one verified contact."""
        return frozenset(overlay.realm for overlay, table in self._members.tables.items() if len(table))

    def in_touch(self) -> bool:
        """Whether a contact is known that has not missed as often as makes it given up."""
        return any(c.misses < MISSES_TO_DROP for table in self._members.tables.values() for c in table)

    def overlays(self, realm: Realm) -> list[Overlay]:
        """Return those of a realm's two overlays with at least one verified contact, IPv4 first."""
        return self._overlays({realm})

    def _overlays(self, realms: Collection[Realm]) -> list[Overlay]:
        return [o for o, table in self._members.tables.items() if o.realm in realms and len(table)]

    def estimated_size(self, realm: Realm) -> float:
        """Estimate how many nodes serve in a realm, from our neighbourhood and our searches; exact below 20.

        Of the larger address family: how many nodes are in both is not known.
        """
        return max(self._members.tables[overlay].robust_size() for overlay in Overlay.both(realm))

    def known_contacts(self) -> list[KnownContact]:
        """Return all verified contacts, the most dependable first: for a warm start."""
        return [contact.known() for contact in self._members.best()]

    def statistics(self) -> DhtStatistics:
        counters, tables = self._engine.counters, self._members.tables
        return DhtStatistics(
            contacts={overlay: len(table) for overlay, table in tables.items()},
            records=len(self.storage),
            record_bytes=self.storage.bytes,
            topic_entries=len(self._topics),
            topic_shards=self._topics.shards,
            topic_bytes=self._topics.held_bytes,
            registered=len(self._engine.rendezvous.registered),
            forwarded=self._engine.rendezvous.forwarded,
            delivered=self._engine.rendezvous.delivered,
            watches=len(self._engine.notices.watches),
            notices=self._engine.notices.confirmed,
            sessions=self._engine.keyring.peers,
            regions=counters.regions,
            pending=self._engine.calls.pending,
            datagrams_in=kinds_of(counters.datagrams_in),
            datagrams_out=kinds_of(counters.datagrams_out),
            bytes_in=counters.bytes_in,
            bytes_out=counters.bytes_out,
            bytes_in_by=kinds_of(counters.bytes_in_by),
            bytes_out_by=kinds_of(counters.bytes_out_by),
            verify_s=counters.verify_s,
            lookups=counters.lookups.copy(),
            estimated_nodes={overlay: table.robust_size() for overlay, table in tables.items()},
            by_bucket={o: tuple(len(bucket.nodes) for bucket in table.buckets) for o, table in tables.items()},
            drops=dict(counters.drops),
            requests=dict(counters.requests),
            refused=dict(counters.refused),
            signatures_checked=counters.signatures_checked,
            ignored_contacts=counters.ignored_contacts,
            rtt_s=self._engine.rtt.smoothed,
            clock_offset_s=self._engine.clock_offset_s,
        )

    def _unused(self, *_: object, **__: object) -> None:
        """For parts of `kademlia.network.Server` that must not be used: they open a socket, pickle, store unsigned."""
        raise TypeError("see datagram_received, known_contacts and put")

    listen = save_state = load_state = save_state_regularly = set_digest = _unused
    set = _unused
