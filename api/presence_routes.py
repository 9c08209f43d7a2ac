"""Operations on what this user shows of itself."""

from __future__ import annotations

from p2pnode.api import presence_types as t
from p2pnode.api.routing import Route
from p2pnode.api.service import Service

__all__ = ["ROUTES"]


async def show_presence(service: Service, _request: None) -> t.OwnPresence:
    """Return what contacts see of this user."""
    gossip = service.chat.gossip
    return t.OwnPresence(status=gossip.text, invisible=gossip.invisible)


async def change_presence(service: Service, request: t.PresenceChange) -> t.OwnPresence:
    """Show another status text, become invisible, or be seen again."""
    if request.status is not None:
        await service.chat.gossip.set_text(request.status)
    if request.invisible is not None:
        await service.chat.gossip.set_invisible(request.invisible)
    return await show_presence(service, None)


ROUTES = [
    Route("GET", "/v1/presence", "What contacts see of this user", show_presence, None, t.OwnPresence),
    Route("PATCH", "/v1/presence", "Status text, invisible or not", change_presence, t.PresenceChange, t.OwnPresence),
]
