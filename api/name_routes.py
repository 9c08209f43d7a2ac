"""Operations on names that people chose for themselves."""

from __future__ import annotations

from p2pnode.api import name_types as t
from p2pnode.api.routing import Route
from p2pnode.api.service import Service
from p2pnode.api.types import rfc3339

__all__ = ["ROUTES"]


async def look_up_name(service: Service, request: t.NameQuery) -> t.NameClaims:
    """Return who in the network claims a name: contacts and those whom contacts know first, then by age."""
    found = await service.chat.names.look_up(request.name)
    claimants = [
        t.Claimant(
            user=str(each.user),
            fingerprint=each.fingerprint,
            devices=[str(device) for device in each.devices],
            since=rfc3339(each.since),
            age_s=round(each.age_s, 3),
            common=[service.chat.display_name(who) for who in each.common],
            state=each.state,
            presence=each.presence,
        )
        for each in found.claimants
    ]
    return t.NameClaims(
        name=found.name, claimants=claimants, complete=found.complete, answered=found.answered,
        seconds=round(found.seconds, 4),
    )  # fmt: skip


ROUTES = [Route("GET", "/v1/names", "Who claims a name", look_up_name, t.NameQuery, t.NameClaims)]
