"""Two processes with one device key: a copied home. The newer one stays; the older one notices and is silent.

Both would publish the presence of one peer, and neither could be reached for long. Each presence says when its process
began (`run`), so whoever reads the other's knows which of the two is newer. Looked for: at the start, when the last run
has not said goodbye; when a read-back finds a presence that we did not sign; and when somebody asks us something under
our own key, which is how the newer one wakes the older.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import structlog

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import BadPacket, P2PError
from p2pnode.core.ids import PeerId
from p2pnode.core.network import Network
from p2pnode.dht import Dht
from p2pnode.presence import Presence, presence_salt

__all__ = ["OtherProcess"]

log = structlog.get_logger(__name__)

EVERY_S = 60.0  # between two looks that others can cause: each is a search
HELLO_S = 2.0
TOLD = 4  # addresses of the older one


class OtherProcess:
    """Looks for another process with our key."""

    def __init__(
        self,
        *,
        peer: PeerId,
        run: int,
        dht: Dht,
        network: Network,
        allow_documentation: bool,
        own_addresses: Callable[[], Iterable[Address]],
        found_newer: Callable[[], None],
    ) -> None:
        """`run`: when this process began, Unix milliseconds. `found_newer` is called once: there is a newer one."""
        self.run = run
        self.superseded = False
        self._peer, self._dht, self._network = peer, dht, network
        self._allow_documentation = allow_documentation
        self._own_addresses = own_addresses
        self._found_newer = found_newer
        self._older: dict[Address, None] = {}
        self._looked_at = float("-inf")

    async def look(self, realms: Iterable[Realm]) -> bool:
        """Read our presence as others see it; return whether a newer process has signed it."""
        for realm in realms:
            record = (await self._dht.get(self._peer.raw, presence_salt(realm), realms=[realm])).record
            if record is None:
                continue
            try:
                there = Presence.decode_untrusted(record.value, realm, allow_documentation=self._allow_documentation)
            except BadPacket:
                continue
            if there.online and there.run > self.run:
                self._supersede()
                return True
            if there.online and there.run < self.run:
                own = set(self._own_addresses())
                self._older |= dict.fromkeys(address for address in there.addresses if address not in own)
        return self.superseded

    def may_look(self) -> bool:
        """Whether it is time for a look that somebody else caused; it counts as begun."""
        now = self._network.monotonic()
        if self.superseded or now < self._looked_at + EVERY_S:
            return False
        self._looked_at = now
        return True

    async def wake_older(self) -> None:
        """Ask where an older process was published, under our common key, now that ours is published: it looks then."""
        older, self._older = list(self._older)[:TOLD], {}
        for address in older:
            with contextlib.suppress(P2PError):
                await self._dht.hello(address, timeout=HELLO_S)

    def _supersede(self) -> None:
        if not self.superseded:
            self.superseded = True
            log.error("device_key_in_use", peer=str(self._peer))
            self._found_newer()
