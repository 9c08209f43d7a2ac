"""The image: a node that is not root, writes nothing but its home, tells its health, leaves in time."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator

import pytest
from support.docker import IMAGE, docker, inspect, require_engine, running
from support.lab import until

pytestmark = pytest.mark.slow

# What docs/docker.md advises
LOCKED = ("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges")
HOME = "/var/lib/p2pnode"
TMPFS = f"--tmpfs {HOME}:uid=10001,gid=10001,mode=0700"


@pytest.fixture(autouse=True)
def _needs_engine() -> None:
    require_engine()


@pytest.fixture
def volume() -> Iterator[str]:
    name = f"p2pnode-test-{uuid.uuid4().hex[:8]}"
    docker("volume", "create", name)
    yield name
    docker("volume", "rm", "--force", name)


def until_ready(container: str) -> dict[str, object]:
    """Wait for the node's first event; return it."""
    until(lambda: '"ready"' in docker("logs", container).stdout, 30, "the node is ready")
    event = json.loads(docker("logs", container).stdout.splitlines()[0])
    assert event["event"] == "ready"
    return dict(event)


def health(container: str) -> str:
    return str(inspect(container)["State"]["Health"]["Status"])


def test_runs_without_privileges_on_a_read_only_system() -> None:
    """User 10001, no capabilities, nothing writable but the home, which only it can read."""
    with running(*LOCKED, TMPFS) as node:
        until_ready(node)
        status = docker("exec", node, "cat", "/proc/1/status").stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["10001"] * 4
        assert fields["Gid"].split() == ["10001"] * 4
        assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
        assert fields["NoNewPrivs"] == "1"
        for place in ("/", "/opt/p2pnode", "/etc", "/var"):
            assert docker("exec", node, "touch", f"{place}/x", check=False).returncode != 0
        listed = docker("exec", node, "find", HOME, "-printf", "%m %U %f\n").stdout.splitlines()
        assert "700 10001 p2pnode" in listed
        assert "600 10001 node.key" in listed


def test_default_command_and_labels() -> None:
    """Without arguments it is a bootstrap node; the image says what it is."""
    config = inspect(IMAGE)["Config"]
    assert (config["Entrypoint"], config["Cmd"], config["User"]) == (["p2pnode"], ["bootstrap"], "10001:10001")
    assert config["Labels"]["org.opencontainers.image.title"] == "p2pnode"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "MIT"
    assert "4747/udp" in config["ExposedPorts"]
    version = docker("run", "--rm", IMAGE, "--version").stdout.split()[1]
    assert config["Labels"]["org.opencontainers.image.version"] == version
    size = inspect(IMAGE)["Size"] / 1e6
    print(f"image: {size:.0f} MB")
    assert size < 250


def test_health_check_asks_the_node() -> None:
    """Healthy once the node answers; unhealthy when it hangs, although its process lives; healthy again after that."""
    quick = ("--health-interval 1s", "--health-timeout 3s", "--health-retries 1", "--health-start-period 0s")
    with running(*LOCKED, TMPFS, *quick) as node:
        print(f"healthy after {until(lambda: health(node) == 'healthy', 30, 'healthy'):.1f} s")
        docker("kill", "--signal", "STOP", node)
        until(lambda: health(node) == "unhealthy", 30, "unhealthy")
        assert inspect(node)["State"]["Running"]
        docker("kill", "--signal", "CONT", node)
        until(lambda: health(node) == "healthy", 30, "healthy again")


@pytest.mark.parametrize(
    ("signal", "code", "command"),
    [
        ("TERM", 0, ""),
        ("INT", 130, ""),
        ("TERM", 0, "-- join anna --headless --no-lan"),
    ],
    ids=["bootstrap-term", "bootstrap-int", "join-term"],
)
def test_leaves_within_two_seconds(signal: str, code: int, command: str) -> None:
    """As the first process of a container, which the kernel lets ignore signals that it does not handle."""
    with running(*LOCKED, TMPFS, command) as node:
        until_ready(node)
        began = time.monotonic()
        docker("kill", "--signal", signal, node)
        assert docker("wait", node).stdout.strip() == str(code)
        print(f"left after {time.monotonic() - began:.2f} s")
        assert time.monotonic() - began < 2.0 + 0.5  # the engine's part
        assert '{"event":"stopping"}' in docker("logs", node).stdout


def test_identity_lives_in_the_volume(volume: str) -> None:
    """A new container with the same volume is the same node; without it another one."""
    ids = []
    for mount in (f"--volume {volume}:{HOME}", f"--volume {volume}:{HOME}", TMPFS):
        with running(*LOCKED, mount) as node:
            ids.append(until_ready(node)["peer_id"])
            docker("stop", "--time", "5", node)
    assert ids[0] == ids[1] != ids[2]
