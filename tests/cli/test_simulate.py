"""`p2pnode simulate`: lists, refusals, one run with everything it prints and writes, failures that can be repeated."""

import json
import shlex
from pathlib import Path

import pytest
from support import tiny_scenario
from support.cli import Result, p2pnode

from p2pnode.simulations.harness.loading import names
from p2pnode.simulations.report.units import MACHINE

TINY = tiny_scenario.__file__


def refused(result: Result, code: int = 2) -> str:
    """One line on stderr, nothing on stdout."""
    assert result.code == code, result
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    return result.err


def test_scenarios_are_listed_a_line_each() -> None:
    """Name and summary; as JSON with the default number of nodes."""
    result = p2pnode("simulate", "--list")
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == names()
    listed = p2pnode("simulate", "--list", "--json").json["scenarios"]
    assert [each["name"] for each in listed] == names()
    assert all(each["summary"] and each["nodes"] for each in listed)


def test_the_settings_of_a_scenario_are_listed() -> None:
    """Defaults, ranges, what they are; of a user's own file, too."""
    result = p2pnode("simulate", "lookup", "--list")
    assert result.code == 0
    for part in ("--nodes", "loss", "0.05", "a number from 0 to 1", "share of datagrams lost"):
        assert part in result.out
    data = p2pnode("simulate", "--list", TINY, "--json").json
    assert data["name"] == "tiny"
    assert data["nodes"] == {"default": 10, "least": 1, "most": 5000}
    assert {"name": "steps", "allowed": "a whole number from 1 to 100,000", "default": "20"}.items() <= data[
        "settings"
    ][0].items()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lokup"], "Did you mean 'lookup'"),
        ([], "Which scenario"),
        (["lookup", "churn"], "One scenario at a time"),
        (["./missing.py"], "no scenario file"),
        ([TINY, "--nodes", "5001"], "tiny takes a whole number from 1 to 5,000"),
        (["lookup", "--nodes", "many"], "--nodes many: lookup takes a whole number from"),
        ([TINY, "--seed", "-1"], "--seed -1"),
        ([TINY, "--set", "loss=2"], "--set loss=2: loss is a number from 0 to 1 (share of datagrams lost)"),
        ([TINY, "--set", "lsos=0"], "Did you mean 'loss'"),
        ([TINY, "--set", "loss"], "KEY=VALUE"),
        ([TINY, "--set", "loss=0", "--set", "loss=1"], "given twice"),
        ([TINY, "--png"], "--png goes with --output"),
        ([TINY, "--scheduler", "tcp://127.0.0.1:1"], "go with --sweep"),
        ([TINY, "--workers", "2"], "go with --sweep"),
        ([TINY, "--sweep", "seed=1..9", "--workers", "0"], "--workers 0"),
        ([TINY, "--sweep", "seed=1..99999"], "more than 5,000 runs"),
        ([TINY, "--sweep", "lsos=0,1"], "Did you mean 'loss'"),
        (["--compare", "a.json"], "two JSON files, not 1"),
        (["--compare"], "two JSON files, not 0"),
    ],
    ids=str,
)
def test_wrong_usage_is_one_sentence(arguments: list[str], said: str) -> None:
    """Exit 2, before anything is run; as JSON when asked for."""
    assert said in refused(p2pnode("simulate", *arguments))
    result = p2pnode("simulate", *arguments, "--json")
    assert (result.code, result.json["error"]["code"]) == (2, "usage")


def test_a_file_with_errors_is_one_sentence_with_its_line(tmp_path: Path) -> None:
    """Exit 1; in a sweep as well."""
    path = tmp_path / "my.py"
    path.write_text("import asyncio\nimport nothing_like_that\n")
    for more in ([], ["--sweep", "seed=1..3"], ["--list"]):
        assert "my.py, line 2: ModuleNotFoundError" in refused(p2pnode("simulate", str(path), *more), 1)


def test_output_folders_are_tried_before_the_run(tmp_path: Path) -> None:
    """A file in its place, and a place where nothing can be: refused within the time of no run."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        err = refused(p2pnode("simulate", TINY, "--set", "spin_s=3600", "--output", str(folder)), 1)
        assert str(folder) in err or "file" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "OUT"], "A report needs matplotlib and jinja2"),
        (["--sweep", "seed=1..3"], "A sweep needs dask and distributed"),
    ],
)
def test_missing_packages_are_named(arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch,
                                    tmp_path: Path) -> None:  # fmt: skip
    """One sentence with the extra, before the run."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    typed = [part.replace("OUT", str(tmp_path / "o")) for part in arguments]
    err = refused(p2pnode("simulate", TINY, "--set", "spin_s=3600", *typed), 1)
    assert said in err
    assert "p2pnode[simulations]" in err
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_one_run_as_json() -> None:
    """docs/cli.md: scenario, nodes, seed, both times, figures; a second run differs in the machine's figures only."""
    one, other = (p2pnode("simulate", TINY, "--nodes", "20", "--seed", "7", "--json") for _ in range(2))
    assert one.code == 0, one.err
    data, again = one.json, other.json
    assert (data["scenario"], data["nodes"], data["seed"], data["virtual_s"]) == ("tiny", 20, 7, 20.0)
    assert data["real_s"] > 0
    assert {"lookup_p50_s", "lookup_p99_s", "lookup_success"} <= set(data["figures"])
    assert data["settings"]["steps"] == "20"

    def network(each: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in each.items() if name not in MACHINE}

    assert network(data["figures"]) == network(again["figures"])


@pytest.mark.slow
def test_one_run_as_text_and_files(tmp_path: Path) -> None:
    """Figures with units, a page, a JSON file; the command in it gives the same again."""
    folder = tmp_path / "new" / "report"
    result = p2pnode("simulate", TINY, "--set", "steps=30", "--output", str(folder))
    assert result.code == 0, result.err
    for part in ("tiny: Nothing much.", "10 nodes, seed 1, 30 s of virtual time", "lookup_success", "By size", "Done."):
        assert part in result.out
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]
    written = json.loads((folder / "report.json").read_text())
    words = shlex.split(written["command"])
    assert words[0] == "p2pnode"
    again = p2pnode(*words[1:], "--json").json
    assert again["figures"]["lookup_p99_s"] == written["figures"]["lookup_p99_s"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ("require", "What must hold does not."),
        ("error", "ValueError: no such thing"),
        ("deadlock", "Nothing more can happen"),
        ("killed", "ended by SIGKILL"),
    ],
)
def test_a_failure_names_seed_and_command(ends: str, said: str, tmp_path: Path) -> None:
    """Exit 1, one sentence on stderr, the report written all the same, the traceback kept for --log-level debug."""
    folder = tmp_path / "o"
    result = p2pnode("simulate", TINY, "--seed", "5", "--set", f"ends={ends}", "--output", str(folder), "--json")
    assert result.code == 1
    assert result.json["error"]["code"] == "scenario_failed"
    for text in (result.err.splitlines()[-1], result.json["error"]["message"]):
        assert "tiny failed with seed 5: " in text
        assert said in text
        assert text.endswith(f"To repeat: p2pnode simulate {TINY} --nodes 10 --seed 5 --set ends={ends}")
    assert "Traceback" not in result.err
    assert said in (folder / "report.html").read_text()
    assert said in json.loads((folder / "report.json").read_text())["failures"][0]


@pytest.mark.slow
def test_tracebacks_are_for_those_who_ask() -> None:
    """`--log-level debug` shows it."""
    result = p2pnode("--log-level", "debug", "simulate", TINY, "--set", "ends=error")
    assert result.code == 1
    assert "Traceback" in result.err
    assert 'raise ValueError("no such thing")' in result.err


@pytest.mark.slow
def test_two_runs_are_compared(tmp_path: Path) -> None:
    """As text, JSON and page; what was asked for differently is named."""
    for seed in ("1", "2"):
        data = p2pnode("simulate", TINY, "--seed", seed, "--json").out
        (tmp_path / f"{seed}.json").write_text(data)
    files = [str(tmp_path / "1.json"), str(tmp_path / "2.json")]
    result = p2pnode("simulate", "--compare", *files, "--output", str(tmp_path / "o"))
    assert result.code == 0
    assert "lookup_p50_s" in result.out
    assert (tmp_path / "o" / "compare.html").exists()
    found = p2pnode("simulate", "--compare", *files, "--json").json
    assert found["differing"] == [["seed", "1", "2"]]
    assert "is no report" in refused(p2pnode("simulate", "--compare", files[0], TINY), 1)
