"""TLS links: how a node speaks where UDP is blocked; docs/protocol/links.md.

A link carries the mux's datagrams between two nodes, and only those that the two say to each other: nothing that comes
by a link makes us send to a third address but what any datagram would (a relayed flow that both ends asked for). On the
client the link stands for the server's UDP address, so DHT, rendezvous, relays and QUIC work as if UDP passed; on the
server (`link_server`) the client is called by `link_address`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import structlog

from p2pnode.core.address import Address, Realm, realm_of
from p2pnode.core.errors import BadPacket, P2PError, WrongKeyError
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import Network, TcpStream
from p2pnode.core.sealed_network import sealing
from p2pnode.core.tasks import TaskSet
from p2pnode.link_check import LinkCheck
from p2pnode.link_dialer import LinkDialer
from p2pnode.link_server import HTTPS_PORT, LinkServer
from p2pnode.nat import Link, StunClient, TlsChannel, UdpMux, client_context, kind_of
from p2pnode.nat.certificate import peer_of_certificate_untrusted
from p2pnode.nat.link_wire import GREETING, read_greeting_untrusted
from p2pnode.settings import NodeSettings
from p2pnode.tcp_outside import TcpOutside

__all__ = ["LinkKind", "Links"]

LinkKind = Literal["ours", "theirs", "punched"]
"""Who opened a link: we, to a public node; another node, to us; both, at the same moment."""
_Way = tuple[str, int, PeerId | None]  # host, TCP port, whose

log = structlog.get_logger(__name__)

OPEN_S = 5.0  # for TCP, proxy, TLS and greeting together
MAX_LINKS = 64  # of our own; the one unused for longest goes, so rendezvous nodes and relays stay
MAX_WAITING = 4  # datagrams for a link that is being opened; senders repeat what matters
FAILED_S = 60.0  # an address where no link could be opened is left alone for so long
MAX_FAILED = 512
MAX_WAYS = 256  # TLS ports of nodes that we had links to, 300 bytes each
UDP_AGAIN_S = 5.0  # how often we look whether UDP passes again
UDP_ANSWER_S = 2.0
ASKED = 3  # nodes, each time
PATIENCE_S = 0.3  # on a new network, until TLS is tried beside UDP
LINGER_S = 30.0  # a link that is not needed any more still takes what is under way


class Links:
    """All links of a node to others, and its server."""

    def __init__(
        self, key: NodeKey, network: Network, mux: UdpMux, settings: NodeSettings,
        addresses: Callable[[], tuple[Address, ...]],
    ) -> None:  # fmt: skip
        """`network`: the one that the UDP sockets are opened in, which seals where it is private. `addresses`: ours."""
        self.server = LinkServer(key=key, network=network, mux=mux, addresses=addresses)
        self._network = network
        self._mux = mux
        self._settings = settings
        self._dialer = LinkDialer(network, settings, lambda: self.port)
        self._seal, self._open = sealing(network)
        self._seen: Address | None = None
        self._outside = TcpOutside(network, lambda: self.port, self._open)
        self._looking: asyncio.Task[None] | None = None
        self.blocked = False
        """No UDP passes here: everything goes by links."""
        self.changed: Callable[[], None] = lambda: None
        """Called when `blocked` has changed."""
        self._links: dict[Address, Link] = {}
        self._punched: list[Link] = []
        self._opening: dict[Address, list[bytes]] = {}
        self._ways: OrderedDict[Address, _Way] = OrderedDict()
        self._failed: OrderedDict[Address, float] = OrderedDict()
        self.stun = StunClient(network, mux.send_by_udp)
        """Asks whether UDP passes again."""
        self.check = LinkCheck(network, lambda: self._links, self._open_quietly)
        self._tasks = TaskSet()

    @property
    def refused(self) -> bool:
        """Whether TCP connections were accepted where nodes should be, and none has become a link."""
        return self._dialer.accepted and not self._links and not self._ways

    def all_links(self) -> dict[LinkKind, list[Link]]:
        """Return what carries now."""
        return {"ours": list(self._links.values()), "theirs": self.server.links(), "punched": list(self._punched)}

    def open_links(self) -> list[Address]:
        """Return the nodes that we have links to, by their UDP addresses."""
        return list(self._links)

    async def open(
        self, host: str, port: int, peer: PeerId | None = None, *, stands_for: Address | None = None,
        our_port: bool = True,
    ) -> Address:  # fmt: skip
        """Open a link to a node's TLS port; return the node's UDP address, which the link stands for from now on.

        `stands_for`: that address, when it is known: else the greeting tells it, a round trip later. `our_port`: from
        the port that all links share. Raise WrongKeyError when it is not `peer`, P2PError when nobody links there.
        """
        try:
            async with asyncio.timeout(OPEN_S):
                return await self._open_link(host, port, peer, stands_for, our_port)
        except (OSError, BadPacket) as exc:  # a time-out is an OSError
            why = str(exc) or "no answer"
            raise P2PError(f"There is no TLS link to {host}:{port} ({why}).", host=host, port=port) from exc

    def block(self) -> None:
        """UDP does not pass: from now on each new address that we send to gets a link."""
        if not self.blocked:
            self.blocked = True
            self._mux.instead = self._instead
            log.warning("udp_blocked", links=len(self._links))
            self._tasks.spawn(self._watch_udp())
            self.changed()

    def network_changed(self, known: Sequence[Address]) -> None:
        """Our network is another one, perhaps without UDP, perhaps without the one that blocked it. `known`: nodes."""
        public = [each for each in known if not each.is_ipv6 and self._realm(each) is Realm.PUBLIC]
        for link in list(self._links.values()):
            link.close()  # its TCP connection is of the old one
        self._failed.clear()
        self._seen = None
        self._tasks.spawn(self._outside.stop())
        if public and (self._looking is None or self._looking.done()):
            self._looking = self._tasks.spawn(self._look(public[:ASKED]))

    async def _look(self, known: Sequence[Address]) -> None:
        asking = asyncio.ensure_future(self._udp_passes(known, UDP_ANSWER_S))
        try:
            done, _ = await asyncio.wait((asking,), timeout=PATIENCE_S)
            if not done and not self.blocked:
                for tried in asyncio.as_completed([self._tasks.spawn(self._open_quietly(each)) for each in known]):
                    await tried
                    if self._links:
                        break
                if self._links and not asking.done():  # two round trips by TCP, and not one by UDP
                    self.block()
            if await asking and self.blocked:
                self._unblock()
        finally:
            asking.cancel()

    async def _open_quietly(self, to: Address) -> None:
        with contextlib.suppress(P2PError):
            await self.open(*self._way(to), stands_for=to)

    def _way(self, to: Address) -> _Way:
        return self._ways.get(to, (to.ip, to.port, None))

    async def _open_likely(self, to: Address, *, our_port: bool) -> None:
        """Open a link to a node by one of its ways. Raise what the last of them raises."""
        *others, last = self._likely_ways(to)
        for way in others:
            with contextlib.suppress(P2PError):
                await self.open(*way, stands_for=to, our_port=our_port)
                return
        await self.open(*last, stands_for=to, our_port=our_port)

    def _likely_ways(self, to: Address) -> list[_Way]:
        """Where a node may take links, the likelier first: only port 443 may pass here."""
        if to in self._ways or to.port == HTTPS_PORT:
            return [self._way(to)]
        ways: list[_Way] = [self._way(to), (to.ip, HTTPS_PORT, None)]
        only_https = self._ways and all(port == HTTPS_PORT for _host, port, _peer in self._ways.values())
        return ways[::-1] if only_https else ways

    def _realm(self, address: Address) -> Realm | None:
        return realm_of(address.ip, allow_documentation=self._settings.allow_documentation)

    async def stop(self) -> None:
        await self.server.stop()
        await self.check.stop()
        await self._tasks.cancel()
        await self._outside.stop()
        for link in list(self._links.values()):
            link.close()

    async def _open_link(
        self, host: str, port: int, peer: PeerId | None, stands_for: Address | None, our_port: bool
    ) -> Address:
        stream, ip = await self._dialer.dial(host, port, our_port)
        channel = TlsChannel(stream, client_context(), server=False, host=None if _is_ip(host) else host)
        try:
            await channel.handshake()
            proven = peer_of_certificate_untrusted(channel.certificate or b"", link=True)
            if peer is not None and proven != peer:
                raise WrongKeyError(f"{host}:{port} is {proven}, not {peer}.", host=host, port=port)
            return await self._take(channel, ip, (host, port, proven), stands_for)
        except BaseException:
            channel.close()
            raise

    async def _take(self, channel: TlsChannel, ip: str, way: _Way, stands_for: Address | None) -> Address:
        """The link becomes the way to the node's UDP address: at once where that is known, else with the greeting."""
        greeted: asyncio.Future[Address] = asyncio.get_running_loop().create_future()

        def received(data: bytes) -> None:
            if greeted.done() and data[0] != GREETING:
                if not greeted.cancelled() and greeted.exception() is None:
                    self._mux.received(data, greeted.result())
                return
            try:
                udp, seen, told = read_greeting_untrusted(data)
                if self._dialer.from_our_port(channel.stream):
                    self._seen = seen
                if not ip and not told:
                    raise BadPacket("bad_address")
            except BadPacket as bad:
                if not greeted.done():
                    greeted.set_exception(bad)
                return
            address = Address(ip, udp) if ip else told[0]
            if not greeted.done():
                is_at(address)
            elif greeted.result() != address and ip:
                link.close()  # another node's

        def is_at(address: Address) -> None:
            greeted.set_result(address)
            self._ways[address] = way
            self._ways.move_to_end(address)
            if len(self._ways) > MAX_WAYS:
                self._ways.popitem(last=False)
            self._adopt(address, link)

        link = Link(
            channel, channel.stream.remote, server=False, received=received, seal=self._seal, open_untrusted=self._open,
            peer=way[2], where=str(Address(way[0], way[1])), proxied=self._dialer.through_proxy(channel.stream),
        )  # fmt: skip
        running = self._tasks.spawn(self._carry(link))
        if stands_for is not None:
            is_at(stands_for)
        futures: list[asyncio.Future[Any]] = [greeted, running]
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        if not greeted.done():
            raise ConnectionResetError("closed without a greeting")
        return greeted.result()

    def _adopt(self, address: Address, link: Link) -> None:
        if (before := self._links.pop(address, None)) is not None:
            before.close()
        link.address = address
        self._links[address] = link
        self._mux.adopt(address, link)
        log.info("link_opened", address=str(address))
        while len(self._links) > MAX_LINKS:
            unused = min(self._links.values(), key=lambda each: each.used_at)
            del self._links[unused.address]
            self._mux.release(unused.address, unused)
            unused.close()

    async def _carry(self, link: Link) -> None:
        await link.run()
        if self._links.get(link.address) is link:
            del self._links[link.address]
            self._mux.release(link.address, link)
            log.info("link_ended", address=str(link.address))

    @property
    def port(self) -> int:
        """The TCP port from which we connect: the number of our UDP port."""
        return self._mux.local[0].port

    async def seen_by(self, server: Address) -> Address:
        """Return the TCP address that `port` has outside, as a node's server of links sees it. Raise P2PError, OSError.

        Where there are no links one connection is made for it (`TcpOutside`).
        """
        if self._links and self._seen is not None:
            return self._seen
        return await self._outside.ask(server)

    async def punched(self, stream: TcpStream, *, server: bool, peer: PeerId, address: Address) -> Link:
        """Return a link over a connection that both sides have opened, after TLS. Raise OSError, BadPacket."""
        context = self.server.context() if server else client_context()
        channel = TlsChannel(stream, context, server=server)
        try:
            async with asyncio.timeout(OPEN_S):
                await channel.handshake()
            if not server and peer_of_certificate_untrusted(channel.certificate or b"", link=True) != peer:
                raise BadPacket("wrong_key")
        except BaseException:
            channel.close()
            raise
        link = Link(
            channel, address, server=server, received=lambda data: self._mux.received(data, address),
            seal=self._seal, open_untrusted=self._open, peer=peer, where=str(stream.remote),
        )  # fmt: skip
        self._mux.adopt(address, link)
        self._punched.append(link)
        return link

    async def carry_punched(self, link: Link) -> None:
        """Carry until it ends."""
        try:
            await link.run()
        finally:
            self._punched.remove(link)
            self._mux.release(link.address, link)

    def _instead(self, data: bytes, to: Address) -> None:
        """Open a link to an address of the public network that something is sent to. It goes by UDP as well: perhaps
        that passes, to there or again."""
        if to.is_link or kind_of(data) == "stun":
            return
        waiting = self._opening.get(to)
        if waiting is None:
            now = self._network.monotonic()
            if self._realm(to) is not Realm.PUBLIC:
                return
            if self._failed.get(to, 0.0) > now or len(self._opening) >= MAX_LINKS:
                return
            waiting = self._opening[to] = []
            # Where a peer may be, one port's connection is a punch's.
            self._tasks.spawn(self._open_for(to, our_port=kind_of(data) != "quic"))
        if len(waiting) < MAX_WAITING:
            waiting.append(data)

    async def _open_for(self, to: Address, *, our_port: bool) -> None:
        try:
            await self._open_likely(to, our_port=our_port)
            if (link := self._links.get(to)) is not None:
                for data in self._opening[to]:
                    link.send(data, to)
        except P2PError:
            self._failed[to] = self._network.monotonic() + FAILED_S
            self._failed.move_to_end(to)
            if len(self._failed) > MAX_FAILED:
                self._failed.popitem(last=False)
        finally:
            del self._opening[to]

    async def _watch_udp(self) -> None:
        """Look again and again whether UDP passes; then let the links go."""
        while self.blocked:
            await asyncio.sleep(UDP_AGAIN_S)
            if await self._udp_passes(list(self._links)[:ASKED], UDP_ANSWER_S) and self.blocked:
                self._unblock()

    async def _udp_passes(self, asked: Sequence[Address], wait: float) -> bool:
        answers = [self.stun.query(address, timeout=wait) for address in asked]
        return any(isinstance(each, Address) for each in await asyncio.gather(*answers, return_exceptions=True))

    def _unblock(self) -> None:
        self.blocked = False
        self._mux.instead = None
        log.info("udp_passes_again")
        links, self._links = self._links, {}
        for address, link in links.items():
            self._mux.let_go(address, link)
        self._tasks.spawn(self._close_later(list(links.values())))
        self.changed()

    async def _close_later(self, links: list[Link]) -> None:
        try:
            await asyncio.sleep(LINGER_S)
        finally:
            for link in links:
                link.close()


def _is_ip(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False
