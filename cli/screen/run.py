"""Runs the screen for a chat."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from p2pnode.chat import Chat, Inspector, Party
from p2pnode.cli.screen.app import ChatApp
from p2pnode.cli.screen.dialogs import Whereabouts

__all__ = ["Follow", "make_app", "run_screen"]

Follow = Callable[[Callable[[], None], Callable[[], Party | None]], Coroutine[Any, Any, None]]


async def make_app(chat: Chat, where: Whereabouts, *, inspector: Inspector | None = None) -> ChatApp:
    """Return the screen, its greeting said. Raise StorageError."""
    first = not chat.directory.contacts() and not await chat.store.last_position()
    app = ChatApp(chat, where, inspector, first=first)
    app.conversation.greet(addresses=where.addresses, bootstrap=where.bootstrap, alone=where.alone)
    return app


async def run_screen(
    chat: Chat,
    where: Whereabouts,
    *,
    inspector: Inspector | None = None,
    flush_s: float = 0.0,
    follow: Follow | None = None,
) -> bool:
    """Serve the user until they leave; return whether it was by Ctrl-C. `flush_s`: for what was just typed to leave.

    `follow(ring, watched)` calls the user meanwhile: the bell, and the conversation that is open before their eyes.
    """
    app = await make_app(chat, where, inspector=inspector)
    calling = None
    if follow is not None:
        calling = asyncio.ensure_future(follow(app.bell, lambda: app.timeline.party if app.app_focus else None))
    try:
        with contextlib.closing(app.conversation):
            interrupted = bool(await app.run_async())
            await app.conversation.flush(flush_s)
    finally:
        if calling is not None:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
    return interrupted
