"""The laboratory: real hosts and routers out of network namespaces, a userspace wire, real p2pnode processes.

Linux, as root or in a user namespace. Names are loaded on first use: the wire's process imports this package too, and
is to start at once. docs/lab.md shows how it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pnode.simulations.netns.errors import LabError as LabError
    from p2pnode.simulations.netns.kinds import KINDS as KINDS
    from p2pnode.simulations.netns.kinds import NatKind as NatKind
    from p2pnode.simulations.netns.lab import Lab as Lab
    from p2pnode.simulations.netns.lab import LabSettings as LabSettings
    from p2pnode.simulations.netns.nodes import LabNode as LabNode
    from p2pnode.simulations.netns.probes import Verdict as Verdict
    from p2pnode.simulations.netns.spaces import check_possible as check_possible
    from p2pnode.simulations.netns.topology import Host as Host
    from p2pnode.simulations.netns.topology import Router as Router
    from p2pnode.simulations.netns.wire_client import Counts as Counts

_HOMES = {
    "Counts": "wire_client",
    "Host": "topology",
    "KINDS": "kinds",
    "Lab": "lab",
    "LabError": "errors",
    "LabNode": "nodes",
    "LabSettings": "lab",
    "NatKind": "kinds",
    "Router": "topology",
    "Verdict": "probes",
    "check_possible": "spaces",
}
__all__ = [
    "KINDS", "Counts", "Host", "Lab", "LabError", "LabNode", "LabSettings", "NatKind", "Router", "Verdict",
    "check_possible",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
