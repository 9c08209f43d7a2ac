"""A Docker engine in tests: required, asked, and left as it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from support.require import require

__all__ = ["IMAGE", "ROUTER_IMAGE", "docker", "everything", "inspect", "require_engine", "running", "without_engine"]

IMAGE, ROUTER_IMAGE = "p2pnode", "p2pnode-router"


def docker(*arguments: str, check: bool = True, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run `docker ARGUMENTS` to its end."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stderr}"
    return done


@lru_cache(maxsize=1)
def _missing() -> str:
    if shutil.which("docker") is None or docker("version", check=False).returncode != 0:
        return "no Docker engine answers; scripts/docker-engine starts one"
    for image in (IMAGE, ROUTER_IMAGE):
        if docker("image", "inspect", image, check=False).returncode != 0:
            return f"there is no image {image}; docs/docker.md says how it is built"
    return ""


def require_engine() -> None:
    """Skip the calling test where no engine runs, or the images are not built."""
    require(not _missing(), _missing())


def inspect(container: str) -> dict[str, Any]:
    """Return what the engine knows of a container or an image."""
    return dict(json.loads(docker("inspect", container).stdout)[0])


@contextmanager
def running(*arguments: str) -> Iterator[str]:
    """Run the image with options, then `--`, then a command; yield the container's name. It is gone afterwards."""
    options, _, command = " ".join(arguments).partition(" -- ")
    name = f"p2pnode-test-{uuid.uuid4().hex[:8]}"
    try:
        docker("run", "--detach", "--name", name, *options.split(), IMAGE, *command.split())
        yield name
    finally:
        docker("rm", "--force", "--volumes", name, check=False)


def everything() -> dict[str, set[str]]:
    """Return the ids of all containers, networks and volumes of the engine."""
    asked = {
        "containers": ("ps", "--all", "--quiet"),
        "networks": ("network", "ls", "--quiet"),
        "volumes": ("volume", "ls", "--quiet"),
    }
    return {name: set(docker(*command).stdout.split()) for name, command in asked.items()}


def without_engine() -> dict[str, str]:
    """Return our environment with a way to an engine that leads nowhere."""
    return {**os.environ, "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
