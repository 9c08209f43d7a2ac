"""Help, suggestions, version, completion."""

from typing import Any

import pytest
from support.cli import p2pnode

from p2pnode.cli.app import build, command_of


def commands(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path] if path else []
    for name, sub in getattr(command, "commands", {}).items():
        found += commands(sub, (*path, name))
    return found


ALL = commands(build())


def test_every_command_of_the_contract_is_there() -> None:
    """docs/cli.md lists them; later features' commands are absent."""
    names = {path[0] for path in ALL}
    assert names == {
        "join", "bootstrap", "id", "status", "peers", "dht", "find", "connect", "netcheck", "ping", "send", "messages",
        "history", "contacts", "doctor", "config", "lab", "simulate", "topic", "file", "random",
        "presence", "names", "rooms", "export", "import",
    }  # fmt: skip


@pytest.mark.parametrize("path", ALL, ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_has_an_example(path: tuple[str, ...], flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command's help shows at least one line to type."""
    assert p2pnode(*path, flag).code == 0
    text = capsys.readouterr().out
    assert "Examples:\n" in text
    assert "p2pnode " + path[0] in text


@pytest.mark.parametrize("path", [p for p in ALL if p not in (("config",), ("contacts",), ("lab",))], ids=" ".join)
def test_unknown_option_is_wrong_usage(path: tuple[str, ...]) -> None:
    """Flags of later features are refused, never ignored."""
    result = p2pnode(*path, "--qr-only")
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("path", [path for path in ALL if len(path) == 1], ids=" ".join)
def test_a_start_builds_the_module_of_its_command(path: tuple[str, ...]) -> None:
    """The command is there, with all below it, and commands of other modules are not."""
    built = commands(build(path[0]))
    assert [each for each in built if each[0] == path[0]] == [each for each in ALL if each[0] == path[0]]
    assert set(built) < set(ALL)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("id", "id"),
        ("id --help", "id"),
        ("--home join id --json", "id"),
        ("--home=x --log-level debug join id", "join"),
        ("--help id", None),
        ("--home x -h join", None),
        ("--version", None),
        ("--home", None),
        ("", None),
    ],
)
def test_command_of_a_line(line: str, command: str | None) -> None:
    """Values of global options are no commands; help before the command is help about all of them."""
    assert command_of(line.split()) == command


def test_every_global_option_with_a_value_is_known() -> None:
    """Or its value would be taken for the command."""
    for param in build().params:
        for option in param.opts:
            if option.startswith("--") and option != "--help":
                assert command_of([option, "value", "id"]) == ("value" if getattr(param, "is_flag", False) else "id")


@pytest.mark.parametrize(("typed", "meant"), [("jion", "join"), ("staus", "status"), ("contcats", "contacts")])
def test_mistyped_command_is_suggested(typed: str, meant: str) -> None:
    """The nearest name is offered."""
    result = p2pnode(typed)
    assert result.code == 2
    assert f"Did you mean '{meant}'" in result.err


def test_mistyped_option_is_suggested() -> None:
    """The same for options."""
    assert "--headless" in p2pnode("join", "--hedless").err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` needs no command."""
    assert p2pnode("--version").code == 0
    assert capsys.readouterr().out.startswith("p2pnode ")


def test_wrong_usage_is_json_when_asked_for() -> None:
    """A script that reads JSON gets JSON for its own mistake too."""
    result = p2pnode("find", "--json")
    assert result.code == 2
    assert result.json["error"]["code"] == "usage"
