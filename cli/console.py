"""The console's three faces (docs/cli.md, "The chat console"): the screen, a prompt, plain lines.

What is typed means what `chat.conversation` says; here is only input and output. A terminal shows the screen
(`cli/screen`); with `--plain` a prompt, where an arriving line is printed above a half-typed one, which stays as it is.
Without a terminal, or on one that can do nothing (TERM=dumb), each line of standard input is one command; the end of
input leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

    from p2pnode.chat import Chat, Conversation, Inspector
    from p2pnode.cli.notices import Calls

__all__ = ["LineSplitter", "run_console", "run_strangers"]

# Chosen by us.
MAX_LINE_BYTES = 65_536  # of standard input; a message has 15,000
READ_BYTES = 65_536
FLUSH_S = 1.5  # of the two seconds that leaving may take: for messages that were just typed or piped in


async def run_console(
    chat: Chat,
    *,
    own_port: int,
    addresses: tuple[str, ...] = (),
    bootstrap: str | None = None,
    alone: bool = False,
    plain: bool = False,
    inspector: Inspector | None = None,
    input_fd: int | None = None,
    output: TextIO | None = None,
    hold_log: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    calls: Calls | None = None,
) -> bool:
    """Serve the user until `\\quit`, the end of input or Ctrl-C; return whether it was Ctrl-C.

    `own_port`, `addresses`, `bootstrap`, `alone`: as in `Ready`, for the greeting. `plain`: no screen. `inspector`:
    tells of paths. `input_fd`, `output`: standard input and output if None. `hold_log`: while this context lasts,
    nothing is logged to the terminal. `calls`: how the user is called on a terminal; None: not at all.
    """
    from p2pnode.chat import Conversation

    stream = output if output is not None else sys.stdout
    fd = input_fd if input_fd is not None else sys.stdin.fileno()
    able = os.isatty(fd) and stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    if able and not plain:
        await chat.node.network.run_blocking(importlib.import_module, "p2pnode.cli.screen.run")  # Textual: 0.3 s
        from p2pnode.cli.screen.dialogs import Whereabouts
        from p2pnode.cli.screen.run import run_screen

        with hold_log():
            return await run_screen(
                chat,
                Whereabouts(own_port, addresses, bootstrap, alone),
                inspector=inspector,
                flush_s=FLUSH_S,
                follow=None if calls is None else functools.partial(calls.follow, chat),
            )
    show = _print_above if able else _line_writer(stream)
    conversation = Conversation(chat, own_port=own_port, show=show, inspector=inspector)
    interrupted = False
    calling = None if calls is None or not able else asyncio.ensure_future(calls.follow(chat, _bell_of(stream)))

    def greet() -> None:
        conversation.greet(addresses=addresses, bootstrap=bootstrap, alone=alone)

    try:
        if able:
            interrupted = await run_prompt(conversation, greet)
        else:
            greet()
            await run_lines(conversation, fd, show)
        await conversation.flush(FLUSH_S)
    except BrokenPipeError:
        return False  # nobody reads what we print: leave as after \quit
    finally:
        conversation.close()
        if calling is not None:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
    return interrupted


async def run_strangers(
    chat: Chat, *, own_port: int, relay_only: bool, input_fd: int, output: TextIO, show: Callable[[str], None] | None
) -> bool:
    """Search for a stranger and serve the user until he leaves; return whether it was by Ctrl-C.

    `show`: shows each line; None: a prompt on a terminal, else plain lines on `output`.
    """
    from p2pnode.chat import Conversation

    able = show is None and os.isatty(input_fd) and output.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    line = show or (_print_above if able else _line_writer(output))
    conversation = Conversation(chat, own_port=own_port, show=line, only_strangers=True)
    try:
        await conversation.handle("\\random relay-only" if relay_only else "\\random")
        if able:
            return await run_prompt(conversation, lambda: None)
        await run_lines(conversation, input_fd, line)
    except BrokenPipeError:
        pass
    finally:
        conversation.close()
    return False


async def run_lines(conversation: Conversation, fd: int, show: Callable[[str], None]) -> None:
    """Line mode: one command per line of `fd`."""
    splitter = LineSplitter()
    async for data in _chunks(fd):
        for line in splitter.feed(data):
            await _handle_line(conversation, line, show)
            if conversation.finished:
                return
    for line in splitter.end():
        await _handle_line(conversation, line, show)


async def _handle_line(conversation: Conversation, line: bytes | None, show: Callable[[str], None]) -> None:
    if line is None:
        show(f"! A line of more than {MAX_LINE_BYTES:,} bytes was not sent; a message has at most 15,000.")
        return
    try:
        text = line.decode()
    except UnicodeDecodeError:
        show("! That line is not UTF-8; it was not sent.")
        return
    await conversation.handle(text)


class LineSplitter:
    """Cuts bytes into lines; None stands for one that was too long. Memory: one line."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """Return the lines that are complete now, without their ends."""
        lines: list[bytes | None] = []
        self._rest += data
        while (end := self._rest.find(b"\n")) >= 0:
            line = bytes(self._rest[:end])
            del self._rest[: end + 1]
            lines.append(None if self._skipping or len(line) > self._limit else line.removesuffix(b"\r"))
            self._skipping = False
        if len(self._rest) > self._limit:
            self._rest.clear()
            self._skipping = True
        return lines

    def end(self) -> list[bytes | None]:
        """Return the last line, if the input ended without a line end."""
        rest, self._rest = bytes(self._rest), bytearray()
        if self._skipping:
            return [None]
        return [rest] if rest else []


async def _chunks(fd: int) -> AsyncIterator[bytes]:
    """Read `fd` without a thread: the loop says when there is something. A file on disk is always ready."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(fd, readable.set)
    except OSError:  # epoll takes no ordinary files and no /dev/null
        while data := os.read(fd, READ_BYTES):
            yield data
            await asyncio.sleep(0)
        return
    try:
        while True:
            await readable.wait()
            readable.clear()
            try:
                data = os.read(fd, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:  # the terminal went away: the end of input
                return
            if not data:
                return
            yield data
    finally:
        loop.remove_reader(fd)


async def run_prompt(
    conversation: Conversation,
    greet: Callable[[], None],
    *,
    terminal_input: Input | None = None,
    terminal_output: Output | None = None,
) -> bool:
    """A prompt with history and completion; arriving lines appear above it. Return whether Ctrl-C ended it."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.patch_stdout import patch_stdout

    session: PromptSession[str] = PromptSession(
        completer=_completer(conversation),
        complete_while_typing=False,
        input=terminal_input,
        output=terminal_output,
    )
    greet()  # before stdout is patched: later it would race with the first prompt
    with patch_stdout(raw=False):
        while not conversation.finished:
            try:
                line = await session.prompt_async(lambda: conversation.prompt)
            except EOFError:
                return False
            except KeyboardInterrupt:
                return True
            await conversation.handle(line)
    return False


def _completer(conversation: Conversation) -> Any:
    from prompt_toolkit.completion import Completer, Completion

    class NamesAndMacros(Completer):
        """What `Conversation.complete` offers."""

        def get_completions(self, document: Any, complete_event: Any) -> Any:  # noqa: ARG002 - prompt_toolkit's call
            for count, choice in conversation.complete(document.text_before_cursor):
                yield Completion(choice, start_position=-count)

    return NamesAndMacros()


def _bell_of(stream: TextIO) -> Callable[[], None]:
    def ring() -> None:
        with contextlib.suppress(OSError, ValueError):
            stream.write("\a")  # it moves nothing: a half-typed line stays as it is
            stream.flush()

    return ring


def _print_above(line: str) -> None:
    print(line)  # noqa: T201 - patch_stdout puts it above the prompt


def _line_writer(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        with contextlib.suppress(ValueError):  # a closed stream: we are leaving
            stream.write(line + "\n")
            stream.flush()

    return write
