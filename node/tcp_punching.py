"""TCP hole punching: a direct path where a network lets no UDP pass, under a session that a relay carries.

Both sides connect to each other at the same moment, each from the port that its router already shows to others: each
SYN opens the own router for the other's (simultaneous open: RFC 9293, section 3.5; NUTSS and STUNT; libp2p's DCUtR over
TCP). That works where routers keep one port for all destinations. What was agreed goes over the session itself, so
nobody else names addresses, and a peer draws no more SYNs to an address than checks (security.md C1).

    initiator -- stream "p2pnode/tcp-punch/1": length 1 · own public TCP address --> the other side
              <-- the same ------------------------------------------------------
    both connect; the smaller public key is TLS's client; then a link (docs/protocol/links.md) is one more path
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import structlog

from p2pnode.core.address import Address, link_address
from p2pnode.core.errors import BadPacket, P2PError
from p2pnode.core.ids import PeerId
from p2pnode.core.network import Network, TcpStream
from p2pnode.core.tasks import TaskSet
from p2pnode.explaining import Between
from p2pnode.links import Links
from p2pnode.nat import QuicEndpoint, Stream
from p2pnode.nat.budget import AddressBudget
from p2pnode.reachability import NatKind
from p2pnode.session import Session

__all__ = ["TcpPunching", "read_address_untrusted"]

log = structlog.get_logger(__name__)

PROTOCOL = "p2pnode/tcp-punch/1"
AGREE_S = 5.0
CONNECT_S = 4.0
AGAIN_S = 0.05, 0.4  # after a refusal: a router may answer a SYN that comes too early with RST
PAUSE_S = 20.0  # between two attempts with one peer
MAX_PEERS = 256


def read_address_untrusted(data: bytes) -> Address:
    """Read `length 1 · packed address`. Raise BadPacket."""
    if not data or data[0] != len(data) - 1:
        raise BadPacket("bad_length")
    return Address.unpack_untrusted(data[1:])


class TcpPunching:
    """All such attempts of a node, and the links that came of them."""

    def __init__(
        self, *, own: PeerId, network: Network, links: Links, endpoint: QuicEndpoint,
        usable: Callable[[Address], bool], session: Callable[[PeerId], Session | None], budget: AddressBudget,
        hidden: bool,
    ) -> None:  # fmt: skip
        """`usable`: whether packets may go to an address that a peer names. `session`: the open one with a peer.
        `budget`: that of the checks. `hidden`: no peer learns our address, so there is no punch."""
        self._own, self._session, self._hidden = own, session, hidden
        self._network, self._links, self._endpoint = network, links, endpoint
        self._usable, self._budget = usable, budget
        self._tried: dict[PeerId, float] = {}
        self._tasks = TaskSet()
        self.made: set[Address] = set()
        """Far ends of the links that came of it."""
        self.service = PROTOCOL, self._serve
        """Protocol and handler of the streams by which it is agreed."""

    def begin(self, session: Session, between: Between | None) -> None:
        """A session is there. Relayed because UDP is blocked somewhere: its initiator asks for a punch."""
        blocked = between is not None and NatKind.UDP_BLOCKED in (between.own, between.theirs)
        if blocked and session.initiator and session.connection.path.relayed and self._may_try(session.peer):
            self._tasks.spawn(self._call(session))

    async def stop(self) -> None:
        await self._tasks.cancel()

    def _may_try(self, peer: PeerId) -> bool:
        return not self._hidden and self._network.monotonic() - self._tried.get(peer, float("-inf")) >= PAUSE_S

    async def _call(self, session: Session) -> None:
        with _told(session):
            async with asyncio.timeout(AGREE_S):
                own = await self._links.seen_by(session.remote)
                stream = await session.open_stream(PROTOCOL)
                await _write_address(stream, own)
                theirs = await _read_address(stream)
            await self._punch(session, theirs)

    async def _serve(self, session: Session, stream: Stream) -> None:
        if session.initiator or not session.connection.path.relayed or not self._may_try(session.peer):
            stream.reset(0)
            return
        with _told(session):
            async with asyncio.timeout(AGREE_S):
                theirs = await _read_address(stream)
                own = await self._links.seen_by(session.remote)
                await _write_address(stream, own)
            await self._punch(session, theirs)

    async def _punch(self, session: Session, to: Address) -> None:
        """Once where two who call each other have agreed in both sessions, of which one is to end: so neither the
        roles nor the path depend on which it was."""
        peer = session.peer
        if not self._usable(to) or not self._may_try(peer):
            return
        self._tried.pop(peer, None)
        self._tried[peer] = self._network.monotonic()
        if len(self._tried) > MAX_PEERS:
            del self._tried[next(iter(self._tried))]
        stream = await self._connect(session, to)
        if stream is None:
            return
        address = link_address(stream.remote)
        link = await self._links.punched(stream, server=peer < self._own, peer=peer, address=address)
        log.info("tcp_punched", peer=str(peer), address=str(to))
        session = self._session(peer) or session
        session.connection.on_closed.append(lambda _reason: link.close())
        self.made.add(address)
        session.connection.add_path(self._endpoint.path_to(address))
        try:
            await self._links.carry_punched(link)
        finally:
            self.made.discard(address)

    async def _connect(self, session: Session, to: Address) -> TcpStream | None:
        until, why = self._network.monotonic() + CONNECT_S, list[str]()
        while (left := until - self._network.monotonic()) > 0 and self._budget.spend(to, self._network.monotonic()):
            try:
                async with asyncio.timeout(left):
                    return await self._network.connect_tcp(to, local_port=self._links.port, resets=True)
            except OSError as exc:  # a time-out is one
                why.append(f"{CONNECT_S - left:.2f} s: {exc.strerror or type(exc).__name__}")
            # Of different length on the two sides: else each could knock whenever the other has just stopped
            await asyncio.sleep(self._network.rng.uniform(*AGAIN_S))
        log.info("tcp_punch_failed", peer=str(session.peer), address=str(to), why=why)
        return None


@contextlib.contextmanager
def _told(session: Session) -> Iterator[None]:
    """A punch that comes to nothing leaves a relayed session, and one line of the log."""
    try:
        yield
    except (P2PError, OSError, EOFError, BadPacket) as exc:
        log.info("tcp_punch_given_up", peer=str(session.peer), why=str(exc) or type(exc).__name__)


async def _write_address(stream: Stream, own: Address) -> None:
    packed = own.pack()
    await stream.write(bytes((len(packed),)) + packed)
    stream.finish()


async def _read_address(stream: Stream) -> Address:
    length = (await stream.readexactly(1))[0]
    if length not in (6, 18):
        raise BadPacket("bad_length")
    return read_address_untrusted(bytes((length,)) + await stream.readexactly(length))
