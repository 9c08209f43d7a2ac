"""aioice without what it imports for mDNS candidates (dnspython: 80 ms and 2 MB in every running node).

We offer addresses, never `.local` names, and `nat/candidates.py` reads nothing else; so a placeholder stands for
`aioice.mdns`, unless somebody else has loaded the real one before.
"""

from __future__ import annotations

import sys
from types import ModuleType

__all__ = [
    "ICE_COMPLETED",
    "ICE_FAILED",
    "Candidate",
    "CandidatePair",
    "Connection",
    "StunProtocol",
    "candidate_priority",
    "stun",
]


class MDnsProtocol:
    """Named in an annotation of aioice."""


async def create_mdns_protocol() -> MDnsProtocol:
    """aioice calls this for `.local` candidates only."""
    raise ValueError("mDNS candidates are not used")


def is_mdns_hostname(_name: str) -> bool:
    """aioice asks this of every remote candidate; ours are addresses."""
    return False


if "aioice" not in sys.modules:
    placeholder = ModuleType("aioice.mdns", "see p2pnode.nat.lean_aioice")
    placeholder.MDnsProtocol = MDnsProtocol  # type: ignore[attr-defined]  # a module has the attributes it is given
    placeholder.create_mdns_protocol = create_mdns_protocol  # type: ignore[attr-defined]  # the same
    placeholder.is_mdns_hostname = is_mdns_hostname  # type: ignore[attr-defined]  # the same
    sys.modules.setdefault("aioice.mdns", placeholder)

from aioice import Candidate, Connection, stun  # noqa: E402 - after the placeholder
from aioice.candidate import candidate_priority  # noqa: E402 - after the placeholder
from aioice.ice import ICE_COMPLETED, ICE_FAILED, CandidatePair, StunProtocol  # noqa: E402 - after the placeholder
