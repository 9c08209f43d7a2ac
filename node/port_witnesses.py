"""Has nodes that we choose dial a port of the router's, at the address where each of them sees us.

The dial-back of the DHT proves that strangers get in; but its nonce passes two nodes that others choose as well, and
one of them that plays together with a lying router can hand it over, so that the router lets a frame in that never
came. Here each nonce is known to one node, in another address block than the others', and their majority counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import Network
from p2pnode.dht import Dht, KnownContact
from p2pnode.dht.contact import pack_address, unpack_address_untrusted
from p2pnode.dht.messages import NONCE_BYTES, DialBackAccepted, DialFor, Ping, Pong
from p2pnode.netcheck_judge import Voters
from p2pnode.port_votes import PortVerdict, PortVotes

__all__ = ["PortWitnesses"]

WITNESSES = 4  # one of them may lie, and another one be lost
CANDIDATES = 64


class PortWitnesses:
    """Of one node, by IPv4."""

    def __init__(self, dht: Dht, network: Network) -> None:
        self._dht, self._network = dht, network

    async def ask(self, port: int, timeout: float = 3.0) -> PortVerdict:
        """Return where `port` of our outside address was reached. Two round trips where it was."""
        chosen, known = self._choose()
        votes, enough = PortVotes(known=known, asked=len(chosen)), asyncio.Event()
        asked = [
            asyncio.ensure_future(self._ask(helper, voter, port, votes, enough, timeout))
            for voter, helper in chosen.items()
        ]
        try:
            async with asyncio.timeout(timeout if asked else 0):
                await enough.wait()
        except TimeoutError:
            pass  # normal: some were lost, or nothing comes in
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return votes.verdict

    async def _ask(
        self, helper: KnownContact, voter: Hashable, port: int, votes: PortVotes, enough: asyncio.Event, timeout: float
    ) -> None:
        pong = (await self._dht.protocol.request(helper.address, helper.node_id, Ping(), timeout)).answer
        if not isinstance(pong, Pong):
            return
        with contextlib.suppress(BadPacket):
            seen = unpack_address_untrusted(pong.observed)
            nonce = self._network.token_bytes(NONCE_BYTES)
            dial_backs = self._dht.protocol.engine.dial_backs

            def arrived(_source: Address) -> None:
                votes.reached(voter, seen.ip)
                if votes.settled:
                    enough.set()

            dial_backs.expect(nonce, arrived)
            try:
                order = DialFor(pack_address(seen._replace(port=port)), nonce)
                outcome = await self._dht.protocol.request(helper.address, helper.node_id, order, timeout)
                if isinstance(outcome.answer, DialBackAccepted):
                    votes.tried(voter)
                    await asyncio.sleep(timeout)  # its frame may come after its word
            finally:
                dial_backs.forget(nonce)

    def _choose(self) -> tuple[dict[Hashable, KnownContact], int]:
        """Return random nodes, one of each voter, and how many voters there are."""
        found = self._dht.rendezvous_candidates(CANDIDATES, realm=Realm.PUBLIC, families=[False])
        self._network.rng.shuffle(found)
        voters = Voters(helper.address for helper in found)
        chosen: dict[Hashable, KnownContact] = {}
        for helper in found:
            chosen.setdefault(voters.of(helper.address), helper)
        return dict(list(chosen.items())[:WITNESSES]), len(chosen)
