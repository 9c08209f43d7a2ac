"""`--on-message COMMAND`: a command of the user's for each message that comes, for notifications and small bots.

The message is one line of JSON on its standard input, as `join --headless` prints it. Nothing of it is in arguments or
in the environment: a peer's text is hostile, and a shell would read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import msgspec
import structlog

from p2pnode import PeerId
from p2pnode.api.events import chat_event
from p2pnode.chat import Chat, ChatEvent, MessageReceived

__all__ = ["MessageHook"]

AT_ONCE = 4
MAX_WAITING = 1_000  # messages, about 1 MB; who writes faster than the command takes them is not told again
TIMEOUT_S = 30.0
ERROR_BYTES = 500  # of the command's standard error, for the log

log = structlog.get_logger(__name__)


class MessageHook:
    """Runs the command while `run` runs, for four messages at once, each for 30 s at most."""

    def __init__(self, chat: Chat, own: PeerId, command: str) -> None:
        """`command`: for the system's shell."""
        self._chat, self._own, self._command = chat, own, command
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)

    async def run(self) -> None:
        """Until it is cancelled; commands that run then are ended."""
        cancel = self._chat.subscribe(self._heard)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(AT_ONCE):
                    tasks.create_task(self._serve())
        finally:
            cancel()

    def _heard(self, event: ChatEvent) -> None:
        line = chat_event(event, self._own) if isinstance(event, MessageReceived) else None
        if line is None:
            return
        if self._waiting.full():
            log.warning("message_hook_too_slow", id=line.id)
        else:
            self._waiting.put_nowait(msgspec.json.encode(line) + b"\n")

    async def _serve(self) -> None:
        while True:
            line = await self._waiting.get()
            try:
                await self._start(line)
            except OSError as exc:
                log.warning("message_hook_failed", why=exc.strerror)

    async def _start(self, line: bytes) -> None:
        process = await asyncio.create_subprocess_shell(
            self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("P2PNODE_")},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                _, errors = await process.communicate(line)
            if process.returncode:
                told = errors[-ERROR_BYTES:].decode(errors="replace").strip()
                log.warning("message_hook_failed", code=process.returncode, why=told)
        except TimeoutError:
            log.warning("message_hook_failed", why=f"it took more than {TIMEOUT_S:g} s")
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """With what it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            if process.returncode is None:
                process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
