"""The page and the files of a report: nothing is fetched, nothing that users typed is markup, equal in, equal out."""

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.tiny_scenario import SCENARIO, Settings

from p2pnode.simulations.harness.errors import MissingPackageError
from p2pnode.simulations.harness.execution import Execution
from p2pnode.simulations.harness.scenario import Cell, Recorder, Table
from p2pnode.simulations.report import Report, as_dict, as_text, write_report
from p2pnode.simulations.report.units import COST

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>'\"&$x$\u202e\x1b[31m"
VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}


class Checker(HTMLParser):
    """Collects tags, attributes and text; insists that what opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(path: Path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    checker.close()
    assert not checker.open
    return checker


def tiny_report(**settings: object) -> Report:
    outcome = Execution(SCENARIO, 10, 1, Settings(**settings)).execute()  # type: ignore[arg-type]
    return Report(
        "tiny", "Nothing much.", "p2pnode simulate tiny.py --nodes 10 --seed 1", outcome.found, 10, 1,
        outcome.virtual_s, outcome.real_s, {"steps": "20"}, outcome.cost, {"p2pnode": "1"},
    )  # fmt: skip


def evil_report() -> Report:
    found = Recorder(
        figures={f"{EVIL}_s": 1.0, "lookup_success": 0.5},
        samples={f"{EVIL}_s": [1.0, 2.0], "_hidden$": [1.0, 3.0]},
        series={f"{EVIL}_by_nodes": [(1.0, 1.0), (10.0, 2.0), (100.0, 3.0)]},
        matrices={EVIL: [Cell(EVIL, EVIL, EVIL, False, EVIL)]},
        tables=[Table(EVIL, [EVIL, "b"], [[EVIL, 1], [1, None]])],
        notes=[EVIL],
        failures=[EVIL],
    )
    return Report(EVIL, EVIL, EVIL, found, settings={EVIL: EVIL}, cost={"cpu_s": 1.0}, versions={EVIL: EVIL})


@pytest.mark.slow
def test_the_page_holds_everything_and_fetches_nothing(tmp_path: Path) -> None:
    """One file: inline style and plots, no script, no address but names of namespaces; every part has its place."""
    paths = write_report(tmp_path, tiny_report(), png=True)
    assert [path.name for path in paths[:2]] == ["report.json", "report.html"]
    page = parsed(paths[1])
    names = [tag for tag, _ in page.tags]
    assert "script" not in names
    assert "link" not in names
    assert names.count("svg") == 4
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert name not in ("src", "href") or tag == "use"
            assert not name.startswith("on")
            assert name.startswith("xmlns") or "http" not in (value or "")
    text = "".join(page.text)
    for part in ("tiny", "Nothing much.", "--seed 1", "lookup_p50_s", "By size", "who reaches whom", "even seeds fail",
                 "Done.", "steps", "rss_peak_bytes", "Datagrams sent, by kind", "p2pnode 1"):  # fmt: skip
        assert part in text, part
    pictures = [path for path in paths if path.suffix == ".png"]
    assert len(pictures) == 4
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    print(f"{paths[1].stat().st_size / 1000:.0f} kB")


@pytest.mark.slow
def test_tables_and_plots_can_be_read_without_seeing_them(tmp_path: Path) -> None:
    """Tables have captions and scoped heads, plots a name, cells with a reason can be reached by keyboard."""
    page = parsed(write_report(tmp_path, tiny_report(), png=False)[1])
    tags = page.tags
    assert ("html", {"lang": "en"}) in tags
    assert len([t for t, _ in tags if t == "table"]) == len([t for t, _ in tags if t == "caption"])
    assert all("scope" in a for t, a in tags if t == "th")
    svgs = [a for t, a in tags if t == "svg"]
    assert all(a["role"] == "img" and a["aria-labelledby"] for a in svgs)
    reasons = [a for t, a in tags if t == "td" and a.get("title") == "even seeds fail"]
    assert [a["tabindex"] for a in reasons] == ["0"]
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_x1_names_and_settings_are_never_markup(tmp_path: Path) -> None:
    """Whatever a user calls files, settings and figures stays text: on the page, in its plots, on the terminal."""
    paths = write_report(tmp_path, evil_report(), png=True)  # matplotlib gets those names, too
    page = parsed(paths[1])
    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "span", "pre", "code", "main",
        "section", "ul", "li", "dl", "div", "dt", "dd", "small", "table", "caption", "thead", "tr", "th", "tbody",
        "td", "figure", "figcaption", "svg", "defs", "g", "path", "use", "text", "clippath", "rect", "footer",
        "details", "summary", "wbr",
    }  # fmt: skip
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    for line in as_text(evil_report()):
        assert line.isprintable(), line
    assert all(re.fullmatch(r"[a-z0-9-]+\.(png|html|json)", path.name) for path in paths)


@pytest.mark.slow
def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    """No date, no random ids: two pages can be compared by their bytes."""
    report = tiny_report()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, report, png=False)
    ones, others = sorted((tmp_path / "a").iterdir()), sorted((tmp_path / "b").iterdir())
    assert [path.read_bytes() for path in ones] == [path.read_bytes() for path in others]


@pytest.mark.slow
def test_whoever_waits_gets_a_page_without_all_plots(tmp_path: Path) -> None:
    """After Ctrl-C: the page says so, and how many plots were not drawn."""
    report = tiny_report()
    report.interrupted = True
    paths = write_report(tmp_path, report, png=True, draw_until=time.monotonic() - 1)
    assert [path.name for path in paths] == ["report.json", "report.html"]
    text = paths[1].read_text()
    assert "Interrupted" in text
    assert "4 plots were not drawn." in text
    assert json.loads(paths[0].read_text())["interrupted"] is True


def test_the_json_file_has_every_figure_and_raw_values() -> None:
    """docs/simulate.md, "The JSON file": what `--json` prints, and beneath it samples and curves."""
    report = tiny_report()
    printed, written = as_dict(report), as_dict(report, raw=True)
    assert {"scenario", "nodes", "seed", "virtual_s", "real_s", "figures", "settings"} <= set(printed)
    assert {"lookup_success", "lookup_p50_s", "lookup_p90_s", "lookup_p99_s", "lookup_max_s", "bytes_per_node"} | {
        *COST
    } <= set(printed["figures"])
    sample = written["samples"]["lookup_s"]
    assert sample["values"] == sorted(report.found.samples["lookup_s"])
    assert {name: value for name, value in sample.items() if name != "values"} == printed["samples"]["lookup_s"]
    assert (sample["p50"], sample["max"]) == (written["figures"]["lookup_p50_s"], written["figures"]["lookup_max_s"])
    assert written["series"]["lookup_success"][0] == (1.0, 0.0)
    report.found.samples["lookup_s"] = [float(n) for n in range(100_000)]
    values = as_dict(report, raw=True)["samples"]["lookup_s"]["values"]
    assert (len(values), values[0], values[-1]) == (10_000, 0.0, 99_999.0)


def test_a_missing_package_is_named_and_costs_no_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The JSON file is written first."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingPackageError, match=r"matplotlib and jinja2, which are not .*p2pnode\[simulations\]"):
        write_report(tmp_path, tiny_report(), png=False)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
