"""Operations on the static table and the hall."""

from __future__ import annotations

from p2pnode import UserId
from p2pnode.api import hall_types as t
from p2pnode.api.routing import Route
from p2pnode.api.service import Service

__all__ = ["ROUTES"]


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


ROUTES = [
    Route("GET", "/v1/table", "People at fixed addresses", show_table, None, t.TableAnswer),
]
