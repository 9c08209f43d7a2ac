"""Probes: what do the routers before a host do? Asked with packets, over `core.network.Network`, in either world.

server = await ProbeServer.open(public_network, ProbeServers(("203.0.113.1", "203.0.113.2")))
verdict = await probe(network_of_the_host, server.servers)
"""

from p2pnode.simulations.probing.client import probe
from p2pnode.simulations.probing.server import ProbeServer
from p2pnode.simulations.probing.settings import ProbeServers, ProbeSettings
from p2pnode.simulations.probing.verdict import Verdict

__all__ = ["ProbeServer", "ProbeServers", "ProbeSettings", "Verdict", "probe"]
