"""compose.yaml and `p2pnode lab --docker matrix`: connected across two NATs, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.docker import docker, everything, inspect, require_engine
from support.lab import lab_command, until

from p2pnode.simulations.docker.images import find_images
from p2pnode.simulations.docker.project import COMPOSE_FILE, Project
from p2pnode.simulations.docker.tools import Tools

pytestmark = pytest.mark.slow

LABEL = "label=com.docker.compose.project"
SERVICES = ("boot1", "boot2", "boot3", "prober", "router-a", "router-b", "peer-a", "peer-b")


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    """Whatever a test does, the engine has afterwards what it had before."""
    require_engine()
    before = everything()
    yield
    until(lambda: everything() == before, 15, "everything is gone")


def containers() -> list[str]:
    return docker("ps", "--quiet", "--filter", LABEL).stdout.split()


def test_compose_file_is_valid() -> None:
    """For each kind of compose that is installed, with the default and with other addresses."""
    commands = [["docker", "compose"]] if docker("compose", "version", check=False).returncode == 0 else []
    commands += [["docker-compose"]] if shutil.which("docker-compose") else []
    assert commands
    for command in commands:
        for variables in ({}, {"WAN": "198.51.100", "LAN_A": "10.1.1", "LAN_B": "10.1.2", "ROUTER_A": "symmetric"}):
            done = subprocess.run(
                ["env", *(f"{k}={v}" for k, v in variables.items()), *command, "--file", str(COMPOSE_FILE), "config"],
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            assert f"{variables.get('WAN', '203.0.113')}.51" in done.stdout
            assert done.stdout.count("read_only: true") == len(SERVICES)


def test_composed_as_a_user_would() -> None:
    """All at once and other routers by variables; peers find each other; each container ends within 2 s on SIGTERM."""
    tools = Tools()
    with Project(tools, find_images(tools, print)) as project:
        project.up(dict.fromkeys(SERVICES, 1), ROUTER_A="symmetric", ROUTER_B="hairpin", WAN="198.51.100")
        made = {name: project.containers(name)[0] for name in SERVICES}
        project.wait_ready([each for name, each in made.items() if name != "prober"])
        a, b = made["peer-a"], made["peer-b"]
        until(lambda: "error" not in a.ask("find", b.peer_id, "--json"), 20, "b has published where it is")
        answer = a.ask("connect", b.peer_id, "--json")
        assert answer["path"] == "relay", answer  # symmetric with port-restricted: through the bootstrap node
        assert a.ask("status", "--json")["nat"] == "address-and-port-dependent"
        assert b.ask("status", "--json")["nat"] == "endpoint-independent"
        for name, each in reversed(made.items()):
            began = time.monotonic()
            docker("kill", "--signal", "TERM", each.ident)
            code = docker("wait", each.ident).stdout.strip()
            print(f"{name}: {code} after {time.monotonic() - began:.2f} s")
            assert code == "0"
            assert time.monotonic() - began < 2.5


def test_peers_cannot_bypass_their_routers() -> None:
    """The other private network is out of reach, also through the engine's own gateway; peers have no capabilities."""
    tools = Tools()
    with Project(tools, find_images(tools, print)) as project:
        project.up({"boot1": 1, "router-a": 1, "router-b": 1, "peer-a": 1, "peer-b": 1})
        a, b = project.containers("peer-a")[0], project.containers("peer-b")[0]
        project.wait_ready([a, b])
        (network,) = inspect(b.ident)["NetworkSettings"]["Networks"].values()
        listen = "import socket; s = socket.create_server(('', 9000)); s.accept()"
        docker("exec", "--detach", b.ident, "/opt/p2pnode/bin/python", "-c", listen)
        connect = "import socket, sys; socket.create_connection((sys.argv[1], 9000), timeout=2)"
        inside = docker("exec", b.ident, "/opt/p2pnode/bin/python", "-c", connect, "127.0.0.1", check=False)
        assert inside.returncode == 0, inside.stderr  # it listens
        docker("exec", "--detach", b.ident, "/opt/p2pnode/bin/python", "-c", listen)
        across = a.run("/opt/p2pnode/bin/python", "-c", connect, network["IPAddress"])
        assert across.returncode != 0
        for each in (a, b):
            assert inspect(each.ident)["HostConfig"]["ReadonlyRootfs"]
            assert inspect(each.ident)["HostConfig"]["CapAdd"] in (None, [])


def test_matrix_in_containers(tmp_path: Path) -> None:
    """The paths that namespaces give: punched, seen by both routers, or relayed, not seen; one message each."""
    with lab_command(tmp_path, "--docker", "matrix", "--quick", "--json", "--output", str(tmp_path / "out")) as command:
        out, err = command.process.communicate(timeout=400)
        assert command.process.returncode == 0, err
        assert not command.processes()
    data = json.loads(out)
    cells = {(cell["a"], cell["b"]): cell for cell in data["cells"]}
    for pair in (("port-restricted", "port-restricted"), ("symmetric", "fullcone")):
        cell = cells.pop(pair)
        print(pair, cell["path"], cell["seconds"], "s")
        assert (cell["connected"], cell["path"]) == (True, "punched")
        assert cell["delivered_once"]
        assert cell["witnessed"]
    (relayed,) = cells.values()
    assert (relayed["a"], relayed["b"], relayed["path"]) == ("port-restricted", "symmetric", "relay")
    assert data["as_expected"]
    assert data["kinds"]["symmetric-a"]["mapping"] == "address-and-port-dependent"
    print(f"quick matrix in containers: {data['real_s']} s")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"report.html", "report.json"}


@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_ended_early_leaves_nothing(tmp_path: Path, how: str) -> None:
    """After Ctrl-C (exit 130) and after kill -9: no container, network, volume or process."""
    before = everything()
    with lab_command(tmp_path, "--docker", "matrix", "--quick") as command:
        until(lambda: len(containers()) >= 6, 60, "containers run")
        began = time.monotonic()
        if how == "interrupt":
            command.interrupt()
            assert command.process.wait(timeout=20) == 130
        else:
            command.process.kill()
            command.process.wait()
        until(lambda: everything() == before, 15, "everything is gone")
        print(f"{how}: all gone after {time.monotonic() - began:.1f} s")
        until(lambda: not command.processes(), 5, "the helpers have ended")
