"""The laboratory: real processes behind real kernel routers, in network namespaces of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from p2pnode.cli.invocation import Invocation, invocation_of
from p2pnode.cli.options import JsonOption, examples
from p2pnode.simulations.netns.scenario_names import SCENARIOS

if TYPE_CHECKING:
    from p2pnode.simulations.netns import LabSettings
    from p2pnode.simulations.report import Report

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
_Output = Annotated[
    str | None, typer.Option("--output", metavar="DIR", help="Write report.html and report.json there.")
]


def add(app: typer.Typer) -> None:
    """Register the commands."""
    lab = typer.Typer(
        name="lab",
        help="Real nodes behind real routers, in network namespaces of this machine (Linux, root).",
        invoke_without_command=True,
        rich_markup_mode=None,
        epilog=examples(
            "p2pnode lab --list                           the scenarios, a line each",
            "p2pnode lab matrix --quick",
            "p2pnode lab roam --output DIR",
            "p2pnode lab shell port-restricted symmetric",
            "p2pnode lab --docker matrix --quick          in containers, with the engine that runs here",
        ),
    )
    lab.callback()(_lab)
    lab.command(
        "matrix",
        help=SCENARIOS["matrix"].summary + " Exit 1 when one is not as expected.",
        epilog=examples(
            "p2pnode lab matrix --quick                   six telling pairs, within a minute",
            "p2pnode lab matrix cgnat public one-carrier  all pairs of these",
            "p2pnode lab matrix --samples 5 --json",
            "p2pnode lab matrix --loss 10 --output DIR",
        ),
    )(_matrix)
    for scenario in SCENARIOS.values():
        if scenario.module:
            lab.command(
                scenario.name, help=scenario.summary, epilog=examples(f"p2pnode lab {scenario.name} --output DIR")
            )(_scenario)
    lab.command(
        "kinds", help=SCENARIOS["kinds"].summary, epilog=examples("p2pnode lab kinds", "p2pnode lab kinds --json")
    )(_kinds)
    lab.command(
        "shell",
        help=SCENARIOS["shell"].summary + " Three bootstrap nodes are running, p2pnode is set up to use them.",
        epilog=examples(
            "p2pnode lab shell                            two hosts behind port-restricted routers",
            "p2pnode lab shell fullcone symmetric public  three hosts, a to c",
            "p2pnode lab shell --pcap lab.pcap            and all packets in a file",
        ),
    )(_shell)
    app.add_typer(lab)


def _lab(
    ctx: typer.Context,
    listing: Annotated[bool, typer.Option("--list", help="The scenarios, a line each.")] = False,
    docker: Annotated[
        bool, typer.Option("--docker", help="With matrix: nodes and routers in containers instead of namespaces.")
    ] = False,
) -> None:
    from p2pnode.cli.output import table, usage_error

    if docker and ctx.invoked_subcommand != "matrix":
        raise usage_error("--docker is for the matrix: p2pnode lab --docker matrix")
    if listing:
        for line in table([(scenario.name, scenario.summary) for scenario in SCENARIOS.values()]):
            invocation_of(ctx).line(line)
        raise typer.Exit(0)
    if ctx.invoked_subcommand is None:
        invocation_of(ctx).line(ctx.get_help())


def _matrix(
    ctx: typer.Context,
    kinds: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KIND]...", help="Only pairs of these (default: all).", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The six most telling pairs, within a minute.")] = False,
    samples: Annotated[
        str | None,
        typer.Option("--samples", metavar="N", help="Connects per pair, between different hosts (default 1)."),
    ] = None,
    seed: _Seed = None,
    delay: _Delay = None,
    loss: _Loss = None,
    pcap: _Pcap = None,
    output: _Output = None,
    json: JsonOption = None,
) -> None:
    from p2pnode.cli.output import usage_error

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    settings = _settings(seed, delay, loss, pcap)
    count = _number("--samples", samples, 1, 1, 50, int)
    if kinds and quick:
        raise usage_error("--quick has its own pairs; name kinds or say --quick.")
    from p2pnode.simulations.netns.expectations import known_name

    wanted = _known(kinds or [], known_name)
    in_containers = ctx.parent is not None and bool(ctx.parent.params["docker"])
    if in_containers and any(option is not None for option in (seed, delay, loss, pcap)):
        raise usage_error("--seed, --delay, --loss and --pcap are of the namespaces' wire, which containers lack.")
    folder = _folder(output)
    if not in_containers:
        _enter_user_namespace(invocation)
    from p2pnode.simulations.netns import matrix, scenarios
    from p2pnode.simulations.netns import report as texts

    options = [*wanted, *(["--quick"] if quick else []), *([f"--samples {count}"] if count != 1 else [])]
    if in_containers:
        from p2pnode.simulations.docker import matrix as containers

        plan = containers.QUICK if quick else matrix.pairs_plan(wanted) if wanted else containers.FULL
        run = containers.matrix_report
    else:
        plan = matrix.QUICK if quick else matrix.pairs_plan(wanted) if wanted else matrix.FULL
        run = functools.partial(scenarios.matrix_report, settings)
    with _telling(invocation) as tell:
        report = run(dataclasses.replace(plan, samples=count), " ".join(options), tell)
    _show(invocation, report, folder, texts.matrix_text)


def _scenario(
    ctx: typer.Context,
    seed: _Seed = None,
    delay: _Delay = None,
    loss: _Loss = None,
    pcap: _Pcap = None,
    output: _Output = None,
    json: JsonOption = None,
) -> None:
    invocation = invocation_of(ctx)
    invocation.config(json=json)
    settings = _settings(seed, delay, loss, pcap)
    folder = _folder(output)
    _enter_user_namespace(invocation)
    from p2pnode.simulations.netns import report as texts
    from p2pnode.simulations.netns import scenarios

    with _telling(invocation) as tell:
        report = scenarios.run_scenario(ctx.info_name or "", settings, tell)
    _show(invocation, report, folder, texts.scenario_text)


def _show(invocation: Invocation, report: Report, folder: Path | None, text: Callable[[Report], list[str]]) -> None:
    """Print a report, write it where that was asked for, end with 1 when something failed."""
    from p2pnode.simulations.report import as_json, write_report

    for line in [as_json(report)] if invocation.json else text(report):
        invocation.line(line)
    if folder is not None:
        for path in write_report(folder, report, png=False):
            invocation.note(f"Written: {path}")
    raise typer.Exit(1 if report.found.failures else 0)


@contextlib.contextmanager
def _telling(invocation: Invocation) -> Iterator[Callable[[str], None]]:
    """Show as progress what the block tells."""
    told = ["Building the laboratory"]
    with invocation.progress(lambda: (told[-1], None)):
        yield told.append


def _kinds(ctx: typer.Context, json: JsonOption = None) -> None:
    invocation = invocation_of(ctx)
    invocation.config(json=json)
    _enter_user_namespace(invocation)
    from p2pnode.simulations.netns import report, scenarios

    with invocation.progress("Probing networks"):
        found = scenarios.probe_kinds()
    if invocation.json:
        import msgspec

        invocation.line(msgspec.json.encode({name: verdict.to_json() for name, verdict in found.items()}).decode())
        return
    for line in report.kinds_text(found):
        invocation.line(line)


def _known(names: list[str], look_up: Callable[[str], object]) -> list[str]:
    """Return names of kinds of networks. Wrong usage, with the nearest, when there is none of a name."""
    from p2pnode.cli.output import usage_error
    from p2pnode.simulations.netns import LabError

    try:
        for name in names:
            look_up(name)
    except LabError as error:
        raise usage_error(error.message) from error
    return names


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
    invocation = invocation_of(ctx)
    settings = _settings(seed, delay, loss, pcap)
    from p2pnode.simulations.netns import shell
    from p2pnode.simulations.netns.kinds import kind_named

    wanted = _known(kinds or ["port-restricted", "port-restricted"], kind_named)

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
    """Make the folder now, and look for what a report needs: a minute later it would be a pity. Raise OSError."""
    if output is None:
        return None
    from p2pnode.simulations.report import require_report_packages

    require_report_packages()
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
