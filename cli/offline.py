"""The database of a home on which no node runs: for commands that read it, and those that write it then."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from p2pnode import NodeKey, PeerId, UserId
    from p2pnode.chat import ChatStore, Party
    from p2pnode.cli.invocation import Invocation

__all__ = ["offline", "party_of"]

T = TypeVar("T")


async def party_of(store: ChatStore, text: str, own: PeerId, user: UserId) -> Party:
    """Return whom a PEER means, from the database alone."""
    from p2pnode import parse_peer
    from p2pnode.api.service import named
    from p2pnode.chat import Directory
    from p2pnode.chat.rooms.records import RoomRecords

    directory = Directory(user, own)
    directory.replace_contacts(await store.contacts())
    for device in await store.devices():
        directory.learn(device)
    for row in await RoomRecords(store.database).rooms():
        directory.put_room(row.id, row.name)
    spec = parse_peer(text)
    return named(spec, directory) if spec.name is not None else directory.resolve_spec(spec)


def offline(
    invocation: Invocation, work: Callable[[ChatStore, PeerId, UserId], Awaitable[T]], *, write: bool = False
) -> T:
    """Work on the database while no node runs. Nothing is created to be read: an empty home has no messages.

    `write`: the home is taken for that long. Raise HomeInUseError.
    """
    config = invocation.config(json=invocation.json)
    invocation.set_up_log(config)

    async def go() -> T:
        node_key, account = invocation.keys(config)
        async with _store(invocation, node_key, write) as store:
            return await work(store, node_key.peer_id, account.user_id)

    import asyncio  # a tenth of what `--help` takes

    with invocation.home.locked() if write else contextlib.nullcontext():
        return asyncio.run(go())


@contextlib.asynccontextmanager
async def _store(invocation: Invocation, node_key: NodeKey, write: bool) -> AsyncIterator[ChatStore]:
    from p2pnode.chat import ChatStore

    path, key = invocation.home.chat_db, invocation.database_key(node_key)
    if write:
        store = await ChatStore.open(path, key=key)
    elif path.exists():
        store = await ChatStore.open(path, read_only=True, key=key)
    else:
        store = await ChatStore.open(None)
    try:
        yield store
    finally:
        await store.close()
