"""`simulate`: scenarios in virtual time."""

from __future__ import annotations

from typing import Annotated

import typer

from p2pnode.cli.invocation import invocation_of
from p2pnode.cli.options import JsonOption, examples

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command(
        "simulate",
        epilog=examples(
            "p2pnode simulate --list                                  the scenarios, a line each",
            "p2pnode simulate lookup --nodes 1000 --set loss=0.2",
        ),
    )(_simulate)


def _simulate(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[SCENARIO]", help="A name, or your own file.", show_default=False)
    ] = None,
    nodes: Annotated[str | None, typer.Option("--nodes", metavar="N", help="How many nodes.")] = None,
    seed: Annotated[str | None, typer.Option("--seed", metavar="N", help="Of every random choice.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Scenarios; of one, its settings.")] = False,
    json: JsonOption = None,
) -> None:
    """Run a scenario of many nodes in virtual time."""
    from p2pnode.cli.output import usage_error

    invocation = invocation_of(ctx)
    config = invocation.config(json=json)
    from p2pnode.cli.logs import set_up
    from p2pnode.simulations.harness import loading, settings
    from p2pnode.simulations.harness.errors import SettingError
    from p2pnode.simulations.harness.execution import Execution

    if listing:
        for name in loading.names():
            invocation.line(f"{name:20} {loading.load(loading.Source(name)).summary}")
        return
    set_up("warning", config["log-format"], invocation.stderr)
    try:
        source = loading.source_of((names or ["lookup"])[0])
        scenario = loading.load(source)
        given = dict(settings.split_pair("--set", text) for text in sets or [])
        values = settings.read_settings(scenario, given)
        count, number = settings.read_nodes(scenario, nodes), settings.read_seed(seed)
    except SettingError as error:
        raise usage_error(error.message) from error
    outcome = Execution(scenario, count, number, values).execute(source=source.target)
    from p2pnode.simulations.report import Report, as_dict, as_text

    report = Report(
        scenario.name, scenario.summary, "", outcome.found, count, number, outcome.virtual_s, outcome.real_s
    )
    report.cost = outcome.cost
    if invocation.json:
        import msgspec

        invocation.line(msgspec.json.encode(as_dict(report)).decode())
    else:
        for line in as_text(report):
            invocation.line(line)
    for failure in outcome.found.failures:
        invocation.note(failure)
    if outcome.traceback:
        invocation.note(outcome.traceback)
    raise typer.Exit(0 if outcome.state == "done" else 1)
