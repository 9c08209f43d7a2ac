"""scripts/docker-engine: an engine of its own beside whatever runs, and no trace of it afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.docker import require_engine, without_engine
from support.require import require

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "docker-engine"


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: the kernel takes 107 characters for a socket."""
    require(shutil.which("dockerd") is not None and os.geteuid() == 0, "an engine needs dockerd and root")
    path = Path(tempfile.mkdtemp(prefix="p2pe-", dir="/tmp"))
    yield path
    engine("stop", "--remove", "--directory", str(path))


def engine(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = [SCRIPT, *arguments]
    return subprocess.run(done, capture_output=True, text=True, timeout=120, env=environ or without_engine())


def machine() -> dict[str, str]:
    """What an engine would change on this machine: links, routes, firewall rules, mounts, control groups, files."""
    commands = {"links": "ip -o link", "routes": "ip route", "rules": "nft list ruleset", "mounts": "cat /proc/mounts"}
    seen = {
        name: subprocess.run(line.split(), capture_output=True, text=True).stdout for name, line in commands.items()
    }
    seen["forwarding"] = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    seen["groups"] = "\n".join(sorted(str(p) for p in Path("/sys/fs/cgroup").glob("*/p2pnode-engine-*")))
    for place in ("/etc", "/opt", "/run", "/var/lib"):
        seen[place] = "\n".join(sorted(os.listdir(place)))
    return seen


def processes(directory: Path) -> list[str]:
    """Command lines that name the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(directory) in line:
                found.append(line)
    return found


@pytest.mark.parametrize("driver", ["", "vfs"])
def test_starts_beside_and_leaves_nothing(directory: Path, driver: str) -> None:
    """With the storage that works here, and with the one that works everywhere."""
    before = machine()
    options = ["--directory", str(directory), *(["--storage-driver", driver] if driver else [])]
    started = engine("start", *options)
    assert started.returncode == 0, started.stderr
    assert started.stdout == f"export DOCKER_HOST=unix://{directory}/docker.sock\n"
    status = engine("status", "--directory", str(directory))
    print(status.stdout.strip())
    assert status.returncode == 0
    assert driver in status.stdout
    assert engine("start", *options).stdout == started.stdout  # it runs already
    environ = {**without_engine(), "DOCKER_HOST": f"unix://{directory}/docker.sock"}
    # An image of one file and a network: written, listed, routed nowhere on this machine
    made = ["sh", "-c", "tar -c -C /etc hostname | docker import - tiny && docker network create n && docker images -q"]
    assert subprocess.run(made, capture_output=True, text=True, env=environ).returncode == 0
    stopped = engine("stop", "--directory", str(directory))
    assert stopped.returncode == 0, stopped.stderr
    assert not processes(directory)
    assert machine() == before
    assert (directory / "data").is_dir()  # images stay for the next start
    engine("stop", "--remove", "--directory", str(directory))
    assert not directory.exists()


def test_engine_that_runs_is_not_touched(directory: Path) -> None:
    """`start` says that one runs; `stop` does not end what `start` did not start."""
    require_engine()
    started = engine("start", "--directory", str(directory), environ=dict(os.environ))
    assert started.returncode == 0
    assert "runs already" in started.stderr
    known = os.environ.get("DOCKER_HOST")
    assert started.stdout == (f"export DOCKER_HOST={known}\n" if known else "")
    assert engine("stop", "--directory", str(directory), environ=dict(os.environ)).returncode == 0
    assert subprocess.run(["docker", "version"], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("start", "--directory", "/nowhere/" + "x" * 80), "too long for a socket"),
        (("start", "--directory", "/run/p2pe-test"), "has a /run of its own"),
        (("start", "--storage-driver", "nothing"), "did not start; its log ends"),
        (("base", "--suite", "nothing", "--tag", "p2pnode-nothing"), "knows no mirror of nothing"),
    ],
)
def test_what_cannot_be_is_said(directory: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """Exit 1, a sentence, nothing left running."""
    if "--directory" not in arguments:
        arguments = (*arguments, "--directory", str(directory))
    done = engine(*arguments, environ=dict(os.environ) if arguments[0] == "base" else None)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert not processes(directory)
