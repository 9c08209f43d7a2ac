"""What a read of a scenario counts as: the version that was wanted, a later one, or only an earlier one."""

from __future__ import annotations

import asyncio

from p2pnode.core.address import Realm
from p2pnode.core.network_id import network_tag
from p2pnode.dht import SignedRecord
from p2pnode.simulations.harness.population import Population, PopulationSettings
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
