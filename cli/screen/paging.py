"""Reads the part of a conversation that a timeline shows; a page at a time, however long the history is."""

from __future__ import annotations

from p2pnode.chat import ChatStore
from p2pnode.cli.screen.timeline import Timeline

__all__ = ["read_around", "read_more", "read_newest"]

PAGE = 200  # messages


async def read_newest(store: ChatStore, timeline: Timeline, unread: int) -> None:
    """Load the end of the conversation; `unread`: how many messages of others the user has not seen."""
    messages = await store.history(timeline.party, limit=PAGE)
    timeline.load(messages, at_start=len(messages) < PAGE, at_end=True)
    timeline.mark_unread(unread)
    timeline.several = await store.device_count(timeline.party) > 1


async def read_more(store: ChatStore, timeline: Timeline, *, older: bool) -> None:
    """Load one more page before what is loaded, or behind it."""
    if not timeline.messages:
        return
    if older:
        more = await store.history(timeline.party, before=timeline.messages[0].position, limit=PAGE)
        timeline.add_older(more, at_start=len(more) < PAGE)
    else:
        more = await store.history(timeline.party, after=timeline.messages[-1].position, limit=PAGE)
        timeline.add_newer(more, at_end=len(more) < PAGE)


async def read_around(store: ChatStore, timeline: Timeline, position: int) -> None:
    """Load the messages round one."""
    half = PAGE // 2
    before = await store.history(timeline.party, before=position, limit=half)
    after = await store.history(timeline.party, after=position, limit=half)
    found = await store.messages(after=position - 1, limit=1)
    timeline.load([*before, *found, *after], at_start=len(before) < half, at_end=len(after) < half)
