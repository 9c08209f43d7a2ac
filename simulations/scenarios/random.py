"""Two hundred look for strangers, talk, and go on: how fast are they matched, and how often are the reported chosen?"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from msgspec import Meta

from p2pnode import Node
from p2pnode.chat import ChatEvent, ChatStore, StrangerChanged
from p2pnode.chat.strangers.receipts import Receipt, report_value, reports_topic
from p2pnode.chat.strangers.service import Strangers
from p2pnode.simulations.harness.population import Population, PopulationSettings
from p2pnode.simulations.harness.scenario import Run, Scenario

__all__ = ["SCENARIO", "Settings"]

SOON_S = 5.0


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `random`."""

    join_s: Annotated[float, Meta(gt=0, description="seconds over which the users' nodes arrive")] = 60.0
    begin_s: Annotated[float, Meta(ge=0, description="seconds over which they begin to look for strangers")] = 20.0
    talk_s: Annotated[
        float, Meta(ge=1, description="least patience with a stranger, seconds (three times it at most)")
    ] = 30.0
    keep_s: Annotated[float, Meta(ge=1, description="seconds that are measured")] = 360.0
    reported: Annotated[float, Meta(ge=0, le=0.5, description="share of the users that were reported")] = 0.1
    reports: Annotated[int, Meta(ge=1, le=60, description="valid reports against each of those")] = 10


class Lobby:
    """Who looks for a stranger at the moment, and for how long there was somebody whom each could meet.

    In a small lobby somebody is alone at times, or with his last partner: nobody can be matched then. That one can meet
    his last partner again is noticed when the next one comes or goes.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._company_s: dict[User, float] = {}
        self._accompanied: list[User] = []
        self._at = 0.0

    def enter(self, user: User) -> None:
        self._pass_time()
        self._company_s[user] = 0.0
        self._look_round()

    def leave(self, user: User) -> float:
        """Return the seconds in which it had company."""
        self._pass_time()
        company_s = self._company_s.pop(user, 0.0)
        self._look_round()
        return company_s

    def _pass_time(self) -> None:
        passed, self._at = self._clock() - self._at, self._clock()
        for user in self._accompanied:
            self._company_s[user] += passed

    def _look_round(self) -> None:
        here = self._company_s
        self._accompanied = [user for user in here if any(user.may_meet(other) for other in here)]


class User:
    """Somebody who looks for strangers all the time; a host of `Strangers`."""

    def __init__(self, run: Run[Settings], node: Node, lobby: Lobby) -> None:
        self.node, self._lobby = node, lobby
        self.reported = False
        self.strangers: Strangers
        self.found = 0
        self._run = run
        self._events: asyncio.Queue[StrangerChanged] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._store: ChatStore

    def emit(self, event: ChatEvent) -> None:
        if isinstance(event, StrangerChanged):
            self._events.put_nowait(event)

    def start_task(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def open(self) -> None:
        self._store = await ChatStore.open(None, run_blocking=self.node.network.run_blocking)
        self.strangers = Strangers(self, self._store.database)
        await self.strangers.start()

    async def live(self, after: float) -> None:
        """Begin, talk until one has had enough, go on. Ends when cancelled."""
        run, rng, loop = self._run, self._run.rng, self._run.world.loop
        await asyncio.sleep(after)
        began = loop.time()
        self._lobby.enter(self)
        await self.strangers.begin()
        while True:
            event = await self._events.get()
            if event.phase == "searching" and event.reason == "waiting":
                began = float("inf")  # not looking: it knows that nobody would take it
                self._lobby.leave(self)
            if event.phase != "found":
                continue
            self.found += 1
            company_s = self._lobby.leave(self)
            if not self.reported and began < loop.time():
                run.sample("search_s", loop.time() - began)
                run.sample("search_in_company_s", company_s)
                run.progress.advance()
            patience = rng.uniform(run.settings.talk_s, 3 * run.settings.talk_s)
            try:
                async with asyncio.timeout(patience):
                    while (await self._events.get()).phase != "ended":
                        pass
                await asyncio.sleep(rng.uniform(0.5, 2.0))  # "the stranger has left": read it, type \next
            except TimeoutError:
                pass
            began = loop.time()
            self._lobby.enter(self)
            await self.strangers.next()
            while not self._events.empty():
                self._events.get_nowait()

    def may_meet(self, other: User) -> bool:
        """Whether that is somebody else, whom it has not talked to just now."""
        network = self.node.network
        device = other.strangers.key_at(int(network.wall())).public_raw
        return other is not self and not self.strangers.acquaintances.just_met(device, network.monotonic())

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._store.close()


async def run(run: Run[Settings]) -> None:
    """Join, report some, let all look for strangers, and count."""
    settings = run.settings
    population = Population(run)
    members = await population.grow(run.nodes + 3, seconds=settings.join_s)
    await population.settle(30.0)
    lobby = Lobby(run.world.loop.time)
    users = [User(run, member.node, lobby) for member in members[3:] if member.node is not None]
    for user in users:
        await user.open()
    run.progress.phase("reporting", 1)
    reported = run.rng.sample(users, round(settings.reported * len(users)))
    await asyncio.gather(*(_report(run, user, users) for user in reported))
    run.progress.phase("talking", len(users) * int(settings.keep_s / settings.talk_s))
    lives = [asyncio.ensure_future(user.live(run.rng.uniform(0, settings.begin_s))) for user in users]
    await asyncio.sleep(settings.keep_s)
    for life in lives:
        life.cancel()
    results = await asyncio.gather(*lives, return_exceptions=True)
    failed = [result for result in results if isinstance(result, Exception)]
    run.require(not failed, f"{len(failed)} users ended with an error: {failed[:1]}")
    _figures(run, users)
    for user in users:
        await user.close()
    await population.stop()


async def _report(run: Run[Settings], user: User, users: list[User]) -> None:
    """Publish valid reports of others against a user: receipts of conversations, signed by both."""
    user.reported = True
    at = int(user.node.network.wall())
    key = user.strangers.key_at(at)
    reporters = run.rng.sample([other for other in users if other is not user], run.settings.reports)
    for other in reporters:
        theirs = other.strangers.key_at(at)
        receipt = Receipt(at, theirs.public_raw, key.public_raw, run.rng.randbytes(32))
        value = report_value(receipt, key.sign(receipt.signing_input()))
        await other.node.announce(reports_topic(key.public_raw, receipt.epoch), value, key=theirs, life=3600.0)


def _figures(run: Run[Settings], users: list[User]) -> None:
    run.figure("conversations", sum(user.found for user in users) / 2)
    for kind, name in (
        ("search_s", "matched_within_5_s_share"),
        ("search_in_company_s", "in_company_within_5_s_share"),
    ):
        searches = run.recorder.samples.get(kind, [])
        if searches:
            run.figure(name, len([each for each in searches if each <= SOON_S]) / len(searches))
    counts: dict[bool, list[int]] = {
        flag: [user.found for user in users if user.reported is flag] for flag in (False, True)
    }
    if counts[True] and any(counts[False]):
        means = {flag: sum(found) / len(found) for flag, found in counts.items()}
        run.figure("conversations_per_user", means[False])
        run.figure("conversations_per_reported", means[True])
        run.figure("reported_chosen_share", means[True] / means[False])
    spread = Counter(user.found for user in users if not user.reported)
    run.figure("without_any_share", spread[0] / max(1, len(counts[False])))


SCENARIO = Scenario(
    name="random",
    summary="Two hundred look for strangers: how fast are they matched, how often are the reported chosen?",
    run=run,
    settings=Settings,
    nodes=200,
    nodes_min=6,
)
