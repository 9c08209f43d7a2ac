"""The program's entry: run a command, turn what goes wrong into one sentence and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from p2pnode import P2PError
from p2pnode.cli.app import build, command_of
from p2pnode.cli.collecting import loading
from p2pnode.cli.invocation import Invocation

__all__ = ["main", "run"]

# Click's ClickException, whose home differs between versions of typer (its own copy, or the click package).
_USAGE_ERROR = typer.BadParameter.__mro__[2]
_OLD_HABITS = ("-u", "-p", "-sip", "-sp", "-s", "-t")
_EXIT_USAGE = 2
_EXIT_CODES = {"invalid_config": _EXIT_USAGE}


def main() -> None:
    """Run the command line of this process and exit."""
    loading()
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
    sys.exit(code)


def run(argv: Sequence[str], invocation: Invocation | None = None) -> int:
    """Run one command and return the exit code: 0 done, 1 refused or failed, 2 wrong usage, 130 Ctrl-C. Never raises.

    `invocation`: the streams and environment to use; None: those of the process.
    """
    invocation = invocation or Invocation()
    args = list(argv)
    if args and args[0] in _OLD_HABITS:
        args.insert(0, "join")  # `p2pnode -u alice -p 4000`, as the programs before this one were started
    invocation.json = "--json" in args
    try:
        code = build(command_of(args)).main(args=args, prog_name="p2pnode", standalone_mode=False, obj=invocation)
    except P2PError as error:
        return _failed(invocation, error.code, error.message, error.facts.get("trace"))
    except KeyboardInterrupt:
        return 130
    except typer.Abort:
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(invocation, "storage", f"The system refuses: {where}{error.strerror or error}.")
    except Exception as error:  # noqa: BLE001 - the boundary: a traceback is for --log-level debug only
        if isinstance(error, _USAGE_ERROR):
            return _usage(invocation, error)
        return _crashed(invocation, error)
    return code if isinstance(code, int) else 0


def _failed(invocation: Invocation, code: str, message: str, trace: object = None) -> int:
    import json

    if invocation.json:
        error = {"code": code, "message": message, **({"trace": trace} if trace else {})}
        invocation.line(json.dumps({"error": error}, ensure_ascii=False))
    invocation.note(f"p2pnode: {_one_line(message)}")
    return _EXIT_CODES.get(code, 1)


def _usage(invocation: Invocation, error: Exception) -> int:
    format_message = getattr(error, "format_message", lambda: str(error))
    context = getattr(error, "ctx", None)
    message = str(format_message())
    if not message or type(error).__name__ == "NoArgsIsHelpError":
        invocation.note(message)
        return _EXIT_USAGE
    path = context.command_path if context is not None else "p2pnode"
    _failed(invocation, "usage", f"{message.rstrip('.')}{'' if message.endswith('?') else '.'} See: {path} --help")
    return _EXIT_USAGE


def _crashed(invocation: Invocation, error: Exception) -> int:
    if invocation.global_options.get("log_level") == "debug" or invocation.environ.get("P2PNODE_LOG_LEVEL") == "debug":
        import traceback

        invocation.note("".join(traceback.format_exception(error)))
    kind = type(error).__name__
    return _failed(invocation, "failed", f"Something in p2pnode is wrong ({kind}); --log-level debug shows it.")


def _one_line(text: str) -> str:
    """Keep a sentence on one line and harmless: it may quote what others sent or somebody typed (X1)."""
    from p2pnode import clean

    return clean(text, limit=2000)
