"""Operations on the static table and the hall."""

from __future__ import annotations

from p2pnode import UserId
from p2pnode.api import hall_types as t
from p2pnode.api.routing import Route
from p2pnode.api.service import Service

__all__ = ["ROUTES"]

LEAVE_S = 1.0  # for goodbyes to leave


async def show_table(service: Service, _request: None) -> t.TableAnswer:
    """Return the people of the static table, and who of them was found."""
    people = [
        t.TablePerson(
            name=entry.row.name,
            host=entry.row.host,
            port=entry.row.port,
            state=entry.state,
            peer=None if entry.peer is None else str(entry.peer),
            user=str(entry.party) if isinstance(entry.party, UserId) else None,
            connected=entry.peer is not None and service.node.session(entry.peer) is not None,
            why=entry.why,
        )
        for entry in service.chat.table.entries()
    ]
    return t.TableAnswer(people)


async def show_hall(service: Service, _request: None) -> t.HallAnswer:
    """Return who hears what is said to `hall`."""
    chat = service.chat
    members = [
        t.HallMember(
            peer=str(member.peer),
            user=None if member.user is None else str(member.user),
            name=chat.display_name(member.user or member.peer),
        )
        for member in chat.members()
    ]
    return t.HallAnswer(not chat.hall.away, members)


async def change_hall(service: Service, request: t.HallChange) -> t.HallAnswer:
    """Leave the hall, or come back through those who were there; they appear as they answer."""
    if request.entered:
        service.chat.hall.come_back()
    else:
        await service.chat.hall.go_out(LEAVE_S)
    return await show_hall(service, None)


ROUTES = [
    Route("GET", "/v1/hall", "Who is in the hall", show_hall, None, t.HallAnswer),
    Route("POST", "/v1/hall", "Leave the hall or come back", change_hall, t.HallChange, t.HallAnswer),
    Route("GET", "/v1/table", "People at fixed addresses", show_table, None, t.TableAnswer),
]
