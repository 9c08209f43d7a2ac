"""Scenarios are found by name or file; a file with errors gives one sentence with its line."""

import sys
from pathlib import Path

import pytest
from support import tiny_scenario

from p2pnode.simulations.harness.errors import ScenarioFileError, SettingError
from p2pnode.simulations.harness.loading import FILE_BYTES_MAX, Source, load, names, source_of

BAD_SETTINGS = """
from typing import Annotated
from msgspec import Meta
from p2pnode.simulations.harness.scenario import NetworkSettings, Scenario
class Settings(NetworkSettings, frozen=True, kw_only=True):
    word: Annotated[str, Meta(ge=1)] = "x"
SCENARIO = Scenario(name="bad", summary="Bad.", run=print, settings=Settings)
"""
TINY = tiny_scenario.__file__


@pytest.mark.parametrize("name", names())
def test_scenarios_that_come_with_p2pnode(name: str) -> None:
    """Each loads under the name of its file, explains itself in one line, and its defaults are within its limits."""
    scenario = load(source_of(name))
    assert scenario.name == name
    assert scenario.summary
    assert "\n" not in scenario.summary
    assert scenario.nodes_min <= scenario.nodes <= scenario.nodes_max
    scenario.settings()


def test_unknown_names_suggest_the_nearest() -> None:
    """Wrong usage, with what was probably meant."""
    with pytest.raises(SettingError, match="Did you mean 'lookup'"):
        source_of("lokup")
    with pytest.raises(SettingError, match="--list"):
        source_of("zzzzzz")
    with pytest.raises(SettingError, match="no scenario file"):
        source_of("./missing.py")


def test_a_users_file_is_carried_as_text(tmp_path: Path) -> None:
    """What was read is what runs, even where the file does not exist."""
    source = source_of(TINY)
    assert source.text == Path(TINY).read_text()
    scenario = load(Source("/nowhere/else.py", source.text))
    assert scenario.name == "tiny"
    assert scenario.settings(steps=3).steps == 3  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = (\n", "my.py, line 2: '(' was never closed."),
        ("import asyncio\nraise ValueError('too bad')\n", "my.py, line 2: ValueError: too bad."),
        ("def f():\n    return nothing\n\nf()\n", "my.py, line 2: NameError: name 'nothing' is not defined."),
        ("import p2pnode_no_such_thing\n", "my.py, line 1: ModuleNotFoundError: No module named"),
        ("import sys\nsys.exit(3)\n", "my.py, line 2: SystemExit: 3."),
        ("x = 1\n", "my.py defines no SCENARIO = Scenario(...)."),
        ("SCENARIO = 3\n", "my.py defines no SCENARIO = Scenario(...)."),
        ("", "my.py defines no SCENARIO"),
        (BAD_SETTINGS, "my.py: its settings cannot be: Can only set `ge` on a numeric type"),
    ],
)
def test_a_file_with_errors_is_one_sentence_with_its_line(text: str, said: str, monkeypatch: pytest.MonkeyPatch,
                                                          tmp_path: Path) -> None:  # fmt: skip
    """No traceback; a file that cannot be run leaves no module behind."""
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(text)
    with pytest.raises(ScenarioFileError) as caught:
        load(source_of("my.py"))
    assert caught.value.message.startswith(said)
    assert "\n" not in caught.value.message
    if "line" in said:
        assert not [each for each in list(sys.modules.values()) if getattr(each, "__file__", None) == "my.py"]


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"x = 1\n\xff\n", "line 2: it is not UTF-8"), (b"#" * (FILE_BYTES_MAX + 1), "larger than")],
)
def test_files_that_are_no_text_or_too_large(data: bytes, said: str, tmp_path: Path) -> None:
    """Refused before anything is run."""
    path = tmp_path / "my.py"
    path.write_bytes(data)
    with pytest.raises(ScenarioFileError, match=said):
        source_of(str(path))


def test_a_folder_is_no_scenario(tmp_path: Path) -> None:
    """The system's own words."""
    with pytest.raises(ScenarioFileError, match="cannot be read: Is a directory"):
        source_of(f"{tmp_path}/")


def test_nothing_is_compiled_beside_the_users_file(tmp_path: Path) -> None:
    """No __pycache__ in other people's folders."""
    path = tmp_path / "my.py"
    path.write_text(Path(TINY).read_text())
    load(source_of(str(path)))
    assert [each.name for each in tmp_path.iterdir()] == ["my.py"]
