"""What a router does, judged from answers: words and rules. Pure; `netcheck` and the probes of simulations share it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from p2pnode.core.address import Address

__all__ = [
    "ADDRESS",
    "ADDRESS_AND_PORT",
    "INDEPENDENT",
    "PRESERVING",
    "RANDOM",
    "SEQUENTIAL",
    "UNKNOWN",
    "allocation_of",
    "filtering_of",
    "mapping_of",
]

# RFC 4787, sections 4.1 "Address and Port Mapping" and 5 "Filtering Behavior"
INDEPENDENT = "endpoint-independent"
ADDRESS = "address-dependent"
ADDRESS_AND_PORT = "address-and-port-dependent"
# How the public port follows from the private one. RFC 4787, section 4.2 "Port Assignment"
PRESERVING = "preserving"
SEQUENTIAL = "sequential"
RANDOM = "random"
UNKNOWN = "unknown"

# Chosen by us. Two random ports of 64,000 are that near with a chance of 1 in 2,000; a neighbour's connections that
# come between two of ours seldom are more.
NEAR_PORTS = 32
_MOST = 2 / 3  # of the samples: a port may have been taken already


def mapping_of(seen: Sequence[Address | None]) -> str:
    """Judge one socket as seen by (first ip, first port), (first, second), (second, first), (second, second).

    RFC 5780, section 4.3 "Determining NAT Mapping Behavior".
    """
    first, other_port, other_ip, both = seen
    if first is None or other_port is None or other_ip is None or both is None:
        return UNKNOWN
    if first == other_port == other_ip == both:
        return INDEPENDENT
    return ADDRESS if first == other_port and other_ip == both else ADDRESS_AND_PORT


def filtering_of(*, own: bool, stranger: bool, other_port: bool) -> str:
    """Judge by who got in: whom we sent to, anybody, the same address from another port.

    RFC 5780, section 4.4 "Determining NAT Filtering Behavior".
    """
    if not own:
        return UNKNOWN
    return INDEPENDENT if stranger else ADDRESS if other_port else ADDRESS_AND_PORT


def allocation_of(ports: Sequence[tuple[int, Address]]) -> tuple[str, int | None]:
    """Judge (private port, public address) of new mappings in the order in which they were made: word and step.

    Sequences are looked for at each public address apart. Unknown with less than three samples.
    """
    if len(ports) < 3:
        return UNKNOWN, None
    if sum(private == public.port for private, public in ports) >= _MOST * len(ports):
        return PRESERVING, None
    last: dict[str, int] = {}
    steps: list[int] = []
    for _private, public in ports:
        if public.ip in last:
            steps.append(public.port - last[public.ip])
        last[public.ip] = public.port
    near = [step for step in steps if 0 < step <= NEAR_PORTS]
    if len(steps) >= 2 and len(near) >= _MOST * len(steps):
        return SEQUENTIAL, Counter(near).most_common(1)[0][0]
    return RANDOM, None
