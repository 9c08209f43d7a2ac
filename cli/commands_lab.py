"""The laboratory: real processes behind real kernel routers, in network namespaces of this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from p2pnode.cli.invocation import Invocation, invocation_of
from p2pnode.cli.options import JsonOption, examples

if TYPE_CHECKING:
    from p2pnode.simulations.netns import LabSettings

__all__ = ["add"]

T = TypeVar("T", int, float)

_Seed = Annotated[str | None, typer.Option("--seed", metavar="N", help="Which packets are lost (default 1).")]
_Delay = Annotated[
    str | None, typer.Option("--delay", metavar="MS", help="One-way delay of each link, milliseconds (default 20).")
]
_Loss = Annotated[
    str | None, typer.Option("--loss", metavar="PERCENT", help="Packets that each link loses (default 0).")
]
_Pcap = Annotated[str | None, typer.Option("--pcap", metavar="FILE", help="Write all packets between links to FILE.")]


def add(app: typer.Typer) -> None:
    """Register the commands."""
    lab = typer.Typer(
        name="lab",
        help="Real nodes behind real routers, in network namespaces of this machine (Linux, root).",
        no_args_is_help=True,
        rich_markup_mode=None,
        epilog=examples("p2pnode lab matrix --quick", "p2pnode lab shell port-restricted symmetric"),
    )
    lab.command(
        "matrix",
        epilog=examples(
            "p2pnode lab matrix --quick", "p2pnode lab matrix --samples 5 --json", "p2pnode lab matrix --loss 10"
        ),
    )(_matrix)
    lab.command("kinds", epilog=examples("p2pnode lab kinds", "p2pnode lab kinds --json"))(_kinds)
    lab.command(
        "shell",
        epilog=examples(
            "p2pnode lab shell                            two hosts behind port-restricted routers",
            "p2pnode lab shell fullcone symmetric public  three hosts, a to c",
            "p2pnode lab shell --pcap lab.pcap            and all packets in a file",
        ),
    )(_shell)
    app.add_typer(lab)


def _matrix(
    ctx: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="The six most telling pairs, within a minute.")] = False,
    samples: Annotated[
        str | None,
        typer.Option("--samples", metavar="N", help="Connects per pair, between different hosts (default 1)."),
    ] = None,
    seed: _Seed = None,
    delay: _Delay = None,
    loss: _Loss = None,
    pcap: _Pcap = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="DIR", help="Write matrix.json and matrix.txt there.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Connect every pair of kinds of router, and print which path each found. Exit 1 when one is not as expected."""
    invocation = invocation_of(ctx)
    invocation.config(json=json)
    settings = _settings(seed, delay, loss, pcap)
    count = _number("--samples", samples, 1, 1, 50, int)
    folder = _folder(output)
    _enter_user_namespace(invocation)
    from p2pnode.simulations.netns import report

    result = report.matrix(settings, quick=quick, samples=count, progress=invocation.progress)
    if folder is not None:
        report.write(folder, result)
    if invocation.json:
        invocation.line(report.as_json(result))
    else:
        for line in report.as_text(result):
            invocation.line(line)
    raise typer.Exit(0 if result.as_expected else 1)


def _kinds(ctx: typer.Context, json: JsonOption = None) -> None:
    """Build one router of each kind and probe what it really does."""
    invocation = invocation_of(ctx)
    invocation.config(json=json)
    _enter_user_namespace(invocation)
    from p2pnode.simulations.netns import report

    with invocation.progress("Probing routers"):
        found = report.kinds()
    if invocation.json:
        invocation.line(report.kinds_json(found))
    else:
        for line in report.kinds_text(found):
            invocation.line(line)


def _shell(
    ctx: typer.Context,
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND]...", help="A host behind each (default: two port-restricted).", show_default=False
        ),
    ] = None,
    seed: _Seed = None,
    delay: _Delay = None,
    loss: _Loss = None,
    pcap: _Pcap = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="One shell, in host a, instead of a tmux window each.")
    ] = False,
) -> None:
    """Open a topology to play in: a shell on each host, three bootstrap nodes running, p2pnode set up to use them."""
    from p2pnode.cli.output import usage_error

    invocation = invocation_of(ctx)
    settings = _settings(seed, delay, loss, pcap)
    from p2pnode.simulations.netns import LabError, shell
    from p2pnode.simulations.netns.kinds import kind_named

    wanted = kinds or ["port-restricted", "port-restricted"]
    try:
        for kind in wanted:
            kind_named(kind)
    except LabError as error:
        raise usage_error(error.message) from error
    _enter_user_namespace(invocation)
    raise typer.Exit(shell.play(settings, wanted, plain=plain, note=invocation.note))


def _settings(seed: str | None, delay: str | None, loss: str | None, pcap: str | None) -> LabSettings:
    from p2pnode.simulations.netns import LabSettings

    return dataclasses.replace(
        LabSettings(),
        seed=_number("--seed", seed, 1, 0, 2**31, int),
        delay_s=_number("--delay", delay, 20.0, 0, 10_000, float) / 1000,
        loss=_number("--loss", loss, 0.0, 0, 99, float) / 100,
        pcap=None if pcap is None else Path(pcap).expanduser(),
    )


def _number(option: str, text: str | None, default: T, least: float, most: float, read: Callable[[str], T]) -> T:
    from p2pnode.cli.output import usage_error

    if text is None:
        return default
    try:
        value = read(text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise usage_error(f"{option}: {text[:40]!r} is not a number from {least:g} to {most:g}.")
    return value


def _folder(output: str | None) -> Path | None:
    """Make the folder now: a minute later it would be a pity. Raise OSError."""
    if output is None:
        return None
    folder = Path(output).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _enter_user_namespace(invocation: Invocation) -> None:
    """Start this command again as root of a user namespace, when we are not root: there namespaces may be made.

    Does nothing for root. Where the kernel forbids it, the laboratory itself says so.
    """
    import os
    import shutil
    import sys

    inside = "P2PNODE_LAB_INSIDE"
    unshare = shutil.which("unshare")
    if not hasattr(os, "geteuid") or os.geteuid() == 0 or inside in invocation.environ or unshare is None:
        return
    import subprocess

    options = [unshare, "--user", "--map-root-user", "--net"]
    if subprocess.run([*options, "true"], capture_output=True, check=False).returncode != 0:  # noqa: S603
        return
    sys.stdout.flush()
    arguments = [*options, sys.executable, "-m", "p2pnode", *sys.argv[1:]]
    os.execve(unshare, arguments, {**os.environ, inside: "1"})  # noqa: S606 - no shell is wanted
