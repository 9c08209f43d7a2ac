"""Presence and device lookups, in every realm that we are in, with the highest `seq` seen remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from p2pnode.core.address import Address, Realm
from p2pnode.core.devices import RECORD_SALT as DEVICES_SALT
from p2pnode.core.devices import DeviceList, decode_devices_untrusted
from p2pnode.core.errors import BadPacket, P2PError, P2PTimeoutError, PeerNotFoundError, UdpBlockedError
from p2pnode.core.ids import PeerId, UserId
from p2pnode.core.network import Network
from p2pnode.dht import Dht, GetResult
from p2pnode.presence import FindResult, Presence, presence_salt
from p2pnode.state import NodeState

__all__ = ["Finder", "Heard"]

log = structlog.get_logger(__name__)

Heard = dict[Realm, tuple[GetResult, Presence | None]]
NUMBER_SALT = b"devices#"  # under which the highest number of a list is remembered
MAX_LISTS = 1024  # of 2 KB at most
_NEAREST_FIRST = (Realm.LOOPBACK, Realm.PRIVATE, Realm.PUBLIC)


class Finder:
    """Looks people and nodes up."""

    def __init__(
        self,
        *,
        dht: Dht,
        network: Network,
        state: NodeState,
        allow_documentation: bool,
        local_addresses: Callable[[PeerId], tuple[Address, ...]],
        udp_blocked: Callable[[], bool] = lambda: False,
    ) -> None:
        """`local_addresses`: what the LAN told of a peer, empty for most. `udp_blocked`: nodes are there, but we can
        speak to them neither by UDP nor by TLS."""
        self._dht = dht
        self._network = network
        self._state = state
        self._allow_documentation = allow_documentation
        self._local_addresses = local_addresses
        self._udp_blocked = udp_blocked
        self.lists: dict[UserId, DeviceList] = {}
        """What the device records said that were found last."""

    async def find(
        self, peer: PeerId, *, timeout: float, on_found: Callable[[FindResult], None] | None = None
    ) -> FindResult:
        """Return what the network knows. Raise PeerNotFoundError, UdpBlockedError, P2PTimeoutError."""
        return (await self.look(peer, timeout=timeout, on_found=on_found))[0]

    async def look(
        self, peer: PeerId, *, timeout: float, on_found: Callable[[FindResult], None] | None = None
    ) -> tuple[FindResult, Heard]:
        """Return what the network knows, and what each realm said. Raise as `find`.

        `on_found`: called with what is known as soon as there is anything, and each time something newer turns up. The
        first answer may be a liar's, or just old; what is returned has been confirmed by several holders.
        """
        started = self._network.monotonic()
        realms = [realm for realm in _NEAREST_FIRST if realm in self._dht.realms()]
        local = self._local_addresses(peer)
        heard: Heard = {}
        listening = True

        def hear(realm: Realm, result: GetResult) -> None:
            if not listening:  # whoever asked has gone; the searches end by themselves
                return
            before = heard.get(realm)
            if before is not None and before[0].record == result.record:
                heard[realm] = result, before[1]
                return
            heard[realm] = result, self._presence_of(peer, realm, result)
            if on_found is not None and heard[realm][1] is not None:
                on_found(self._combined(peer, local, heard, started))

        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(self._search(peer, realm, hear, early=on_found is not None) for realm in realms))
        except TimeoutError as exc:
            raise P2PTimeoutError(f"Looking for {peer} took longer than {timeout:g} s.", peer=str(peer)) from exc
        finally:
            listening = False
        if not local and not any(presence for _, presence in heard.values()):
            raise self._not_found(peer)
        return self._combined(peer, local, heard, started), heard

    def _combined(self, peer: PeerId, local: tuple[Address, ...], heard: Heard, started: float) -> FindResult:
        """Return what the realms heard of so far say together; the highest `seq` decides."""
        results = [heard[realm] for realm in _NEAREST_FIRST if realm in heard]
        known = [(result, presence) for result, presence in results if presence is not None]
        online = [(result, presence) for result, presence in known if presence.online]
        addresses = list(local)
        for _, there in online:
            addresses.extend(a for a in there.addresses if a not in addresses)
        best = max(online or known, key=lambda pair: pair[0].record.seq if pair[0].record else 0, default=None)
        seq = best[0].record.seq if best is not None and best[0].record is not None else None
        age = max(0.0, self._network.wall() - seq / 1000) if seq is not None else 0.0
        presence = best[1] if best is not None else None
        ways = tuple(dict.fromkeys(way for _, there in online for way in there.rendezvous))
        return FindResult(
            peer,
            bool(addresses or ways),
            age,
            tuple(addresses),
            presence.name if presence else "",
            presence.user if presence else None,
            max((result.hops for result, _ in results), default=0),
            self._network.monotonic() - started,
            presence.x25519 if presence else b"",
            ways,
            sum(result.queried for result, _ in results),
            sum(result.late for result, _ in results),
            outside=tuple(dict.fromkeys(each for _, there in online for each in there.outside)) if ways else (),
        )

    async def find_user(self, user: UserId, *, timeout: float) -> tuple[PeerId, ...]:
        """Return the devices of an account, without those that name another account as theirs.

        Raise PeerNotFoundError, UdpBlockedError, P2PTimeoutError.
        """
        try:
            async with asyncio.timeout(timeout):
                result = await self._dht.get(user.raw, DEVICES_SALT)
                listed = self._devices(user, result).devices
                answers = await asyncio.gather(*(self.find(p, timeout=timeout) for p in listed), return_exceptions=True)
        except TimeoutError as exc:
            raise P2PTimeoutError(f"Looking for {user} took longer than {timeout:g} s.", peer=str(user)) from exc
        confirmed = []
        for device, answer in zip(listed, answers, strict=True):
            named = answer.user if isinstance(answer, FindResult) else None
            if named is not None and named != user:
                log.warning("device_names_another_user", device=str(device), user=str(user))
                continue
            confirmed.append(device)
        if not confirmed:
            raise self._not_found(user)
        return tuple(confirmed)

    def _devices(self, user: UserId, result: GetResult) -> DeviceList:
        record = result.record
        if record is None:
            raise self._not_found(user)
        try:
            found = decode_devices_untrusted(record.value)
        except BadPacket as exc:
            raise PeerNotFoundError(f"The device list of {user} cannot be read.", peer=str(user)) from exc
        # Who never changed the list has one device, whose `seq` rises; who did signs it anew with each of them.
        if found.number:
            newest = self._state.accept_seq(user.raw + NUMBER_SALT, found.number)
        else:
            numbered = self._state.seen_seq(user.raw + NUMBER_SALT)
            newest = not numbered and self._state.accept_seq(user.raw + DEVICES_SALT, record.seq)
        if not newest:
            raise PeerNotFoundError(
                f"The network only has an outdated device list of {user}; try again later.", peer=str(user)
            )
        self.lists.pop(user, None)
        self.lists[user] = found
        if len(self.lists) > MAX_LISTS:
            del self.lists[next(iter(self.lists))]
        return found

    async def _search(
        self, peer: PeerId, realm: Realm, hear: Callable[[Realm, GetResult], None], *, early: bool
    ) -> None:
        """Look a presence up to the end; `early`: tell `hear` of the first one, and of each newer one, at once."""
        if not early:
            hear(realm, await self._dht.get(peer.raw, presence_salt(realm), realms=[realm]))
            return
        ended = asyncio.Event()

        def newer(result: GetResult) -> None:
            hear(realm, result)
            if result.settled:
                ended.set()

        first = await self._dht.get(peer.raw, presence_salt(realm), realms=[realm], fast=True, on_newer=newer)
        hear(realm, first)
        if not first.settled:
            await ended.wait()

    def _presence_of(self, peer: PeerId, realm: Realm, result: GetResult) -> Presence | None:
        salt, record = presence_salt(realm), result.record
        if record is None:
            return None
        if not self._state.accept_seq(peer.raw + salt, record.seq):
            log.warning("old_presence_ignored", peer=str(peer), realm=realm.value, seq=record.seq)
            return None
        try:
            return Presence.decode_untrusted(record.value, realm, allow_documentation=self._allow_documentation)
        except BadPacket as exc:
            log.warning("presence_unreadable", peer=str(peer), reason=exc.reason)
            return None

    def _not_found(self, who: PeerId | UserId) -> P2PError:
        if self._dht.realms():
            sentence = f"Nobody in the network knows {who}: check the id, or ask whether it is online."
            return PeerNotFoundError(sentence, peer=str(who))
        if self._udp_blocked():
            return UdpBlockedError(
                "No UDP passes here, and whoever answers by TCP does not let this node in; ask for a bootstrap line"
                " with tcp:HOST:443, or set HTTPS_PROXY.",
                peer=str(who),
            )
        return PeerNotFoundError(f"No other node is known yet, so nobody can be asked for {who}.", peer=str(who))
