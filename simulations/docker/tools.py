"""Docker's programs on this machine: found, asked, and named when they are missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from p2pnode.simulations.netns.errors import LabError

__all__ = ["Tools"]

_ASK_S = 20.0
_BUILD_S = 900.0  # wheels may have to come over a slow line


class Tools:
    """The client and compose, which is its plugin (version 2) or a program of its own (1.27 or later)."""

    def __init__(self) -> None:
        """Raise LabError when a program is missing, or no engine answers."""
        docker = shutil.which("docker")
        if docker is None:
            raise LabError("The program docker is not installed: apt-get install docker.io docker-compose")
        self.docker = docker
        answer = self.run("version", "--format", "{{.Server.Version}}", check=False)
        self.version = answer.stdout.strip()
        if answer.returncode != 0 or not self.version:
            where = os.environ.get("DOCKER_HOST", "")
            raise LabError(
                f"No Docker engine answers{' at ' + where if where else ''}; start one, in a checkout with:"
                ' eval "$(scripts/docker-engine start)"'
            )
        self.compose = self._find_compose()

    def _find_compose(self) -> tuple[str, ...]:
        if self.run("compose", "version", check=False).returncode == 0:
            return self.docker, "compose"
        found = shutil.which("docker-compose")
        if found is None:
            raise LabError("Neither docker compose nor docker-compose is installed: apt-get install docker-compose")
        return (found,)

    def run(self, *arguments: str, check: bool = True, timeout: float = _ASK_S) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS` to its end. Raise LabError when it fails (`check`) or takes longer."""
        return _run([self.docker, *arguments], check=check, timeout=timeout)

    def run_compose(
        self, file: Path, project: str, *arguments: str, environ: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run compose on a file as a project. Raise LabError when it fails."""
        command = [*self.compose, "--file", str(file), "--project-name", project, *arguments]
        return _run(command, check=True, timeout=timeout, environ=environ)

    def has_image(self, name: str) -> bool:
        return self.run("image", "inspect", "--format", "{{.Id}}", name, check=False).returncode == 0

    def build(self, checkout: Path, image: str, target: str) -> None:
        """Build an image from a checkout, on the base that scripts/docker-engine makes where that is there."""
        base = ["--build-arg", "BASE=p2pnode-base"] if self.has_image("p2pnode-base") else []
        self.run("build", "--quiet", *base, "--target", target, "--tag", image, str(checkout), timeout=_BUILD_S)

    def inspect(self, containers: Sequence[str]) -> list[dict[str, object]]:
        """Return what the engine knows of containers."""
        return list(json.loads(self.run("inspect", *containers).stdout)) if containers else []


def _run(
    command: Sequence[str], *, check: bool, timeout: float, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(  # noqa: S603 - programs that were looked up, no shell
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env=None if environ is None else {**os.environ, **environ},
            start_new_session=True,  # a Ctrl-C is ours: it would leave half of its work
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise LabError(f"Docker did not finish within {timeout:g} s: {' '.join(command[1:4])}") from exc
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise LabError(f"Docker refuses: {said[-1] if said else 'it does not say why'}")
    return done
