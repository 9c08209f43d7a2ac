"""How a population is made, and what a read of a scenario counts as."""

from __future__ import annotations

import asyncio

from p2pnode.core.address import Realm
from p2pnode.core.network_id import network_tag
from p2pnode.dht import SignedRecord
from p2pnode.simulations.harness.population import MADE_AT_ONCE, Member, Population, PopulationSettings
from p2pnode.simulations.harness.records import SALT, Read, Written, holds, read_one, write_one
from p2pnode.simulations.harness.scenario import Run
from p2pnode.simulations.virtual import VirtualLoop, VirtualWorld


class Silent:
    def phase(self, name: str, total: int) -> None: ...

    def advance(self, steps: int = 1) -> None: ...


def test_a_read_wants_the_version_that_was_stored_or_a_later_one() -> None:
    settings = PopulationSettings(full=False)
    loop = VirtualLoop()
    run = Run(VirtualWorld(1, delay=settings.delay, keep_trace=False, loop=loop), 40, 1, settings, Silent())
    reads: dict[str, Read] = {}

    async def main() -> None:
        population = Population(run)
        await population.grow(40, seconds=20.0)
        author = population.alive[5]
        first = await write_one(run, author, value_bytes=100)
        await asyncio.sleep(5)
        second = await write_one(run, author, value_bytes=100, key=first.key)
        await asyncio.sleep(5)
        seq, expires = second.record.seq + 1, second.record.expires
        unsent = SignedRecord.sign(first.key, network_tag("public"), salt=SALT, seq=seq, expires=expires, value=b"new")
        reader = next(each for each in population.alive if each is not author and not holds(each, first.record))
        assert all(Realm.PUBLIC in each.dht.serving for each in population.alive)
        for name, record in (("earlier", first.record), ("stored", second.record), ("unsent", unsent)):
            reads[name] = await read_one(run, Written(record, author, first.key), reader, "lookup")
        await population.stop()

    loop.run(main())
    assert reads == {
        "earlier": Read(good=True, first_older=False),
        "stored": Read(good=True, first_older=False),
        "unsent": Read(good=False, first_older=True),
    }


def test_thousands_of_nodes_are_not_made_in_one_step_of_the_loop() -> None:
    """A step of more than five real seconds is taken for a blocked loop."""
    settings = PopulationSettings(full=False)
    loop = VirtualLoop()
    run = Run(VirtualWorld(1, delay=settings.delay, keep_trace=False, loop=loop), 0, 1, settings, Silent())
    steps: list[int] = []

    class Counted(Population):
        made = 0

        def _make(self, *, public: bool = False) -> Member:
            self.made += 1
            loop.call_soon(lambda: steps.append(self.made))
            return super()._make(public=public)

    async def main() -> None:
        population = Counted(run)
        growing = asyncio.ensure_future(population.grow(3 * MADE_AT_ONCE, seconds=1000.0))
        await asyncio.sleep(0.5)
        growing.cancel()
        await asyncio.gather(growing, return_exceptions=True)
        await population.stop()

    loop.run(main())
    assert max(after - before for before, after in zip([0, *steps], steps, strict=False)) <= MADE_AT_ONCE
