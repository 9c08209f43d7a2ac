"""In which overlays this node serves: known from the settings, in the public ones found out by dial-back.

A thin shell around `dialback.Role`, one for each address family: a host may be open by IPv6 and not by IPv4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

import structlog

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht.calls import ignore
from p2pnode.dht.contact import Contact, unpack_address_untrusted
from p2pnode.dht.dialback import Evidence, Role, judge
from p2pnode.dht.engine import Engine
from p2pnode.dht.messages import NONCE_BYTES, DialBack, DialBackAccepted, DialFor, Ping, Pong
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.settings import DhtSettings

__all__ = ["Serving"]

log = structlog.get_logger(__name__)

TOLD = 8  # the other neighbours hear it with the next message, or at their upkeep's next ping
HELPERS = 3  # nodes asked for a dial-back at once: a lost frame or one liar decides nothing


class Serving:
    """Of one node. Begins with `start`, ends with `stop`.

    `on_serving(realm, serves)`: called when this node begins to serve in a realm, in any family, or ceases.
    `on_checked()`: called after each dial-back check, when `unreachable` may say something else.
    `has_sent_to(ip)`: whether anything else on the same socket was sent there: STUN, QUIC. None: only the DHT uses it.
    """

    def __init__(self, protocol: DhtProtocol, network: Network, settings: DhtSettings) -> None:
        self._protocol, self._network, self._settings = protocol, network, settings
        self._engine = protocol.engine
        self._members = protocol.engine.members
        self.on_serving: Callable[[Realm, bool], None] | None = None
        self.on_checked: Callable[[], None] | None = None
        self.has_sent_to: Callable[[str], bool] | None = None
        serves = Realm.PUBLIC in settings.serve
        self._roles = {
            overlay: Role(serves=serves, interval=settings.dial_back_interval) for overlay in Overlay.both(Realm.PUBLIC)
        }
        self._wake = {overlay: asyncio.Event() for overlay in self._roles}
        self._ports_filtered: set[Overlay] = set()
        self._tasks = TaskSet()
        self._dials = TaskSet()
        self._engine.dial_backs.dial = self._dial

    @property
    def realms(self) -> frozenset[Realm]:
        """The realms in which this node serves, in one family or both."""
        return frozenset(overlay.realm for overlay in self._members.serving)

    def start(self) -> None:
        if self._settings.dial_back and not len(self._tasks):
            for overlay, role in self._roles.items():
                if not role.fixed:
                    self._tasks.spawn(self._keep(overlay, role))

    async def stop(self) -> None:
        await self._tasks.cancel()
        await self._dials.cancel()

    def joined(self, overlay: Overlay) -> None:
        """The overlay has a contact."""
        if overlay in self._roles:
            self._roles[overlay].joined(self._network.monotonic())
            self._wake[overlay].set()

    def reached(self, overlay: Overlay) -> bool:
        """Whether strangers reach us there, so that we serve, or could."""
        return overlay in self._members.serving or (overlay in self._roles and self._roles[overlay].serves)

    def unreachable(self, *, is_ipv6: bool) -> bool:
        """Whether nodes of the public realm tried to reach us and did not; False also where nobody has tried yet."""
        return self._roles[Overlay.of(Realm.PUBLIC, is_ipv6=is_ipv6)].refuted

    def addresses_changed(self) -> None:
        """Our addresses changed: whether we can be reached has to be found out anew."""
        self._ports_filtered.clear()
        for overlay, role in self._roles.items():
            role.addresses_changed(self._network.monotonic())
            if not role.fixed:
                self._set(overlay, role.serves)
            self._wake[overlay].set()

    def hurry(self, overlay: Overlay) -> None:
        """Check now: a router has opened a port for us, or closed it."""
        self._roles[overlay].hurry(self._network.monotonic())
        self._wake[overlay].set()

    async def check(self, overlay: Overlay, timeout: float = 3.0, *, port: int = 0) -> Evidence:
        """Have nodes of the public overlay try to reach us; return what it shows.

        `port`: at this outside port, which a router has opened; 0: where our requests come from.
        """
        helpers = self._helpers(overlay)
        if not helpers:
            return Evidence.NOBODY
        check = _Check(self._engine, self.has_sent_to, ports_filtered=overlay in self._ports_filtered)
        # Private ones do not count: a helper could name one of those to us behind our NAT.
        own_ips = {
            ip
            for interface in self._network.interfaces()
            for ip in interface.addresses
            if not port and self._members.overlay_of(ip) is overlay
        }
        asks = [self._ask(helper, check, own_ips, timeout, port) for helper in helpers]
        await _together(asks, check.proven, timeout)
        check.end()
        return check.evidence

    async def learn_filter(self, overlay: Overlay, timeout: float = 3.0) -> None:
        """Find out whether frames from unknown ports of known nodes come in, before a router opens a port for us.

        Afterwards those that do come prove it as well as a stranger's: in a small network there is no stranger. To be
        called while no such port is open.
        """
        check = _Check(self._engine, self.has_sent_to)
        self._ports_filtered.discard(overlay)
        await _together([self._ask_itself(h, check, timeout) for h in self._helpers(overlay)], check.arrived, timeout)
        check.end()
        if check.evidence is Evidence.SILENT:
            self._ports_filtered.add(overlay)

    async def _ask(self, helper: Contact, check: _Check, own_ips: set[str], timeout: float, port: int) -> None:
        nonce = self._network.token_bytes(NONCE_BYTES)
        check.begin(nonce)
        outcome = await self._protocol.request(helper.address, NodeId(helper.id), DialBack(nonce, port), timeout)
        if isinstance(outcome.answer, DialBackAccepted):
            try:
                observed = unpack_address_untrusted(outcome.answer.observed)
            except BadPacket:
                return  # a useless helper; the engine has counted it
            check.accepted(nonce, own_interface=observed.ip in own_ips)

    async def _ask_itself(self, helper: Contact, check: _Check, timeout: float) -> None:
        """Have the helper itself dial us, from a fresh port, where it sees us."""
        pong = (await self._protocol.request(helper.address, NodeId(helper.id), Ping(), timeout)).answer
        if not isinstance(pong, Pong):
            return
        nonce = self._network.token_bytes(NONCE_BYTES)
        check.begin(nonce)
        order = DialFor(pong.observed, nonce)
        outcome = await self._protocol.request(helper.address, NodeId(helper.id), order, timeout)
        if isinstance(outcome.answer, DialBackAccepted):
            check.accepted(nonce, own_interface=False)

    def _helpers(self, overlay: Overlay) -> list[Contact]:
        """Return random contacts of different prefixes; of the same only where there are no others."""
        contacts = [c for c in self._members.tables[overlay] if not c.misses]
        self._network.rng.shuffle(contacts)
        first: dict[bytes, Contact] = {}
        for contact in contacts:
            first.setdefault(contact.prefix, contact)
        chosen = list(first.values())
        return (chosen + [c for c in contacts if c not in chosen])[:HELPERS]

    async def _keep(self, overlay: Overlay, role: Role) -> None:
        """Check when the role says so, and act on what it decides."""
        wake = self._wake[overlay]
        while True:
            wake.clear()
            pause = role.check_at - self._network.monotonic()
            if pause > 0:
                try:
                    async with asyncio.timeout(None if pause == float("inf") else pause):
                        await wake.wait()
                    continue
                except TimeoutError:
                    pass  # it is time
            evidence = await self.check(overlay)
            role.checked(evidence, self._network.monotonic())
            if wake.is_set():  # something changed meanwhile, of which this check may have seen nothing
                role.hurry(self._network.monotonic())
            log.info("dht_dial_back", overlay=overlay.label, evidence=evidence.value, serves=role.serves)
            before = overlay in self._members.serving
            self._set(overlay, role.serves)
            began = overlay in self._members.serving and not before
            if self.on_checked is not None:
                self.on_checked()
            if began:  # our frames say so from now on: the nearest, who name us to others, should know at once
                for contact in self._members.tables[overlay].neighbours()[:TOLD]:
                    self._protocol.start_call(contact.address, NodeId(contact.id), Ping(), on_done=ignore)

    def _set(self, overlay: Overlay, serves: bool) -> None:
        """Serve in this overlay from now on, or no longer. Others notice with the next message. A guest never does."""
        serves = serves and not self._settings.guest
        if (overlay in self._members.serving) == serves:
            return
        before = overlay.realm in self.realms
        self._members.set_serving(overlay, serves)
        log.info("dht_serving", overlay=overlay.label, serves=serves)
        after = overlay.realm in self.realms
        if before != after and self.on_serving is not None:
            self.on_serving(overlay.realm, after)

    # -- dialling for others ------------------------------------------------------------------------------------

    def _dial(self, frame: bytes, to: Address) -> None:
        self._dials.spawn(self._dial_once(frame, to))  # as many as the limits of `dialback` allow

    async def _dial_once(self, frame: bytes, to: Address) -> None:
        """Send one datagram from a port that nobody ever sent to."""
        try:
            socket = await self._network.open_udp(Address("::" if to.is_ipv6 else "0.0.0.0", 0), _unexpected)
        except OSError as exc:
            log.debug("dht_dial_failed", reason=exc.strerror)
            return
        socket.send(frame, to)
        socket.close()


class _Check:
    """One dial-back check under way: what was agreed, what arrived."""

    def __init__(
        self, engine: Engine, has_sent_to: Callable[[str], bool] | None, *, ports_filtered: bool = False
    ) -> None:
        self._engine, self._has_sent_to, self._ports_filtered = engine, has_sent_to, ports_filtered
        self._nonces: list[bytes] = []
        self._arrived: dict[bytes, tuple[bool, bool]] = {}
        self._agreed: dict[bytes, bool] = {}
        self.arrived = asyncio.Event()
        self.proven = asyncio.Event()

    def begin(self, nonce: bytes) -> None:
        self._nonces.append(nonce)
        self._engine.dial_backs.expect(nonce, lambda source: self._arrival(nonce, source))

    def accepted(self, nonce: bytes, *, own_interface: bool) -> None:
        """A helper agreed; it saw the request come from an address of this machine, or not."""
        self._agreed[nonce] = own_interface
        self._decide()

    def end(self) -> None:
        for nonce in self._nonces:
            self._engine.dial_backs.forget(nonce)

    @property
    def evidence(self) -> Evidence:
        found = {
            judge(
                ip_known=ip_known, port_known=port_known, own_interface=self._agreed.get(nonce, False),
                ports_filtered=self._ports_filtered,
            )
            for nonce, (ip_known, port_known) in self._arrived.items()
        }  # fmt: skip
        for evidence in (Evidence.PROVEN, Evidence.INCONCLUSIVE):
            if evidence in found:
                return evidence
        return Evidence.SILENT if self._agreed else Evidence.NOBODY

    def _arrival(self, nonce: bytes, source: Address) -> None:
        sent = self._engine.sent
        ip_known = sent.knows_ip(source.ip) or (self._has_sent_to is not None and self._has_sent_to(source.ip))
        self._arrived[nonce] = ip_known, source in sent
        self.arrived.set()
        self._decide()

    def _decide(self) -> None:
        if self.evidence is Evidence.PROVEN:
            self.proven.set()


async def _together(asks: Sequence[Coroutine[None, None, None]], enough: asyncio.Event, timeout: float) -> None:
    """Ask all, until it is enough or the time is up."""
    asked = [asyncio.ensure_future(each) for each in asks]
    try:
        async with asyncio.timeout(timeout if asked else 0):
            await enough.wait()
    except TimeoutError:
        pass  # normal: behind a NAT nothing arrives
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


def _unexpected(_: bytes, __: Address) -> None:
    """Nobody answers a dial-back."""
