"""Letters wait a day at nodes that come and go, their writers gone as soon as they are stored: are they read?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from p2pnode import Mailing
from p2pnode.chat.mail.letters import LetterMessage, Slot, open_untrusted, seal
from p2pnode.chat.mail.postbox import Postbox
from p2pnode.core.address import Realm
from p2pnode.core.keys import NodeKey
from p2pnode.dht import MAIL_SALT, record_key
from p2pnode.simulations.harness.population import Member, Population, PopulationSettings
from p2pnode.simulations.harness.scenario import Run, Scenario

__all__ = ["SCENARIO", "Settings"]

AT_ONCE = 8  # letters that are written, or readers that come back, at the same time


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `offline-delivery`."""

    full: Annotated[bool, Meta(description="whole nodes; false: DHT servers alone")] = False
    messages: Annotated[int, Meta(ge=1, le=100_000, description="letters of one message")] = 100
    readers: Annotated[int, Meta(ge=1, le=10_000, description="people they are for, evenly")] = 20
    text_bytes: Annotated[int, Meta(ge=1, le=15_000, description="length of a message")] = 120
    away_h: Annotated[float, Meta(gt=0, le=160, description="hours until the readers are back")] = 3.0
    churn_per_hour: Annotated[
        float, Meta(ge=0, le=1, description="share of the nodes that goes each hour, others come")
    ] = 0.3
    polite: Annotated[float, Meta(ge=0, le=1, description="share that says goodbye; the others just vanish")] = 0.5
    writers_stay: Annotated[bool, Meta(description="writers stay; false: each is gone once its letters are stored")] = (
        False
    )


@dataclass
class _Waiting:
    """A letter, and what its reader needs to find it."""

    slot: Slot
    reader: NodeKey
    text: str
    stored: bool = False
    lost: str = ""


class _Post(Mailing):
    """The mail calls of a node of which only the DHT runs."""

    def __init__(self, member: Member) -> None:
        self.dht, self.network = member.dht, member.network


async def run(run: Run[Settings]) -> None:
    """Join, write, let the writers go, churn, and let each reader come back as a new node that reads."""
    settings = run.settings
    population = Population(run)
    await population.grow(run.nodes, seconds=60.0)
    await population.settle(120.0)
    letters = await _write(run, population)
    stored = [letter for letter in letters if letter.stored]
    run.figure("stored_share", len(stored) / len(letters))
    churn = []
    if settings.churn_per_hour:
        mean_s = 3600 / (settings.churn_per_hour * run.nodes)
        leavers = population.come_and_go(mean_s, polite=settings.polite, staying=population.bootstrap_nodes)
        churn.append(asyncio.create_task(leavers))
    hours = max(1, round(settings.away_h))
    run.progress.phase("away", hours)
    least = 0.0
    for hour in range(hours):
        await asyncio.sleep(settings.away_h * 3600 / hours)
        run.progress.advance()
        held = [_held(population, letter) for letter in stored] or [0]
        run.point("letters_held_share", sum(count > 0 for count in held) / len(held))
        run.point("holders_of_a_letter", sum(held) / len(held))
        least = min(held) if not hour else min(least, *held)
    run.figure("least_holders", least)
    await _read(run, population, stored)
    for task in churn:
        task.cancel()
    await asyncio.gather(*churn, return_exceptions=True)
    missing = [letter for letter in stored if letter.lost]
    run.figure("read_success", 1 - len(missing) / max(1, len(stored)))
    run.figure("held_anywhere_share", sum(_held(population, letter) > 0 for letter in stored) / max(1, len(stored)))
    run.figure("nodes_alive", len(population.alive))
    for reason in sorted({letter.lost for letter in missing}):
        run.note(f"{sum(letter.lost == reason for letter in missing)} letters: {reason}")
    await population.stop()


async def _write(run: Run[Settings], population: Population) -> list[_Waiting]:
    settings, rng = run.settings, run.rng
    run.progress.phase("writing", settings.messages)
    readers = [NodeKey.generate(rng.randbytes) for _ in range(settings.readers)]
    chains = [Slot(rng.randbytes(32)) for _ in readers]
    writers = [member for member in population.alive if not member.is_bootstrap]
    places = asyncio.Semaphore(AT_ONCE)
    letters: list[_Waiting] = []
    used = set()

    async def one(letter: _Waiting, member: Member, sealed: bytes) -> None:
        async with places:
            began = member.network.monotonic()
            letter.stored = bool(await Postbox(_Post(member)).store(letter.slot.seed, sealed))
            run.sample("store_s", member.network.monotonic() - began)
            run.progress.advance()

    async with asyncio.TaskGroup() as tasks:
        for number in range(settings.messages):
            who = number % settings.readers
            slot, chains[who] = chains[who], chains[who].next()
            text = f"{number} " + "x" * max(0, settings.text_bytes - 8)
            letter = _Waiting(slot, readers[who], text)
            letters.append(letter)
            member = population.choice(writers[: max(1, len(writers) // 10)])
            used.add(member)
            message = LetterMessage(rng.randbytes(16), number, 0, text)
            sealed = seal(
                slot, readers[who].peer_id, readers[who].x25519_public, member.key, [message], rng.randbytes(32)
            )
            tasks.create_task(one(letter, member, sealed))
    if not settings.writers_stay:
        for member in used:
            member.kill()
        for _ in used:
            await population.join_one()
    return letters


async def _read(run: Run[Settings], population: Population, letters: list[_Waiting]) -> None:
    """Each reader's machine joins anew and asks for its letters at once: `appears_s` is from there to the last part."""
    by_reader: dict[NodeKey, list[_Waiting]] = {}
    for letter in letters:
        by_reader.setdefault(letter.reader, []).append(letter)
    run.progress.phase("reading", len(by_reader))
    places = asyncio.Semaphore(AT_ONCE)

    async def come_back(reader: NodeKey, waiting: list[_Waiting]) -> None:
        async with places:
            member = await population.join_one()
            box, began = Postbox(_Post(member)), member.network.monotonic()
            await asyncio.gather(*(one(member, box, began, reader, letter) for letter in waiting))
            run.progress.advance()

    async def one(member: Member, box: Postbox, began: float, reader: NodeKey, letter: _Waiting) -> None:
        found = await box.fetch(letter.slot)
        run.sample("appears_s", member.network.monotonic() - began)
        if not found:
            letter.lost = "not found, held by nobody" if not _held(population, letter) else "not found, but held"
            return
        _, messages = open_untrusted(letter.slot, reader.peer_id, reader.x25519, found)
        letter.lost = "" if [message.text for message in messages] == [letter.text] else "another text"

    await asyncio.gather(*(come_back(reader, waiting) for reader, waiting in by_reader.items()))


def _held(population: Population, letter: _Waiting) -> int:
    """Return how many living nodes hold the letter's first part."""
    key = record_key(letter.slot.public, MAIL_SALT + b"\0")
    return sum(
        member.dht.storage.read(Realm.PUBLIC, key, member.network.monotonic()) is not None
        for member in population.alive
    )


SCENARIO = Scenario(
    name="offline-delivery",
    summary="Letters wait in the network while nodes come and go and their writers are gone: are they read?",
    run=run,
    settings=Settings,
    nodes=40,
    nodes_min=8,
)
