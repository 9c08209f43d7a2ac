"""Getting into the network: bootstrap nodes, remembered contacts and LAN peers at once, again until it works."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from p2pnode.core.address import Address, Realm, Scope
from p2pnode.core.errors import P2PError, WrongKeyError, WrongNetworkError
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.core.network import Network
from p2pnode.dht import Dht, HelloResult, KnownContact
from p2pnode.links import Links
from p2pnode.other_network import NetworkQuestions
from p2pnode.peerspec import PeerSpec
from p2pnode.state import NodeState, RememberedContact

__all__ = ["Joiner"]

log = structlog.get_logger(__name__)

FIRST_RETRY_S = 2.0
LAST_RETRY_S = 60.0
SAME_MACHINE_S = 0.5  # nothing on this machine is farther away
MAX_OWN_ADDRESSES = 4  # interfaces that lead anywhere; a machine with dozens of container bridges has no more of those
FIRST_SAVE_S, SAVE_EVERY_S = 5.0, 120.0
BLOCKED_S = 1.0  # without any answer by UDP, TLS over TCP is tried as well
MAX_LINKED = 8  # addresses that are tried so at once
CHECK_S = 30.0  # how often a joined node looks whether it still knows anybody


class Joiner:
    """Joins and rejoins. `wrong_nodes`: bootstrap addresses where somebody else answered, or a node of another
    network."""

    def __init__(
        self,
        *,
        network: Network,
        dht: Dht,
        questions: NetworkQuestions,
        state: NodeState,
        bootstrap: tuple[PeerSpec, ...],
        own_addresses: Callable[[], dict[Realm, tuple[Address, ...]]],
        links: Links,
    ) -> None:
        self._links = links
        self._network = network
        self._dht = dht
        self._questions = questions
        self._state = state
        self._bootstrap = bootstrap
        self._own_addresses = own_addresses
        self.usable = asyncio.Event()
        """The first round is over, or before that: as many contacts answered as a record has holders. What is left of
        the search then is to find the last of our neighbours, and the first publish need not wait for it."""
        dht.on_filled = lambda _realm: self.usable.set()
        self.known_anybody = asyncio.Event()
        self.wrong_nodes: list[WrongKeyError | WrongNetworkError] = []
        self.reached: list[PeerId] = []
        self._late: list[asyncio.Task[bool]] = []

    @property
    def has_sources(self) -> bool:
        """Whether there is anybody to ask besides the LAN."""
        return bool(self._bootstrap or self._state.contacts)

    async def run(self) -> None:
        """Try until a realm has a contact, then watch that it stays so."""
        pause = FIRST_RETRY_S
        while True:
            if not self._dht.in_touch():
                await self._round()
            self.usable.set()
            if self._dht.in_touch():
                pause = FIRST_RETRY_S
                await asyncio.sleep(CHECK_S)
            else:
                await asyncio.sleep(pause * (0.75 + self._network.rng.random() / 2))
                pause = min(pause * 2, LAST_RETRY_S)

    async def first_join(self, wait: float) -> None:
        """Wait until somebody is known, at most `wait` seconds. Raise WrongKeyError or WrongNetworkError when only such
        nodes answered."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._joined()
        if self.wrong_nodes and not self.reached:
            raise self.wrong_nodes[0]

    async def _joined(self) -> None:
        if self.has_sources:
            await self.usable.wait()
            if self._dht.realms() or self.wrong_nodes:
                return
        await self.known_anybody.wait()

    async def hello(self, host: str, port: int, *, timeout: float) -> HelloResult:
        """Ask who listens at `host:port`, all its addresses at once. Raise P2PError when nobody answers."""
        addresses = await self._resolve(host, port)
        return await self._questions.beside(self._hello(addresses, timeout), addresses, None)

    async def _hello(self, addresses: list[Address], timeout: float) -> HelloResult:
        own = {address for some in self._own_addresses().values() for address in some}
        if own.issuperset(addresses):
            raise P2PError("That is this node itself.", address=str(addresses[0]))
        tries = [asyncio.ensure_future(self._dht.hello(address, timeout=timeout)) for address in addresses]
        try:
            for next_done in asyncio.as_completed(tries):
                with contextlib.suppress(P2PError):
                    return await next_done
            return await tries[0]
        finally:
            for task in tries:
                task.cancel()
            await asyncio.gather(*tries, return_exceptions=True)

    async def through(self, host: str, port: int, expect: PeerId | None = None) -> HelloResult:
        """Join through whoever listens at `host:port`; raise P2PError when nobody does or the key is another's."""
        error: P2PError | None = None
        for address in await self._resolve(host, port):
            try:
                result = await self._questions.beside(self._dht.hello(address, expect=expect), [address], expect)
            except P2PError as exc:
                error = exc if error is None or isinstance(exc, WrongKeyError | WrongNetworkError) else error
                continue
            contacts = [KnownContact(result.peer_id, result.peer_id.node_id, address)]
            if address.scope is Scope.LOOPBACK:
                contacts += await self._same_machine(result.peer_id, address.port)
            await self._dht.bootstrap(contacts)
            return result
        assert error is not None  # noqa: S101 - the loop ran at least once
        raise error

    async def _same_machine(self, peer: PeerId, port: int) -> list[KnownContact]:
        """Reach a node of this machine at the machine's other addresses too.

        Else whoever joins through `localhost` would know, and be known in, the loopback realm only, while the other is
        the door to the LAN.
        """
        own = [a for realm, some in self._own_addresses().items() if realm is not Realm.LOOPBACK for a in some]
        tried = [address._replace(port=port) for address in own[:MAX_OWN_ADDRESSES]]
        answers = await asyncio.gather(
            *(self._dht.hello(address, expect=peer, timeout=SAME_MACHINE_S) for address in tried),
            return_exceptions=True,
        )
        return [
            KnownContact(peer, peer.node_id, address)
            for address, answer in zip(tried, answers, strict=True)
            if isinstance(answer, HelloResult)
        ]

    async def _resolve(self, host: str, port: int) -> list[Address]:
        addresses = await self._network.resolve(host, port)
        if not addresses:
            raise P2PError(f"The host name {host!r} is unknown here.", host=host)
        return addresses

    async def _round(self) -> None:
        """All sources at once; the first who answers ends the waiting, the others go on helping."""
        sources = [self._through_spec(spec) for spec in self._bootstrap]
        remembered = self._remembered()
        if remembered:
            sources.append(self._warm(remembered))
        sources.append(self._by_links(remembered))
        tasks = [asyncio.ensure_future(source) for source in sources]
        try:
            for task in asyncio.as_completed(tasks):
                if await task:
                    break
        finally:
            # Whoever is late still fills the table, but nobody waits for a dead bootstrap node.
            self._late = [task for task in tasks if not task.done()]

    async def stop(self) -> None:
        """Cancel what still waits for an answer."""
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)

    async def keep_state(self) -> None:
        """Save every two minutes what a warm start needs, for ever; what is in memory only needs no saving."""
        pause = FIRST_SAVE_S  # that a node runs on it, a copy of it should say soon
        while self._state.is_on_disk:
            await asyncio.sleep(pause)
            pause = SAVE_EVERY_S
            try:
                await self.save()
            except P2PError as exc:
                log.warning("state_not_saved", why=exc.message)

    async def save(self) -> None:
        """Remember the contacts of now. Raise StorageError."""
        self._state.remember_contacts(
            [
                RememberedContact(c.node_id, c.address.pack(), c.peer_id.raw if c.peer_id is not None else b"")
                for c in self._dht.known_contacts()
            ]
        )
        if self._state.dirty:
            await self._network.run_blocking(self._state.write, self._state.encode())

    async def known_addresses(self) -> list[Address]:
        """Return where nodes are said to be: those to join through, then those remembered."""
        found = []
        for spec in self._bootstrap:
            for host, port in spec.hosts:
                found += await self._network.resolve(host, port)
        return [*found, *(contact.address for contact in self._remembered())]

    async def _by_links(self, remembered: list[KnownContact]) -> bool:
        """Where nobody answers by UDP: join through TLS links to the same nodes. When one works, UDP is blocked."""
        if any(spec.hosts for spec in self._bootstrap) or remembered:
            await asyncio.sleep(BLOCKED_S)
        if self._dht.in_touch():
            return False
        ways = [(*way, spec.peer) for spec in self._bootstrap for way in spec.tcp_hosts]
        ways += [(*way, spec.peer) for spec in self._bootstrap for way in spec.hosts]
        ways += [(c.address.ip, c.address.port, c.peer_id) for c in remembered]
        tries = [asyncio.ensure_future(self._by_link(*way)) for way in ways[:MAX_LINKED]]
        worked = False
        try:
            for done in asyncio.as_completed(tries):
                worked = await done or worked
        finally:
            for each in tries:
                each.cancel()
            await asyncio.gather(*tries, return_exceptions=True)
        return worked

    async def _by_link(self, host: str, port: int, peer: PeerId | None) -> bool:
        try:
            address = await self._links.open(host, port, peer)
            if self._dht.in_touch() and not self._links.blocked:
                return False
            self._links.block()
            result = await self._dht.hello(address, expect=peer)
        except (WrongKeyError, WrongNetworkError) as exc:
            self.wrong_nodes.append(exc)
            return False
        except P2PError as exc:
            log.info("link_failed", host=host, port=port, why=exc.message)
            return False
        self.reached.append(result.peer_id)
        return await self._dht.bootstrap([KnownContact(result.peer_id, result.peer_id.node_id, address)]) > 0

    async def _warm(self, contacts: list[KnownContact]) -> bool:
        return await self._dht.bootstrap(contacts) > 0

    async def _through_spec(self, spec: PeerSpec) -> bool:
        worked = False
        for host, port in spec.hosts:
            try:
                result = await self.through(host, port, spec.peer)
            except (WrongKeyError, WrongNetworkError) as exc:
                self.wrong_nodes.append(exc)
                log.warning("bootstrap_wrong_node", code=exc.code, host=host, port=port, reason=str(exc))
            except P2PError as exc:
                log.info("bootstrap_silent", host=host, port=port, code=exc.code)
            else:
                self.reached.append(result.peer_id)
                worked = True
        return worked

    def _remembered(self) -> list[KnownContact]:
        known = []
        for contact in self._state.contacts:
            address = contact.unpacked()
            if address is not None:
                peer = PeerId(contact.public_key) if len(contact.public_key) == 32 else None
                known.append(KnownContact(peer, NodeId(contact.node_id), address))
        return known
