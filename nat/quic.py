"""The node's QUIC endpoint: both client and server on the shared socket, by peer id.

Datagrams find their connection by destination connection id, and only by the path that the connection uses; others
are dropped and counted, unless they prove that the other side has moved. First packets pass the admission policy
(nat/retry.py). A first packet that cannot be decrypted leaves nothing behind.

Difference from RFC 9000: unknown versions and unknown connection ids get no answer at all (no version negotiation, no
stateless reset): a peer that lost its state is noticed by its silence within `lost_after_s`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from types import MappingProxyType

from qh3._hazmat import pull_quic_header
from qh3.quic.packet import encode_quic_retry

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket, P2PError, P2PTimeoutError
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import Network
from p2pnode.core.segments import split_untrusted
from p2pnode.nat.attempts import first_proven
from p2pnode.nat.certificate import make_certificate
from p2pnode.nat.close import CloseCode, CloseReason
from p2pnode.nat.connection import Connection
from p2pnode.nat.driver import Driver
from p2pnode.nat.errors import ConnectionClosedError
from p2pnode.nat.handshake import ClientHandshake, ServerHandshake
from p2pnode.nat.headers import CID_BYTES, FIRST_LONG, is_first_packet, is_run_untrusted
from p2pnode.nat.path import Carrier, MuxCarrier, Path
from p2pnode.nat.paths import Paths
from p2pnode.nat.proof import NONCE_BYTES
from p2pnode.nat.quic_settings import QuicSettings, QuicStatistics
from p2pnode.nat.refusal import refusal
from p2pnode.nat.retry import AdmissionPolicy, RetryTokens, Verdict, party_of
from p2pnode.nat.transport import Configurations, Transport, TransportError

__all__ = ["QuicEndpoint", "QuicSettings", "QuicStatistics"]


# qh3 grants an unproven address three times the bytes of the QUIC packets it could read; padding outside of packets, as
# aioquic's, does not count, and then the first flight never fits. Such a client proves its address by a Retry instead.
MIN_COUNTED_BYTES = 1100


class QuicEndpoint:
    """Connects to peers by id, and takes connections; both sides proven before anybody sees them."""

    def __init__(
        self,
        *,
        key: NodeKey,
        network: Network,
        send: Callable[[bytes, Address], None],
        network_tag: bytes,
        settings: QuicSettings | None = None,
        send_many: Callable[[Sequence[bytes], Address], None] | None = None,
    ) -> None:
        """`send`, `send_many`: the mux's; never raise. `network_tag`: 8 bytes, `core.network_id.network_tag`."""
        if len(network_tag) != 8:
            raise ValueError("a network tag has 8 bytes")
        self.key = key
        self.network = network
        self._mux = MuxCarrier(send, send_many)
        self.network_tag = network_tag
        self.settings = settings or QuicSettings()
        self.alpn = f"p2pnode/1/{network_tag.hex()}"
        self.on_connection: Callable[[Connection], None] | None = None
        self.accepts: Callable[[Path], bool] = lambda _path: True
        """Whether handshakes may begin by this path; where not, nobody learns that we are here."""
        self._certificate = make_certificate(key, network.token_bytes)
        self._configurations = Configurations(
            self.alpn, self.settings.idle_timeout_s, self.settings.initial_rtt_s, self._certificate
        )
        self._tokens = RetryTokens(network.token_bytes)
        self._policy = AdmissionPolicy(
            self.settings.retry_above, self.settings.max_unproven, self.settings.max_unproven_per_prefix
        )
        self._by_cid: dict[bytes, Connection] = {}
        # A client repeats its own choice of id until it hears ours; it could choose another connection's, so these
        # are known only together with the path.
        self._first_cids: dict[tuple[Path, bytes], Connection] = {}
        self._first_cid_of: dict[Driver, tuple[Path, bytes]] = {}
        # Sets that keep their order: it is the order in which connections are closed and displaced.
        self._connections: dict[Driver, None] = {}
        self._by_tag: dict[bytes, Paths] = {}
        self._unproven: dict[Driver, None] = {}
        self._open: dict[Driver, None] = {}
        self._dropped: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._accepted = self._connected = self._retries = 0
        self.moved = 0
        """Times that a connection followed its other side to a new address."""
        self._closed = False

    async def connect(
        self,
        peer: PeerId,
        to: Address | Path,
        *,
        timeout: float = 5.0,
        early: bool = False,
        spend: Callable[[Address], bool] | None = None,
    ) -> Connection:
        """Return a connection on which both sides are proven; two round trips. `to`: an address means the mux's path.

        `early`: return after one, when the server is proven and our proof has left. What is written then (4 KiB, the
        rest waits) arrives with the proof; if that is refused, or not accepted within `proof_timeout_s`, the connection
        ends and its streams raise. `Connection.wait_accepted` waits for the rest.
        `spend`: asked before each datagram until the address answers, such as `IceSession.spend`; None: no limit but
        time (10 datagrams in 5 s).
        Raise WrongKeyError (facts: expected, answered, address) when somebody else answers or nobody that proves a
        key; RefusedError; WrongNetworkError; P2PTimeoutError. Cancelling gives up and leaves nothing behind.
        """
        if self._closed:
            raise ConnectionClosedError("This node is stopping.", reason="closed")
        path = to if isinstance(to, Path) else self.path_to(to)
        address = path.remote
        begun: list[Connection] = []

        def begin() -> Connection:
            transport = Transport.client(
                self._configurations.choose(True, len(self._connections)), self.network.monotonic()
            )
            connection = Connection(self, transport, path, ClientHandshake(self.key, self.network_tag))
            connection.expected = peer
            connection.spend = spend
            begun.append(connection)
            self._track(connection)
            connection.begin()
            return connection

        why, chosen = "cancelled", None
        try:
            async with asyncio.timeout(timeout):
                chosen = await first_proven(begin, early=early)
        except TimeoutError as exc:
            why = "timeout"
            raise P2PTimeoutError(
                f"Nobody answered at {address} within {timeout:g} s.", peer=str(peer), address=str(address)
            ) from exc
        except P2PError as exc:
            reason = next((each.close_reason for each in begun if each.close_reason is not None), None)
            raise refusal(exc, reason, peer, address) from exc
        finally:
            for each in begun:
                if each is not chosen and not each.closed:
                    each.abandon(CloseReason(CloseCode.CANCELLED, why, "local"))
        if chosen.closed:  # accepted, and closed in the same datagram or the same turn of the loop
            raise refusal(ConnectionClosedError("The connection is closed."), chosen.close_reason, peer, address)
        if early:
            chosen.expect_acceptance(self.settings.proof_timeout_s)
        return chosen

    def path_to(self, address: Address) -> Path:
        """Return the path to an address through the node's own sockets."""
        return Path(address, self._mux)

    def datagram_received(self, data: bytes, source: Address, carrier: Carrier | None = None) -> None:
        """Take one datagram of the QUIC kind that came by `carrier`, None: by the mux. Never raises."""
        carrier = carrier or self._mux
        # Nearly all are packets of an open connection, by its path: their id is all that is needed here.
        connection = self._by_cid.get(data[1 : 1 + CID_BYTES]) if data[:1] < FIRST_LONG else None
        if connection is not None and connection.path.is_from(source, carrier):
            connection.datagram_received(data)
            return
        try:
            header = pull_quic_header(data, 0, CID_BYTES)
        except (ValueError, OverflowError):
            self.dropped("malformed")
            return
        version, kind, cid, client_cid, token, packet_bytes = *header[:2], *header[3:6], header[9]
        connection = self._by_cid.get(cid) or self._first_cids.get((Path(source, carrier), cid))
        if connection is not None:
            if connection.path.is_from(source, carrier):
                connection.datagram_received(data)
            else:
                connection.datagram_from_elsewhere(data, Path(source, carrier))
        elif self._closed:
            self.dropped("closed")
        elif is_first_packet(version, kind, len(data), cid) and self.accepts(Path(source, carrier)):
            self._first_packet(data, Path(source, carrier), cid, client_cid, token, packet_bytes)
        else:
            self.dropped("unknown_connection" if version in (None, 1) else "unknown_version")

    def probe_received(self, data: bytes, source: Address, carrier: Carrier | None = None) -> None:
        """Take a path probe, its answer, or a repair packet (first byte 0x0D). Never raises."""
        try:
            paths = self._by_tag.get(data[2:10])
            if paths is None:
                raise BadPacket("unknown_tag")
            paths.datagram_received_untrusted(data, Path(source, carrier or self._mux))
        except BadPacket as exc:
            self.dropped(exc.reason)

    def datagrams_received(self, buffer: bytes, size: int, source: Address) -> None:
        """Take datagrams of the QUIC kind that came together by the mux, each of `size` bytes or, the last, fewer.

        Those of one open connection on its path go to qh3 in one piece; any others one by one. Never raises.
        """
        connection = self._by_cid.get(buffer[1 : 1 + CID_BYTES])
        if connection is not None and connection.takes_together(source, self._mux) and is_run_untrusted(buffer, size):
            connection.datagrams_received(buffer, size)
        else:
            for data in split_untrusted(buffer, size):
                self.datagram_received(data, source)

    def nudge(self, path: Path) -> None:
        """Let attempts by this path that heard nothing yet send again at once: a check says that it is open now."""
        for connection in list(self._connections):
            if connection.initiator and connection.path == path:
                connection.nudge()

    def close(self) -> None:
        """Close every connection, telling the other sides; nothing of this endpoint is left in the loop."""
        self._closed = True
        for connection in list(self._connections):
            connection.abandon(CloseReason(CloseCode.GOING_AWAY, "stopping", "local"))

    def connections(self) -> list[Connection]:
        """The open, proven ones."""
        return [connection for connection in self._open if isinstance(connection, Connection)]

    def statistics(self) -> QuicStatistics:
        return QuicStatistics(
            connections=len(self._open),
            unproven=self._policy.unproven,
            tracked=len(self._connections),
            accepted=self._accepted,
            connected=self._connected,
            retries_sent=self._retries,
            dropped=MappingProxyType(dict(self._dropped)),
            failed=MappingProxyType(dict(self._failed)),
        )

    # incoming

    def _first_packet(
        self, data: bytes, path: Path, cid: bytes, client_cid: bytes, token: bytes, packet_bytes: int
    ) -> None:
        source = path.remote
        now = self.network.monotonic()
        original_cid, retry_cid = cid, None
        if token:
            try:
                original_cid, retry_cid = self._tokens.read_untrusted(token, source, now)
            except BadPacket as exc:
                self.dropped(exc.reason)
                return
            if retry_cid != cid:
                self.dropped("bad_token")
                return
        verdict = self._policy.judge(path, has_token=retry_cid is not None)
        if verdict is Verdict.DISPLACE:
            self._displace_unproven()
        if verdict is Verdict.DROP:
            self.dropped("too_many_unproven")
        elif verdict is Verdict.RETRY or (retry_cid is None and packet_bytes < MIN_COUNTED_BYTES):
            self._send_retry(path, cid, client_cid, now)
        else:
            self._accept(data, path, cid, original_cid, retry_cid)

    def _displace_unproven(self) -> None:
        heaviest = self._policy.heaviest()
        of_it = [c for c in self._unproven if party_of(c.first_path) == heaviest]
        if of_it:
            self.dropped("unproven_displaced")
            min(of_it, key=lambda c: c.opened_at).abandon(CloseReason(CloseCode.TOO_MANY, "too many", "local"))

    def _make_room(self, newcomer: Connection) -> bool:
        """Whether one more incoming connection may stay; keys cost nothing, addresses do.

        When full, the party with the most incoming ones loses its longest unused to a newcomer whose party has fewer.
        """
        if len(self._open) < self.settings.max_connections:
            return True
        by_party: dict[object, list[Connection]] = {}
        for connection in self.connections():
            if not connection.initiator:
                by_party.setdefault(party_of(connection.path), []).append(connection)
        heaviest = max(by_party.values(), key=len, default=[])
        if len(heaviest) <= len(by_party.get(party_of(newcomer.path), ())) + 1:
            return False
        self.dropped("connection_displaced")
        min(heaviest, key=lambda c: c.last_used_at).close(CloseCode.TOO_MANY, "too many connections")
        return True

    def _send_retry(self, path: Path, cid: bytes, client_cid: bytes, now: float) -> None:
        retry_cid = self.network.token_bytes(CID_BYTES)
        self._retries += 1
        packet = encode_quic_retry(
            version=1,
            source_cid=retry_cid,
            destination_cid=client_cid,
            original_destination_cid=cid,
            retry_token=self._tokens.make(path.remote, cid, retry_cid, now),
        )
        path.send(packet)

    def _accept(self, data: bytes, path: Path, cid: bytes, original_cid: bytes, retry_cid: bytes | None) -> None:
        try:
            transport = Transport.server(
                self._configurations.choose(False, len(self._connections)), original_cid, retry_cid
            )
        except TransportError:
            self.dropped("quic_error")
            return
        nonce = self.network.token_bytes(NONCE_BYTES)
        handshake = ServerHandshake(self.key, self.network_tag, self._certificate.der, nonce)
        connection = Connection(self, transport, path, handshake)
        self._track(connection)
        self._unproven[connection] = None
        self._policy.began(path)
        self._first_cids[path, cid] = connection
        self._first_cid_of[connection] = (path, cid)
        connection.begin()
        connection.datagram_received(data)
        if not transport.heard_authentic:
            self.dropped("bad_initial")
            connection.abandon(CloseReason(CloseCode.PROTOCOL, "bad initial", "local"))

    # what connections call

    def connection_proven(self, connection: Connection) -> None:
        self._ended_unproven(connection)
        self._forget_first_cid(connection)
        if connection.first_path.carrier.peer not in (None, connection.peer):
            connection.close(CloseCode.WRONG_KEY, "another peer's flow")
            return
        if not connection.initiator and (self._closed or not self._make_room(connection)):
            connection.close(CloseCode.TOO_MANY, "too many connections")
            return
        self._open[connection] = None
        if connection.initiator:
            self._connected += 1
            return
        self._accepted += 1
        if self.on_connection is not None:
            self.call(self.on_connection, connection)

    def connection_closed(self, connection: Driver) -> None:
        reason = connection.close_reason
        if connection.path_tag is not None:
            self._by_tag.pop(connection.path_tag, None)
        if connection not in self._open and reason is not None:
            self._failed[reason.reason if reason.origin == "local" else reason.origin] += 1
        self._open.pop(connection, None)
        self._ended_unproven(connection)

    def connection_released(self, connection: Driver) -> None:
        self._connections.pop(connection, None)
        self._forget_first_cid(connection)
        for cid in connection.transport.cids:
            self._by_cid.pop(cid, None)

    def paths_opened(self, paths: Paths) -> None:
        self._by_tag[paths.key.tag] = paths

    def cid_issued(self, connection: Connection, cid: bytes) -> None:
        connection.transport.cids.add(cid)
        self._by_cid[cid] = connection

    def cid_retired(self, connection: Connection, cid: bytes) -> None:
        connection.transport.cids.discard(cid)
        self._by_cid.pop(cid, None)

    def dropped(self, reason: str) -> None:
        self._dropped[reason] += 1

    def call(self, callback: Callable[..., object], *args: object) -> None:
        """Call an application's callback; what it raises goes to the loop's handler, never into the packet path."""
        try:
            callback(*args)
        except Exception as exc:  # noqa: BLE001 - any error of the application, handed on whole
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a connection's callback failed", "exception": exc}
            )

    # helpers

    def _track(self, connection: Connection) -> None:
        self._connections[connection] = None
        self._by_cid[connection.transport.cid] = connection

    def _ended_unproven(self, connection: Driver) -> None:
        if connection in self._unproven:
            self._unproven.pop(connection, None)
            self._policy.ended(connection.first_path)

    def _forget_first_cid(self, connection: Driver) -> None:
        first = self._first_cid_of.pop(connection, None)
        if first is not None:
            self._first_cids.pop(first, None)
