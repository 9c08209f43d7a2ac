"""Commands that are a node: join and bootstrap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from p2pnode.cli.invocation import invocation_of
from p2pnode.cli.options import examples

if TYPE_CHECKING:
    from p2pnode import Config
    from p2pnode.cli.run import Entrance

__all__ = ["add", "settings_of"]

_Bootstrap = Annotated[
    list[str] | None,
    typer.Option(
        "--bootstrap", metavar="ID@HOST:PORT", help="A node to join through; repeatable.  [env: P2PNODE_BOOTSTRAP]"
    ),
]
_Network = Annotated[
    str | None,
    typer.Option("--network", metavar="ID", help="Nodes of different networks never talk.  [env: P2PNODE_NETWORK]"),
]
_NetworkSecretFile = Annotated[
    str | None,
    typer.Option(
        "--network-secret-file",
        metavar="FILE",
        help="Private network: first line of FILE (- for standard input) is what its members share."
        "  [env: P2PNODE_NETWORK_SECRET, P2PNODE_NETWORK_SECRET_FILE]",
    ),
]
_Paths = Annotated[
    str | None,
    typer.Option(
        "--paths", metavar="N", help="Node-disjoint paths of a lookup, 1 to 8 (default 2).  [env: P2PNODE_PATHS]"
    ),
]
_Listen = Annotated[
    list[str] | None,
    typer.Option(
        "--listen",
        metavar="IP:PORT",
        help="Where to receive (UDP); one per address family. A bare PORT: everywhere.  [env: P2PNODE_LISTEN]",
    ),
]
_NoLan = Annotated[
    bool, typer.Option("--no-lan", help="Do not look for peers by multicast.  [env: P2PNODE_LAN]")
]  # fmt: skip
_NoPortmap = Annotated[
    bool, typer.Option("--no-portmap", help="Do not ask the router for a port.  [env: P2PNODE_PORTMAP]")
]  # fmt: skip
_IdleTimeout = Annotated[
    str | None,
    typer.Option(
        "--idle-timeout", metavar="S", help="Close unused sessions after S (default 300).  [env: P2PNODE_IDLE_TIMEOUT]"
    ),
]
_DocAddresses = Annotated[bool, typer.Option("--allow-doc-addresses", hidden=True)]


def add(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(
        "join",
        epilog=examples(
            "p2pnode join                                    chat with whoever is on the LAN",
            "p2pnode join alice localhost 4747               through the node that listens there, into its hall",
            "p2pnode join alice --bootstrap 12D3KooW...@192.0.2.7:4747",
            "p2pnode join alice --peers friends.txt --no-lan         people at fixed addresses, without any discovery",
            "p2pnode join --headless --no-lan                a service; events as JSON lines on stdout",
        ),
    )(_join)
    app.command(
        "bootstrap",
        epilog=examples(
            "p2pnode bootstrap",
            "p2pnode bootstrap --listen 0.0.0.0:4747 --bootstrap 12D3KooW...@192.0.2.7:4747",
        ),
    )(_bootstrap)


def _join(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The name others see.")] = None,
    peer: Annotated[
        str | None,
        typer.Argument(metavar="[PEER]", help="Whom to join through or talk to: a PEER, or a host with PORT."),
    ] = None,
    port: Annotated[str | None, typer.Argument(metavar="[PORT]", help="The port PEER listens on.")] = None,
    name_option: Annotated[
        str | None, typer.Option("--name", "-u", metavar="N", help="The same as NAME.  [env: P2PNODE_NAME]")
    ] = None,
    bootstrap: _Bootstrap = None,
    network: _Network = None,
    network_secret_file: _NetworkSecretFile = None,
    paths: _Paths = None,
    listen: _Listen = None,
    peers: Annotated[
        str | None,
        typer.Option(
            "--peers",
            metavar="FILE",
            help="People at fixed addresses: name, host, port, optional key on each line; the first key that answers is"
            " remembered.  [env: P2PNODE_PEERS]",
        ),
    ] = None,
    no_lan: _NoLan = False,
    no_portmap: _NoPortmap = False,
    relay_only: Annotated[
        bool,
        typer.Option(
            "--relay-only",
            help="Tell no peer an address of this machine; sessions go through relays.  [env: P2PNODE_RELAY_ONLY]",
        ),
    ] = False,
    idle_timeout: _IdleTimeout = None,
    headless: Annotated[
        bool, typer.Option("--headless", help="No console; events as JSON lines on stdout.  [env: P2PNODE_HEADLESS]")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Line mode instead of the chat screen.  [env: P2PNODE_PLAIN]")
    ] = False,
    on_message: Annotated[
        str | None,
        typer.Option(
            "--on-message",
            metavar="COMMAND",
            help="Run COMMAND for each message that comes, with it as JSON on standard input."
            "  [env: P2PNODE_ON_MESSAGE]",
        ),
    ] = None,
    no_read_receipts: Annotated[
        bool,
        typer.Option("--no-read-receipts", help="Tell nobody what you have read.  [env: P2PNODE_READ_RECEIPTS]"),
    ] = False,
    no_bell: Annotated[
        bool, typer.Option("--no-bell", help="Never ring the terminal's bell.  [env: P2PNODE_BELL]")
    ] = False,
    desktop_notices: Annotated[
        str | None,
        typer.Option(
            "--desktop-notices",
            metavar="off|names|text",
            help="Notifications on the desktop (pip install 'p2pnode[desktop]'): none, who wrote, what as well"
            " (default).  [env: P2PNODE_DESKTOP_NOTICES]",
        ),
    ] = None,
    downloads: Annotated[
        str | None,
        typer.Option(
            "--downloads", metavar="DIR", help="Where files of others go (HOME/downloads).  [env: P2PNODE_DOWNLOADS]"
        ),
    ] = None,
    auto_accept: Annotated[
        str | None,
        typer.Option(
            "--auto-accept",
            metavar="BYTES",
            help="Take contacts' files up to this size unasked (5M, 1G).  [env: P2PNODE_AUTO_ACCEPT]",
        ),
    ] = None,
    allow_doc_addresses: _DocAddresses = False,
    own_port: Annotated[
        str | None, typer.Option("-p", metavar="PORT", help="Old habit: own port, as --listen PORT.")
    ] = None,
    host: Annotated[str | None, typer.Option("-sip", metavar="IP", help="Old habit: with -sp, as PEER PORT.")] = None,
    host_port: Annotated[str | None, typer.Option("-sp", metavar="PORT", help="Old habit: see -sip.")] = None,
    server: Annotated[bool, typer.Option("-s", help="Old habit: as the command bootstrap.")] = False,
    threads: Annotated[
        str | None, typer.Option("-t", metavar="N", help="Old habit: accepted; one event loop serves all.")
    ] = None,
) -> None:
    """Be a peer: on a terminal the chat screen, elsewhere line mode."""
    from p2pnode.core.logs import import_structlog_lightly

    import_structlog_lightly()
    from p2pnode.cli import run
    from p2pnode.cli.output import usage_error

    invocation = invocation_of(ctx)
    if name is not None and name_option is not None and name != name_option:
        raise usage_error("NAME is given twice, differently.")
    if (host is None) != (host_port is None):
        raise usage_error("-sip and -sp belong together.")
    if host is not None and peer is not None:
        raise usage_error("PEER PORT and -sip -sp mean the same; give one of them.")
    config = invocation.config(
        name=name or name_option,
        bootstrap=bootstrap,
        network=network,
        network_secret_file=network_secret_file,
        paths=paths,
        listen=listen or ([own_port] if own_port else None),
        peers=peers,
        lan=False if no_lan else None,
        portmap=False if no_portmap else None,
        relay_only=relay_only or None,
        idle_timeout=idle_timeout,
        headless=headless or None,
        plain=plain or None,
        on_message=on_message,
        read_receipts=False if no_read_receipts else None,
        bell=False if no_bell else None,
        desktop_notices=desktop_notices,
        downloads=downloads,
        auto_accept=auto_accept,
        allow_doc_addresses=allow_doc_addresses or None,
    )
    if threads is not None:
        invocation.note(f"-t {threads}: not needed any more; one event loop serves all connections.")
    entrance = _entrance(peer or host, port or host_port)
    role = "bootstrap" if server else "peer"
    code = run.run_node(
        invocation,
        config,
        role=role,
        entrance=entrance,
        console="none" if server or config["headless"] else ("plain" if config["plain"] else "auto"),
    )
    raise typer.Exit(code)


def _bootstrap(
    ctx: typer.Context,
    bootstrap: _Bootstrap = None,
    network: _Network = None,
    network_secret_file: _NetworkSecretFile = None,
    paths: _Paths = None,
    listen: _Listen = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="N", help="The name others see.  [env: P2PNODE_NAME]")
    ] = None,
    no_lan: _NoLan = False,
    no_portmap: _NoPortmap = False,
    relay: Annotated[
        bool | None,
        typer.Option(
            "--relay/--no-relay",
            help="Relay for peers that no direct path joins, within limits (default: yes).  [env: P2PNODE_RELAY]",
        ),
    ] = None,
    idle_timeout: _IdleTimeout = None,
    tcp: Annotated[
        list[str] | None,
        typer.Option(
            "--tcp",
            metavar="HOST:443",
            help="Let in by TLS whom UDP does not reach; besides TCP at the UDP port's number.  [env: P2PNODE_TCP]",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="HOST:PORT",
            help="Serve the counters to Prometheus there, by HTTP without a password.  [env: P2PNODE_METRICS]",
        ),
    ] = None,
    allow_doc_addresses: _DocAddresses = False,
) -> None:
    """Be a bootstrap node: no console, serves everybody; prints the ID@HOST:PORT to hand out."""
    from p2pnode.core.logs import import_structlog_lightly

    import_structlog_lightly()
    from p2pnode.cli import run

    invocation = invocation_of(ctx)
    options: dict[str, Any] = {
        "bootstrap": bootstrap,
        "network": network,
        "network_secret_file": network_secret_file,
        "paths": paths,
        "listen": listen,
        "name": name,
        "lan": False if no_lan else None,
        "portmap": False if no_portmap else None,
        "relay": relay,
        "idle_timeout": idle_timeout,
        "tcp": tcp,
        "metrics": metrics,
        "allow_doc_addresses": allow_doc_addresses or None,
    }
    config = invocation.config(**options)
    raise typer.Exit(run.run_node(invocation, config, role="bootstrap", entrance=None, console="none"))


def _entrance(peer: str | None, port: str | None) -> Entrance | None:
    """Return what PEER [PORT] means: an address to join through, or somebody to talk to."""
    if peer is None:
        return None
    from p2pnode import parse_host_port, parse_peer
    from p2pnode.cli.output import usage_error
    from p2pnode.cli.run import Entrance

    looks_like_host = "@" not in peer and (peer == "localhost" or any(c in peer for c in ".:["))
    if port is not None or looks_like_host:
        bare_v6 = peer.count(":") > 1 and not peer.startswith("[")
        where = peer if port is None else f"[{peer}]:{port}" if bare_v6 else f"{peer}:{port}"
        try:
            return Entrance(where=parse_host_port(where))
        except ValueError as exc:
            raise usage_error(f"{where!r} is not HOST PORT: {exc}.") from exc
    return Entrance(peer=parse_peer(peer))


def settings_of(config: Config, role: str, *, network_secret: str, records_db: str) -> Any:
    """Return the node's settings from the configuration. Raise InvalidConfigError.

    `records_db`: where records are kept when they are.
    """
    from p2pnode import InvalidConfigError, NodeSettings

    keeps = config["keep-records"] == "yes" or (config["keep-records"] == "auto" and role == "bootstrap")
    listen = config["listen"]
    families = [address.is_ipv6 for address in listen]
    if len(set(families)) != len(families):
        place = config.settings["listen"].place
        raise InvalidConfigError(f"{place}: at most one IPv4 and one IPv6 address can be listened on.", key="listen")
    return NodeSettings(
        name=config["name"],
        network_id=config["network"],
        network_secret=network_secret,
        lookup_paths=config["paths"],
        listen=listen,
        listen_explicit=config.explicit("listen"),
        tcp=config["tcp"],
        proxy=config["proxy"],
        no_proxy=config["no-proxy"],
        bootstrap=config["bootstrap"],
        lan=config["lan"],
        portmap=config["portmap"],
        relay=config["relay"],
        relay_bandwidth=config["relay-bandwidth"],
        relay_only=config["relay-only"],
        record_file=records_db if keeps else "",
        role=role,
        idle_timeout=config["idle-timeout"],
        allow_documentation=config["allow-doc-addresses"],
    )
