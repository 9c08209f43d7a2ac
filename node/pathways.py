"""The paths of a node's sessions: relays and the flows through them, better paths that checks find, and moves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

import structlog

from p2pnode.core.address import Address, Realm
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht import Dht, KnownContact
from p2pnode.explaining import Explanation, PathView, explain
from p2pnode.links import Links
from p2pnode.mapped_port import PortMappingStatus
from p2pnode.nat import PROBE, AddressBudget, Path, QuicEndpoint, kind_of
from p2pnode.reachability import NatKind
from p2pnode.relay_dialing import RelayDialing
from p2pnode.relay_table import RelaySettings
from p2pnode.relay_wire import DELIVER, SEND
from p2pnode.relaying import RelayFlow, Relaying
from p2pnode.session import Session
from p2pnode.tcp_punching import TcpPunching

__all__ = ["Pathways"]

SETTLE_S = 1.0  # until our rendezvous nodes know our new address, and we how it looks from outside
SPARE_S = 1.0  # in which a spare that lives takes over
RENEWAL_S = 0.4  # in which a relay that lives hears where we are now
RETRY_S = (20.0, 60.0, 300.0, 900.0)  # pauses before a relayed session looks for a direct path again

log = structlog.get_logger(__name__)


class Pathways:
    """Joins relaying, QUIC's endpoint and the sessions."""

    def __init__(
        self,
        *,
        network: Network,
        dht: Dht,
        endpoint: QuicEndpoint,
        send: Callable[[bytes, Address], None],
        send_many: Callable[[Sequence[bytes], Address], None],
        relay: RelaySettings,
        usable: Callable[[Address], bool],
        session: Callable[[PeerId], Session | None],
        known: Callable[[PeerId], bool],
        contact: Callable[[PeerId], bool],
        hidden: bool,
        is_punched: Callable[[Session], bool],
        improve: Callable[[PeerId], None],
        moved: Callable[[Session, str], None],
        line_changed: Callable[[], None],
        budget: AddressBudget,
        links: Links,
    ) -> None:
        """`session`: the open one with a peer; `known`: whether it is a contact or has one; `contact`: whether it is a
        contact of the user's. `hidden`: no peer learns our address. `improve(peer)`: look for better paths under its
        session. `moved(session, before)`: it goes on by another path. `line_changed`: as in `Relaying`. `budget`: that
        of the checks."""
        self._network = network
        self._check_link = links.check.ask
        self._dht = dht
        self._endpoint = endpoint
        self._session = session
        self._by_udp = is_punched
        self._improve = improve
        self._tasks = TaskSet()
        self._retrying: dict[Session, asyncio.Task[None]] = {}
        self._moved = moved
        self.relaying = Relaying(
            network=network, dht=dht, send=send, send_many=send_many, settings=relay, received=self._relayed,
            paired=endpoint.nudge,
            in_use=lambda flow: any(flow.path in each.known_paths for each in endpoint.connections()),
            known=contact, ended=self._flow_ended, renewed=self._flow_renewed, line_changed=line_changed,
        )  # fmt: skip
        self.punching = TcpPunching(
            own=dht.key.peer_id, network=network, links=links, endpoint=endpoint, usable=usable, session=session,
            budget=budget, hidden=hidden,
        )  # fmt: skip
        self.dialing = RelayDialing(
            open_flow=self._open_flow, usable=usable, own=dht.key.peer_id, session=session, known=known,
            contacts=dht.known_contacts, lookup=self._lookup, budget=budget, now=network.monotonic, hidden=hidden,
        )  # fmt: skip

    def _is_punched(self, session: Session) -> bool:
        return session.remote in self.punching.made or self._by_udp(session)

    async def stop(self) -> None:
        await self._tasks.cancel()
        await self.punching.stop()
        await self.dialing.stop()
        await self.relaying.stop()

    def received(self, data: bytes, source: Address) -> bool:
        """Take a relay frame or a path probe of the mux's; False when it is neither."""
        if data[0] in (SEND, DELIVER):
            self.relaying.frame_received(data, source)
        elif data[0] == PROBE:
            self._endpoint.probe_received(data, source)
        else:
            return False
        return True

    def session_began(self, session: Session) -> None:
        """Say what kind of path it has, from now on."""
        session.punched = not session.connection.path.relayed and self._is_punched(session)
        session.was_direct = not session.connection.path.relayed
        session.connection.on_moved = lambda before, path: self._session_moved(session, before, path)
        session.connection.on_silent = lambda: self._silent(session)
        self._retry_later(session)
        self.dialing.came(session.peer)
        self.punching.begin(session, self.dialing.between(session.peer))

    def explain(self, session: Session, nat: NatKind, mappings: Sequence[PortMappingStatus]) -> Explanation:
        """Why it has the path that it has. `nat`: what stands before us; `mappings`: what became of the ports that our
        routers were asked for."""
        is_ipv6 = session.remote.is_ipv6
        states = [each.state for each in mappings if each.internal is None or ("[" in each.internal) is is_ipv6]
        return explain(
            PathView(
                session.path, session.remote, session.initiator, self.dialing.between(session.peer),
                session.was_direct, states[0] if states else "no-gateway", nat is NatKind.UDP_BLOCKED,
            )
        )  # fmt: skip

    def found(self, peer: PeerId, path: Path, new: bool) -> None:
        """A check passed. `new`: the peer's router gave it another mapping since."""
        session = self._session(peer)
        if session is not None and path == session.connection.path:
            if session.connection.in_doubt:
                session.connection.doubt()  # both routers are open now: what was sent in vain goes again at once
        elif session is not None and (session.connection.path.relayed or session.connection.in_doubt):
            session.connection.add_path(path)
        elif session is not None and new and session.punched:
            # Probed first: a check says who made it, but not that it was sent from where it came.
            session.connection.add_path(path, doubt=True)

    def _session_moved(self, session: Session, before: Path, path: Path) -> None:
        name = session.path_by(before)
        session.was_direct |= not path.relayed
        session.punched = not path.relayed and self._is_punched(session)
        self._retry_later(session)
        session.trace.add(self._network.monotonic(), f"move {path}", f"from {before}: {session.path}")
        log.info("session_moved", peer=str(session.peer), before=name, path=session.path)
        self._moved(session, name)

    async def network_changed(self) -> None:
        """Our addresses are others: the relays must learn them, and there may be better ways now."""
        for flow in self.relaying.flows():
            self.relaying.renew(flow)
        await asyncio.sleep(SETTLE_S)
        for peer in dict.fromkeys(flow.peer for flow in self.relaying.flows()):
            session = self._session(peer)
            if session is not None and session.connection.path.relayed:
                self._improve(peer)

    def _retry_later(self, session: Session) -> None:
        """While a session is relayed, look for a direct path now and then: its initiator does."""
        if session.connection.path.relayed and session.initiator and session not in self._retrying:
            self._retrying[session] = self._tasks.spawn(self._retry(session))

    async def _retry(self, session: Session) -> None:
        try:
            for pause in itertools.chain(RETRY_S, itertools.repeat(RETRY_S[-1])):
                await asyncio.sleep(pause)
                if session.closed or not session.connection.path.relayed:
                    return
                if not self.dialing.is_hopeless(session.peer):
                    self._improve(session.peer)
        finally:
            del self._retrying[session]

    def _silent(self, session: Session) -> None:
        """Nothing comes through: perhaps our router was restarted; and other paths are wanted."""
        for flow in self.relaying.flows():
            if flow.peer == session.peer:
                self._tasks.spawn(self._ask_relay(flow))
        self._tasks.spawn(self._improve_if_silent(session))

    async def _ask_relay(self, flow: RelayFlow) -> None:
        await self._check_link(flow.relay.address)
        self.relaying.renew(flow)

    async def _improve_if_silent(self, session: Session) -> None:
        if session.connection.spare_paths:
            await asyncio.sleep(SPARE_S)
        elif session.connection.path.relayed:
            await asyncio.sleep(RENEWAL_S)
        if session.connection.in_doubt:
            self._improve(session.peer)

    async def _open_flow(self, peer: PeerId, relay: KnownContact, calls: bool) -> Path | None:
        flow = await self.relaying.open(peer, relay, calls=calls)
        return None if flow is None else flow.path

    async def _lookup(self, key: NodeId) -> list[KnownContact]:
        return [contact.known() for contact in await self._dht.lookup(key, realm=Realm.PUBLIC)]

    def _relayed(self, data: bytes, source: Address, flow: RelayFlow) -> None:
        """A datagram that came by a relay; nothing but QUIC and path probes comes so."""
        kind = kind_of(data)
        if kind == "quic":
            self._endpoint.datagram_received(data, source, flow)
        elif kind == "relay":
            self._endpoint.probe_received(data, source, flow)

    def _flow_renewed(self, flow: RelayFlow) -> None:
        session = self._session(flow.peer)
        if session is not None and session.connection.path == flow.path:
            session.connection.revive()

    def _flow_ended(self, flow: RelayFlow, lost: bool) -> None:
        if lost:
            self.dialing.lost(flow.relay)
        session = self._session(flow.peer)
        if session is not None:
            session.connection.remove_path(flow.path)
            if session.initiator and session.connection.path.relayed:
                self._improve(flow.peer)  # a spare is wanted in its place
