"""The part of `Dht` that reaches nodes through nodes: rendezvous and dial-back, made awaitable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.dht.contact import Contact, KnownContact, unpack_address_untrusted
from p2pnode.dht.dialback import Evidence, Role, judge
from p2pnode.dht.engine import Engine
from p2pnode.dht.members import Members
from p2pnode.dht.messages import (
    MAX_BLOB,
    MAX_LEASE,
    NONCE_BYTES,
    DialBack,
    DialBackAccepted,
    Forward,
    Forwarded,
    Register,
    Registered,
)
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.rendezvous import CONVERSATION_LIFE, DeliverHandler
from p2pnode.dht.settings import DhtSettings

__all__ = ["Signalling"]

log = structlog.get_logger(__name__)

HELPERS = 3  # nodes asked for a dial-back at once: a lost frame or one liar decides nothing
LEASE_SLACK = 10.0  # s; a delivery may leave just before the lease ends
NEWCOMER_PENALTY = 0.2  # s of round trip that a node known only now is thought worse; halved after ten minutes


class Signalling:
    """Mixed into `Dht`, which sets what is declared here."""

    network: Network
    settings: DhtSettings
    protocol: DhtProtocol
    _engine: Engine
    _members: Members
    on_serving: Callable[[Realm, bool], None] | None
    """Called when this node begins to serve in a realm, or ceases."""
    on_checked: Callable[[], None] | None
    """Called after each dial-back check: `serving` and `unreachable` may have changed."""
    has_sent_to: Callable[[str], bool] | None
    """Whether anything else on the same socket was sent to this IP: STUN, QUIC. None: only the DHT uses it."""

    def _start_signalling(self) -> None:
        """To be called once, at construction."""
        self.on_serving = self.on_checked = self.has_sent_to = None
        serves = Realm.PUBLIC in self.settings.serve
        self._role = Role(serves=serves, interval=self.settings.dial_back_interval)
        self._role_wake = asyncio.Event()
        self._role_task: asyncio.Task[None] | None = None
        self._dials: set[asyncio.Task[None]] = set()
        self._members.on_joined = self._realm_joined
        self._engine.dial_backs.dial = self._dial

    # -- rendezvous ---------------------------------------------------------------------------------------------

    @property
    def on_deliver(self) -> DeliverHandler | None:
        """Called with (sender as the forwarding node says, blob, forwarding node) when a blob is handed to us.

        Who forwarded may have lied about the sender, changed the blob, or repeated an old one. Must not block.
        """
        return self._engine.rendezvous.on_deliver

    @on_deliver.setter
    def on_deliver(self, callback: DeliverHandler | None) -> None:
        self._engine.rendezvous.on_deliver = callback

    async def register(self, contact: KnownContact, *, lease_s: float = 60.0) -> bool:
        """Ask a node to forward to us while the lease (1 to 120 s) runs, at the address that it sees; False: no.

        Repeating it renews the lease and keeps the NAT's mapping alive.
        """
        lease = max(1, min(MAX_LEASE, round(lease_s)))
        self._expect_deliveries(contact, lease + LEASE_SLACK)
        outcome = await self.protocol.request(contact.address, contact.node_id, Register(lease))
        return isinstance(outcome.answer, Registered)

    async def forward(self, via: KnownContact, target: NodeId, blob: bytes, *, timeout: float = 3.0) -> bool:
        """Have `via` hand 1 to 900 bytes to `target`, which registered there, spoke through it of late, or is it.

        Return whether the target confirmed. Costs one round trip to the target through `via`, two more to `via` when
        no keys are agreed with it. For 30 s `via` forwards the target's answers to us.
        """
        if not 1 <= len(blob) <= MAX_BLOB:
            raise ValueError(f"a blob has 1 to {MAX_BLOB} bytes")
        self._expect_deliveries(via, CONVERSATION_LIFE + timeout)
        outcome = await self.protocol.request(via.address, via.node_id, Forward(target, blob), timeout)
        return isinstance(outcome.answer, Forwarded)

    def _expect_deliveries(self, via: KnownContact, life: float) -> None:
        self._engine.rendezvous.used(via.node_id, via.address, self.network.monotonic() + life)

    def rendezvous_candidates(self, count: int, *, realm: Realm = Realm.PUBLIC) -> list[KnownContact]:
        """Return up to `count` servers that we have keys with, the best first.

        One per prefix before a second of any. Good is near, known for long, and not missing; ids play no part, since
        an attacker can grind those. O(n log n) in the table's size.
        """
        now = self.network.monotonic()
        contacts = [c for c in self._members.tables[realm] if self._engine.keyring.newest(c.id) is not None]
        contacts.sort(key=lambda contact: _worth(contact, now))
        seen: dict[bytes, int] = {}
        ranked: list[tuple[int, int, Contact]] = []
        for place, contact in enumerate(contacts):
            turn = seen[contact.prefix] = seen.get(contact.prefix, -1) + 1
            # A node that misses is worth less than any second of a prefix.
            ranked.append((turn + (len(contacts) if contact.misses else 0), place, contact))
        ranked.sort(key=lambda entry: entry[:2])
        return [contact.known() for _, _, contact in ranked[:count]]

    # -- serving ------------------------------------------------------------------------------------------------

    @property
    def serving(self) -> frozenset[Realm]:
        """The realms in which this node serves: enters others' tables, stores, forwards, dials back."""
        return self._members.serving

    def set_serving(self, realm: Realm, serves: bool) -> None:
        """Serve in this realm from now on, or no longer. Others notice with the next message."""
        if (realm in self._members.serving) == serves:
            return
        self._members.set_serving(realm, serves)
        log.info("dht_serving", realm=realm.value, serves=serves)
        if self.on_serving is not None:
            self.on_serving(realm, serves)

    @property
    def unreachable(self) -> bool:
        """Whether nodes of the public realm tried to reach us and did not; False also where nobody has tried yet."""
        return self._role.refuted

    def addresses_changed(self) -> None:
        """Our addresses changed: whether we can be reached has to be found out anew."""
        self._role.addresses_changed(self.network.monotonic())
        if not self._role.fixed:
            self.set_serving(Realm.PUBLIC, self._role.serves)
        self._role_wake.set()

    async def dial_back(self, *, timeout: float = 3.0) -> bool:
        """Have nodes of the public realm try to reach us. Return whether one did, provably past any NAT."""
        return await self._check(timeout) is Evidence.PROVEN

    async def _check(self, timeout: float) -> Evidence:
        helpers = self._dial_helpers()
        if not helpers:
            return Evidence.NOBODY
        check = _Check(self._engine, self.has_sent_to)
        # Private ones do not count: a helper could name one of those to us behind our NAT.
        own_ips = {
            ip
            for interface in self.network.interfaces()
            for ip in interface.addresses
            if self._members.realm_of(ip) is Realm.PUBLIC
        }
        asked = [asyncio.ensure_future(self._ask_dial_back(helper, check, own_ips, timeout)) for helper in helpers]
        try:
            async with asyncio.timeout(timeout):
                await check.proven.wait()
        except TimeoutError:
            pass  # normal: behind a NAT nothing arrives
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            check.end()
        return check.evidence

    async def _ask_dial_back(self, helper: Contact, check: _Check, own_ips: set[str], timeout: float) -> None:
        nonce = self.network.token_bytes(NONCE_BYTES)
        check.begin(nonce)
        request = DialBack(nonce)
        outcome = await self.protocol.request(helper.address, NodeId(helper.id), request, timeout)
        if isinstance(outcome.answer, DialBackAccepted):
            try:
                observed = unpack_address_untrusted(outcome.answer.observed)
            except BadPacket:
                return  # a useless helper; the engine has counted it
            check.accepted(nonce, observed.ip in own_ips)

    def _dial_helpers(self) -> list[Contact]:
        """Return random contacts of different prefixes; of the same only where there are no others."""
        contacts = [c for c in self._members.tables[Realm.PUBLIC] if not c.misses]
        self.network.rng.shuffle(contacts)
        first: dict[bytes, Contact] = {}
        for contact in contacts:
            first.setdefault(contact.prefix, contact)
        chosen = list(first.values())
        return (chosen + [c for c in contacts if c not in chosen])[:HELPERS]

    def _realm_joined(self, realm: Realm) -> None:
        if realm is Realm.PUBLIC:
            self._role.joined(self.network.monotonic())
            self._role_wake.set()

    def _watch_role(self) -> None:
        if self.settings.dial_back and not self._role.fixed and self._role_task is None:
            self._role_task = asyncio.create_task(self._keep_role(), name="dht-role")

    async def _keep_role(self) -> None:
        """Check when the role says so, and act on what it decides."""
        while True:
            self._role_wake.clear()
            pause = self._role.check_at - self.network.monotonic()
            if pause > 0:
                try:
                    async with asyncio.timeout(None if pause == float("inf") else pause):
                        await self._role_wake.wait()
                    continue
                except TimeoutError:
                    pass  # it is time
            evidence = await self._check(3.0)
            self._role.checked(evidence, self.network.monotonic())
            log.info("dht_dial_back", evidence=evidence.value, serves=self._role.serves)
            began = self._role.serves and Realm.PUBLIC not in self.serving
            self.set_serving(Realm.PUBLIC, self._role.serves)
            if self.on_checked is not None:
                self.on_checked()
            if began:  # those near us should know
                await self.protocol.crawl(NodeId(self._engine.node_id), Realm.PUBLIC)

    # -- dialling for others ------------------------------------------------------------------------------------

    def _dial(self, frame: bytes, to: Address) -> None:
        task = asyncio.create_task(self._dial_once(frame, to), name="dht-dial")
        self._dials.add(task)  # as many as the limits of `dialback` allow
        task.add_done_callback(self._dials.discard)

    async def _dial_once(self, frame: bytes, to: Address) -> None:
        """Send one datagram from a port that nobody ever sent to."""
        try:
            socket = await self.network.open_udp(Address("::" if to.is_ipv6 else "0.0.0.0", 0), _unexpected)
        except OSError as exc:
            log.debug("dht_dial_failed", reason=exc.strerror)
            return
        socket.send(frame, to)
        socket.close()

    async def _stop_signalling(self) -> None:
        tasks = [*self._dials, *([self._role_task] if self._role_task is not None else [])]
        self._role_task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Check:
    """One dial-back check under way: what was agreed, what arrived."""

    def __init__(self, engine: Engine, has_sent_to: Callable[[str], bool] | None) -> None:
        self._engine, self._has_sent_to = engine, has_sent_to
        self._nonces: list[bytes] = []
        self._arrived: dict[bytes, tuple[bool, bool]] = {}
        self._own: dict[bytes, bool] = {}
        self.proven = asyncio.Event()

    def begin(self, nonce: bytes) -> None:
        self._nonces.append(nonce)
        self._engine.dial_backs.expect(nonce, lambda source: self._arrival(nonce, source))

    def accepted(self, nonce: bytes, own_interface: bool) -> None:
        """A helper agreed; it saw the request come from an address of this machine, or not."""
        self._own[nonce] = own_interface
        self._decide()

    def end(self) -> None:
        for nonce in self._nonces:
            self._engine.dial_backs.forget(nonce)

    @property
    def evidence(self) -> Evidence:
        found = {
            judge(ip_known=ip_known, port_known=port_known, own_interface=self._own.get(nonce, False))
            for nonce, (ip_known, port_known) in self._arrived.items()
        }
        for evidence in (Evidence.PROVEN, Evidence.INCONCLUSIVE):
            if evidence in found:
                return evidence
        return Evidence.SILENT if self._own else Evidence.NOBODY

    def _arrival(self, nonce: bytes, source: Address) -> None:
        sent = self._engine.sent
        ip_known = sent.knows_ip(source.ip) or (self._has_sent_to is not None and self._has_sent_to(source.ip))
        self._arrived[nonce] = ip_known, source in sent
        self._decide()

    def _decide(self) -> None:
        if self.evidence is Evidence.PROVEN:
            self.proven.set()


def _worth(contact: Contact, now: float) -> float:
    age = max(0.0, now - contact.first_seen)
    rtt_s = 0.5 if contact.rtt_s is None else contact.rtt_s
    return rtt_s + NEWCOMER_PENALTY / (1 + age / 600)


def _unexpected(_: bytes, __: Address) -> None:
    """Nobody answers a dial-back."""
