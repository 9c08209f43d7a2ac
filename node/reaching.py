"""What a node does to reach others and be reached through NATs: it learns how it looks from outside, keeps rendezvous
nodes, asks the router for a port, exchanges offers, and runs ICE. One object, so that `Node` has one part to hold.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import structlog

from p2pnode.core.address import Address, Realm, realm_of
from p2pnode.core.errors import P2PError
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht import Dht, KnownContact
from p2pnode.dialing import DialCandidate
from p2pnode.dialing_back import dial_back
from p2pnode.explaining import Explanation
from p2pnode.improving import Improver
from p2pnode.links import Links
from p2pnode.mapping_life import MappingLife
from p2pnode.meetings import OwnSide
from p2pnode.nat import Connection, IceCandidate, IceEndpoint, Path, QuicEndpoint, StunClient, StunServer, UdpMux
from p2pnode.offer import MAX_RELAYS, RelayHint
from p2pnode.offer_guard import OfferGuard
from p2pnode.outside import outside_addresses
from p2pnode.pathways import Pathways
from p2pnode.port_guessing import PortGuessing
from p2pnode.port_mapping import PortMapping
from p2pnode.presence import FindResult
from p2pnode.reachability import NatKind, Reachability, Reflexive
from p2pnode.relay_table import RelaySettings
from p2pnode.rendezvous import RendezvousKeeper
from p2pnode.roaming import Roaming
from p2pnode.session import Session
from p2pnode.sessions import SessionTable
from p2pnode.signalling import Signalling
from p2pnode.status import FlowBudget

__all__ = ["Reaching"]

log = structlog.get_logger(__name__)

MAX_CANDIDATES = 8  # of the ten that an offer holds
RENEW_PAUSE_S = 10.0  # on a line that loses a tenth, every fifth check is missed without cause
CONSENT_S = 30.0  # RFC 7675, section 5.1, "Expiration of Consent"
STUN_SERVERS = 4  # asked where there are no rendezvous nodes: one above the witnesses that a verdict needs
MAX_SENT_TO = 4096  # IP addresses that QUIC or ICE sent to, 100 bytes each; one forgotten weakens a dial-back only


class Reaching:
    """Rendezvous, offers, ICE, and the verdict about the NAT before us."""

    def __init__(
        self, *, key: NodeKey, network: Network, network_tag: bytes, allow_documentation: bool, portmap: bool, dht: Dht,
        mux: UdpMux, endpoint: QuicEndpoint, sessions: SessionTable,
        own_addresses: Callable[[], dict[Realm, tuple[Address, ...]]], usable: Callable[[Address], bool],
        blocked: Callable[[PeerId], bool], changed: Callable[[], None], relay: RelaySettings, relay_only: bool,
        moved: Callable[[Session, str], None], find: Callable[[PeerId], Awaitable[FindResult]],
        renew: Callable[[PeerId], Coroutine[Any, Any, Session]], links: Links,
    ) -> None:  # fmt: skip
        """`portmap`: whether to ask the router for a port. `changed`: what we publish is another now. `moved`: as in
        `Pathways`. `relay_only`: no peer is told an address of ours."""
        self._network = network
        self._links = links
        links.changed = self._udp_changed
        self._realm = partial(realm_of, allow_documentation=allow_documentation)
        self._changed, self._told_moved = changed, moved
        self._relay_only = relay_only
        self._dht = dht
        self._mux = mux
        self._sessions = sessions
        self._own_addresses = own_addresses
        self.known: Callable[[PeerId], bool] = lambda _peer: False
        """Whether a peer is one of the user's contacts; set by the application."""
        self._sent_to: OrderedDict[str, None] = OrderedDict()
        self._tasks = TaskSet()
        self._renewed_at = float("-inf")
        self._look = asyncio.Event()
        self._stun = StunServer(self.send)
        self._stun_client = StunClient(network, self.send)
        self._ice = IceEndpoint(network=network, send=self.send, allow_documentation=allow_documentation)
        self._reachability = Reachability(allow_documentation=allow_documentation)
        self.mapping_life = MappingLife(
            network=network, dht=dht, needed=self._closed_families, changed=self._use_flows_every,
            bound=lambda: mux.local,
        )  # fmt: skip
        self._keeper = RendezvousKeeper(
            dht=dht, network=network, changed=changed, families=self._closed_families, elsewhere=relay_only,
            moved=self.mapping_life.doubt)  # fmt: skip
        self.port_mapping = PortMapping(
            enabled=portmap, key=key, network=network, dht=dht, bound=lambda: mux.local,
            outside_ip=lambda is_ipv6: self.verdict(ipv6=is_ipv6).ip, dialable=self._dialable,
            allow_documentation=allow_documentation, changed=changed,
        )  # fmt: skip
        self._improver = Improver(network=network, find=find, punch=self.punch, session=sessions.get)
        self.pathways = Pathways(
            network=network, dht=dht, endpoint=endpoint, send=self.send, relay=relay, links=links, hidden=relay_only,
            usable=lambda at: self._realm(at.ip) is Realm.PUBLIC and usable(at),  # relays that peers name (K1)
            session=sessions.get, known=self._is_known, is_punched=lambda session: self._is_punched(session.connection),
            improve=self._improver.ask, moved=self._session_moved, budget=self._ice.budget, send_many=self.send_many,
            line_changed=self._mappings_lost, contact=lambda peer: self.known(peer),  # noqa: PLW0108 - set later
        )  # fmt: skip
        self._guard = OfferGuard(key=key, network_tag=network_tag, known=self._is_known)
        self._guessing = PortGuessing(
            network=network, mux=mux, ice=self._ice, servers=self._stun_servers, known=self._is_known
        )
        self.roaming = Roaming(
            network=network, sessions=sessions, improve=self._improver.ask, renew=renew, refresh=self._refresh_now
        )
        self.signalling = Signalling(
            key=key, network=network, network_tag=network_tag, dht=dht, ice=self._ice, guard=self._guard,
            guessing=self._guessing, rendezvous=self._keeper.contacts, own_side=self._own_side, blocked=blocked,
            session_path=self._session_path, called=self.roaming.called,
            dial_back=partial(dial_back, endpoint=endpoint, sessions=sessions, usable=usable, blocked=blocked),
            path_to=endpoint.path_to, nudge=endpoint.nudge, relays=self.pathways.dialing, hidden=relay_only,
            path_found=self.pathways.found, consent_missed=self._mappings_lost, consent_lost=self._consent_lost,
        )  # fmt: skip
        dht.probing.answer = self._stun.answer_untrusted
        dht.on_observed = self._observed
        dht.on_deliver = self.signalling.delivered
        dht.has_sent_to = self._sent_to.__contains__
        dht.on_checked = self.look

    # Life

    async def settle(self) -> None:
        """Get rendezvous nodes now, where they are needed; to be called once joined, before publishing."""
        if self._needed():
            await self._keeper.keep_due()
            self._ask_stun()

    def start(self) -> None:
        """Keep rendezvous nodes, and a port of the router's, from now on."""
        self.port_mapping.start()
        self._tasks.spawn(self._keep_rendezvous())
        self.roaming.start()
        self.mapping_life.start()

    async def stop(self) -> None:
        await self._tasks.cancel()
        parts = (self.roaming, self.mapping_life, self._guessing, self.port_mapping, self._improver, self.signalling)
        for part in (*parts, self.pathways):
            await part.stop()
        self._ice.close()

    def addresses_changed(self) -> None:
        """Our network is another one: nothing that was seen of us before holds."""
        self._reachability.forget()
        self._guessing.network_changed()
        self.mapping_life.network_changed()
        self._dht.addresses_changed()
        self._tasks.spawn(self.port_mapping.network_changed())
        self.roaming.network_changed()
        self.look()

    def look(self) -> None:
        """Look now whether rendezvous nodes are needed: a realm was joined, or whether we can be dialled found out."""
        self._look.set()
        self.port_mapping.look()
        self._changed()
        self._links.server.serve_if(any(self._dht.reached(Realm.PUBLIC, is_ipv6=each) for each in (False, True)))

    # Datagrams

    def send(self, data: bytes, to: Address) -> None:
        """Send for STUN, ICE or QUIC, and remember to whom: a dial-back from there would prove nothing."""
        self._remember(to)
        self._mux.send(data, to)

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        """Send QUIC's datagrams, as `send` each."""
        self._remember(to)
        self._mux.send_many(datagrams, to)

    def _remember(self, to: Address) -> None:
        if to.ip not in self._sent_to:
            self._sent_to[to.ip] = None
            if len(self._sent_to) > MAX_SENT_TO:
                self._sent_to.popitem(last=False)

    def stun_received(self, data: bytes, source: Address) -> None:
        """Take a STUN datagram: of an ICE session, an answer to us, or a stranger's question for his address."""
        for part in (self._ice, self._stun_client, self._links.stun):
            if part.datagram_received(data, source):
                return
        self._stun.datagram_received(data, source)

    # What the node asks

    @property
    def rendezvous(self) -> tuple[KnownContact, ...]:
        """The nodes that forward offers to us now."""
        return self._keeper.contacts() if self._needed() else ()

    @property
    def outside(self) -> tuple[Address, ...]:
        """Where routers show us, for those who call."""
        verdicts = {} if self._relay_only else {ipv6: self.verdict(ipv6=ipv6) for ipv6 in self._closed_families()}
        own, mapped = self._own_addresses().get(Realm.PUBLIC, ()), self.port_mapping.addresses()
        return outside_addresses(verdicts, bound=self._mux.local, own=own, mapped=mapped)

    def flow_budget(self) -> FlowBudget:
        """What it costs to keep the rendezvous nodes' flows alive."""
        kept, every = len(self.rendezvous), self._keeper.keep_alive
        return FlowBudget(kept, every, self.mapping_life.shortest, round(2 * kept * 3600 / every))

    def verdict(self, *, ipv6: bool = False) -> Reflexive:
        """How we look from outside, in the public realm."""
        own = [a for some in self._own_addresses().values() for a in some]
        known = [contact.address for contact in self._dht.known_contacts()]
        return self._reachability.verdict(
            Realm.PUBLIC, ipv6=ipv6, local=own, known=known, now=self._network.monotonic()
        )

    def seen_as(self) -> tuple[str, ...]:
        """Our believed outside addresses as text, IPv4's first; without port where it differs by destination."""
        return tuple(str(v.address or v.ip) for ipv6 in (False, True) if (v := self.verdict(ipv6=ipv6)).ip is not None)

    @property
    def nat(self) -> NatKind:
        """What is between us and the public network (IPv4's, where both families have a verdict)."""
        if self._links.blocked:
            return NatKind.UDP_BLOCKED
        for is_ipv6 in (False, True):
            if self._dialable(is_ipv6):
                return NatKind.NONE
            kind = self.verdict(ipv6=is_ipv6).kind
            if kind is not NatKind.UNKNOWN:
                return kind
        return NatKind.UNKNOWN

    def punch(self, found: FindResult, dial: DialCandidate) -> Coroutine[None, None, None]:
        """Meet a peer through its rendezvous nodes."""
        return self.signalling.punch(found, self.ways(found), dial)

    def ways(self, found: FindResult) -> tuple[KnownContact, ...]:
        """Return through whom a peer can be met: its rendezvous nodes; where we cannot or may not dial it and it
        has none, since anybody may dial it, ours."""
        undiallable = self._links.blocked or self._relay_only
        return found.rendezvous or (self._keeper.contacts() if undiallable and found.addresses else ())

    def _is_punched(self, connection: Connection) -> bool:
        """Whether a direct connection goes through a hole that both sides made.

        With an address of ours that anybody can dial there is none to make: the other side does, called or calling.
        """
        is_ipv6 = connection.remote.is_ipv6
        if self._dialable(is_ipv6) or any(address.is_ipv6 is is_ipv6 for address in self.port_mapping.addresses()):
            return False
        return self.signalling.is_punched(connection.peer, connection.remote)

    def explain(self, session: Session) -> Explanation:
        """Why a session has the path that it has."""
        return self.pathways.explain(session, self.nat, self.port_mapping.status())

    def _session_moved(self, session: Session, before: str) -> None:
        self.signalling.session_opened(session.peer, session.connection.path)
        self._told_moved(session, before)

    def session_opened(self, session: Session) -> None:
        self.signalling.session_opened(session.peer, session.connection.path)
        self._keep_alive(session)

    def session_ended(self, peer: PeerId) -> None:
        if self._sessions.get(peer) is None:
            self.signalling.session_ended(peer)

    # Parts

    def _use_flows_every(self, seconds: float | None) -> None:
        """So often the router before us wants to see a flow; None: as usual."""
        self._keeper.keep_alive_every(seconds)
        for session in self._sessions.all():
            self._keep_alive(session)

    def _keep_alive(self, session: Session) -> None:
        session.connection.keep_alive_s = min(session.connection.keep_alive_s, self._keeper.keep_alive)

    def _session_path(self, peer: PeerId) -> Path | None:
        session = self._sessions.get(peer)
        return None if session is None else session.connection.path

    def _is_known(self, peer: PeerId) -> bool:
        return self._sessions.get(peer) is not None or self.known(peer)

    def _needed(self) -> bool:
        """Rendezvous nodes are for those whom not everybody can dial: who has only one family dials no other."""
        return bool(self._closed_families())

    def _closed_families(self) -> list[bool]:
        """Return the families (True: IPv6) of the public network in which nobody can dial us."""
        return [o.is_ipv6 for o in self._dht.overlays(Realm.PUBLIC) if not self._dialable(o.is_ipv6)]

    def _dialable(self, is_ipv6: bool) -> bool:
        """Whether strangers can dial a public address of ours in this family.

        Not when nodes have tried in vain: there is a firewall. Until they have, a host that also has private addresses
        is thought to be at home, behind a router that lets in no IPv6 unasked (RFC 6092, "Recommended Simple Security
        Capabilities in Customer Premises Equipment"); any other, to be open.
        """
        own = self._own_addresses()
        if self._links.blocked or not any(address.is_ipv6 is is_ipv6 for address in own.get(Realm.PUBLIC, ())):
            return False
        if self._dht.reached(Realm.PUBLIC, is_ipv6=is_ipv6):
            return True
        known = {overlay.is_ipv6 for overlay in self._dht.overlays(Realm.PUBLIC)} or {is_ipv6}  # who could have tried
        return is_ipv6 in known and not self._dht.unreachable(is_ipv6=is_ipv6) and not own.get(Realm.PRIVATE)

    async def _keep_rendezvous(self) -> None:
        while True:
            self._look.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(60.0):
                    await (self._keeper.run() if self._needed() else self._look.wait())

    def _ask_stun(self) -> None:
        """Ask the rendezvous nodes, each a STUN server on its one socket, how they see us now."""
        if self._links.blocked:
            return
        servers = [contact.address for contact in self._keeper.contacts()] or self._stun_servers()[:STUN_SERVERS]
        for server in servers:
            self._tasks.spawn(self._ask_one(server))

    async def _ask_one(self, server: Address) -> None:
        with contextlib.suppress(P2PError):  # a silent server tells nothing
            own = await self._stun_client.query(server)
            self._reachability.report(b"", server, own, self._network.monotonic())

    def _stun_servers(self) -> list[Address]:
        """IPv4 nodes of the public network, each at an address of its own: rendezvous nodes first, they answer."""
        known = [contact.address for contact in (*self._keeper.contacts(), *self._dht.known_contacts())]
        usable = [a for a in known if not a.is_ipv6 and self._realm(a.ip) is Realm.PUBLIC]
        return list({address.ip: address for address in reversed(usable)}.values())[::-1]

    def _observed(self, observer: PeerId, at: Address, own: Address) -> None:
        if self._links.blocked:
            return  # a link's TCP address says nothing of our UDP socket
        if self._reachability.report(observer.raw, at, own, self._network.monotonic()):
            if own not in self._own_addresses().get(Realm.PUBLIC, ()):  # else there is no router to get to know
                self._guessing.look(self.nat)
            self.port_mapping.seen(own)

    def _own_side(self) -> OwnSide:
        relays = tuple(RelayHint(*each) for each in self._keeper.relays()[:MAX_RELAYS]) if self._needed() else ()
        if self._relay_only:
            return OwnSide((), (), NatKind.UNKNOWN, relays=relays)
        published = (own := self._own_addresses()).get(Realm.PUBLIC, ())
        near = [*published, *own.get(Realm.PRIVATE, ())]
        candidates = {a: IceCandidate(a, "host") for a in near or own.get(Realm.LOOPBACK, ())}
        for ipv6 in (False, True):
            seen = self.verdict(ipv6=ipv6)
            if seen.address is not None:
                candidates.setdefault(seen.address, IceCandidate(seen.address, "srflx"))
            elif seen.ip is not None and seen.ports:
                # The port will be another one, but the other side's router must learn our IP address from its checks.
                guess = Address(seen.ip, seen.ports[0])
                candidates.setdefault(guess, IceCandidate(guess, "srflx"))
        dialable = tuple(address for address in published if self._dialable(address.is_ipv6))
        mapped = self.port_mapping.addresses()
        for address in mapped:
            candidates.setdefault(address, IceCandidate(address, "srflx"))
        ports = self.verdict().ports
        return OwnSide(tuple(candidates.values())[:MAX_CANDIDATES], (*dialable, *mapped), self.nat, ports, relays)

    def _mappings_lost(self) -> None:
        """Perhaps our router was restarted: then nobody can call us until we are registered from the new mapping."""
        now = self._network.monotonic()
        if now - self._renewed_at >= RENEW_PAUSE_S:
            self._renewed_at = now
            self._keeper.renew()
            self._ask_stun()

    def _udp_changed(self) -> None:
        """UDP is blocked, or passes again: sessions that are silent, or relayed for that, get other paths."""
        self.addresses_changed()
        for session in self._sessions.all():
            if session.connection.in_doubt or session.connection.path.relayed:
                self._improver.ask(session.peer)

    def _refresh_now(self) -> None:
        """Be registered from where we are now, ask how that is seen, and look for paths from there."""
        self._renewed_at = float("-inf")
        self._mappings_lost()
        self._improver.network_changed()
        self._tasks.spawn(self.pathways.network_changed())

    def _consent_lost(self, peer: PeerId) -> None:
        """The checks' own path is silent. What QUIC hears, each packet authenticated, is consent as well."""
        session = self._sessions.get(peer)
        if session is not None and session.punched and session.connection.silent_s > CONSENT_S:
            log.info("consent_lost", peer=str(peer))
            session.close("lost")
