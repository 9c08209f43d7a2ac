"""Nothing is left of a laboratory: neither after its end, nor after Ctrl-C or a crash. And what is missing is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import p2pnode
from support.lab import lab_command, require_lab, until

from p2pnode.simulations.netns import spaces

pytestmark = [pytest.mark.namespace, pytest.mark.slow]

QUICK_NODES = 15  # of `lab matrix --quick`


@pytest.fixture(autouse=True)
def _needs_lab() -> None:
    require_lab()


def test_ctrl_c_ends_everything_within_two_seconds(tmp_path: Path) -> None:
    """Exit 130, no process, no file; namespaces and rules end with them."""
    with lab_command(tmp_path, "matrix", "--quick") as command:
        until(lambda: len(command.processes()) > QUICK_NODES, 20, "all nodes are started")
        command.interrupt()
        seconds = until(lambda: command.process.poll() is not None, 5, "the command ends")
        assert command.process.returncode == 130
        seconds += until(command.gone, 2, "everything is gone")
        print(f"after Ctrl-C: {seconds:.2f} s")
        assert seconds < 2.5


def test_kill_9_leaves_nothing(tmp_path: Path) -> None:
    """The kernel ends all processes, and with them the namespaces; the janitor removes the files."""
    with lab_command(tmp_path, "matrix", "--quick") as command:
        until(lambda: len(command.processes()) > QUICK_NODES, 20, "all nodes are started")
        assert command.files()
        command.process.kill()
        command.process.wait()
        print(f"after kill -9: {until(command.gone, 3, 'everything is gone'):.2f} s")


def test_shell_takes_its_background_jobs_with_it(tmp_path: Path) -> None:
    """Commands from a pipe run on host a; its exit code is ours, and what it started in the background ends."""
    script = b"p2pnode id >/dev/null && ip -4 -brief address; (sleep 600 &); exit 7\n"
    with lab_command(tmp_path, "shell", "fullcone", "symmetric", stdin=script) as command:
        out, err = command.process.communicate(timeout=30)
        assert command.process.returncode == 7
        assert b"192.168.1.10/24" in out
        assert b"a: fullcone" in err
        assert b"b: symmetric" in err
        until(command.gone, 1, "everything is gone")


def test_kinds_are_shown_as_probed(tmp_path: Path) -> None:
    """`lab kinds --json` in a user namespace, where root outside is not root inside."""
    done = subprocess.run(
        ["unshare", "-Urn", sys.executable, "-m", "p2pnode", "--home", str(tmp_path), "lab", "kinds", "--json"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert '"symmetric":{"public":' in done.stdout
    assert done.stdout.count("endpoint-independent") == 6


def test_missing_privilege_is_one_sentence(tmp_path: Path) -> None:
    """Without the right to make namespaces: exit 1, nothing else."""
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    done = subprocess.run(
        [*command, sys.executable, "-m", "p2pnode", "--home", str(tmp_path), "lab", "kinds"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "run it as root" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("tool", "package"), [("nft", "nftables"), ("ip", "iproute2"), ("setpriv", "util-linux")])
def test_missing_tool_names_its_package(tool: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence with the line to type."""
    which = spaces.shutil.which

    def without(name: str, path: str | None = None) -> str | None:
        return None if name == tool else which(name, path=path)

    monkeypatch.setattr(spaces.shutil, "which", without)
    result = p2pnode("lab", "matrix", "--quick", "--json")
    assert result.code == 1
    assert result.json["error"]["code"] == "lab"
    assert f"apt-get install {package}" in result.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("matrx",), "Did you mean 'matrix'"),
        (("shell", "fulcone"), "did you mean fullcone?"),
        (("matrix", "--loss", "100"), "--loss: '100' is not a number from 0 to 99"),
        (("matrix", "--samples", "x"), "--samples: 'x' is not a number from 1 to 50"),
        (("shell", "--delay", "-1"), "--delay: '-1' is not a number from 0 to 10000"),
    ],
)
def test_wrong_usage_builds_nothing(arguments: tuple[str, ...], sentence: str) -> None:
    """Exit 2 and one sentence."""
    result = p2pnode("lab", *arguments)
    assert result.code == 2
    assert sentence in result.err
    assert result.err.count("\n") == 1
