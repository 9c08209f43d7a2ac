"""What a start loads: the interpreter's own list of imports of real processes (PYTHONVERBOSE).

Start times and the memory of an idle node are mostly this; the figures are those of `benchmarks/first_steps.py`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import Processes, processes, run

pytestmark = pytest.mark.slow

# Of no use to a command that talks to no network; tens of milliseconds each.
FOR_NODES = {"asyncio", "ssl", "structlog", "msgspec", "sqlite3", "qh3", "aioice", "kademlia", "uvloop", "p2pnode.dht"}
# Of no use to a node that nobody asks, has no screen and draws nothing.
FOR_OTHERS = {
    "anyio", "click", "dask", "dns", "h11", "html", "http", "jinja2", "matplotlib", "multiprocessing", "numpy",
    "pydantic", "prompt_toolkit", "rich", "segno", "starlette", "textual", "uvicorn", "xml", "zeroconf",
    "logging.config", "p2pnode.api.application", "p2pnode.api.client", "p2pnode.api.metrics_server",
    "p2pnode.api.node_routes", "p2pnode.api.openapi", "p2pnode.cli.commands_chat", "p2pnode.cli.console",
    "p2pnode.cli.screen", "p2pnode.netcheck", "p2pnode.simulations",
}  # fmt: skip
FOR_KEYS = {"cryptography", "hashlib", "hmac", "secrets", "tomllib", "p2pnode.config", "p2pnode.home"}


def loaded(report: str) -> set[str]:
    """Return the modules that a report says were loaded."""
    return set(re.findall(r"^import '([^']+)' # ", report, re.MULTILINE))


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    with processes(tmp_path) as running:
        yield running


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_loads_the_command_line_only(flag: str, tmp_path: Path) -> None:
    """Not even what reads settings."""
    done = run(tmp_path, flag, PYTHONVERBOSE="1")
    assert done.code == 0
    names = loaded(done.err)
    assert "p2pnode.cli.main" in names
    assert not names & (FOR_NODES | FOR_KEYS | FOR_OTHERS - {"p2pnode.cli.commands_chat", "p2pnode.simulations"})


def test_id_loads_keys_and_no_node(tmp_path: Path) -> None:
    """Nor the other commands."""
    done = run(tmp_path, "id", PYTHONVERBOSE="1")
    assert done.code == 0
    names = loaded(done.err)
    assert "p2pnode.core.keys" in names
    assert not names & (FOR_NODES | FOR_OTHERS)


def test_idle_node_loads_nothing_that_serves_requests(started: Processes) -> None:
    """Until somebody asks: then it does."""
    peer = started.start("peer", "join", "--headless", "--listen", "127.0.0.1:0", "--no-lan", "--no-portmap",
                         PYTHONVERBOSE="1")  # fmt: skip
    peer.ready()
    names = loaded((peer.home / "stderr.log").read_text())
    assert "p2pnode.node" in names
    assert not names & FOR_OTHERS
    assert peer.cli("status").code == 0
    assert "uvicorn" in loaded((peer.home / "stderr.log").read_text())
