"""Nothing is left of a laboratory: neither after its end, nor after Ctrl-C or a crash. And what is missing is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import p2pnode
from support.lab import WHOLE, lab_command, require_lab, until

from p2pnode.simulations.netns import KINDS, spaces
from p2pnode.simulations.netns.scenario_names import SCENARIOS

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


@pytest.mark.parametrize("end", ["ctrl-c", "kill -9"])
def test_miniupnpd_ends_with_the_laboratory(end: str, tmp_path: Path) -> None:
    """The daemon on the router, its socket, its rules and its files are gone, whichever way it ends."""
    with lab_command(tmp_path, "matrix", "upnp") as command:
        until(lambda: any(name == "miniupnpd" for name in command.programs()), 20, "miniupnpd runs")
        if end == "ctrl-c":
            command.interrupt()
        else:
            command.process.kill()
        command.process.wait()
        until(command.gone, 3, "everything is gone")


@pytest.mark.parametrize("scenario", ["roam", *(["udp-blocked", "lan-offline", "bootstrap-gone"] if WHOLE else [])])
def test_a_scenario_that_is_interrupted_leaves_nothing(scenario: str, tmp_path: Path) -> None:
    """Exit 130 within 2 s, also from within its own threads."""
    with lab_command(tmp_path, scenario) as command:
        until(lambda: len(command.processes()) > 5, 20, "nodes are started")
        command.interrupt()
        seconds = until(lambda: command.process.poll() is not None, 5, "the command ends")
        assert command.process.returncode == 130
        seconds += until(command.gone, 2, "everything is gone")
        assert seconds < 2.5


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
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == list(KINDS)
    assert found["symmetric"]["mapping"] == "address-and-port-dependent"
    assert found["ipv6-firewall"]["ipv6"] == "firewalled"
    assert not found["udp-blocked"]["udp"]


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


@pytest.mark.parametrize("program", ["", "#!/bin/sh\necho miniupnpd 2.3.1, using netfilter backend"])
def test_missing_or_wrong_miniupnpd_names_the_package(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the kind that needs it asks for it; Debian has one for iptables, too."""
    path = tmp_path / "miniupnpd"
    path.write_text(program)
    path.chmod(0o700)
    which = spaces.shutil.which

    def without(name: str, path: str | None = None) -> str | None:
        return which(name, path=path) if name != "miniupnpd" else str(tmp_path / name) if program else None

    monkeypatch.setattr(spaces.shutil, "which", without)
    result = p2pnode("lab", "matrix", "upnp", "--json")
    assert result.code == 1
    assert result.json["error"]["code"] == "lab"
    assert "apt-get install miniupnpd-nftables" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("matrx",), "Did you mean 'matrix'"),
        (("shell", "fulcone"), "did you mean fullcone?"),
        (("matrix", "public", "cgnt"), "did you mean cgnat?"),
        (("matrix", "public", "--quick"), "--quick has its own pairs"),
        (("rome",), "Did you mean 'roam'"),
        (("lan-ofline",), "Did you mean 'lan-offline'"),
        (("roam", "--loss", "-1"), "--loss: '-1' is not a number from 0 to 99"),
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


def test_scenarios_are_listed_in_a_line_each() -> None:
    """`lab --list` names what the commands are called."""
    result = p2pnode("lab", "--list")
    assert result.code == 0
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines] == list(SCENARIOS)
    assert all(len(line) < 120 for line in lines)
