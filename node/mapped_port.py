"""One port at one gateway, by one address family: found, proven, renewed, given back.

The gateway's word alone is worth nothing, nor is one node's: an outside address is `believed` when a node that we
never sent to, or that could not get in before, dialled it, and most of several nodes that we chose did; its IP is where
these see us, not what the gateway says (behind two routers it may be 10.0.0.2). For IPv6 the port is a pinhole for an
address that is our own, and the DHT's own check judges it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from p2pnode.core.address import Address, Realm, realm_of
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import Gateway, Network
from p2pnode.dht.dialback import Evidence, Role
from p2pnode.nat import natpmp, pcp
from p2pnode.nat.gateway import (
    CONTROL_PORT,
    GatewayClient,
    Mapper,
    MappingRefusedError,
    UpnpMapper,
    find_mapper,
    find_upnp,
)
from p2pnode.nat.portmap import Epoch, MappingPlan
from p2pnode.port_witnesses import PortWitnesses

__all__ = ["MappedPort", "MappingDht", "PortMappingStatus"]

log = structlog.get_logger(__name__)

ANNOUNCE_GROUP = Address("224.0.0.1", 5350)  # RFC 6886, section 3.2.1; RFC 6887, section 14.1.1
CHECK_S = 900.0  # a believed port is checked again as often as a DHT server is
HURRY_PAUSE_S = 30.0  # between checks that others' reports of our address cause
DOUBTED_S = 120.0  # until a believed port is tried again that did not prove itself; a line is often gone for less
DOUBTS = 4  # in a row that are followed up so soon: whoever lies each time costs 4 checks more
ALONE_S = 10.0  # without anybody who could look first, the port is asked for all the same: others may be told of it
CLOCK_S, SLEPT_S = 30.0, 30.0  # how often the clocks are compared, and what difference means that the machine slept
ANNOUNCED_S = 1.0  # after a restart all hosts of a network are told at once: they ask within this time, not together


class MappingDht(Protocol):
    """What is needed of the DHT."""

    async def dial_back_at(self, port: int, *, timeout: float = 3.0) -> Evidence:
        """Have nodes dial our outside IPv4 address at a port."""

    async def learn_filter(self, *, is_ipv6: bool = False, timeout: float = 3.0) -> None:
        """Find out what comes in unasked."""

    def check_again(self, *, is_ipv6: bool) -> None:
        """Check soon whether we can be reached."""

    def reached(self, realm: Realm, *, is_ipv6: bool) -> bool:
        """Whether strangers can reach us where we send from."""


@dataclass(frozen=True)
class PortMappingStatus:
    """`state`: `off`, `not-needed`, `no-gateway`, `searching`, `silent`, `refused`, `unproven`, `believed`; `reason`: a
    sentence. `external`: as it is published when believed, else as the gateway says. `lifetime_left_s`: None without a
    mapping."""

    state: str
    reason: str
    protocol: str | None = None
    gateway: str | None = None
    internal: str | None = None
    external: str | None = None
    lifetime_left_s: float | None = None

    @property
    def believed(self) -> bool:
        return self.state == "believed"


class MappedPort:
    """Begins with `run`, ends with its cancellation and `release`."""

    def __init__(
        self, *, network: Network, dht: MappingDht, witnesses: PortWitnesses, gateway: Gateway, internal: Address,
        nonce: Callable[[Address], bytes], outside_ip: Callable[[], str | None], has_contacts: Callable[[], bool],
        needed: Callable[[], bool], allow_documentation: bool, changed: Callable[[], None],
    ) -> None:  # fmt: skip
        """`outside_ip`: our outside IPv4 address as the DHT's nodes agree on it. `needed`: whether strangers cannot
        dial us anyway. `changed`: called when `believed` is another."""
        self._network, self._dht, self._witnesses = network, dht, witnesses
        self.gateway, self.internal = gateway, internal
        self._nonce, self._outside_ip = nonce, outside_ip
        self._has_contacts, self._needed = has_contacts, needed
        self._allow_documentation, self._changed = allow_documentation, changed
        self.believed: Address | None = None
        """The outside IPv4 address that strangers can dial."""
        self._is_ipv6 = internal.is_ipv6
        self._epoch = Epoch()
        self._client = GatewayClient(network, gateway, self._answered)
        self._plan = MappingPlan(network.monotonic())
        self._role = Role(serves=False, interval=CHECK_S)
        self._mapper: Mapper | None = None
        self._evidence: Evidence | None = None
        self._seen_there, self._checked_at, self._doubts = False, float("-inf"), 0
        self._state, self._reason = "searching", "Asking the router for a port."
        self._wake = asyncio.Event()
        self._wall_ahead_s = network.wall() - network.monotonic()

    # Life

    async def run(self) -> None:
        """Find a protocol, keep a port; for ever, until cancelled."""
        while True:
            while not self._needed():
                self._say("not-needed", "Strangers can dial this node without it, as far as is known.")
                await self._pause(float("inf"))
            mappers = await find_mapper(self._client, self._nonce)
            if mappers:
                await self._look_first(mappers[0])
                await self._obtain(mappers)
            else:
                self._say("silent", f"The router {self.gateway.ip} answers neither PCP, NAT-PMP nor UPnP.")
                self._plan.failed(self._network.monotonic(), silent=True)
            if self._plan.lease is not None:
                await self._hold()
            while self._network.monotonic() < self._plan.due_at:
                await self._pause(self._plan.due_at)

    async def release(self) -> None:
        """Give the port back. Half a second at most with UDP's protocols."""
        mapper, lease = self._mapper, self._plan.lease
        self._plan.lease = self._mapper = self.believed = None
        if mapper is not None and lease is not None:
            await mapper.unmap(self.internal, lease.grant)
            log.info("port_mapping_released", protocol=mapper.protocol, port=lease.grant.port)

    def forget(self) -> None:
        """The network is another one: there is nobody left to give it back to."""
        self._plan.lease = None
        self._believe(None)

    def look(self) -> None:
        """Something was learnt: who is there, how we are seen."""
        if self.believed is not None and (seen := self._outside_ip()) not in (None, self.believed.ip):
            log.info("port_mapping_outside_moved", address=str(self.believed), seen=seen)
            self._believe(None)
            self._role.addresses_changed(self._network.monotonic())
            self._plan.restarted(self._network.monotonic())
        if self._evidence is Evidence.NOBODY and self._has_contacts():
            self._role.joined(self._network.monotonic())
        self._wake.set()

    def seen(self, own: Address) -> None:
        """A node sees us at `own`. Where that was the mapped port and is no more, the router may have forgotten."""
        if self.believed is None or not self._is_public(own.ip) or own.is_ipv6 != self._is_ipv6:
            return
        if own == self.believed:
            self._seen_there = True
        elif self._seen_there:
            self._seen_there = False
            self._role.hurry(max(self._network.monotonic(), self._checked_at + HURRY_PAUSE_S))
            self._wake.set()

    def status(self) -> PortMappingStatus:
        lease, state, reason = self._plan.lease, self._state, self._reason
        if lease is None or self._mapper is None:
            return PortMappingStatus(state, reason, gateway=self.gateway.ip, internal=str(self.internal))
        external = self.believed or Address(lease.grant.ip or "0.0.0.0", lease.grant.port)
        if self._is_ipv6 and self._dht.reached(Realm.PUBLIC, is_ipv6=True):
            state, reason = "believed", "Nodes dialled this address."
        left = max(0.0, lease.expires_at - self._network.monotonic())
        return PortMappingStatus(
            state, reason, self._mapper.protocol, self.gateway.ip, str(self.internal), str(external), left
        )

    # Parts

    async def _look_first(self, mapper: Mapper) -> None:
        """Before the port is open: see what comes in without it. What an earlier run left open is closed for that."""
        if self._is_ipv6:
            return
        deadline = self._network.monotonic() + ALONE_S
        while not self._has_contacts() and self._network.monotonic() < deadline:
            await self._pause(deadline)
        await mapper.forget(self.internal)
        if self._has_contacts():
            await self._dht.learn_filter(is_ipv6=False)

    async def _obtain(self, mappers: list[Mapper]) -> None:
        """Ask by the first protocol that grants. UPnP comes last: whoever forges a datagram of the gateway's must not
        make us believe that it speaks PCP or NAT-PMP, and nothing else."""
        reason = ""
        while mappers:
            for mapper in mappers:
                self._mapper = mapper
                reason = await self._ask(mapper)
                if not reason:
                    return
            mappers = [] if isinstance(mapper, UpnpMapper) else await find_upnp(self._client)
        self._mapper = None
        self._say("refused", f"The router {self.gateway.ip} refuses to open a port: {reason}.")
        self._plan.failed(self._network.monotonic(), silent=False)

    async def _ask(self, mapper: Mapper) -> str:
        """Get or renew; return the reason of a refusal, empty for none."""
        restarts = self._plan.restarts
        try:
            grant = await mapper.map(self.internal, self._plan.wanted_port(self.internal))
        except MappingRefusedError as refusal:
            log.info("port_mapping_refused", protocol=mapper.protocol, reason=refusal.reason)
            return refusal.reason
        now = self._network.monotonic()
        moved = self._plan.granted(grant, now)
        if moved:
            log.info("port_mapping_granted", protocol=mapper.protocol, address=f"{grant.ip}:{grant.port}")
            self._believe(None)
            self._role.addresses_changed(now)
            self._say("unproven", "No node has tried this address yet.")
        if moved or self._plan.restarts != restarts:
            self._role.check_at = now
            if self._is_ipv6:
                self._dht.check_again(is_ipv6=True)
        return ""

    async def _hold(self) -> None:
        """Renew and check until the port is lost."""
        mapper = self._mapper
        assert mapper is not None  # noqa: S101 - a lease comes from one
        with contextlib.ExitStack() as stack:
            if not self._is_ipv6:
                with contextlib.suppress(OSError):  # without announcements a restart is seen at the next renewal
                    socket = await self._network.open_multicast(ANNOUNCE_GROUP, self._announced)
                    stack.callback(socket.close)
            while self._plan.lease is not None:
                now = self._network.monotonic()
                if self._plan.due_at <= now:
                    reason = await self._ask(mapper)
                    if reason:
                        self._plan.failed(self._network.monotonic(), silent=reason == "silent")
                elif not self._is_ipv6 and self._role.check_at <= now:
                    await self._check(self._plan.lease.grant.ip, self._plan.lease.grant.port)
                else:
                    checked = self._role.check_at if not self._is_ipv6 else float("inf")
                    await self._pause(min(self._plan.due_at, checked))
        self._mapper = None
        self._believe(None)
        self._say("refused", f"The router {self.gateway.ip} did not renew the port.")

    async def _check(self, granted_ip: str | None, port: int) -> None:
        """Have strangers dial the port, and nodes that we choose; believe or doubt."""
        self._checked_at = self._network.monotonic()
        evidence, seen = await asyncio.gather(self._dht.dial_back_at(port), self._witnesses.ask(port))
        lease, now = self._plan.lease, self._network.monotonic()
        if lease is None or lease.grant.port != port:
            return
        ip = seen.ip if seen.ip is not None and self._is_public(seen.ip) else None
        if self._outside_ip() not in (None, ip):
            ip = None
        if evidence is Evidence.PROVEN and ip is None:  # by a helper's word alone, which may play with the router
            evidence = Evidence.SILENT if seen.refuted else Evidence.INCONCLUSIVE
        before = self._role.serves
        self._evidence = evidence
        self._role.checked(evidence, now)
        log.info("port_mapping_checked", evidence=evidence.value, port=port, believed=self._role.serves)
        if self._role.serves:
            if evidence is Evidence.PROVEN and ip is not None:
                self._doubts = 0
                self._believe(Address(ip, port))
            elif self._doubts < DOUBTS:
                self._doubts += 1
                self._role.hurry(now + DOUBTED_S)
            return
        self._believe(None)
        self._say("unproven", self._doubt(evidence, granted_ip))
        if before:
            self._plan.restarted(now)

    def _doubt(self, evidence: Evidence, ip: str | None) -> str:
        if evidence is Evidence.NOBODY:
            return "Nobody is known who could try this address."
        if ip is not None and not self._is_public(ip):
            return (
                f"The router is behind another one (its outside address {ip} is not public), and no node got through."
            )
        if evidence is Evidence.INCONCLUSIVE:
            return "Too few nodes got through, or only such as this node had sent to; it is tried again."
        return "The router says that the port is open, and no node got through."

    def _is_public(self, ip: str) -> bool:
        return realm_of(ip, allow_documentation=self._allow_documentation) is Realm.PUBLIC

    def _believe(self, address: Address | None) -> None:
        if address is not None:
            self._say("believed", "Other nodes dialled this address, and got through.")
        if address != self.believed:
            self.believed = address
            log.info("port_mapping_believed", address=str(address))
            if not self._is_ipv6:
                self._dht.check_again(is_ipv6=False)
            self._changed()

    def _say(self, state: str, reason: str) -> None:
        self._state, self._reason = state, reason

    async def _pause(self, until: float) -> None:
        """Wait until then, or until something was learnt; sleep of the machine is noticed on the way."""
        self._wake.clear()
        while not self._wake.is_set() and (left := until - self._network.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, CLOCK_S)):
                    await self._wake.wait()
            if self._plan.lease is not None and self._slept():
                # Our timers stood still, the router's did not: what it gave may have ended.
                self._plan.restarted(self._network.monotonic())
                self._role.hurry(self._network.monotonic())
                return

    def _slept(self) -> bool:
        before, self._wall_ahead_s = self._wall_ahead_s, self._network.wall() - self._network.monotonic()
        return abs(self._wall_ahead_s - before) > SLEPT_S

    # The gateway's clock

    def _answered(self, epoch: int) -> None:
        if self._epoch.seen(self._network.monotonic(), epoch):
            log.info("port_mapping_gateway_restarted", gateway=self.gateway.ip)
            self._plan.restarted(self._network.monotonic())

    def _announced(self, data: bytes, source: Address) -> None:
        """The gateway says, to everybody, that it was restarted. A hint: its answer to our question counts."""
        if source != Address(self.gateway.ip, CONTROL_PORT):
            return
        try:
            version = data[:1]
            read = pcp.parse_answer_untrusted if version == bytes((pcp.VERSION,)) else natpmp.parse_answer_untrusted
            epoch = read(data).epoch
        except BadPacket:
            return
        now = self._network.monotonic()
        if self._epoch.contradicts(now, epoch) and self._plan.hinted(now):
            self._plan.due_at = now + ANNOUNCED_S * self._network.rng.random()
            self._wake.set()
