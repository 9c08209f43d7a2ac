"""A chat of many years: start, search, paging and memory with 1,000,000 stored messages, beside an empty one.

The database is filled through the chat's own store, twenty conversations of 50,000 messages. Start, paging and memory
are those of the real screen on a pseudo-terminal (`screen.py`); searches are the store's, for words that are in a
hundredth of the messages, as the screen asks them.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from screen import LAUNCH, Screen, environment
from table import Table

from p2pnode import PeerId, UserId
from p2pnode.chat import ChatStore, queries
from p2pnode.core.keys import SigningKey

TALKS, AT_ONCE, WORDS = 20, 20_000, 1_000
PAGES = 40
PAGE_UP, TO_TALK = "\x1b[5~", "\x0e"  # Ctrl+N


def words(rng: random.Random) -> list[str]:
    return ["".join(rng.choice("abcdefghijklmnoprstuvwy") for _ in range(rng.randint(4, 9))) for _ in range(WORDS)]


async def fill(path: Path, count: int) -> float:
    """Store messages; return microseconds for each."""
    rng, known = random.Random(1), words(random.Random(2))
    users = [UserId(SigningKey(bytes([n + 1]) * 32).public_raw) for n in range(TALKS)]
    peers = [PeerId(SigningKey(bytes([n + 101]) * 32).public_raw) for n in range(TALKS)]
    store = await ChatStore.open(path)
    started_ms = int(time.time() * 1000) - count * 1000

    def some(connection: sqlite3.Connection, first: int) -> None:
        talks = [queries.conversation_id(connection, user) for user in users]
        for user in users:
            if queries.contact_state(connection, user) is None:
                queries.put_contact(connection, user, "accepted", started_ms)
        for number in range(first, min(count, first + AT_ONCE)):
            talk, at = number % TALKS, started_ms + number * 1000
            queries.insert_message(
                connection,
                message_id=number.to_bytes(16, "big"),
                author=peers[talk],
                author_user=users[talk],
                conversation=talks[talk],
                sequence=number + 1,
                outgoing=False,
                text=" ".join(rng.choice(known) for _ in range(10)),
                sent_at_ms=at,
                received_at_ms=at,
                state="received",
            )

    began = time.perf_counter()
    for first in range(0, count, AT_ONCE):
        await store.database.write(lambda connection, first=first: some(connection, first))  # type: ignore[misc]
    seconds = time.perf_counter() - began
    await store.close()
    return seconds / count * 1e6


async def searches(path: Path) -> tuple[float, float]:
    """Return the median and the longest of 100 searches in a conversation, in milliseconds."""
    store = await ChatStore.open(path)
    party = (await store.conversations())[0].party
    times = []
    for word in words(random.Random(2))[:100]:
        began = time.perf_counter()
        found = await store.history(party, search=word, limit=100)
        times.append((time.perf_counter() - began) * 1000)
        assert found, word
    await store.close()
    return statistics.median(times), max(times)


def screen(home: Path) -> tuple[float, list[float], float]:
    """Return seconds until the screen is drawn, milliseconds for each page back, and resident megabytes then."""
    shown = Screen(home, "alice", "--listen", "127.0.0.1:0")
    started = shown.wait("F1 help") - shown.started
    time.sleep(3)
    shown.press(TO_TALK)
    time.sleep(1)
    pages = []
    for _ in range(PAGES):
        since = len(shown.drawn)
        began = time.monotonic()
        shown.press(PAGE_UP)
        try:
            pages.append((shown.wait(".", since, 0.5) - began) * 1000)
        except AssertionError:
            break  # nothing to scroll to
        time.sleep(0.05)
    memory = psutil.Process(shown.pid).memory_info().rss / 1e6
    shown.close()
    return started, sorted(pages), memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Path(folder) / "empty", Path(folder) / "full"
        for home in (empty, full):
            subprocess.run([*LAUNCH, "--home", str(home), "id"], check=True, env=environment(), capture_output=True)
        table.add(
            "to store one message, many in a commit", asyncio.run(fill(full / "chat.db", options.messages)), "us", None
        )
        for home in (empty, full):
            screen(home)  # the first start of all explains what to do
        without, with_them = ([screen(home) for _ in range(3)] for home in (empty, full))
        best = min(started for started, _, _ in without)
        table.add("start of the screen, empty", best, "s", None)
        table.add("the same with all messages", min(started for started, _, _ in with_them), "s", best + 1.5)
        pages = sorted(each for _, times, _ in with_them for each in times)
        table.add(
            "a page back, p50", pages[len(pages) // 2], "ms", None, f"longest of {len(pages)}: {pages[-1]:.0f} ms"
        )
        table.add("resident memory of node and screen, empty", min(memory for _, _, memory in without), "MB", None)
        table.add("the same with all messages, scrolled back", max(memory for _, _, memory in with_them), "MB", 150)
        median, longest = asyncio.run(searches(full / "chat.db"))
        table.add("a search in a conversation, p50", median, "ms", 50, f"longest of 100: {longest:.0f} ms")
    sys.exit(table.finish(options.json))


if __name__ == "__main__":
    main()
