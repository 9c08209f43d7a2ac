"""How long a quiet mapping lives in the router before us: found in the background, by bisection, and used.

RFC 5780, section 4.6 "Binding Lifetime Discovery", with two nodes in place of one server: a new socket exchanges a few
packets with both (routers give a flow that was answered more time than a first packet), is left alone, and then both
send to its public port. What arrives proves that it lives. That it is dead both must show, each of which could reach it
before. A datagram that comes meanwhile voids the trial: somebody keeps the mapping alive.

About ten trials of some fifteen datagrams in as many minutes, then again twelve hours later, or in another network.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import structlog

from p2pnode.addresses import bound_ip
from p2pnode.core.address import Address, Realm
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht import Dht, KnownContact
from p2pnode.dht.messages import NONCE_BYTES
from p2pnode.nat.lifetime import LifetimeBracket
from p2pnode.netcheck_judge import Voters
from p2pnode.netcheck_report import FamilyReport
from p2pnode.netcheck_socket import Subject

__all__ = ["KEEP_ALIVE_MAX_S", "Lifetime", "MappingLife", "keep_alive_for"]

log = structlog.get_logger(__name__)

START_S = 120.0  # joining and the first connections come first
AGAIN_S = 12 * 3600.0
PAUSE_S = 20.0  # between trials that were void
VOIDS = 4  # in a row until a search is given up
RETRY_S = 1800.0
FIRST_S = 25.0  # what is taken for granted without measuring; as often are flows used then (`RendezvousSettings`)
MAX_S = 320.0  # RFC 4787, REQ-5, recommends five minutes
STEP_S, STEP_SHARE = 1.0, 0.04  # how exact
WARM_S = 3.0  # Linux takes a flow for a lasting one that is answered after two seconds
WAIT_S = 3.0
CANDIDATES = 8
# Chosen by us: a router that was restarted is noticed by the next renewal
KEEP_ALIVE_MAX_S = 120.0
KEEP_ALIVE_MIN_S = 5.0
SETTLED = 1.5  # until flows that were used too seldom before were used once at the new pace, and not yet twice
MARGIN_S, MARGIN_SHARE = 3.0, 0.1  # for a renewal that gets lost and is repeated


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A mapping was alive after `low` seconds of silence, and dead after `high`; inf: longer than was tried."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class _Trial:
    alive: bool
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class _Flow:
    """A helper that has reached the subject. `voter`: whose vote its silence is."""

    helper: KnownContact
    seen: Address
    voter: object


@dataclass(frozen=True, slots=True)
class _Called:
    """Who agreed to send, whose frames came, and by when all had sent."""

    agreed: list[_Flow]
    came: list[_Flow]
    at: float


def keep_alive_for(low: float) -> float:
    """Return after how many seconds at most a flow should be used whose mapping lives `low`."""
    return min(KEEP_ALIVE_MAX_S, max(KEEP_ALIVE_MIN_S, low - max(MARGIN_S, MARGIN_SHARE * low)))


class MappingLife:
    """Measures where it is of use."""

    def __init__(
        self,
        *,
        network: Network,
        dht: Dht,
        needed: Callable[[], Collection[bool]],
        changed: Callable[[float | None], None],
        bound: Callable[[], Sequence[Address]],
    ) -> None:
        """`needed()`: families (True: IPv6) in which flows have to be kept alive. `changed(keep_alive)`: how often at
        least, None when that is not known any more. `bound`: where our sockets are."""
        self._network, self._dht = network, dht
        self._needed, self._changed, self._bound = needed, changed, bound
        self._found: dict[bool, Lifetime] = {}
        self._due: dict[bool, float] = {}
        self._networks = 0
        self._every, self._used_from = FIRST_S, 0.0
        self._tasks = TaskSet()
        self.packets = 0
        """Datagrams that it cost so far."""

    def start(self) -> None:
        if not len(self._tasks):
            self._tasks.spawn(self._keep())

    async def stop(self) -> None:
        await self._tasks.cancel()

    def doubt(self) -> None:
        """The router has forgotten flows; if they were used as often as it seemed to ask for: measure anew."""
        if self._found and self._network.monotonic() >= self._used_from:
            log.info("mapping_lifetime_doubted", alive_s=self.shortest)
            self.network_changed()

    def network_changed(self) -> None:
        """Another router may stand before us."""
        self._due.clear()
        self._networks += 1  # a search under way comes to nothing
        if self._found:
            self._found.clear()
            self._every = FIRST_S
            self._changed(None)

    def lifetime(self, *, ipv6: bool) -> Lifetime | None:
        """Return what was found, None while it is not known."""
        return self._found.get(ipv6)

    @property
    def shortest(self) -> float | None:
        """How long mappings live at least, in seconds, of all families where that is of use and known."""
        return min((found.low for family, found in self._found.items() if family in self._needed()), default=None)

    def tell(self, report: FamilyReport, *, ipv6: bool) -> None:
        """Write it into a report."""
        found = self._found.get(ipv6)
        if found is None:
            unneeded = report.nat is False and report.firewall is False
            said = (
                "nothing forgets: no router and no firewall" if unneeded else "not measured yet; it takes some minutes"
            )
            report.evidence["mapping_lifetime_s"] = said
            return
        report.lifetime_open = found.high == math.inf
        if report.lifetime_open:
            report.mapping_lifetime_s = math.floor(found.low)
            report.evidence["mapping_lifetime_s"] = f"alive after {found.low:.0f} s of silence, longer was not tried"
        else:
            report.mapping_lifetime_s = round((found.low + found.high) / 2)
            said = f"alive after {found.low:.1f} s of silence, dead after {found.high:.1f} s"
            report.evidence["mapping_lifetime_s"] = said

    # Parts

    async def _keep(self) -> None:
        await asyncio.sleep(START_S)
        while True:
            for ipv6 in sorted(self._needed()):
                if self._network.monotonic() >= self._due.get(ipv6, 0.0):
                    network = self._networks
                    found = await self._search(ipv6)
                    if network != self._networks:
                        continue
                    self._due[ipv6] = self._network.monotonic() + (AGAIN_S if found is not None else RETRY_S)
                    if found is not None:
                        self._set(ipv6, found)
            await asyncio.sleep(START_S)

    def _set(self, ipv6: bool, found: Lifetime) -> None:
        self._found[ipv6] = found
        log.info(
            "mapping_lifetime", ipv6=ipv6, low=round(found.low, 1), high=round(found.high, 1), packets=self.packets
        )
        if self.shortest is not None:
            before, every = self._every, keep_alive_for(self.shortest)
            self._every = every if self._found.keys() >= set(self._needed()) else min(every, FIRST_S)
            if before > self.shortest:
                self._used_from = self._network.monotonic() + SETTLED * self._every
            self._changed(self._every)

    async def _search(self, ipv6: bool) -> Lifetime | None:
        """Bisect; None when trials contradict each other, or nobody helps."""
        bracket = LifetimeBracket()
        voids = 0
        network = self._networks
        while not bracket.found(MAX_S, max(STEP_S, STEP_SHARE * bracket.low)):
            trial = await self._trial(ipv6, bracket.next(FIRST_S, MAX_S))
            if network != self._networks:
                return None
            if trial is None:
                voids += 1
                if voids >= VOIDS:
                    return None
                await asyncio.sleep(PAUSE_S)
                continue
            voids = 0
            bracket.took(alive=trial.alive, least=trial.least, most=trial.most)
            if bracket.contradictory:
                return None
        return Lifetime(bracket.low, bracket.high)

    async def _trial(self, ipv6: bool, pause: float) -> _Trial | None:
        """Leave a mapping alone for `pause` seconds; None when that showed nothing."""
        ip = bound_ip(self._bound(), ipv6=ipv6)
        if ip is None:
            return None
        with contextlib.suppress(OSError):
            subject = await Subject.open(self._dht.network, ip)
            try:
                return await self._try(subject, ipv6, pause)
            finally:
                self.packets += subject.sent
                subject.close()
        return None

    async def _try(self, subject: Subject, ipv6: bool, pause: float) -> _Trial | None:
        now = self._network.monotonic
        flows = await self._flows(subject, ipv6)
        await asyncio.sleep(WARM_S)
        began = now()
        again = await asyncio.gather(*(subject.ask(flow.helper.address, WAIT_S) for flow in flows))
        answered = now()
        flows = [flow for flow, seen in zip(flows, again, strict=True) if seen == flow.seen]
        if not flows:
            return None
        strays, wall = subject.strays, self._network.wall()
        await asyncio.sleep(pause)
        asked = now()
        slept = abs(self._network.wall() - wall - pause) > WARM_S  # the machine, not only this task
        if subject.strays != strays or slept:
            return None
        called = await self._call(subject, flows)
        if not called.came and len({flow.voter for flow in called.agreed}) < 2:
            return None
        return _Trial(bool(called.came), asked - answered, called.at - began)

    async def _flows(self, subject: Subject, ipv6: bool) -> list[_Flow]:
        """Return two helpers, of two blocks, that can reach the subject now."""
        found = self._dht.rendezvous_candidates(CANDIDATES, realm=Realm.PUBLIC, families=[ipv6])
        self._network.rng.shuffle(found)
        voters = Voters(helper.address for helper in found)
        chosen = {voters.of(helper.address): helper for helper in found}
        flows: list[_Flow] = []
        for voter, helper in chosen.items():
            seen = await subject.ask(helper.address, WAIT_S)
            if seen is None:
                continue
            flow = _Flow(helper, seen, voter)
            if (await self._call(subject, [flow])).came:
                flows.append(flow)
            if len(flows) == 2:
                break
        return flows

    async def _call(self, subject: Subject, flows: list[_Flow]) -> _Called:
        """Have helpers send to the subject from where it knows them."""
        nonces = [self._network.token_bytes(NONCE_BYTES) for _ in flows]
        for nonce in nonces:
            subject.expect(nonce)
        self.packets += len(flows)
        answers = await asyncio.gather(
            *(
                self._dht.probing.ask(flow.helper, flow.seen.port, nonce, fresh=False, timeout=WAIT_S)
                for flow, nonce in zip(flows, nonces, strict=True)
            )
        )
        agreed = {
            nonce: flow
            for flow, nonce, answer in zip(flows, nonces, answers, strict=True)
            if answer is not None and answer.observed.ip == flow.seen.ip
        }
        at = self._network.monotonic()  # an answer leaves after the frame
        if agreed:
            await subject.wait_for(set(agreed), WAIT_S, all_of_them=False)
        return _Called(list(agreed.values()), [flow for nonce, flow in agreed.items() if nonce in subject.arrived], at)
