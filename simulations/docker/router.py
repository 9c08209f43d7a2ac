"""The program of a router's container: `router KIND PUBLIC_IP LAN_IP`, in the networks of both addresses.

It gives itself LAN_IP, loads the same rules as the laboratory's routers (`simulations.netns.rules`) and waits for
SIGTERM. A second table is the witness: which far address and port has sent and got QUIC, seen outside of the
translation. Wants CAP_NET_ADMIN and `nft`.
"""

from __future__ import annotations

import ipaddress
import json
import random
import signal
import subprocess
import sys
from collections.abc import Sequence

from p2pnode.simulations.docker.addresses import add_address, interface_of
from p2pnode.simulations.netns.conntrack import forget_connections
from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.kinds import KINDS, NatKind, kind_named
from p2pnode.simulations.netns.rules import ruleset

__all__ = ["MAPPING_S", "Flow", "flows_from_json", "possible_kinds", "router_kind", "rules"]

MAPPING_S = 30.0  # as the sysctls in compose.yaml

Flow = tuple[str, int, int]
"""Far address, far port, own public port."""

# The second bit of QUIC's first byte is always set (RFC 9000, section 17 "Packet Formats"), that of STUN and our DHT is
# not. What comes in is seen before translation, what goes out after it. The last chain keeps a host that sends to
# anywhere from finding a way through the engine's own gateway.
_WITNESS = """\
table ip witness
delete table ip witness
table ip witness {{
  set sent {{ type ipv4_addr . inet_service . inet_service; size 4096; flags dynamic; }}
  set received {{ type ipv4_addr . inet_service . inet_service; size 4096; flags dynamic; }}
  chain in {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{wan}" meta l4proto udp @th,64,8 & 0x40 == 0x40 add @received {{ ip saddr . udp sport . udp dport }}
  }}
  chain out {{
    type filter hook postrouting priority srcnat + 20; policy accept;
    oifname "{wan}" meta l4proto udp @th,64,8 & 0x40 == 0x40 add @sent {{ ip daddr . udp dport . udp sport }}
  }}
  chain fence {{
    type filter hook forward priority filter - 20; policy accept;
    iifname "{lan}" oifname "{lan}" ip daddr != {lan_network} drop
  }}
}}
"""


def possible_kinds() -> tuple[str, ...]:
    """Return the kinds that one container can be: those of a single router whose line lives and lets UDP pass."""
    return tuple(name for name, kind in KINDS.items() if _possible(kind))


def _possible(kind: NatKind) -> bool:
    return kind.is_router and kind.has_internet and not (kind.carrier or kind.port_mapping or kind.ipv6)


def router_kind(name: str) -> NatKind:
    """Return a kind. Raise LabError for one that there is not, or not in a container."""
    kind = kind_named(name)
    if not _possible(kind):
        raise LabError(f"A container is no router of kind {name}; there are: {', '.join(possible_kinds())}.")
    return kind


def rules(kind: NatKind, public_ip: str, lan_ip: str, *, wan: str, lan: str, rng: random.Random) -> str:
    """Return the nftables rules of a router between two interfaces. `lan_ip` is an address in its /24."""
    made = ruleset(kind, public_ip, MAPPING_S, rng).replace('"wan0"', f'"{wan}"').replace('"lan0"', f'"{lan}"')
    network = ipaddress.ip_network(f"{lan_ip}/24", strict=False)
    return made + _WITNESS.format(wan=wan, lan=lan, lan_network=network)


def flows_from_json(text: str) -> dict[str, set[Flow]]:
    """Return the witness's sets `sent` and `received` from `nft --json list table ip witness`. Raise ValueError."""
    found: dict[str, set[Flow]] = {"sent": set(), "received": set()}
    for item in json.loads(text)["nftables"]:
        if (name := item.get("set", {}).get("name")) in found:
            for element in item["set"].get("elem", []):
                far, far_port, own_port = element["concat"]
                found[name].add((far, int(far_port), int(own_port)))
    return found


def main(arguments: Sequence[str]) -> int:
    """Be a router until SIGTERM. Exit 2 for wrong arguments, 1 when the kernel refuses."""
    try:
        if len(arguments) != 3:
            return _fail("give it KIND PUBLIC_IP LAN_IP.", 2)
        name, public_ip, lan_ip = arguments
        kind = router_kind(name)
    except LabError as error:
        return _fail(error.message, 2)
    try:
        wan, lan = interface_of(public_ip), interface_of(lan_ip)
        text = rules(kind, public_ip, lan_ip, wan=wan, lan=lan, rng=random.Random())
        loaded = subprocess.run(["nft", "-f", "-"], input=text, text=True, check=False)  # noqa: S607 - a container's PATH
        if loaded.returncode != 0:
            return _fail("nft does not take the rules.", 1)
        # What passed before the rules would go on untranslated, and for ever: its sender tries again. So nobody finds
        # the way here before, and what came from outside meanwhile is forgotten.
        forget_connections()
        add_address(lan_ip)
    except (LookupError, OSError) as error:
        return _fail(str(error), 1)
    except LabError as error:
        return _fail(error.message, 1)
    ready = {"event": "ready", "kind": name, "wan": wan, "lan": lan, "public": public_ip}
    print(json.dumps(ready), flush=True)  # noqa: T201 - a program's output
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0


def _fail(sentence: str, code: int) -> int:
    print(f"router: {sentence}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    # Before any thread: the first process of a container ignores what it does not handle.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.exit(main(sys.argv[1:]))
