"""`p2pnode random` where no node runs: one made for this, with keys of its own, for as long as it takes.

It joins through the nodes that this home knows. The user's own node is nowhere on the network meanwhile, so nothing can
tie a stranger to it but the address. Device secret and reports are those of the home.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import structlog

from p2pnode import AccountKey, Config, Node, NodeKey, NodeSettings, P2PError, RealNetwork
from p2pnode.api.events import chat_event
from p2pnode.chat import Chat, ChatEvent, ChatSettings, ChatStore, DatabaseKey
from p2pnode.cli.commands_run import settings_of
from p2pnode.cli.console import run_strangers
from p2pnode.cli.run import Stop, loop_factory, signals, watchdog_of

if TYPE_CHECKING:
    from p2pnode.cli.invocation import Invocation

__all__ = ["run_random"]

log = structlog.get_logger(__name__)


def run_random(invocation: Invocation, config: Config, *, relay_only: bool) -> int:
    """Return the exit code. Raise P2PError."""
    settings = settings_of(config, "peer", network_secret=invocation.network_secret(config), records_db="")
    listen = settings.listen if settings.listen_explicit else tuple(each._replace(port=0) for each in settings.listen)
    settings = replace(settings, name="", listen=listen, relay=False, portmap=False, tcp=(), relay_only=relay_only)
    invocation.set_up_log(config)
    invocation.home.create()
    invocation.home.lock()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            keys = invocation.keys(config)[0] if invocation.home.node_key.exists() else None
            key = None if keys is None else invocation.database_key(keys)
            try:
                return runner.run(_run(invocation, settings, key))
            except asyncio.CancelledError:
                return 130
    finally:
        invocation.home.unlock()


async def _run(invocation: Invocation, settings: NodeSettings, key: DatabaseKey | None) -> int:
    network, stop = RealNetwork(), Stop()
    with signals(stop):
        kept = await ChatStore.open(invocation.home.chat_db, run_blocking=network.run_blocking, key=key)
        store = await ChatStore.open(None, run_blocking=network.run_blocking)  # this node sends no mail of the user's
        node = Node(
            key=NodeKey.generate(network.token_bytes),
            account=AccountKey.generate(network.token_bytes),
            settings=settings,
            network=network,
            state_path=invocation.home.state,
        )
        chat = Chat(node, store, ChatSettings(hall=False))
        chat.strangers.database = kept.database
        work = asyncio.ensure_future(_work(invocation, node, chat, relay_only=settings.relay_only))
        waiting = asyncio.ensure_future(stop.wanted.wait())
        try:
            await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return 130 if work.result() else 0
            return stop.code or 0
        finally:
            watchdog = watchdog_of(stop.code or 0)
            for task in (work, waiting):
                task.cancel()
            await asyncio.gather(work, waiting, return_exceptions=True)
            for leave in (chat.stop, node.stop, store.close, kept.close):
                with contextlib.suppress(P2PError):
                    await leave()
            watchdog.cancel()


async def _work(invocation: Invocation, node: Node, chat: Chat, *, relay_only: bool) -> bool:
    """Serve the user; return whether it ended by Ctrl-C."""
    await chat.start()
    ready = await node.start()
    if ready.alone:
        invocation.note(ready.waiting_sentence())
    if invocation.json:
        chat.subscribe(lambda event: _print_event(invocation, node, event))
    return await run_strangers(
        chat,
        own_port=next((local.port for local in node.mux.local), 0),
        relay_only=relay_only,
        input_fd=invocation.stdin.fileno(),
        output=invocation.stdout,
        show=invocation.note if invocation.json else None,
    )


def _print_event(invocation: Invocation, node: Node, event: ChatEvent) -> None:
    line = chat_event(event, node.peer_id)
    if line is not None and line.event in ("random", "random_message"):
        with contextlib.suppress(BrokenPipeError):
            invocation.line(msgspec.json.encode(line).decode())
