"""Runs the screen for a chat."""

from __future__ import annotations

import contextlib

from p2pnode.chat import Chat, Inspector
from p2pnode.cli.screen.app import ChatApp
from p2pnode.cli.screen.dialogs import Whereabouts

__all__ = ["make_app", "run_screen"]


async def make_app(chat: Chat, where: Whereabouts, *, inspector: Inspector | None = None) -> ChatApp:
    """Return the screen, its greeting said. Raise StorageError."""
    first = not chat.directory.contacts() and not await chat.store.last_position()
    app = ChatApp(chat, where, inspector, first=first)
    app.conversation.greet(addresses=where.addresses, bootstrap=where.bootstrap, alone=where.alone)
    return app


async def run_screen(
    chat: Chat, where: Whereabouts, *, inspector: Inspector | None = None, flush_s: float = 0.0
) -> bool:
    """Serve the user until they leave; return whether it was by Ctrl-C. `flush_s`: for what was just typed to leave."""
    app = await make_app(chat, where, inspector=inspector)
    with contextlib.closing(app.conversation):
        interrupted = bool(await app.run_async())
        await app.conversation.flush(flush_s)
    return interrupted
