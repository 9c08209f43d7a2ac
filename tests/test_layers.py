"""Guards the layers of docs/design.md, and what no file of ours may contain (D1).

The rules are data at the top. What is imported is read from the source with `ast`, lazy imports inside functions and
those under TYPE_CHECKING included.
"""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400
NODE = "node"  # the folder that is the package p2pnode itself
FOLDERS = ("core", "dht", "nat", NODE, "chat", "api", "services", "cli", "simulations")
# Whole subpackages that a folder may import from (docs/design.md, "The house"). Of what is not listed in BELOW as
# open, only public names: those in the module's __all__. Of `node`, only `from p2pnode import Name`.
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "dht": {"core"},
    "nat": {"core"},
    NODE: {"core", "dht", "nat"},
    "chat": {NODE},
    "api": {NODE, "chat"},
    "services": {NODE, "chat", "api"},
    "cli": {"core", "dht", "nat", NODE, "chat", "api", "services", "simulations"},
    "simulations": {"core", "dht", "nat", NODE, "chat", "api", "services"},
}
EXCEPTIONS = {("node/__main__.py", "cli")}
# Subfolders with fewer rights than the folder that they are in: of that, they may import themselves only.
NARROWER: dict[str, set[str]] = {"cli/screen": {NODE, "chat"}}
# Machines and parsers without I/O: they take bytes, commands and `now`, and return what to do. Add yours.
WITHOUT_IO = tuple(
    f"{folder}/{name}.py"
    for folder, names in {
        "core": "address clean devices encoding envelope errors ids keys safety segments",
        "dht": "accounts contact density error_codes fields graves handover hearsay keyring leases lookup members "
        "messages nearest neighbours notices overlay probes records repair results settings storage subscription table "
        "tokens topic_entries topics watches wire",
        "nat": "behaviour close control handshake headers lifetime link_wire natpmp packet_order path path_choice pcp "
        "portmap probes proof retry shares stall transport upnp",
        "node": "addresses events evidence fair_share interfaces lan_machine lan_wire link_gate netcheck_advice "
        "netcheck_judge netcheck_report offer offer_guard peerspec port_votes presence proxy reachability relay_choice "
        "relay_parties relay_table relay_wire settings trace vouches",
        "chat": "contacts framing hall language limits model mail/carry_wire mail/frames mail/letters noticing outbox "
        "places protocol",
        "chat/gossip": "book statements wire",
        "chat/devices": "codes link_wire lists migration sync_wire wire",
        "chat/rooms": "entries log mesh model roll wire",
        "chat/names": "claims",
        "chat/keeping": "text wire",
        "chat/strangers": "judging lobby receipts seat wire",
        "chat/table": "rows text",
        "chat/told": "text wire",
        "simulations/probing": "messages settings verdict",
        "simulations/routers": "grants http kinds natpmp openings pcp population ports router table tcp_states upnp "
        "words",
        "simulations/harness": "errors job settings sweep",
        "simulations/report": "bands charts fits model percentiles sweeping text units",
        "cli/screen": "frame rooms timeline",
        "simulations/netns": "errors expectations kinds public_addresses rules scenario_names wire",
    }.items()
    for name in names.split()
)
IO_MODULES = {
    "asyncio", "concurrent", "datetime", "http", "multiprocessing", "pathlib", "select", "selectors", "shutil",
    "signal", "socket", "socketserver", "sqlite3", "subprocess", "tempfile", "threading", "time", "uvloop",
}  # fmt: skip
# What differs in every run: it comes through `Network`, so that a simulation repeats (docs/world.md, "Determinism").
CLOCKS_AND_CHANCE = re.compile(
    r"time\.(time|monotonic|perf_counter|process_time)(_ns)?|os\.(urandom|getrandom|getpid)|secrets\.\w+|uuid\.\w+"
    r"|random\.(?!Random$)\w+|threading\.\w+|(datetime|dt|date)\.(now|utcnow|today)|asyncio\.to_thread"
    r"|(\w+\.)*run_in_executor|random\.Random\(\)"
)
CLOCKS_AND_CHANCE_IN_SQL = re.compile(r"CURRENT_(TIME|DATE)|'now'|\brandom(blob)?\(", re.IGNORECASE)
THROUGH_NETWORK = ("core", "dht", "nat", NODE, "chat")
NOT_THROUGH_NETWORK = {
    "core/real_network.py": "the other side of `Network`",
    "core/real_udp.py": "its UDP sockets",
    "node/home.py": "the lock and the files of a home, before and after any node runs",
}
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "jsonpickle", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}


@dataclass(frozen=True)
class Import:
    """One imported module (absolute, with dots) and the name taken from it; "" for a plain `import`."""

    module: str
    name: str
    line: int

    @property
    def folder(self) -> str | None:
        """Which of our folders it leads to; None for other people's packages."""
        top, _, rest = self.module.partition(".")
        if top != "p2pnode":
            return None
        first = rest.split(".")[0] or self.name
        return first if first in FOLDERS and first != NODE else NODE


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if "__pycache__" not in path.parts]


PACKAGE_FILES = sources(*FOLDERS)
ALL_FILES = [*PACKAGE_FILES, *sources("tests", "benchmarks", "examples", "fuzz", "scripts", "deploy", "docs")]


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_of(path: Path) -> list[str]:
    """Return the dotted name's parts of a file's package: for relative imports."""
    folder, *rest = path.relative_to(ROOT).parts[:-1]
    return ["p2pnode", *([] if folder == NODE else [folder]), *rest]


def imports_of(path: Path) -> Iterator[Import]:
    """Yield every import of a file, wherever it stands, also through importlib with a constant name."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module_of(path)
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (Import(module, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in ("import_module", "__import__"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield Import(argument.value, "", node.lineno)


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def module_file(module: str) -> Path | None:
    """Return the file of one of our modules, None when there is none of that name."""
    parts = module.split(".")[1:]
    base = ROOT.joinpath(*parts) if parts and parts[0] in FOLDERS and parts[0] != NODE else ROOT.joinpath(NODE, *parts)
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def public_names(path: Path) -> set[str] | None:
    """Return the constant __all__ of a file, None when it has none that can be read without running it."""
    for node in tree_of(path).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            try:
                return set(ast.literal_eval(node.value))  # type: ignore[attr-defined]
            except ValueError:
                return None
    return None


def problem(path: Path, item: Import) -> str | None:
    """Return what is wrong with one import, None when it is allowed."""
    own, other = path.relative_to(ROOT).parts[0], item.folder
    narrow = next((folder for folder in NARROWER if shown(path).startswith(f"{folder}/")), None)
    if narrow is not None and other is not None and other not in NARROWER[narrow]:
        inside = f"p2pnode.{narrow.replace('/', '.')}"
        return None if (f"{item.module}.").startswith(f"{inside}.") else f"{narrow} must not import {item.module}"
    if other is None or other == own or (shown(path), other) in EXCEPTIONS:
        return None
    if other not in MAY_IMPORT[own]:
        return f"{own} must not import {other}"
    if other == NODE:
        if item.module != "p2pnode" or not item.name:
            return "of node only `from p2pnode import Name`"
        if module_file(f"p2pnode.{item.name}") is not None and item.name not in face():
            return f"{item.name} is a module of node, not a public name"
        return None if item.name in face() else f"{item.name} is not in p2pnode.__all__"
    if not item.name:
        return f"name what you import from {item.module}"
    file = module_file(item.module)
    if file is None:
        return f"there is no module {item.module}"
    if module_file(f"{item.module}.{item.name}") is not None:
        return f"{item.name} is a private module" if item.name.startswith("_") else None
    names = public_names(file)
    if item.name.startswith("_") or (names is not None and item.name not in names):
        return f"{item.name} is not in __all__ of {item.module}"
    return None


@lru_cache(maxsize=1)
def face() -> frozenset[str]:
    return frozenset(getattr(importlib.import_module("p2pnode"), "__all__", ()))


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=shown)
def test_imports_follow_the_layers(path: Path) -> None:
    """Each import of each file is one that the table of docs/design.md allows."""
    wrong = [f"{shown(path)}:{item.line}: {text}" for item in imports_of(path) if (text := problem(path, item))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("file", "code", "allowed"),
    [
        ("core/x.py", "from p2pnode.core.ids import PeerId", True),
        ("core/x.py", "from p2pnode.dht import Dht", False),
        ("dht/x.py", "from p2pnode.core.ids import PeerId", True),
        ("dht/x.py", "from p2pnode.core.ids import _load", False),
        ("dht/x.py", "from p2pnode.core import ids", True),
        ("dht/x.py", "import p2pnode.core.ids", False),
        ("dht/x.py", "def f():\n    from p2pnode.nat import mux", False),
        ("dht/x.py", "from ..nat import mux", False),
        ("nat/x.py", "import importlib\nimportlib.import_module('p2pnode.dht.wire')", False),
        ("nat/x.py", "from p2pnode import Node", False),
        ("node/x.py", "from p2pnode.cli.main import main", False),
        ("node/__main__.py", "from p2pnode.cli.main import main", True),
        ("chat/x.py", "from p2pnode.core.ids import PeerId", False),
        ("chat/x.py", "from p2pnode.node import Node", False),
        ("chat/x.py", "import p2pnode", False),
        ("chat/x.py", "from p2pnode import core", False),
        ("chat/x.py", "if TYPE_CHECKING:\n    from p2pnode.dht import Dht", False),
        ("api/x.py", "from p2pnode.cli.main import main", False),
        ("chat/x.py", "from p2pnode.api import client", False),
        ("simulations/x.py", "from p2pnode.core.address import Address", True),
        ("chat/x.py", "import asyncio, msgspec", True),
        ("cli/screen/x.py", "from p2pnode.chat import Chat", True),
        ("cli/screen/x.py", "from p2pnode import PeerId", True),
        ("cli/screen/x.py", "from p2pnode.cli.screen.log import MessageLog", True),
        ("cli/screen/x.py", "from p2pnode.cli.output import age", False),
        ("cli/screen/x.py", "from p2pnode.api.client import Client", False),
    ],
)
def test_the_guard_itself(file: str, code: str, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules see relative, lazy, conditional and dynamic imports."""
    path = ROOT / file
    monkeypatch.setitem(globals(), "tree_of", lambda asked: ast.parse(code if asked == path else asked.read_text()))
    assert all(problem(path, item) is None for item in imports_of(path)) is allowed


@pytest.mark.parametrize("file", WITHOUT_IO)
def test_machines_do_no_io(file: str) -> None:
    """A declared machine imports nothing that does I/O, reads a clock or starts a thread, and opens no file."""
    path = ROOT / file
    imported = {item.module.split(".")[0] for item in imports_of(path)}
    assert not imported & IO_MODULES
    calls = {dotted(node.func) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)}
    assert not calls & {"open", "io.open", "os.open", "print", "input", "random.random", "os.urandom"}


def clocks_and_chance(tree: ast.Module) -> Iterator[str]:
    """Yield each use of a clock, of entropy or of a thread of the system, SQLite's included, as `line: what`."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Call) and dotted(node.func) == "random.Random" and not node.args:
            names = ["random.Random()"]
        elif isinstance(node, ast.Attribute):
            names = [dotted(node)]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (f"{node.lineno}: {sql[0]}" for sql in CLOCKS_AND_CHANCE_IN_SQL.finditer(node.value))
        line = getattr(node, "lineno", 0)
        yield from (f"{line}: {name}" for name in names if CLOCKS_AND_CHANCE.fullmatch(name))


@pytest.mark.parametrize("path", sources(*THROUGH_NETWORK), ids=shown)
def test_clocks_and_chance_come_through_network(path: Path) -> None:
    """No node code asks the system for time, entropy or threads, or a simulation would differ from run to run."""
    if shown(path) not in NOT_THROUGH_NETWORK:
        assert not list(clocks_and_chance(tree_of(path)))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import time\nat = time.monotonic()", True),
        ("from time import time", True),
        ("def f(token_bytes=secrets.token_bytes): ...", True),
        ("rng = random.Random()", True),
        ("rng = random.Random(seed)\nrng.random()", False),
        ("random.shuffle(peers)", True),
        ("await loop.run_in_executor(None, work)", True),
        ("sql = \"UPDATE t SET at = datetime('now')\"", True),
        ("sql = 'SELECT randomblob(16)'", True),
        ("loop.time(); network.token_bytes(8); asyncio.timeout(3)", False),
    ],
)
def test_the_guard_of_clocks_and_chance_itself(code: str, found: bool) -> None:
    """It sees calls, references, imports and SQL."""
    assert bool(list(clocks_and_chance(ast.parse(code)))) is found


def test_d1_no_pickle_no_eval_no_shell() -> None:
    """No file of ours deserialises code, evaluates text or hands a string to a shell."""
    wrong = []
    for path in ALL_FILES:
        banned = [item for item in imports_of(path) if item.module.split(".")[0] in FORBIDDEN_MODULES]
        wrong += [f"{shown(path)}:{item.line}: imports {item.module}" for item in banned]
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call):
                shell = [k for k in node.keywords if k.arg == "shell" and getattr(k.value, "value", True) is not False]
                if dotted(node.func) in FORBIDDEN_CALLS or shell:
                    wrong.append(f"{shown(path)}:{node.lineno}: calls {dotted(node.func)}")
    assert not wrong, "\n".join(wrong)


def test_no_file_is_longer_than_400_lines() -> None:
    """Past that there are two ideas in it."""
    long = {shown(path): count for path in ALL_FILES if (count := len(path.read_text().splitlines())) > MAX_LINES}
    assert not long


def test_every_package_is_packaged() -> None:
    """Each folder with an __init__.py is in pyproject.toml's list, or the wheel would lack it; and the reverse."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    present = {".".join(module_of(path)) for path in PACKAGE_FILES if path.name == "__init__.py"}
    assert present == set(setuptools["packages"])
    for package in present:
        folder = next(
            setuptools["package-dir"][p]
            for p in (package, package.rpartition(".")[0])
            if p in setuptools["package-dir"]
        )
        assert (ROOT / folder).is_dir()


def test_every_package_folder_holds_only_packages() -> None:
    """Each Python file of a package lies in a folder with __init__.py, or it would not be in the wheel."""
    assert not [shown(path) for path in PACKAGE_FILES if not (path.parent / "__init__.py").is_file()]


def listed_folders(text: str) -> set[str]:
    """Return the folders in backticks in the first column of the tables of a markdown text."""
    first_cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {name.rstrip("/") for cell in first_cells for name in re.findall(r"`([a-z_.]+/)`", cell)}


def test_the_design_lists_every_folder() -> None:
    """docs/design.md's table of folders has each top-level folder that exists, and each package folder is real."""
    listed = listed_folders((ROOT / "docs" / "design.md").read_text(encoding="utf-8"))
    ignored = {"build", "dist", "__pycache__"}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.iterdir())} - ignored
    visible = {name for name in folders if not name.startswith(".") and not name.endswith(".egg-info")}
    assert visible <= listed


def test_folder_tables_are_read() -> None:
    """Several folders may share a row; other tables and prose are no folders."""
    text = (
        "| folder | what |\n|---|---|\n| `core/` | x |\n| `docs/`, `deploy/` | `no/` |\n`also_not/`\n| `name` | y |\n"
    )
    assert listed_folders(text) == {"core", "docs", "deploy"}
