"""A network in virtual time: the unmodified node, thousands of hosts in one process, the same result every time.

async def main(world: VirtualWorld) -> None:
    alice, bob = world.host("10.0.0.1"), world.host("10.0.0.2")   # two `Network`s on one LAN
    ...

run_virtual(main, seed=1)
"""

from p2pnode.simulations.virtual.host import VirtualHost
from p2pnode.simulations.virtual.loop import VirtualLoop
from p2pnode.simulations.virtual.network import KilledError, VirtualNetwork
from p2pnode.simulations.virtual.stuck import (
    VirtualBlockedError,
    VirtualDeadlockError,
    VirtualLivelockError,
    VirtualTimeLimitError,
)
from p2pnode.simulations.virtual.world import TraceEntry, VirtualWorld, run_virtual

__all__ = [
    "KilledError",
    "TraceEntry",
    "VirtualBlockedError",
    "VirtualDeadlockError",
    "VirtualHost",
    "VirtualLivelockError",
    "VirtualLoop",
    "VirtualNetwork",
    "VirtualTimeLimitError",
    "VirtualWorld",
    "run_virtual",
]
