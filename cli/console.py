"""The console's terminal: prompt_toolkit on a terminal, plain lines elsewhere (docs/cli.md, "The chat console").

What is typed means what `chat.conversation` says; here is only input and output. On a terminal an arriving line is
printed above the prompt, and the half-typed line stays as it is. In line mode each line of standard input is one
command; the end of input leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

    from p2pnode.chat import Chat, Conversation

__all__ = ["LineSplitter", "run_console"]

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
    plain: bool | None = None,
    input_fd: int | None = None,
    output: TextIO | None = None,
) -> bool:
    """Serve the user until `\\quit`, the end of input or Ctrl-C; return whether it was Ctrl-C.

    `own_port`, `addresses`, `bootstrap`, `alone`: as in `Ready`, for the greeting. `plain` None: a screen if standard
    input and output are a terminal. `input_fd`, `output`: standard input and output if None.
    """
    from p2pnode.chat import Conversation

    stream = output if output is not None else sys.stdout
    fd = input_fd if input_fd is not None else sys.stdin.fileno()
    if plain is None:
        plain = not (os.isatty(fd) and stream.isatty())
    show = _line_writer(stream) if plain else _print_above
    conversation = Conversation(chat, own_port=own_port, show=show)
    interrupted = False
    try:
        if plain:
            conversation.greet(addresses=addresses, bootstrap=bootstrap, alone=alone)
            await run_lines(conversation, fd, show)
        else:
            interrupted = await run_screen(
                conversation, lambda: conversation.greet(addresses=addresses, bootstrap=bootstrap, alone=alone)
            )
        await conversation.flush(FLUSH_S)
    except BrokenPipeError:
        return False  # nobody reads what we print: leave as after \quit
    finally:
        conversation.close()
    return interrupted


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


async def run_screen(
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
        """The first word: macros and NAME/; after a macro: names."""

        def get_completions(self, document: Any, complete_event: Any) -> Any:  # noqa: ARG002 - prompt_toolkit's call
            text = document.text_before_cursor
            if " " in text:
                macro, _, word = text.partition(" ")
                choices = conversation.names() if macro[:1] in ("\\", "/") else []
            else:
                word = text
                choices = conversation.completions()
            for choice in choices:
                if word and choice.casefold().startswith(word.casefold()):
                    yield Completion(choice, start_position=-len(word))

    return NamesAndMacros()


def _print_above(line: str) -> None:
    print(line)  # noqa: T201 - patch_stdout puts it above the prompt


def _line_writer(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        with contextlib.suppress(ValueError):  # a closed stream: we are leaving
            stream.write(line + "\n")
            stream.flush()

    return write
