"""Operations on topics: announce this node under a name, withdraw that, list who is there."""

from __future__ import annotations

from p2pnode import MessageTooLongError, NotFoundError
from p2pnode.api import topic_types as t
from p2pnode.api.routing import Route
from p2pnode.api.service import Service
from p2pnode.api.types import Done

__all__ = ["ROUTES"]

MAX_TEXT_BYTES = 200  # of UTF-8, what an entry holds
DEFAULT_TEXT = "here"


async def announce(service: Service, request: t.TopicAnnounce) -> t.TopicAnnounced:
    """Announce this node under a topic until it is withdrawn or the node stops. An empty text says the node's name."""
    text = request.text or service.node.settings.name or DEFAULT_TEXT
    value = text.encode()
    if len(value) > MAX_TEXT_BYTES:
        raise MessageTooLongError(f"The text has {len(value)} bytes; {MAX_TEXT_BYTES} are allowed under a topic.")
    result = await service.node.announce(request.topic, value)
    service.topics[request.topic] = text
    return t.TopicAnnounced(
        topic=request.topic, text=text, stored=result.stored, tried=result.tried, seconds=round(result.seconds, 4)
    )


async def withdraw(service: Service, request: t.TopicQuery) -> Done:
    """Withdraw what this node announced under a topic."""
    service.topics.pop(request.topic, None)
    if not await service.node.unannounce(request.topic):
        raise NotFoundError("This node announced nothing under that topic.")
    return Done()


async def list_announced(service: Service, _request: None) -> t.TopicsAnnounced:
    """Return the topics under which this node announced itself, and with what text."""
    return t.TopicsAnnounced([t.TopicAnnounce(topic, text) for topic, text in sorted(service.topics.items())])


async def list_topic(service: Service, request: t.TopicMembersQuery) -> t.TopicMembers:
    """Return who announced itself under a topic: all up to `limit`, or with `sample` so many at random."""
    listing = await service.node.topic(
        request.topic, limit=request.limit if request.sample is None else request.sample,
        sample=request.sample is not None,
    )  # fmt: skip
    members = [
        t.TopicMember(
            peer=str(member.peer),
            text=member.value.decode("utf-8", "replace"),
            age_s=round(member.age_s, 3),
            own=member.peer == service.node.peer_id,
        )
        for member in listing.members
    ]
    return t.TopicMembers(
        topic=request.topic, members=members, complete=listing.complete, population=listing.population,
        answered=listing.answered, seconds=round(listing.seconds, 4),
    )  # fmt: skip


ROUTES = [
    Route("GET", "/v1/topics", "What this node announced", list_announced, None, t.TopicsAnnounced),
    Route("POST", "/v1/topics", "Announce this node under a topic", announce, t.TopicAnnounce, t.TopicAnnounced),
    Route("DELETE", "/v1/topics", "Withdraw that", withdraw, t.TopicQuery, Done),
    Route("GET", "/v1/topics/members", "Who announced itself", list_topic, t.TopicMembersQuery, t.TopicMembers),
]
