"""Relaying, both ends: the service that a public node gives to others, and our own flows through others' relays.

A flow is a carrier of paths (`nat.path`): QUIC's datagrams go into frames to the relay. It is opened by a sealed
request of the DHT, which proves who we are and where; the peer does the same, and the relay joins the two
(`relay_table`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

import structlog

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht import Dht, KnownContact
from p2pnode.nat import Path, PathKind
from p2pnode.relay_table import RelaySettings, RelayStatistics, RelayTable
from p2pnode.relay_wire import SEND, deliver_frame, read_frame_untrusted, send_frame

__all__ = ["RelayFlow", "Relaying"]

log = structlog.get_logger(__name__)

LEASE_S = 100.0
RENEW_S = 25.0  # below the shortest common mapping time-out (30 s), as for rendezvous nodes
OPEN_TIMEOUT_S = 3.0
UNUSED_S = 20.0  # a flow that no connection uses for so long is closed
MAX_USAGE = 256  # peers whose traffic through relays is remembered
MAX_FLOWS = 256  # of our own; a caller's offers are budgeted, each opens two at most
PLACES = 32  # that a relay gives a node
# Strangers who call, and do come: so many at one relay, and in all; the others are for contacts and for our own calls.
MAX_STRANGERS_HERE = PLACES // 2
MAX_STRANGERS = MAX_FLOWS // 2


class RelayFlow:
    """Our side of a flow; a carrier."""

    kind: PathKind = "relay"

    def __init__(
        self, relay: KnownContact, peer: PeerId, number: int, send: Callable[[bytes, Address], None],
        send_many: Callable[[Sequence[bytes], Address], None], *, calls: bool,
    ) -> None:  # fmt: skip
        """`calls`: for a call of ours."""
        self.calls = calls
        self.relay, self.peer, self.number = relay, peer, number
        self.path = Path(relay.address, self)
        self.paired = False
        self.seen = b""  # our address, as the relay sees it
        self.closed = False
        self.bytes_sent = self.bytes_received = 0
        self._send, self._send_many = send, send_many

    def send(self, data: bytes, to: Address) -> None:
        if not self.closed:
            self.bytes_sent += len(data)
            self._send(send_frame(self.number, data), to)

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        if not self.closed:
            self.bytes_sent += sum(map(len, datagrams))
            self._send_many([send_frame(self.number, data) for data in datagrams], to)

    def __repr__(self) -> str:
        return f"<RelayFlow {self.number} through {self.relay.address} to {self.peer}>"


class Relaying:
    """All relaying of a node."""

    def __init__(
        self,
        *,
        network: Network,
        dht: Dht,
        send: Callable[[bytes, Address], None],
        send_many: Callable[[Sequence[bytes], Address], None],
        settings: RelaySettings,
        received: Callable[[bytes, Address, RelayFlow], None],
        paired: Callable[[Path], None],
        in_use: Callable[[RelayFlow], bool],
        known: Callable[[PeerId], bool],
        ended: Callable[[RelayFlow, bool], None],
        renewed: Callable[[RelayFlow], None],
        line_changed: Callable[[], None],
    ) -> None:
        """`known`: whether a peer is a contact of the user's. `received`: a datagram came by a flow. `paired`: the peer
        is there now, what was sent before is lost.
        `in_use`: whether a connection needs the flow. `ended(flow, lost)`: `lost`: the relay has given it up, or died;
        else we have, for somebody who comes first. `renewed`: the relay knows where we are now.
        `line_changed`: a relay sees us elsewhere than before: our router has forgotten its mappings, or has another
        address."""
        self._network = network
        self._dht = dht
        self._send, self._send_many = send, send_many
        self._received = received
        self._paired = paired
        self._in_use, self._known = in_use, known
        self._ended, self._renewed, self._line_changed = ended, renewed, line_changed
        self.table = RelayTable(settings, network.token_bytes)
        self._flows: dict[tuple[Address, int], RelayFlow] = {}
        self._by_pair: dict[tuple[PeerId, NodeId], RelayFlow] = {}
        self._renewing: set[RelayFlow] = set()
        self._tasks = TaskSet()
        self._usage: OrderedDict[PeerId, list[int]] = OrderedDict()
        self._past = 0
        self.dropped = 0
        if settings.enabled:
            dht.on_relay = self._asked

    # the service, and frames

    def _asked(self, node: NodeId, other: NodeId, address: Address, lease: int) -> tuple[int, int, bool] | None:
        opened = self.table.open(node, other, address, lease, self._network.monotonic())
        if opened is None:
            return None
        if opened.told is not None:
            flow, at = opened.told
            self._send(deliver_frame(flow, b""), at)
        return opened.flow, opened.lease, opened.paired

    def frame_received(self, data: bytes, source: Address) -> None:
        """Take a frame with first byte 0x0B or 0x0C. Never raises."""
        try:
            kind, number, datagram = read_frame_untrusted(data)
            if kind == SEND:
                self._send(*self.table.forward_untrusted(number, datagram, source, self._network.monotonic()))
                return
        except BadPacket:
            self.dropped += 1
            return
        flow = self._flows.get((source, number))
        if flow is None:
            self.dropped += 1
        elif datagram:
            flow.bytes_received += len(datagram)
            self._received(datagram, source, flow)
        elif not flow.paired:
            flow.paired = True
            self._paired(flow.path)

    def statistics(self) -> RelayStatistics:
        """Of the service."""
        self.table.expire(self._network.monotonic())
        return self.table.statistics()

    # our own flows

    def usage(self, peer: PeerId) -> tuple[int, int]:
        """Return the bytes that went to a peer through relays, and those that came, since the start."""
        sent, received = self._usage.get(peer, (0, 0))
        flows = [flow for flow in self._by_pair.values() if flow.peer == peer]
        return sent + sum(flow.bytes_sent for flow in flows), received + sum(flow.bytes_received for flow in flows)

    def usage_of_all(self) -> int:
        """Return the bytes of all our flows, both directions, since the start."""
        return self._past + sum(flow.bytes_sent + flow.bytes_received for flow in self._by_pair.values())

    async def open(self, peer: PeerId, relay: KnownContact, *, calls: bool = False) -> RelayFlow | None:
        """Return a flow to `peer` through `relay`; the peer's may not be there yet. `calls`: we call it. None: refused,
        no answer, or a stranger too many."""
        if relay.node_id in (self._dht.key.node_id, peer.node_id):
            return None
        key = peer, relay.node_id
        known = self._by_pair.get(key)
        if known is not None:
            return known
        if not await self._make_room(relay, stranger=not calls and not self._known(peer)):
            return None
        granted = await self._dht.relay(relay, peer.node_id, lease_s=LEASE_S, timeout=OPEN_TIMEOUT_S)
        if granted is None:
            return None
        if (known := self._by_pair.get(key)) is not None:
            return known
        if (relay.address, granted.flow) in self._flows:
            return None  # another's number: what came by it would be taken for his
        flow = RelayFlow(relay, peer, granted.flow, self._send, self._send_many, calls=calls)
        flow.paired, flow.seen = granted.paired, granted.observed
        self._flows[relay.address, flow.number] = self._by_pair[key] = flow
        self._tasks.spawn(self._keep(flow))
        log.info("relay_flow_opened", peer=str(peer), relay=str(relay.address))
        return flow

    async def _make_room(self, relay: KnownContact, *, stranger: bool) -> bool:
        """Whether one more may be opened. Strangers who call and do not come must not use up our places: the oldest of
        them ends. Those who do come leave room for whom we know: the oldest stranger ends for him."""
        every = list(self._by_pair.values())
        here = [flow for flow in every if flow.relay.node_id == relay.node_id]
        strangers = [flow for flow in every if not flow.calls and not self._known(flow.peer)]
        strangers_here = [flow for flow in strangers if flow in here]
        if stranger:
            over = strangers_here if len(strangers_here) >= MAX_STRANGERS_HERE else []
            over = over or (strangers if len(strangers) >= MAX_STRANGERS else [])
            goes = [flow for flow in over if not self._in_use(flow)]
        else:
            over = here if len(here) >= PLACES else every if len(every) >= MAX_FLOWS else []
            goes = [flow for flow in over if flow in strangers or not self._in_use(flow)]
        if not over:
            return True
        if not goes:
            return False
        flow = min(goes, key=self._in_use)
        self._close(flow)
        self._ended(flow, False)
        ending = self._tasks.spawn(self._end(flow))
        if len(here) >= PLACES:
            await asyncio.wait((ending,))  # or the relay has no place yet
        return True

    async def _end(self, flow: RelayFlow) -> None:
        await self._dht.relay(flow.relay, flow.peer.node_id, lease_s=0, timeout=OPEN_TIMEOUT_S)

    def flows(self) -> list[RelayFlow]:
        return list(self._by_pair.values())

    def renew(self, flow: RelayFlow) -> None:
        """Nothing comes through: perhaps our router was restarted, and the relay does not know our new address."""
        if flow not in self._renewing:
            self._renewing.add(flow)
            self._tasks.spawn(self._renew_once(flow))

    async def stop(self) -> None:
        await self._tasks.cancel()

    async def _keep(self, flow: RelayFlow) -> None:
        """Renew while it is used and the relay answers."""
        pause = UNUSED_S
        while True:
            await asyncio.sleep(pause)
            if flow.closed:
                return
            if not self._in_use(flow):
                self._close(flow)
                await self._end(flow)
                return
            if not await self._renew(flow):
                return
            pause = RENEW_S

    async def _renew_once(self, flow: RelayFlow) -> None:
        try:
            await self._renew(flow)
        finally:
            self._renewing.discard(flow)

    async def _renew(self, flow: RelayFlow) -> bool:
        """Whether the relay still has it; when not, the flow has ended."""
        for _ in range(2):
            if flow.closed:
                return False
            granted = await self._dht.relay(flow.relay, flow.peer.node_id, lease_s=LEASE_S, timeout=OPEN_TIMEOUT_S)
            if granted is None or self._flows.get((flow.relay.address, granted.flow), flow) is not flow:
                continue
            if granted.flow != flow.number:  # the relay has forgotten us, or was restarted
                self._flows.pop((flow.relay.address, flow.number), None)
                flow.number = granted.flow
                self._flows[flow.relay.address, flow.number] = flow
            if granted.observed != flow.seen:
                flow.seen = granted.observed
                self._line_changed()
            self._renewed(flow)
            return True
        log.info("relay_flow_lost", peer=str(flow.peer), relay=str(flow.relay.address))
        self._close(flow)
        self._ended(flow, True)
        return False

    def _close(self, flow: RelayFlow) -> None:
        flow.closed = True
        self._flows.pop((flow.relay.address, flow.number), None)
        if self._by_pair.get((flow.peer, flow.relay.node_id)) is flow:
            del self._by_pair[flow.peer, flow.relay.node_id]
        used = self._usage.setdefault(flow.peer, [0, 0])
        used[0] += flow.bytes_sent
        used[1] += flow.bytes_received
        self._past += flow.bytes_sent + flow.bytes_received
        if len(self._usage) > MAX_USAGE:
            self._usage.popitem(last=False)
