"""A whole `Dht` in virtual time, fed by an attacker who holds valid keys.

Input: steps of `kind (1) · length (2) · bytes`. The kinds: a raw datagram from the attacker, or from a stranger; a
payload in a well-signed request; a text sealed under the agreed keys; a payload as the attacker's answer to what the
node asks; a hello that proves the address anew; a payload as the attacker's page of a topic that the node reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from typing import Any

from p2pnode.core.address import Address, Realm
from p2pnode.core.keys import NodeKey
from p2pnode.core.network_id import network_tag
from p2pnode.dht import Dht, DhtSettings, KnownContact, topic_id, wire
from p2pnode.dht.messages import ListTopic, Request
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from targets.base import Target

__all__ = ["RAW", "SEALED_TEXT", "SIGNED_PAYLOAD", "STEPS", "TARGETS", "UNDER_ANSWER", "UNDER_TOPIC", "steps_of"]

RAW, STRANGER, SIGNED_PAYLOAD, SEALED_TEXT, UNDER_ANSWER, HELLO, UNDER_TOPIC = range(7)
STEPS = 7
MAX_STEPS = 8
TAG, TOPIC = network_tag("public"), topic_id("chess")
NODE, ATTACKER, STRANGERS = Address("9.0.0.1", 4747), Address("9.0.1.1", 4747), Address("9.0.2.1", 53)
SETTINGS = DhtSettings(serve=frozenset(Realm))
MAX_SECONDS = 120.0  # virtual: no datagram makes a node work longer than its longest time-out


@cache
def keys() -> tuple[NodeKey, NodeKey]:
    return NodeKey(bytes([1]) * 32, bytes([2]) * 32), NodeKey(bytes([3]) * 32, bytes([4]) * 32)


def steps_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, bytes); the last step may be cut short."""
    for _ in range(MAX_STEPS):
        if len(data) < 3:
            return
        end = 3 + int.from_bytes(data[1:3], "big") % 1_500
        yield data[0] % STEPS, data[3:end]
        data = data[end:]


class Arena:
    """The node, and the attacker as another node whose answers can be chosen."""

    def __init__(self, world: VirtualWorld) -> None:
        self.world = world
        self.sent = self.received = 0
        node_key, attacker_key = keys()
        networks = [world.host(address.ip) for address in (NODE, ATTACKER, STRANGERS)]
        self.node = Dht(key=node_key, network=networks[0], settings=SETTINGS, send=self._node_sends)
        self.attacker = Dht(key=attacker_key, network=networks[1], settings=SETTINGS, send=self._attacker_sends)
        self.attacker_network = networks[1]

    def _node_sends(self, data: bytes, to: Address) -> None:
        self.sent += len(data)
        if to == ATTACKER:
            asyncio.get_running_loop().call_later(0.001, self.attacker.datagram_received, data, NODE)

    def _attacker_sends(self, data: bytes, to: Address) -> None:
        if to == NODE:
            self.give(data, ATTACKER)

    def give(self, data: bytes, source: Address) -> None:
        self.received += len(data)
        self.node.datagram_received(data, source)

    async def step(self, kind: int, data: bytes) -> None:
        if kind in (RAW, STRANGER):
            self.give(data, ATTACKER if kind == RAW else STRANGERS)
        elif kind == SIGNED_PAYLOAD:
            self.give(self._signed(data[:900]), ATTACKER)
        elif kind == SEALED_TEXT:
            session = self.attacker._engine.keyring.for_sending(
                self.node.key.node_id, asyncio.get_running_loop().time()
            )
            if session is not None:
                self.give(session.seal(data), ATTACKER)
        elif kind == UNDER_ANSWER:
            self.attacker._engine._answerer._respond = lambda *_args: data  # type: ignore[method-assign]
            public_key = self.attacker.key.public_raw
            await self.node.get(public_key, b"salt", realms=[Realm.PUBLIC])
        elif kind == UNDER_TOPIC:
            answerer = self.attacker._engine._answerer
            honest = answerer._respond

            def respond(request: Request, *facts: Any) -> bytes:
                return data if isinstance(request, ListTopic) else honest(request, *facts)

            answerer._respond = respond  # type: ignore[method-assign]
            await self.node.topic(TOPIC, limit=3, sample=True, realms=[Realm.PUBLIC])
        else:
            await self.attacker.bootstrap([KnownContact(self.node.key.peer_id, self.node.key.node_id, NODE)])

    def _signed(self, payload: bytes) -> bytes:
        key = self.attacker.key
        body = wire.signed_request_body(
            tag=TAG, receiver=self.node.key.node_id, sender_key=key.public_raw,
            nonce=self.attacker_network.token_bytes(16), ephemeral=key.x25519_public,
            wall_ms=int(self.attacker_network.wall() * 1000), flags=7, token=b"", payload=payload, size=1_200,
        )  # fmt: skip
        return body + key.sign(wire.signing_bytes(wire.SIGNED_REQUEST, body))


def read_steps(data: bytes) -> None:
    """Run the steps. Whatever the node's last boundary had to catch is a finding, and so is what loops for ever."""

    async def main(world: VirtualWorld) -> None:
        arena = Arena(world)
        await arena.attacker.bootstrap([KnownContact(arena.node.key.peer_id, arena.node.key.node_id, NODE)])
        for kind, content in steps_of(data):
            await arena.step(kind, content)
        await asyncio.sleep(1.0)
        await arena.node.stop()
        await arena.attacker.stop()
        drops = arena.node.statistics().drops
        assert not drops.get("internal_error"), dict(drops)

    run_virtual(main, keep_trace=False, until=MAX_SECONDS)


TARGETS = [Target("dht_node", read_steps, errors=(), max_bytes=4_000, cpu_s=0.4)]
