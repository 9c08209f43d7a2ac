"""What the control API takes and gives about topics. As `types`: names never change, new ones may come."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = [
    "TopicAnnounce", "TopicAnnounced", "TopicMember", "TopicMembers", "TopicMembersQuery", "TopicQuery",
    "TopicsAnnounced",
]  # fmt: skip

MAX_MEMBERS = 10_000
MAX_SAMPLE = 1_000

TopicName = Annotated[str, Meta(min_length=1, max_length=200, description="A topic's name")]


class TopicAnnounce(Struct):
    """A topic, and the text under it: at most 200 bytes of UTF-8; empty: the node's name."""

    topic: TopicName
    text: Annotated[str, Meta(max_length=200)] = ""


class TopicAnnounced(Struct, kw_only=True):
    """`stored`: nodes that confirmed to hold the entry, of `tried`. With 0 it is tried again every 15 s."""

    topic: str
    text: str
    stored: int
    tried: int
    seconds: float


class TopicsAnnounced(Struct):
    """What this node announced and keeps announced."""

    topics: list[TopicAnnounce]


class TopicQuery(Struct):
    """Which topic."""

    topic: TopicName


class TopicMembersQuery(Struct):
    """Which topic. `limit`: at most so many members; `sample`: so many at random instead."""

    topic: TopicName
    limit: Annotated[int, Meta(ge=1, le=MAX_MEMBERS)] = 1000
    sample: Annotated[int, Meta(ge=1, le=MAX_SAMPLE)] | None = None


class TopicMember(Struct, kw_only=True):
    """Who announced itself: proven by the peer's key. The text is a stranger's. `age_s`: since it was signed."""

    peer: str
    text: str
    age_s: float
    own: bool


class TopicMembers(Struct, kw_only=True):
    """`complete`: nobody was left out by the limit or by silent holders. `population`: members as the holders say;
    `answered`: how many of those answered: with 0 nothing is known."""

    topic: str
    members: list[TopicMember]
    complete: bool
    population: int
    answered: int
    seconds: float
