"""Help, suggestions, version, completion."""

from typing import Any

import pytest
from support.cli import p2pnode

from p2pnode.cli.app import build


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
        "history", "contacts", "doctor", "config", "lab", "simulate", "topic",
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
