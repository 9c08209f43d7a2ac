"""What stands between this node and the world: asked with packets, of nodes that answer STUN and take probes.

RFC 5780, "NAT Behavior Discovery Using STUN", section 4, with other nodes in place of a server with two addresses. All
is asked from sockets of its own: the node's has sent to so many that a router would let nearly everything in. About
seven seconds and a hundred datagrams; the lifetime of mappings takes minutes and is found in the background
(`mapping_life`). Judged in `netcheck_judge` and `netcheck_outside`, told in `netcheck_advice`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass

import structlog

from p2pnode.addresses import bound_ip
from p2pnode.core.address import Address, Realm, Scope, realm_of, scope_of
from p2pnode.core.errors import P2PError
from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.core.sealed_network import SEAL_OVERHEAD, SealedNetwork
from p2pnode.dht import Dht, KnownContact
from p2pnode.dht.messages import NONCE_BYTES
from p2pnode.dht.probing import ProbeResult
from p2pnode.dht.wire import dialled_frame
from p2pnode.interfaces import advertised, classify
from p2pnode.mapping_life import MappingLife
from p2pnode.nat.gateway import GatewayClient, survey
from p2pnode.netcheck_advice import advice_for
from p2pnode.netcheck_judge import LetIn, View, Voters, judge_allocation, judge_filtering, judge_mapping
from p2pnode.netcheck_outside import look_outside
from p2pnode.netcheck_report import FamilyReport, InterfaceReport, NetcheckReport
from p2pnode.netcheck_socket import Subject

__all__ = ["Netcheck"]

log = structlog.get_logger(__name__)

HELPERS = 5  # asked how they see us; two of them may lie
PROBERS = 4  # of these asked for probes, and to look at new sockets; one of them may lie
SERIES = 4  # new sockets for each of those
WAIT_S = 2.0  # for what may not come
HAIRPINS, HAIRPIN_PAUSE_S = 3, 0.3
PACKETS = (1500, 1492, 1480, 1460, 1440, 1420, 1400, 1380, 1340, 1280)  # bytes with all headers, tried at once
PACKET_WAIT_S = 1.0
UDP_HEADERS = {False: 28, True: 48}  # with IPv4's and IPv6's
LOWEST_PORT = 1024  # helpers probe none below


@dataclass(frozen=True, slots=True)
class _Heard:
    """A socket of ours that one helper has seen."""

    subject: Subject
    helper: KnownContact
    seen: Address


class Netcheck:
    """Of one node. Runs once at a time: who asks meanwhile gets the same report."""

    def __init__(
        self,
        *,
        network: Network,
        dht: Dht,
        life: MappingLife,
        allow_documentation: bool,
        portmap: bool,
        bound: Callable[[], Sequence[Address]],
        known_addresses: Callable[[], Awaitable[list[Address]]],
        spawn: Callable[[Coroutine[None, None, None]], object],
    ) -> None:
        """`portmap`: whether the router may be asked. `bound`: where our sockets are. `known_addresses()`: where nodes
        were, to try when none answers. `spawn`: runs work while the node does."""
        self._network, self._wire, self._dht, self._life = network, dht.network, dht, life
        self._documentation = allow_documentation
        self._known_addresses = known_addresses
        self._portmap, self._bound = portmap, bound
        self._spawn = spawn
        self._running: asyncio.Future[NetcheckReport] | None = None

    async def run(self) -> NetcheckReport:
        """Find out. Raise P2PError when the system gives no sockets, or the node stops."""
        if self._running is None:
            self._running = asyncio.get_running_loop().create_future()
            self._spawn(self._work(self._running))
        return await asyncio.shield(self._running)

    async def _work(self, done: asyncio.Future[NetcheckReport]) -> None:
        try:
            done.set_result(await self._run())
        except P2PError as exc:
            done.set_exception(exc)
        finally:
            self._running = None
            if not done.done():
                done.set_exception(P2PError("The node stops."))
            done.exception()  # retrieved: who asked may have gone

    async def _run(self) -> NetcheckReport:
        began = self._network.monotonic()
        report = NetcheckReport(interfaces=self._interfaces())
        try:
            checks = [_Family(self, ipv6) for ipv6 in (False, True)]
            report.ipv4, report.ipv6, outside_ip = await asyncio.gather(
                checks[0].run(), checks[1].run(), self._ask_gateway(report)
            )
            _count_routers(report, outside_ip)
            report.helpers = len({helper.node_id for check in checks for helper in check.helpers})
            report.packets = sum(check.packets for check in checks)
            answered = {node_id for check in checks for node_id in check.answered}
            if answered:
                report.udp, report.internet = True, "yes"
                report.evidence["udp"] = f"{len(answered)} of {report.helpers} nodes of the public network answered"
            else:
                known = [each for each in await self._known_addresses() if self._is_public(each)]
                outside, packets = await look_outside(self._network, self._wire, self._bound(), known)
                report.udp, report.internet = outside.udp, outside.internet
                report.evidence["udp"] = outside.evidence
                report.packets += packets
        except OSError as exc:
            raise P2PError(f"The system gives no socket to measure with: {exc.strerror}.") from exc
        report.seconds = self._network.monotonic() - began
        report.advice = advice_for(report)
        log.info("netcheck", udp=report.udp, packets=report.packets, seconds=round(report.seconds, 1))
        return report

    def _is_public(self, address: Address) -> bool:
        return realm_of(address.ip, allow_documentation=self._documentation) is Realm.PUBLIC

    async def _ask_gateway(self, report: NetcheckReport) -> str | None:
        """Which port-mapping protocols the router speaks; return what it calls its outside address."""
        if not self._portmap:
            report.evidence["portmap"] = "not asked: switched off (--no-portmap)"
            return None
        own = bound_ip(self._bound(), ipv6=False)
        gateways = [each for each in await self._network.gateways() if own in ("0.0.0.0", each.local)]
        if not gateways:
            report.portmap = dict.fromkeys(report.portmap, False)
            report.evidence["portmap"] = "there is no router to ask"
            return None
        found = await survey(GatewayClient(self._network, gateways[0], lambda _epoch: None))
        report.portmap = {name: name in found.speaks for name in report.portmap}
        spoken = ", ".join(sorted(found.speaks)) or "none of the three protocols"
        said = f"the router {gateways[0].ip} answers by {spoken}"
        if found.external_ip is not None:
            said += f", and calls its outside address {found.external_ip}"
        report.evidence["portmap"] = said
        return found.external_ip

    def _interfaces(self) -> tuple[InterfaceReport, ...]:
        every = self._network.interfaces()
        told = advertised(every)
        return tuple(InterfaceReport(i.name, classify(i).value, i.addresses, i in told) for i in every)


def _count_routers(report: NetcheckReport, outside_ip: str | None) -> None:
    """See whether the router's own outside address is how the world sees us; if not, another translates behind it."""
    ipv4 = report.ipv4
    if ipv4 is None or ipv4.nat is None:
        return
    if not ipv4.nat:
        report.routers = 0
    elif outside_ip is not None:
        report.routers = 1 if outside_ip == ipv4.public else 2


class _Family:
    """The checks of one address family. `answered`: helpers that did."""

    def __init__(self, owner: Netcheck, ipv6: bool) -> None:
        self._owner, self._ipv6 = owner, ipv6
        self._network, self._dht = owner._network, owner._dht
        self._subjects: list[Subject] = []
        self._bound_ip = bound_ip(owner._bound(), ipv6=ipv6)
        self._probes = 0
        self._fresh: dict[KnownContact, Address] = {}
        self.answered: set[NodeId] = set()
        self.helpers: list[KnownContact] = []

    @property
    def packets(self) -> int:
        return self._probes + sum(subject.sent for subject in self._subjects)

    async def run(self) -> FamilyReport | None:
        """Return None without an address that leads anywhere."""
        if self._bound_ip is None or not self._own_ips():
            return None
        self.helpers = self._dht.rendezvous_candidates(HELPERS, realm=Realm.PUBLIC, families=[self._ipv6])
        self.voters = Voters(helper.address for helper in self.helpers)
        report = FamilyReport()
        try:
            await self._look(report)
        finally:
            for subject in self._subjects:
                subject.close()
        self._owner._life.tell(report, ipv6=self._ipv6)
        return report

    async def _look(self, report: FamilyReport) -> None:
        probers = self.helpers[:PROBERS]
        heard = [each for each in await asyncio.gather(*(self._heard(helper) for helper in probers)) if each]
        tries = await asyncio.gather(*(self._let_in(each, probers) for each in heard))
        report.filtering, report.evidence["filtering"] = judge_filtering(tries, self.voters)
        views, local = [], []
        if heard:
            views, local = await self._views(heard[0]), [Address(ip, heard[0].subject.port) for ip in self._own_ips()]
        seen_by = {each.helper.address for each in heard} | {view.server for view in views}
        self.answered = {helper.node_id for helper in self.helpers if helper.address in seen_by}
        mapping = judge_mapping(views, local, self.voters, documentation=self._owner._documentation)
        report.mapping, report.public, report.nat = mapping.mapping, mapping.public, mapping.nat
        report.evidence["mapping"] = mapping.evidence
        series = [await self._series(each.helper) for each in heard]  # in turn: or sequences would mix
        report.allocation, report.step, report.evidence["allocation"] = judge_allocation(series)
        await self._largest(report, [each.helper for each in heard])
        if report.nat:
            await self._hairpin(report, [each for each in heard if each.seen.ip == report.public])
        elif report.nat is False:
            await self._firewall(report, probers)

    def _own_ips(self) -> list[str]:
        wanted = {Scope.PUBLIC} | ({Scope.DOCUMENTATION} if self._owner._documentation else set())
        if not self._ipv6:
            wanted |= {Scope.PRIVATE, Scope.SHARED}
        every = [ip for interface in self._network.interfaces() for ip in interface.addresses]
        return [ip for ip in every if (":" in ip) == self._ipv6 and scope_of(ip) in wanted]

    async def _subject(self, *, whole: bool = False) -> Subject:
        made = await Subject.open(self._owner._wire, self._bound_ip or "", whole=whole)
        self._subjects.append(made)
        return made

    async def _heard(self, helper: KnownContact) -> _Heard | None:
        """A new socket that has sent to nobody else."""
        subject = await self._subject()
        seen = await subject.ask(helper.address, WAIT_S)
        return None if seen is None else _Heard(subject, helper, seen)

    async def _views(self, heard: _Heard) -> list[View]:
        """How the others see the first socket, and how their second ports do."""
        others = [View(h.address, heard.seen) for h in self.helpers if h != heard.helper]
        others += [View(port, heard.seen, fresh=True) for port in self._fresh.values()]
        seen = await asyncio.gather(*(heard.subject.ask(each.server, WAIT_S) for each in others))
        found = [View(each.server, own, each.fresh) for each, own in zip(others, seen, strict=True) if own is not None]
        return [View(heard.helper.address, heard.seen), *found]

    async def _let_in(self, heard: _Heard, probers: Sequence[KnownContact]) -> LetIn:
        """What reaches a socket that has sent to one helper only."""
        found = LetIn(heard.helper.address)
        agreed = await self._probed(heard.subject, heard.seen, probers)
        for helper, source in agreed.items():
            if helper == heard.helper:
                found.other_port = source is not None and source.ip == helper.address.ip and source != helper.address
            else:
                found.strangers[helper.address] = source is not None and source.ip != heard.helper.address.ip
        return found

    async def _probed(
        self, subject: Subject, seen: Address, probers: Sequence[KnownContact]
    ) -> dict[KnownContact, Address | None]:
        """Have helpers send to a socket that is seen as `seen`; return for who did whence it came, None for not."""
        if seen.port < LOWEST_PORT:
            return {}
        nonces = [self._network.token_bytes(NONCE_BYTES) for _ in probers]
        for nonce in nonces:
            subject.expect(nonce)
        self._probes += len(probers)
        asks = [
            self._dht.probing.ask(helper, seen.port, nonce, fresh=True, timeout=WAIT_S)
            for helper, nonce in zip(probers, nonces, strict=True)
        ]
        results: list[ProbeResult | None] = await asyncio.gather(*asks)
        agreed = {}
        for helper, nonce, result in zip(probers, nonces, results, strict=True):
            if result is not None and result.observed.ip == seen.ip:  # else it went to another address of ours
                agreed[helper] = nonce
                self._fresh.setdefault(helper, Address(helper.address.ip, result.port))
        await subject.wait_for(set(agreed.values()), WAIT_S, all_of_them=True)
        return {helper: subject.arrived.get(nonce) for helper, nonce in agreed.items()}

    async def _series(self, helper: KnownContact) -> list[tuple[int, Address]]:
        """How new sockets, opened one after the other, look to one helper."""
        found = []
        for _ in range(SERIES):
            subject = await self._subject()
            seen = await subject.ask(helper.address, WAIT_S)
            if seen is None:
                break
            found.append((subject.port, seen))
        return found

    async def _largest(self, report: FamilyReport, answering: Sequence[KnownContact]) -> None:
        """Which is the largest packet that reaches a node whole; two are asked, one of them may be behind a tunnel."""
        try:
            subject = await self._subject(whole=True)
        except OSError:
            report.evidence["mtu"] = "this system cannot send packets that nobody fragments"
            return
        sealed = SEAL_OVERHEAD if isinstance(self._owner._wire, SealedNetwork) else 0
        around = UDP_HEADERS[self._ipv6] + sealed
        sizes = [(packet - around) // 4 * 4 for packet in PACKETS]  # STUN counts in words
        passed: dict[KnownContact, int] = {}
        for helper in answering[:2]:
            asks = (subject.ask(helper.address, PACKET_WAIT_S, size=size) for size in sizes)
            answers = await asyncio.gather(*asks)
            arrived = [size for size, answer in zip(sizes, answers, strict=True) if answer is not None]
            if arrived:
                passed[helper] = max(arrived) + around
            if arrived and max(arrived) == sizes[0]:
                break
        if not passed:
            report.evidence["mtu"] = "no node answered a large packet"
            return
        report.mtu = max(passed.values())
        report.evidence["mtu"] = ", ".join(f"{size} bytes reached {h.address.ip} whole" for h, size in passed.items())

    async def _hairpin(self, report: FamilyReport, heard: Sequence[_Heard]) -> None:
        """Whether two sockets meet at the router's public address; both send, since it may filter."""
        if len(heard) < 2:
            report.evidence["hairpin"] = "two sockets and two nodes are needed to try"
            return
        one, other = heard[0], heard[1]
        nonce = self._network.token_bytes(NONCE_BYTES)
        for each in (one, other):
            each.subject.expect(nonce)
        for _ in range(HAIRPINS):
            one.subject.send(dialled_frame(nonce), other.seen)
            other.subject.send(dialled_frame(nonce), one.seen)
            await asyncio.sleep(HAIRPIN_PAUSE_S)
        sources = [each.subject.arrived[nonce] for each in (one, other) if nonce in each.subject.arrived]
        report.hairpin = bool(sources)
        what = f"came back, from {sources[0]}" if sources else "did not come back"
        report.evidence["hairpin"] = f"{2 * HAIRPINS} packets to our own public address {what}"

    async def _firewall(self, report: FamilyReport, probers: Sequence[KnownContact]) -> None:
        """Whether what nobody asked for comes in, to a socket that never sent anything."""
        subject = await self._subject()
        seen = Address(report.public or "", subject.port)
        tried = await self._probed(subject, seen, probers)
        came = sum(source is not None for source in tried.values())
        if came or len({self.voters.of(helper.address) for helper in tried}) >= 2:
            report.firewall = not came
            report.evidence["firewall"] = f"{came} of {len(tried)} packets came in that we had not asked for"
        else:
            report.evidence["firewall"] = "too few nodes could try to reach us"
