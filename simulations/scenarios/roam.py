"""A laptop changes its network while messages flow both ways: how soon do they flow again, and is any lost?

The moves of `p2pnode lab roam`, on router models; the laptop's monotonic clock stands still while it sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Annotated

from msgspec import Meta

from p2pnode import AccountKey, Node, NodeKey, NodeSettings, PeerSpec, Session, SessionOpened
from p2pnode.core.address import Address
from p2pnode.core.errors import P2PError
from p2pnode.nat import Stream
from p2pnode.simulations.harness.scenario import NetworkSettings, Run, Scenario, Table
from p2pnode.simulations.routers.kinds import kind_named
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld
from p2pnode.simulations.virtual.faults import move, resume, suspend
from p2pnode.simulations.virtual.router import VirtualRouter

__all__ = ["MOVES", "SCENARIO", "Messages", "Settings", "chosen"]

PORT = 4747
PUBLIC = 7
SETTLE_S = 15.0  # the public peers are dialled back and become servers
BEFORE_S = 25.0  # messages flow for so long before each move: mappings and sessions are as in daily life
EVERY_S = 0.25
AGAIN_S = 60.0  # longer than any retry of the node
AGAIN_BAR_S = 5.0
PROTOCOL = "p2pnode/simulation-roam/1"
MOVES = {
    "router": "carried to another router",
    "address": "another address in the same LAN",
    "line": "the router's line has another public address",
    "rebinding": "the router forgets its mappings",
    "sleep": "sleeps with its lid closed",
}


def chosen(text: str) -> tuple[str, ...]:
    """Return the moves of a comma-separated list, or all. Raise ValueError."""
    named = tuple(MOVES) if text == "all" else tuple(each.strip() for each in text.split(","))
    if unknown := [each for each in named if each not in MOVES]:
        raise ValueError(f"moves: {unknown[0]} is none of {', '.join(MOVES)}")
    return named


class Settings(NetworkSettings, frozen=True, kw_only=True):
    """Of `roam`: 80 ms round trip without loss, as in the laboratory."""

    delay_min_ms: Annotated[float, Meta(ge=0, le=60_000, description="least one-way delay of a datagram")] = 40.0
    delay_max_ms: Annotated[float, Meta(ge=0, le=60_000, description="greatest one-way delay, uniform between")] = 40.0
    loss: Annotated[float, Meta(ge=0, le=1, description="share of datagrams lost")] = 0.0
    moves: Annotated[str, Meta(description="comma-separated: router, address, line, rebinding, sleep; or all")] = "all"
    pairs: Annotated[int, Meta(ge=1, le=100, description="laptops, each with a peer of its own")] = 3
    sleep_s: Annotated[float, Meta(gt=0, le=86_400, description="seconds of sleep")] = 30.0
    home: Annotated[str, Meta(description="kind of the laptops' first router, and of the peers'")] = "port-restricted"
    elsewhere: Annotated[str, Meta(description="kind of the router that they are carried to")] = "address-restricted"

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen(self.moves)
        for kind in (self.home, self.elsewhere):
            if not kind_named(kind).translates:
                raise ValueError("home, elsewhere: kinds of routers")


class Messages:
    """Numbered messages from one node to another, one after the other, each acknowledged by the other side's program.

    What is not acknowledged when a session ends goes again by the next one, as chat messages do.
    """

    def __init__(self, world: VirtualWorld, source: Node, target: Node) -> None:
        self.source, self.target = source, target
        self.sent: list[float] = []
        """When each was written, in the world's time."""
        self.arrived: dict[int, float] = {}
        self._world = world
        self._acknowledged = 0
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        target.handle(PROTOCOL, self._take)

    def start(self, network: VirtualNetwork) -> None:
        """`network`: of the source's host, which may fall asleep."""
        self._tasks = [asyncio.ensure_future(network.run(work)) for work in (self._write(), self._keep())]

    def write_no_more(self) -> None:
        self._tasks[0].cancel()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def first_after(self, moment: float) -> float | None:
        """When the first message that was written after `moment` arrived."""
        return min(
            (self.arrived[i] for i, at in enumerate(self.sent) if at >= moment and i in self.arrived), default=None
        )

    @property
    def missing(self) -> int:
        return len(self.sent) - len(self.arrived)

    async def _write(self) -> None:
        while True:
            self.sent.append(self._world.loop.now())
            self._news.set()
            await asyncio.sleep(EVERY_S)

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(P2PError, EOFError):
                session = await self.source.connect(self.target.peer_id)
                stream = await session.open_stream(PROTOCOL)
                acks = asyncio.ensure_future(self._acks(stream))
                acks.add_done_callback(lambda _: self._news.set())
                number = self._acknowledged
                try:
                    while not acks.done():
                        for each in range(number, len(self.sent)):
                            await stream.write(each.to_bytes(4, "big"))
                        number = len(self.sent)
                        self._news.clear()
                        await self._news.wait()
                finally:
                    acks.cancel()
                    await asyncio.gather(acks, return_exceptions=True)
            await asyncio.sleep(0.1)

    async def _acks(self, stream: Stream) -> None:
        while True:
            self._acknowledged = int.from_bytes(await stream.readexactly(4), "big") + 1

    async def _take(self, _session: Session, stream: Stream) -> None:
        while True:
            number = await stream.readexactly(4)
            self.arrived.setdefault(int.from_bytes(number, "big"), self._world.loop.now())
            await stream.write(number)


class Pair:
    """A laptop and its peer at a desk, each behind a router of its own; a third router waits elsewhere."""

    def __init__(self, run: Run[Settings], number: int, servers: tuple[PeerSpec, ...]) -> None:
        world, settings = run.world, run.settings
        kinds = (settings.home, settings.elsewhere, settings.home)
        self.home, self.elsewhere, desk = (
            VirtualRouter(world, kind_named(kind), *(f"{30 + i}.{number}.0.{n}" for n in range(1, 5)))
            for i, kind in enumerate(kinds)
        )
        self.fresh = (f"40.{number}.{n}.1" for n in itertools.count(1))
        self.laptop = self.home.host(self.home.next_inside_ip(), name=f"laptop{number}")
        self.networks = (self.laptop, desk.host(desk.next_inside_ip(), name=f"desk{number}"))
        self.nodes = [_node(run, network, servers) for network in self.networks]
        self.flows = (Messages(world, *self.nodes), Messages(world, *reversed(self.nodes)))

    async def start(self) -> None:
        for network, node in zip(self.networks, self.nodes, strict=True):
            await network.run(node.start())
        await asyncio.sleep(SETTLE_S)
        await self.networks[0].run(self.nodes[0].connect(self.nodes[1].peer_id))
        for network, flow in zip(self.networks, self.flows, strict=True):
            flow.start(network)

    async def do(self, name: str, sleep_s: float) -> None:
        """Make a move; it is over when this returns."""
        where = self.laptop.host.gateway
        assert isinstance(where, VirtualRouter)  # noqa: S101 - laptops stand behind routers
        if name in ("router", "address"):
            where = {"router": self.elsewhere, "address": where}[name]
            move(self.laptop, where.next_inside_ip(), lan=where.lan, gateway=where)
        elif name == "line":
            where.renumber(*(next(self.fresh) for _ in range(where.kind.pool)))
        elif name == "rebinding":
            where.reboot()
        else:
            suspend(self.laptop)
            await asyncio.sleep(sleep_s)
            resume(self.laptop)

    async def stop(self) -> None:
        for flow in self.flows:
            await flow.stop()
        for network, node in zip(self.networks, self.nodes, strict=True):
            await network.run(node.stop())


def _node(run: Run[Settings], network: VirtualNetwork, servers: tuple[PeerSpec, ...], role: str = "peer") -> Node:
    settings = NodeSettings(
        listen=(Address("0.0.0.0", PORT),), listen_explicit=True, lan=False, role=role, bootstrap=servers
    )
    key, account = NodeKey.generate(run.rng.randbytes), AccountKey.generate(run.rng.randbytes)
    return Node(key=key, account=account, settings=settings, network=network)


async def run(run: Run[Settings]) -> None:
    """Let every laptop make each move, one after the other."""
    servers: tuple[PeerSpec, ...] = ()
    public = []
    for number in range(PUBLIC):
        ip = f"9.{number}.0.1"
        network = run.world.host(ip)
        node = _node(run, network, servers, "bootstrap" if number == 0 else "peer")
        await network.run(node.start())
        servers = servers or (PeerSpec(f"{node.peer_id}@{ip}:{PORT}", peer=node.peer_id, hosts=((ip, PORT),)),)
        public.append((network, node))
    await asyncio.sleep(SETTLE_S)
    pairs = [Pair(run, number, servers) for number in range(run.settings.pairs)]
    await asyncio.gather(*(pair.start() for pair in pairs))
    named = chosen(run.settings.moves)
    run.progress.phase("moving", len(named))
    rows: list[list[str | float | int | None]] = []
    for name in named:
        await asyncio.sleep(BEFORE_S)
        results = await asyncio.gather(*(_move(run, pair, name) for pair in pairs))
        rows += [[MOVES[name], *result] for result in results]
        run.progress.advance()
    for flow in (flow for pair in pairs for flow in pair.flows):
        flow.write_no_more()
    await asyncio.sleep(BEFORE_S)
    lost = sum(flow.missing for pair in pairs for flow in pair.flows)
    run.figure("messages_sent", sum(len(flow.sent) for pair in pairs for flow in pair.flows))
    run.figure("messages_lost", lost)
    run.require(not lost, f"{lost} messages have not arrived")
    run.table(
        Table("Seconds until messages flow again", ["move", "to the desk", "to the laptop", "new sessions"], rows)
    )
    await asyncio.gather(*(pair.stop() for pair in pairs))
    for network, node in public:
        await network.run(node.stop())


async def _move(run: Run[Settings], pair: Pair, name: str) -> list[float | int | None]:
    """Return the seconds until a message written after the move arrived, each way, and sessions opened for it."""
    opened: list[object] = []
    cancel = pair.nodes[0].subscribe(lambda event: opened.append(event) if isinstance(event, SessionOpened) else None)
    await pair.do(name, run.settings.sleep_s)
    moved = run.world.loop.now()
    times = [await _again(run, flow, moved) for flow in pair.flows]
    cancel()
    for seconds in times:
        run.sample(f"roam_{name}_s", AGAIN_S if seconds is None else seconds)
        took = f"nothing came within {AGAIN_S:g} s" if seconds is None else f"messages flowed after {seconds:.2f} s"
        run.require(seconds is not None and seconds <= AGAIN_BAR_S, f"{name}: {took}")
    return [*(None if seconds is None else round(seconds, 3) for seconds in times), len(opened)]


async def _again(run: Run[Settings], flow: Messages, moved: float) -> float | None:
    while (at := flow.first_after(moved)) is None:
        if run.world.loop.now() > moved + AGAIN_S:
            return None
        await asyncio.sleep(0.02)
    return at - moved


SCENARIO = Scenario(
    name="roam",
    summary="Laptops change network, router and address, and sleep, while messages flow: how soon do they again?",
    run=run,
    settings=Settings,
    nodes=PUBLIC,
    nodes_min=PUBLIC,
    nodes_max=PUBLIC,
)
