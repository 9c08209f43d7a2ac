"""The probes of `simulations.probing` between containers.

`prober serve IP IP` answers on two addresses; it has the first and gives itself the second (CAP_NET_ADMIN). `prober ask
IP IP SECONDS`, in a peer's container, prints what stands before that one as a JSON object; SECONDS: how long silence is
waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Sequence

import msgspec

from p2pnode.core.real_network import RealNetwork
from p2pnode.simulations.docker.addresses import add_address
from p2pnode.simulations.probing import ProbeServer, ProbeServers, ProbeSettings, Verdict, probe

__all__ = ["verdict_from_json"]


def verdict_from_json(text: str) -> Verdict:
    """Return what `prober ask` printed. Raise ValueError."""
    data = json.loads(text)
    for name in ("own", "public"):
        if data[name] is not None:
            ip, _, port = data[name].rpartition(":")
            data[name] = ip, int(port)
    return msgspec.convert(data, Verdict)


async def _serve(ips: tuple[str, str]) -> None:
    server = await ProbeServer.open(RealNetwork(), ProbeServers(ips))
    leave = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leave.set)
    with contextlib.closing(server):
        await leave.wait()


def main(arguments: Sequence[str]) -> int:
    """Exit 2 for wrong arguments, 1 when the addresses cannot be had."""
    if (len(arguments), *arguments[:1]) not in ((3, "serve"), (4, "ask")):
        print("prober: give it serve IP IP, or ask IP IP SECONDS.", file=sys.stderr)  # noqa: T201 - a program's output
        return 2
    ips = arguments[1], arguments[2]
    try:
        if arguments[0] == "ask":
            settings = ProbeSettings(wait_s=float(arguments[3]))
            verdict = asyncio.run(probe(RealNetwork(), ProbeServers(ips), settings))
            print(json.dumps(verdict.to_json()))  # noqa: T201
        else:
            add_address(ips[1])
            asyncio.run(_serve(ips))
    except (LookupError, OSError) as error:
        print(f"prober: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
