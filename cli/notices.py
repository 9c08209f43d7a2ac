"""Calls the user: the terminal's bell, a notification on the desktop (extra `desktop`). Each can be switched off.

What others write is shown on the desktop as text: cleaned, cut, and escaped where the desktop would read markup.
"""

from __future__ import annotations

import asyncio
import html
import importlib
import logging
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from p2pnode.chat import Chat, ChatEvent, Notice, Party, notice_of

__all__ = ["Calls", "Desktop", "Notices", "desktop_of"]

log = structlog.get_logger(__name__)

# Chosen by us.
BELL_PAUSE_S = 2.0
DESKTOP_PAUSE_S = 3.0  # between two notifications; what comes meanwhile shares the next one of its conversation
MAX_WAITING = 20  # conversations
SEND_S = 5.0
MAX_FAILURES = 3  # in a row; then there is no desktop to show anything


class Desktop(Protocol):
    """`desktop_notifier.DesktopNotifier`."""

    async def send(self, title: str, message: str) -> Any: ...


def desktop_of() -> Desktop | None:
    """Return the desktop, None where the extra is not installed or there is none."""
    try:
        package = importlib.import_module("desktop_notifier")
    except ImportError:
        return None
    logging.getLogger("desktop_notifier").setLevel(logging.CRITICAL)  # it logs what it cannot show; we do
    desktop: Desktop = package.DesktopNotifier(app_name="p2pnode")
    return desktop


@dataclass(frozen=True, slots=True)
class Calls:
    """How the user is called. `desktop`: off, names (who wrote) or text (and what)."""

    bell: bool = True
    desktop: str = "text"

    async def follow(
        self, chat: Chat, ring: Callable[[], None], watched: Callable[[], Party | None] = lambda: None
    ) -> None:
        """Call the user until cancelled. `ring`: the bell of the terminal. `watched`: as of Notices."""
        desktop = None if self.desktop == "off" else await chat.node.network.run_blocking(desktop_of)
        bell = ring if self.bell else None
        await Notices(chat, bell=bell, desktop=desktop, show_text=self.desktop == "text", watched=watched).run()


class Notices:
    """Follows a chat. `watched`: the conversation that the user looks at just now, for which nothing rings."""

    def __init__(
        self,
        chat: Chat,
        *,
        bell: Callable[[], None] | None = None,
        desktop: Desktop | None = None,
        show_text: bool = True,
        watched: Callable[[], Party | None] = lambda: None,
    ) -> None:
        """`bell`, `desktop` None: off. `show_text`: what was written stands in the notification, not only by whom."""
        self._chat = chat
        self._bell, self._desktop, self._show_text, self._watched = bell, desktop, show_text, watched
        self._rang_at = float("-inf")
        self._waiting: deque[tuple[Notice, int]] = deque()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Until it is cancelled, or the desktop takes nothing."""
        cancel = self._chat.subscribe(self._heard)
        try:
            if self._desktop is None:
                await asyncio.Event().wait()
            else:
                await self._show(self._desktop)
        finally:
            cancel()

    def _heard(self, event: ChatEvent) -> None:
        notice = notice_of(event, self._chat.directory, self._chat.node.settings.name)
        if notice is None or notice.party == self._watched():
            return
        now = self._chat.node.network.monotonic()
        if self._bell is not None and now >= self._rang_at + BELL_PAUSE_S:
            self._rang_at = now
            self._bell()
        if self._desktop is None:
            return
        for number, (earlier, count) in enumerate(self._waiting):
            if earlier.party == notice.party:
                self._waiting[number] = (notice, count + 1)
                return
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append((notice, 1))
            self._news.set()

    async def _show(self, desktop: Desktop) -> None:
        failures = 0
        while failures < MAX_FAILURES:
            await self._news.wait()
            while self._waiting and failures < MAX_FAILURES:
                notice, count = self._waiting.popleft()
                try:
                    async with asyncio.timeout(SEND_S):
                        await desktop.send(*self._texts(notice, count))
                    failures = 0
                except Exception as exc:  # noqa: BLE001 - each system's own kind; the chat goes on without
                    failures += 1
                    log.info("desktop_notice_failed", why=type(exc).__name__)
                await asyncio.sleep(DESKTOP_PAUSE_S)
            self._news.clear()
        self._desktop = None
        self._waiting.clear()
        if self._bell is not None:
            await asyncio.Event().wait()

    def _texts(self, notice: Notice, count: int) -> tuple[str, str]:
        text = notice.text if self._show_text else "sent a message"
        if count > 1:
            text = f"{text} ({count} messages)" if self._show_text else f"sent {count} messages"
        return notice.title, html.escape(text, quote=False) if sys.platform == "linux" else text
