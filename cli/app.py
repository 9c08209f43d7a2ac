"""The typer application: global options and the table of commands."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from p2pnode.cli.invocation import invocation_of

__all__ = ["build", "command_of"]

# In the order of --help, and which module adds which commands: a start loads and builds those of one.
_MODULES = {
    "commands_run": ("join", "bootstrap"),
    "commands_id": ("id", "config", "doctor"),
    "commands_net": ("status", "peers", "dht", "find", "connect", "netcheck", "ping"),
    "commands_chat": ("send", "messages", "history", "contacts"),
    "commands_exchange": ("export", "import"),
    "commands_file": ("file",),
    "commands_presence": ("presence",),
    "commands_names": ("names",),
    "commands_topic": ("topic",),
    "commands_random": ("random",),
    "commands_room": ("rooms",),
    "commands_lab": ("lab",),
    "commands_simulate": ("simulate",),
}
_WITH_VALUE = ("--home", "--log-level", "--log-format", "--passphrase-file")
_EPILOG = """\b
Examples:
  p2pnode join                          be a peer, and chat with whoever is on the LAN
  p2pnode join alice localhost 4747     join through the node that listens there
  p2pnode send bob "see you at eight"   one message, through the node that runs
  p2pnode --home /tmp/b id --json       another identity, in another home
"""


def command_of(args: Sequence[str]) -> str | None:
    """Return the command that a line of arguments names, None where it names none: help, completion, a mistake."""
    rest = iter(args)
    for arg in rest:
        if arg in _WITH_VALUE:
            next(rest, None)
        elif not arg.startswith("-"):
            return arg
        elif arg in ("-h", "--help"):
            return None
    return None


def build(command: str | None = None) -> typer.core.TyperGroup:
    """Return the command tree: all of it, or where `command` is one of ours, what its module adds."""
    app = typer.Typer(
        name="p2pnode",
        help="Find and reach any computer by its public key, and chat.",
        epilog=_EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,  # rich costs 0.1 s of every --help
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_globals)
    wanted = [module for module, commands in _MODULES.items() if command in commands]
    for module in wanted or _MODULES:
        import_module(f"p2pnode.cli.{module}").add(app)
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)  # noqa: S101 - an app with callback is a group
    _keep_texts(group)
    return group


class _AsTyped:
    """Stands in for typer's conversion of parameters.

    typer 0.29 converts through pydantic: 0.18 s and 12 MB in every process. Our parameters are texts, lists of texts
    and flags; `p2pnode.config` reads the texts, with better sentences.
    """

    def coerce(self, value: Any, **_context: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value


def _keep_texts(command: Any, parent: typer.Context | None = None) -> None:
    context = typer.Context(command, parent=parent, **command.context_settings)
    for param in command.get_params(context):  # --help included
        if hasattr(param, "_runtime_param"):  # earlier versions of typer convert cheaply, by themselves
            param._runtime_param = _AsTyped()
    for sub in getattr(command, "commands", {}).values():
        _keep_texts(sub, context)


def _version(wanted: bool) -> None:
    if wanted:
        from p2pnode import __version__

        typer.echo(f"p2pnode {__version__}")
        raise typer.Exit


def _globals(
    ctx: typer.Context,
    home: Annotated[
        str | None,
        typer.Option("--home", metavar="DIR", help="Keys, settings and database of one node.  [env: P2PNODE_HOME]"),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning, error.  [env: P2PNODE_LOG_LEVEL]"),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option("--log-format", metavar="FORM", help="auto, console or json.  [env: P2PNODE_LOG_FORMAT]"),
    ] = None,
    passphrase_file: Annotated[
        str | None,
        typer.Option(
            "--passphrase-file",
            metavar="FILE",
            help="Unlocks encrypted keys; else P2PNODE_PASSPHRASE or a prompt.  [env: P2PNODE_PASSPHRASE_FILE]",
        ),
    ] = None,
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    invocation = invocation_of(ctx)
    invocation.home_option = Path(home) if home else None
    invocation.global_options = {
        "log_level": log_level,
        "log_format": log_format,
        "passphrase_file": passphrase_file,
    }
