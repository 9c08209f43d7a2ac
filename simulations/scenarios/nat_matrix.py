"""Every pair of kinds of network connects by id alone: which path, how fast, and is a message delivered once?

The same table as `p2pnode lab matrix`, on router models instead of the kernel's; what is right for each cell is
`netns.expectations`.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Annotated

from msgspec import Meta

from p2pnode import AccountKey, Node, NodeKey, NodeSettings, PeerSpec, Session, SessionMoved
from p2pnode.core.address import Address
from p2pnode.core.errors import P2PError
from p2pnode.nat import Stream
from p2pnode.simulations.harness.scenario import Cell, NetworkSettings, Run, Scenario, Table
from p2pnode.simulations.netns.expectations import SHARED, Expected, expected
from p2pnode.simulations.netns.kinds import KINDS
from p2pnode.simulations.routers.kinds import kind_named
from p2pnode.simulations.virtual import VirtualNetwork
from p2pnode.simulations.virtual.router import Home, VirtualRouter

__all__ = ["MATRIX", "SCENARIO", "Settings", "names"]

MATRIX = "Paths"
PORT, TLS_PORT = 4747, 443
BOOTSTRAP, PUBLIC = 3, 4
MAPPED_S, MAPPED_FOUND_S = 30, 2.0  # most seconds until a router's port is proven; until others find it
SETTLE_S = 15.0  # the public peers are dialled back and become servers
NOTE = "p2pnode/simulation-note/1"
GROUPS = {"quick": ("public", "fullcone", "port-restricted", "symmetric"), "all": (*KINDS, *SHARED)}


def names(text: str) -> tuple[str, ...]:
    """Return the kinds of a comma-separated list, or of a group. Raise ValueError."""
    if text in GROUPS:
        return GROUPS[text]
    chosen = tuple(each.strip() for each in text.split(","))
    for each in chosen:
        if each not in SHARED:
            kind_named(each)
            if each not in KINDS:
                raise ValueError(f"kinds: nobody has said what is right for {each}")
    return chosen


class Settings(NetworkSettings, frozen=True, kw_only=True):
    """Of `nat-matrix`: 80 ms round trip without loss, as in the laboratory."""

    delay_min_ms: Annotated[float, Meta(ge=0, le=60_000, description="least one-way delay of a datagram")] = 40.0
    delay_max_ms: Annotated[float, Meta(ge=0, le=60_000, description="greatest one-way delay, uniform between")] = 40.0
    loss: Annotated[float, Meta(ge=0, le=1, description="share of datagrams lost")] = 0.0
    kinds: Annotated[str, Meta(description="kinds of network, comma-separated, or one of: all, quick")] = "all"
    samples: Annotated[int, Meta(ge=1, le=100, description="connects per cell, between different hosts")] = 1
    timeout_s: Annotated[float, Meta(gt=0, le=600, description="seconds that one connect may take")] = 15.0

    def __post_init__(self) -> None:
        super().__post_init__()
        names(self.kinds)


class Peer:
    """A node and the notes that it was sent."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.notes: list[bytes] = []
        node.handle(NOTE, self._take)

    async def _take(self, _session: Session, stream: Stream) -> None:
        text = bytearray()
        while data := await stream.read(4096):
            text += data
        self.notes.append(bytes(text))
        await stream.write(b"\x01")
        stream.finish()


class Builder:
    """Makes homes with nodes in them; each gets addresses in a block of its own."""

    def __init__(self, run: Run[Settings]) -> None:
        self.run = run
        self.peers: list[Peer] = []
        self.servers: list[PeerSpec] = []
        self._blocks = itertools.count(1)

    async def open(self) -> None:
        """Start the public nodes that everybody joins through."""
        for number in range(BOOTSTRAP + PUBLIC):
            home = self._home("public")
            peer = await self._move_in(home.host(), role="bootstrap" if number < BOOTSTRAP else "peer")
            if number < BOOTSTRAP:
                address = peer.node.addresses()[0]
                self.servers.append(
                    PeerSpec(
                        f"{peer.node.peer_id}@{address},tcp:{address.ip}:{TLS_PORT}",
                        peer=peer.node.peer_id,
                        hosts=((address.ip, PORT),),
                        tcp_hosts=((address.ip, TLS_PORT),),
                    )
                )
        await asyncio.sleep(SETTLE_S)

    async def pairs(self, a: str, b: str, known: dict[str, list[Peer]]) -> list[tuple[Peer, Peer]]:
        """Return a cell's pairs of different nodes; `known` has the nodes of each kind that there are already."""
        samples = self.run.settings.samples
        if a in SHARED:
            hosts = self._shared(a)
            return [(await self._move_in(hosts[0]), await self._move_in(hosts[1]))]
        for kind in (a, b):
            while len(known.setdefault(kind, [])) < samples + 1:
                known[kind].append(await self._move_in(self._home(kind).host()))
        found = [(known[a][i], known[b][i + 1 if a == b else i]) for i in range(samples)]
        return [pair if i % 2 == 0 else (pair[1], pair[0]) for i, pair in enumerate(found)]

    async def mapped(self, known: dict[str, list[Peer]]) -> None:
        """Wait until the ports that routers opened are proven: before, such a home is like any other."""
        waiting = [peer.node for kind, peers in known.items() if KINDS[kind].port_mapping for peer in peers]
        for _ in range(MAPPED_S):
            if all(any(each.believed for each in node.status().port_mapping) for node in waiting):
                break
            await asyncio.sleep(1.0)
        if waiting:
            await asyncio.sleep(MAPPED_FOUND_S)

    async def stop(self) -> None:
        await asyncio.gather(*(peer.node.stop() for peer in self.peers))

    def _home(self, kind: str, carrier: VirtualRouter | None = None) -> Home:
        block = next(self._blocks)
        outside = [f"{20 + block // 200}.{block % 200}.0.{1 + i}" for i in range(2)]
        prefix6 = f"2a00:{block:x}::/64" if kind_named(kind).ipv6 != "none" else None
        return Home.build(self.run.world, kind, *outside, carrier=carrier, prefix6=prefix6)

    def _shared(self, name: str) -> list[VirtualNetwork]:
        shared = SHARED[name]
        if not shared.home:
            home = self._home(shared.kind)
            return [home.host(), home.host()]
        first = self._home(shared.home)
        router = first.router.gateway if first.router is not None else None
        carrier = router if isinstance(router, VirtualRouter) else None
        return [first.host(), self._home(shared.home, carrier).host()]

    async def _move_in(self, network: VirtualNetwork, role: str = "peer") -> Peer:
        rng = self.run.rng
        node = Node(
            key=NodeKey.generate(rng.randbytes),
            account=AccountKey.generate(rng.randbytes),
            settings=NodeSettings(
                listen=(Address("0.0.0.0", PORT), Address("::", PORT)), listen_explicit=True, role=role,
                tcp=(Address("0.0.0.0", TLS_PORT), Address("::", TLS_PORT)) if role == "bootstrap" else (),
                bootstrap=tuple(self.servers),
            ),
            network=network,
        )  # fmt: skip
        self.peers.append(Peer(node))
        await node.start()
        return self.peers[-1]


async def run(run: Run[Settings]) -> None:
    """Build all homes, then connect every pair."""
    kinds = names(run.settings.kinds)
    plain = [kind for kind in kinds if kind not in SHARED]
    cells = [*itertools.combinations_with_replacement(plain, 2), *((name, name) for name in kinds if name in SHARED)]
    builder = Builder(run)
    await builder.open()
    known: dict[str, list[Peer]] = {}
    run.progress.phase("starting nodes", len(cells))
    work = []
    for a, b in cells:
        work.append((a, b, await builder.pairs(a, b, known)))
        run.progress.advance()
    await builder.mapped(known)
    table = Table(
        "Pairs", ["a", "b", "connected", "path", "code", "seconds", "direct after", "delivered once", "as expected"], []
    )
    run.progress.phase("connecting", len(work))
    for a, b, pairs in work:
        attempts = [await _attempt(run, *pair, expected(a, b).direct_within_s) for pair in pairs]
        _record(run, table, a, b, attempts)
        run.progress.advance()
    run.table(table)
    run.figure("cells_as_expected_share", sum(row[-1] == "yes" for row in table.rows) / len(cells))
    run.figure("cells_connected_share", sum(row[2] == "yes" for row in table.rows) / len(cells))
    await builder.stop()


class Attempt:
    """What came of one connect."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.code: str | None = None
        self.message = ""
        self.seconds = 0.0
        self.delivered_once = False
        self.direct_s: float | None = None


async def _attempt(run: Run[Settings], caller: Peer, callee: Peer, direct_within_s: float) -> Attempt:
    """Connect by id and hand over a note. `seconds`: lookup included, to an echoed byte.

    `direct_s`: until a relayed session had a direct path, if it gets one within `direct_within_s`.
    """
    made = Attempt()
    began = run.world.loop.time()
    try:
        session = await caller.node.connect(callee.node.peer_id, timeout=run.settings.timeout_s)
        await session.ping()
        made.seconds = run.world.loop.time() - began
        made.path = session.path
        note = run.rng.randbytes(16)
        stream = await session.open_stream(NOTE)
        await stream.write(note)
        stream.finish()
        await stream.readexactly(1)
        made.delivered_once = callee.notes.count(note) == 1
        if made.path == "relay" and await _becomes_direct(caller.node, session, began + direct_within_s):
            made.path, made.direct_s = session.path, run.world.loop.time() - began
    except P2PError as error:
        made.code, made.message = error.code, error.message
        made.seconds = run.world.loop.time() - began
    return made


async def _becomes_direct(node: Node, session: Session, until: float) -> bool:
    """Wait for a direct path, until then at most."""
    moved = asyncio.Event()
    cancel = node.subscribe(lambda event: moved.set() if isinstance(event, SessionMoved) else None)
    try:
        async with asyncio.timeout_at(until):
            while session.path == "relay":
                moved.clear()
                await moved.wait()
    except TimeoutError:
        return False
    finally:
        cancel()
    return True


def _record(run: Run[Settings], table: Table, a: str, b: str, attempts: list[Attempt]) -> None:
    right: Expected = expected(a, b)
    worst = next((each for each in attempts if each.path is None), attempts[0])
    good = all((each.path or each.code) in right.results for each in attempts) and (
        not right.connected or all(each.delivered_once for each in attempts)
    )
    result = worst.path or worst.code or ""
    seconds = sorted(each.seconds for each in attempts)[len(attempts) // 2]
    reason = worst.message or right.reason
    for row, column in {(a, b), (b, a)} if a not in SHARED else {(a, a)}:
        run.cell(MATRIX, Cell(row, column, f"{result} {seconds:.2f} s", good if right.connected else None, reason))
    direct = min((round(each.direct_s, 3) for each in attempts if each.direct_s is not None), default=None)
    once = all(each.delivered_once for each in attempts)
    table.rows.append(
        [a, b, _yes(worst.path is not None), worst.path, worst.code, round(seconds, 3), direct, _yes(once), _yes(good)]
    )
    for each in attempts:
        if each.path is not None:
            run.sample("connect_s", each.seconds)
        if each.direct_s is not None:
            run.sample("direct_s", each.direct_s)
    run.require(good, f"{a} with {b}: {result}, not {' or '.join(right.results)}")


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


SCENARIO = Scenario(
    name="nat-matrix",
    summary="Every pair of kinds of router connects by id alone: which path, how fast, and why not?",
    run=run,
    settings=Settings,
    nodes=BOOTSTRAP + PUBLIC,
    nodes_min=BOOTSTRAP + PUBLIC,
    nodes_max=BOOTSTRAP + PUBLIC,
)
