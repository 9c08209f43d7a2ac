"""A small town of whole nodes: everything that a node does, in virtual time. Its trace must depend on the seed alone.

Run as a program it prints the hash of its trace and what happened:

    python whole_nodes.py SEED [TRACE_FILE] [--real-keys]
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.virtual_nat import router_of
from support.virtual_nodes import make_node

from p2pnode import Address, Node, P2PError
from p2pnode.chat import Chat, ChatEvent, ChatStore, MessageReceived
from p2pnode.core.logs import set_up
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual

REAL_KEYS = "--real-keys"
ROUNDS = 1  # of everybody connecting to everybody


@dataclass
class Person:
    node: Node
    chat: Chat
    store: ChatStore
    network: VirtualNetwork


class Town:
    """Public hosts, homes behind routers, a LAN of two, one of them public as well; each with chat and database."""

    def __init__(self, world: VirtualWorld, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.people: list[Person] = []
        self.happened: Counter[str] = Counter()

    async def open(self) -> None:
        for number in range(6):
            await self.move_in(self.world.host(f"9.{number}.0.1"), role="bootstrap" if number < 3 else "peer")
        await asyncio.sleep(10)  # the peers are dialled back and become servers
        for number, kind in enumerate(("fullcone", "port-restricted", "symmetric", "port-restricted")):
            router = router_of(self.world, kind, f"11.{number}.0.1")
            await self.move_in(router.host("192.168.1.2"))
        both = self.world.host("9.6.0.1")
        both.host.add_address("10.0.0.1", lan="office")  # a member of two realms
        await self.move_in(both, lan=True)
        await self.move_in(self.world.host("10.0.0.2", lan="office"), lan=True)
        await asyncio.sleep(5)

    async def move_in(self, network: VirtualNetwork, *, role: str = "peer", lan: bool = False) -> None:
        number = len(self.people)
        on_disk = number % 2 == 1
        folder = self.folder / f"home{number}"
        folder.mkdir()
        node = make_node(
            network,
            number,
            through=[person.node for person in self.people[:3]],
            state_path=folder / "state" if on_disk else None,
            role=role,
            lan=lan,
            listen=(Address("0.0.0.0", 4747), Address("::", 4747)),
        )
        store = await ChatStore.open(folder / "chat.db" if on_disk else None, run_blocking=network.run_blocking)
        person = Person(node, Chat(node, store), store, network)
        self.people.append(person)
        person.chat.subscribe(self._note)
        await person.chat.start()
        await node.start()

    def _note(self, event: ChatEvent) -> None:
        if isinstance(event, MessageReceived):
            self.happened["messages received"] += 1

    async def close(self) -> None:
        for person in self.people:
            await person.chat.stop()
            await person.node.stop()
            await person.store.close()

    async def meet(self) -> None:
        """Everybody finds and connects to everybody; then all sessions end."""
        for one in self.people:
            for other in self.people:
                if one is not other:
                    await self._visit(one.node, other.node)
        for person in self.people:
            for session in person.node.sessions():
                session.close()
        await asyncio.sleep(1)

    async def _visit(self, one: Node, other: Node) -> None:
        try:
            found = await one.find(other.peer_id)
            self.happened["found online" if found.online else "found offline"] += 1
            session = await one.connect(other.peer_id)
            self.happened[f"path {session.path}"] += 1
            await session.ping()
        except P2PError as exc:
            self.happened[exc.code] += 1
            return
        if session.initiator and self.world.rng.random() < 0.9:  # a fresh handshake the next time
            session.close()

    async def talk(self) -> None:
        """Each writes to the next three, all at once."""
        for number, person in enumerate(self.people):
            for step in (1, 2, 3, -1, -2, -3):
                await person.chat.add_contact(self.people[(number + step) % len(self.people)].node.user_id)
        writing = [
            person.chat.send(self.people[(number + step) % len(self.people)].node.user_id, f"{number} says {step}")
            for number, person in enumerate(self.people)
            for step in (1, 2, 3)
        ]
        for result in await asyncio.gather(*writing, return_exceptions=True):
            state = getattr(result, "state", type(result).__name__)
            self.happened[f"message {state} at first"] += 1


async def live(world: VirtualWorld) -> Counter[str]:
    """Run the whole story; return what happened."""
    with tempfile.TemporaryDirectory() as folder:
        town = Town(world, Path(folder))
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(town.close)
            await town.open()
            for _round in range(ROUNDS):
                await town.meet()
                await town.talk()
            await asyncio.sleep(400)  # presence is published anew, sessions end for idleness
    statistics = [person.node.endpoint.statistics() for person in town.people]
    town.happened["handshakes"] = sum(each.connected for each in statistics)
    return town.happened


def run(seed: int, trace_file: str = "", spares_keys: bool = True) -> str:
    """Return the hash of the trace and what happened, in one line."""

    lines: list[str] = []

    async def main(world: VirtualWorld) -> str:
        happened = await live(world)
        lines.extend(f"{e.time:.9f} {e.source} {e.destination} {e.kind} {e.size}\n" for e in world.trace)
        return f"{world.trace_hash()} {len(world.trace)} {dict(sorted(happened.items()))}"

    result = run_virtual(
        main, seed=seed, delay=lambda rng: rng.uniform(0.025, 0.075), loss=0.02, spares_keys=spares_keys
    )
    if trace_file:
        Path(trace_file).write_text("".join(lines))
    return result


if __name__ == "__main__":
    set_up("critical", "json", sys.stderr)
    arguments = [each for each in sys.argv[1:] if each != REAL_KEYS]
    print(run(int(arguments[0]), *arguments[1:], spares_keys=REAL_KEYS not in sys.argv))
