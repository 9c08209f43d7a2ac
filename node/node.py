"""The node: one UDP socket per family, the DHT and the sessions on it, joined here and nowhere else.

A datagram enters at `UdpMux`, goes to the DHT, to STUN or to QUIC by its first byte; what they decide comes back as
calls on this class or as events; everything leaves through the mux again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from p2pnode.addresses import own_addresses
from p2pnode.core.address import Address, Realm, realm_of
from p2pnode.core.errors import P2PError, PortInUseError
from p2pnode.core.ids import PeerId, UserId
from p2pnode.core.keys import AccountKey, NodeKey
from p2pnode.core.network import Cancel, Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht import Dht, HelloResult
from p2pnode.dialing import Dialer, OnFound
from p2pnode.events import (
    EventBus,
    Joined,
    KeyInUse,
    NetworkChanged,
    NodeEvent,
    PresenceChanged,
    SessionClosed,
    SessionMoved,
    SessionOpened,
)  # fmt: skip
from p2pnode.finding import Finder
from p2pnode.ipv4_ways import Ipv4Ways
from p2pnode.joining import Joiner
from p2pnode.lan_peers import LanPeers
from p2pnode.links import Links
from p2pnode.measuring import Measuring
from p2pnode.membership import Membership
from p2pnode.nat import Connection, QuicEndpoint, Stream, UdpMux
from p2pnode.other_network import NetworkQuestions
from p2pnode.other_process import OtherProcess
from p2pnode.owning import OwnDevices
from p2pnode.presence import FindResult
from p2pnode.publisher import Publisher
from p2pnode.reaching import Reaching
from p2pnode.relay_table import RelaySettings
from p2pnode.session import ECHO_PROTOCOL, Session, serve_echo
from p2pnode.sessions import SessionTable
from p2pnode.settings import NodeSettings
from p2pnode.state import NodeState
from p2pnode.status import NodeStatus, Ready, node_status
from p2pnode.trace import Trace
from p2pnode.visibility import Visible
from p2pnode.watching import PresenceBoard

__all__ = ["Node"]

log = structlog.get_logger(__name__)

LAN_FIRST_WAIT_S = 1.0  # a LAN answers a query within 0.1 s (RFC 6762, section 6); the first may get lost
PUBLISH_WAIT_S = 2.0  # `ready` says "can be found"; a silent holder must not hold it up for longer
RENEW_S = 15.0  # for a new session in the place of one that nobody answers
GOODBYE_S = 1.0  # of the two seconds that leaving may take

StreamHandler = Callable[[Session, Stream], Awaitable[None]]


class Node(Measuring, Visible):
    """A peer-to-peer node. `start`, then `find`, `connect`, `handle`, `subscribe`; `stop` says goodbye."""

    def __init__(
        self, *, key: NodeKey, account: AccountKey, settings: NodeSettings, network: Network,
        state_path: Path | None = None,
    ) -> None:  # fmt: skip
        """`state_path`: where contacts and sequence numbers survive a restart; None keeps them in memory."""
        self.key = key
        self.account = account
        self.settings = settings
        self.network = network
        self.peer_id: PeerId = key.peer_id
        self.user_id: UserId = account.user_id
        self.membership = Membership(settings, network)
        self.tag = self.membership.tag
        self.state = NodeState(state_path, network.token_bytes)
        self.own_devices = OwnDevices(self.user_id, self.peer_id, self.state)
        self._tasks = TaskSet()
        wire = self.membership.wire
        self.mux = UdpMux(wire)
        self.dht = Dht(key=key, network=wire, settings=self.membership.dht_settings(), send=self.mux.send)
        self.endpoint = QuicEndpoint(
            key=key, network=network, network_tag=self.tag, send=lambda data, to: self.reaching.send(data, to),  # noqa: PLW0108
            send_many=lambda datagrams, to: self.reaching.send_many(datagrams, to),  # noqa: PLW0108
        )  # fmt: skip
        self._sessions = SessionTable(
            self.peer_id, network, settings.idle_timeout, serve=self._serve_session, opened=self._session_opened,
            ended=self._session_ended,
        )  # fmt: skip
        self.questions = NetworkQuestions(
            self.peer_id, self.membership, network, self.mux.send, allow_documentation=settings.allow_documentation
        )
        self.links = Links(key, wire, self.mux, settings, self.addresses)
        self._joiner = Joiner(
            network=network, dht=self.dht, questions=self.questions, state=self.state, links=self.links,
            bootstrap=settings.bootstrap, own_addresses=self.addresses_by_realm,
        )  # fmt: skip
        self._lan = LanPeers(
            enabled=settings.lan and not settings.relay_only, network=network, peer_id=self.peer_id,
            name=self.membership.announced_name, network_tag=self.tag, dht=self.dht,
            own_addresses=self.addresses_by_realm, usable=self._usable, seen=self.emit, spawn=self._tasks.spawn,
        )  # fmt: skip
        self._finder = Finder(
            dht=self.dht, network=network, state=self.state, allow_documentation=settings.allow_documentation,
            local_addresses=self._lan.addresses, udp_blocked=lambda: self.links.refused,
        )  # fmt: skip
        self.reaching = Reaching(
            key=key, network=network, network_tag=self.tag, allow_documentation=settings.allow_documentation,
            portmap=settings.portmap and not settings.relay_only, dht=self.dht, mux=self.mux, endpoint=self.endpoint,
            sessions=self._sessions, own_addresses=self.addresses_by_realm, usable=self._usable,
            blocked=self._is_blocked, changed=self._reached_otherwise,
            relay=RelaySettings.of(settings.relay, settings.relay_bandwidth), relay_only=settings.relay_only,
            links=self.links, moved=lambda session, before: self.emit(SessionMoved(session, before)),
            find=lambda peer: self._finder.find(peer, timeout=5.0),
            renew=lambda peer: self._dialer.renew(peer, (), RENEW_S),
        )  # fmt: skip
        changed = self.reaching.roaming.network_changed
        self._ipv4_ways = Ipv4Ways(network, self.mux, changed, allow_documentation=settings.allow_documentation)
        self._dialer = Dialer(
            endpoint=self.endpoint, sessions=self._sessions, local_addresses=self._lan.addresses,
            find=lambda peer, timeout, on_found: self._finder.find(peer, timeout=timeout, on_found=on_found),
            punch=self.reaching.punch, ways=self.reaching.ways,
            usable=lambda address: not settings.relay_only and self._usable(address),
            allow_documentation=settings.allow_documentation,
        )  # fmt: skip
        self._presence = PresenceBoard(
            dht=self.dht, network=network, state=self.state, sessions=self._sessions, reaching=self.reaching,
            allow_documentation=settings.allow_documentation, local_addresses=self._lan.addresses, emit=self.emit,
            connect=lambda peer, timeout: self.connect(peer, timeout=timeout),
        )  # fmt: skip
        self.publisher: Publisher | None = None
        self._handlers: dict[str, StreamHandler] = dict((self.reaching.pathways.punching.service,))
        self._bus = EventBus()
        self._unwatch: Cancel | None = None
        self._blocked: Callable[[PeerId], bool] = lambda _peer: False
        self._last_addresses: dict[Realm, tuple[Address, ...]] = {}
        self._stopping = False
        self.started_at = network.monotonic()
        self.handle(ECHO_PROTOCOL, lambda _session, stream: serve_echo(stream))

    # Life

    async def start(self) -> Ready:
        """Open the sockets and join. Return once joined and published, or alone.

        Raise PortInUseError (explicit port taken), WrongKeyError or WrongNetworkError (every bootstrap address that
        answered is somebody else's, or of another network), P2PError.
        """
        self.started_at = self.network.monotonic()
        await self._open_sockets()
        self.dht.on_contact = self._realm_joined
        self.endpoint.on_connection = self._incoming
        self.endpoint.accepts = self._accepts
        await self.dht.start()
        self.dht.tls443 = await self.links.server.start(self.settings.tcp, public=self.settings.role == "bootstrap")
        run, unfinished = self.state.begin(self.network.wall())
        self.other_process = OtherProcess(
            peer=self.peer_id, run=run, dht=self.dht, network=self.network,
            allow_documentation=self.settings.allow_documentation, found_newer=lambda: self.emit(KeyInUse()),
            own_addresses=lambda: [own for some in self.addresses_by_realm().values() for own in some],
        )  # fmt: skip
        self.publisher = Publisher(
            key=self.key, account=self.account, settings=self.settings, network=self.network, network_tag=self.tag,
            dht=self.dht, state=self.state, addresses=self.published_addresses,
            rendezvous=lambda: self.reaching.rendezvous, outside=lambda: self.reaching.outside,
            own_devices=lambda: self.own_devices.current, adopt_devices=self.adopt_devices,
            invisible=lambda: self.invisible, other_process=self.other_process, look_first=unfinished,
        )  # fmt: skip
        self.dht.on_own_key = self.publisher.own_key_used
        self._last_addresses = self.addresses_by_realm()
        self._unwatch = self.network.watch_interfaces(self._interfaces_changed)
        if not self.invisible:
            await self._lan.start()
        self._tasks.spawn(self._joiner.run())
        wait = self.settings.join_timeout if self._joiner.has_sources else 0.0
        await self._joiner.first_join(max(wait, LAN_FIRST_WAIT_S) if self._lan.active else wait)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PUBLISH_WAIT_S):
                await self.reaching.settle()
                await self.publisher.publish_due()
        self.reaching.start()
        self._tasks.spawn(self.publisher.run())
        self._tasks.spawn(self._joiner.keep_state())
        ready = Ready.of(self)
        log.info("node_ready", peers=ready.peers, seconds=round(ready.seconds, 3), alone=ready.alone)
        return ready

    async def stop(self) -> None:
        """Say goodbye, close everything, save what is to be remembered. At most about two seconds."""
        if self._stopping:
            return
        self._stopping = True
        await self._tasks.cancel()
        await self._presence.stop()
        await self._dialer.stop()
        await self.reaching.stop()
        await self._joiner.stop()
        if self._unwatch is not None:
            self._unwatch()
        await self._lan.stop()
        if self.publisher is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await asyncio.gather(self.publisher.unpublish(), self.dht.unannounce_all())
            if not self.other_process.superseded:
                self.state.end()
        self._sessions.close("stopping" if self.publisher is None or not self.other_process.superseded else "replaced")
        self.endpoint.close()
        await self._joiner.save()
        await self.dht.stop()
        await self.links.stop()
        self.mux.close()

    # What applications call

    async def find(self, peer: PeerId, *, timeout: float = 10.0, on_found: OnFound | None = None) -> FindResult:
        """Return what is known of `peer`; `on_found`: as it comes. Raise PeerNotFoundError, P2PTimeoutError."""
        return await self._presence.find(self._finder, peer, timeout, on_found)

    def watch(self, peer: PeerId) -> bool:
        """Have `PresenceChanged` told when the peer comes, goes or moves; False: 256 are watched already."""
        return peer == self.peer_id or self._presence.watch(peer)

    def unwatch(self, peer: PeerId) -> None:
        self._presence.unwatch(peer)

    def watched(self) -> tuple[PeerId, ...]:
        return self._presence.watched()

    def presence(self, peer: PeerId) -> PresenceChanged | None:
        """Return what is known of a peer without asking anybody, None when that is nothing. Complete when watched."""
        return self._presence.verdict(peer)

    async def connect(self, peer: PeerId, *, addresses: Sequence[Address] = (), timeout: float = 15.0) -> Session:
        """Return the open session with `peer`, or open one. Concurrent calls share one attempt.

        `addresses`: tried as well. Raise PeerNotFoundError, PeerOfflineError, NoPathError,
        RefusedError, WrongKeyError, WrongNetworkError, P2PTimeoutError.
        """
        if peer == self.peer_id:
            raise P2PError("That is this node itself.", peer=str(peer))
        attempt = self._dialer.connect(peer, addresses, timeout)
        return await self.questions.beside(attempt, addresses, peer, elsewhere=True)

    def session(self, peer: PeerId) -> Session | None:
        """Return the open session with `peer`, None when there is none."""
        return self._sessions.get(peer)

    def sessions(self) -> list[Session]:
        return self._sessions.all()

    async def hello(self, host: str, port: int, *, timeout: float = 3.0) -> HelloResult:
        """Ask who listens at `host:port`. Raise P2PError when nobody answers."""
        return await self._joiner.hello(host, port, timeout=timeout)

    async def join_through(self, host: str, port: int) -> PeerId:
        """Join the network through whoever listens at `host:port`; return who that is."""
        return (await self._joiner.through(host, port)).peer_id

    def handle(self, protocol: str, handler: StreamHandler) -> None:
        """Let `handler(session, stream)` serve incoming streams of `protocol`, in a task of its own."""
        self._handlers[protocol] = handler

    def prefer_when(self, known: Callable[[PeerId], bool]) -> None:
        """Let calls from peers for which `known` says True through a flood of strangers' calls."""
        self.reaching.known = known

    def subscribe(self, callback: Callable[[NodeEvent], None]) -> Cancel:
        """Call `callback` with each event, in order."""
        return self._bus.subscribe(callback)

    def emit(self, event: NodeEvent) -> None:
        self._bus.emit(event)

    def addresses_by_realm(self) -> dict[Realm, tuple[Address, ...]]:
        """Return our own addresses that others can dial, by realm."""
        if self.settings.relay_only:
            return {}
        return own_addresses(
            self.mux.local, self.network.interfaces(), allow_documentation=self.settings.allow_documentation
        )

    def published_addresses(self) -> dict[Realm, tuple[Address, ...]]:
        """Return `addresses_by_realm`, and the router's ports that strangers have proven to lead to us."""
        own, mapped = self.addresses_by_realm(), self.reaching.port_mapping.addresses()
        return {**own, Realm.PUBLIC: (*own.get(Realm.PUBLIC, ()), *mapped)} if mapped else own

    def addresses(self) -> tuple[Address, ...]:
        """Return the addresses that others can use, the widest realm first; loopback only when there is no other."""
        by_realm = self.published_addresses()
        wide = (*by_realm.get(Realm.PUBLIC, ()), *by_realm.get(Realm.PRIVATE, ()))
        return wide or by_realm.get(Realm.LOOPBACK, ())

    def lan_peers(self) -> dict[PeerId, tuple[Address, ...]]:
        """Return the proven peers of the local network and their addresses."""
        return self._lan.all()

    def status(self) -> NodeStatus:
        return node_status(self)

    # Parts

    async def _open_sockets(self) -> None:
        try:
            await self.mux.open(self.settings.listen)
        except PortInUseError:
            if self.settings.listen_explicit:
                raise
            log.info("default_port_taken", port=self.settings.listen[0].port)
            await self.mux.open([a._replace(port=0) for a in self.settings.listen])
        await self._ipv4_ways.look()
        self.dht.use_families({address.is_ipv6 for address in self.mux.local})
        self.mux.on("dht", self.dht.datagram_received)
        self.mux.on("quic", self.endpoint.datagram_received, self.endpoint.datagrams_received)
        self.mux.on("stun", self.reaching.stun_received)
        self.mux.on(
            "relay", lambda d, at: None if self.reaching.pathways.received(d, at) else self.questions.received(d, at)
        )

    def _usable(self, address: Address) -> bool:
        realm = realm_of(address.ip, allow_documentation=self.settings.allow_documentation)
        if realm is None or any(address in own for own in self.published_addresses().values()):
            return False  # ours: the peer's LAN uses the same private addresses
        return any(address.is_ipv6 == local.is_ipv6 for local in self.mux.local)

    def _incoming(self, connection: Connection) -> None:
        if self._refused(connection):
            log.info("blocked_peer_refused", peer=str(connection.peer))
            return
        trace = Trace(self.network.monotonic())
        trace.add(self.network.monotonic(), "incoming", f"{connection.remote} proved its key")
        self._sessions.adopt(connection, trace)

    def _serve_session(self, session: Session) -> None:
        self.reaching.pathways.session_began(session)
        session.connection.on_stream = lambda _connection, protocol, stream: self._stream(session, protocol, stream)

    def _session_opened(self, session: Session) -> None:
        log.info("session_opened", peer=str(session.peer), path=session.path, initiator=session.initiator)
        self.reaching.session_opened(session)
        self.emit(SessionOpened(session))
        self._presence.session_opened(session)

    def _session_ended(self, session: Session, reason: str) -> None:
        log.info("session_closed", peer=str(session.peer), reason=reason)
        self.reaching.session_ended(session.peer)
        self.emit(SessionClosed(session, reason))
        self._presence.session_ended(session, reason)

    def _stream(self, session: Session, protocol: str, stream: Stream) -> None:
        handler = self._handlers.get(protocol)
        if handler is None:
            log.info("unknown_stream_protocol", peer=str(session.peer), protocol=protocol)
            stream.reset(0)
            return
        self._tasks.spawn(self._serve(handler, session, stream))

    async def _serve(self, handler: StreamHandler, session: Session, stream: Stream) -> None:
        try:
            await handler(session, stream)
        except (P2PError, EOFError):
            stream.reset(0)

    def _realm_joined(self, realm: Realm) -> None:
        log.info("realm_joined", realm=realm.value)
        self._joiner.known_anybody.set()
        self.reaching.look()
        self._presence.joined(realm)
        self.emit(Joined(realm))

    def _reached_otherwise(self) -> None:
        if self.publisher is not None and not self._stopping:
            self.publisher.wake()
            self._presence.moved(address=False)

    def _interfaces_changed(self) -> None:
        self.links.network_changed([contact.address for contact in self.dht.known_contacts()])
        self._tasks.spawn(self._ipv4_ways.look_again())
        addresses = self.addresses_by_realm()
        if addresses == self._last_addresses:
            self.reaching.roaming.routes_changed()
            return
        self._last_addresses = addresses
        self.reaching.addresses_changed()
        self._presence.moved(address=True)
        self._lan.refresh()
        self.emit(NetworkChanged(self.addresses(), self.reaching.nat.value))
