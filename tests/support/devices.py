"""Two devices of one user on fake nodes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from support.chat_fakes import FakeWorld, Person

from p2pnode import AccountKey
from p2pnode.chat import ChatSettings

ALICE = AccountKey.generate(random.Random("account alice").randbytes)


async def pair(world: FakeWorld, **settings: Any) -> tuple[Person, Person]:
    """Two devices of Alice, linked."""
    laptop = await Person(world, "alice", account=ALICE, device="laptop", settings=ChatSettings(**settings)).start()
    phone = await Person(world, "alice", account=ALICE, device="phone", settings=ChatSettings(**settings)).start()
    await link(laptop, phone)
    return laptop, phone


async def link(old: Person, new: Person) -> None:
    """What linking leaves behind."""
    new.node.adopt_devices(await old.node.change_devices(add=[new.node.peer_id]))


async def stop(*people: Person) -> None:
    for person in people:
        await person.stop()


def has(person: Person, party: Any, texts: Sequence[str]) -> Callable[[], Any]:
    async def check() -> bool:
        return await person.texts(party) == list(texts)

    return check


def has_all(person: Person, party: Any, texts: Sequence[str]) -> Callable[[], Any]:
    async def check() -> bool:
        return set(texts) <= set(await person.texts(party))

    return check
