"""The networks of compose.yaml as one run: brought up, asked, and gone without a trace when it ends.

Everything of a run carries compose's label with the run's own name. The same script removes it in the end, and when
this process dies in whatever way: a janitor process waits for that on a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from p2pnode.simulations.docker.tools import Tools
from p2pnode.simulations.netns.errors import LabError

__all__ = ["COMPOSE_FILE", "Container", "Project"]

COMPOSE_FILE = Path(__file__).resolve().with_name("compose.yaml")
PYTHON = "/opt/p2pnode/bin/python"
_LABEL = "com.docker.compose.project"
_UP_S = 120.0
_READY_S = 60.0  # on a busy machine; usual is 2 s
_CLOSE_S = 30.0

# Until nothing is found twice: the engine may still be making what compose asked for before it was killed, and a
# network is not removed while it is in use.
_REMOVE = """\
empty=0
for round in 1 2 3 4 5 6 7 8 9 10; do
  containers=$("$1" ps --all --quiet --filter "$2") || exit 1
  networks=$("$1" network ls --quiet --filter "$2")
  volumes=$("$1" volume ls --quiet --filter "$2")
  if [ -z "$containers$networks$volumes" ]; then
    empty=$((empty + 1))
    [ $empty -lt 2 ] || exit 0
    sleep 0.3
    continue
  fi
  empty=0
  [ -z "$containers" ] || "$1" rm --force --volumes $containers
  [ -z "$networks" ] || "$1" network rm $networks
  [ -z "$volumes" ] || "$1" volume rm $volumes
done
exit 1
"""
_JANITOR = "read -r _ && exit\n" + _REMOVE


class Container:
    """One container of a run."""

    def __init__(self, tools: Tools, ident: str, name: str) -> None:
        self.ident = ident
        self.name = name
        self.event: dict[str, Any] = {}
        """The first event it printed, once it is ready."""
        self._tools = tools

    @property
    def peer_id(self) -> str:
        return str(self.event["peer_id"])

    def run(self, *command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a program inside. Raise LabError only when that takes too long."""
        return self._tools.run("exec", self.ident, *command, check=False, timeout=timeout)

    def ask(self, *arguments: str, timeout: float = 60.0) -> dict[str, Any]:
        """Return the JSON object that `p2pnode ARGUMENTS` prints inside; a failure's is `{"error": ...}`.

        Raise LabError when it prints anything else.
        """
        done = self.run("p2pnode", *arguments, timeout=timeout)
        with contextlib.suppress(ValueError):
            answer = json.loads(done.stdout)
            if isinstance(answer, dict):
                return answer
        raise LabError(f"p2pnode {arguments[0]} in {self.name} failed: {done.stderr.strip()[-300:] or '(silent)'}")

    def find_event(self) -> bool:
        """Look for the event that says it is ready, in what it printed so far."""
        for line in self._tools.run("logs", self.ident).stdout.splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("event") == "ready":
                    self.event = event
        return bool(self.event)

    def log(self) -> str:
        done = self._tools.run("logs", self.ident, check=False)
        return (done.stdout + done.stderr).strip()


class Project:
    """One run. Use it as a context manager."""

    def __init__(self, tools: Tools, environ: Mapping[str, str]) -> None:
        """`environ`: variables of compose.yaml."""
        self.tools = tools
        self.name = f"p2pnode-lab-{os.getpid()}-{os.urandom(3).hex()}"
        self.environ = dict(environ)
        self._janitor = subprocess.Popen(  # noqa: S603 - a constant script
            self._script(_JANITOR),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def up(self, services: Mapping[str, int], **environ: str) -> None:
        """Make so many containers of services, with these variables on top. Raise LabError."""
        scale = [f"--scale={name}={count}" for name, count in services.items()]
        self.tools.run_compose(
            COMPOSE_FILE,
            self.name,
            *("up", "--detach", "--no-deps", *scale, *services),
            environ={**self.environ, **environ},
            timeout=_UP_S,
        )

    def remove(self, *services: str) -> None:
        """Kill the containers of services. Raise LabError."""
        idents = [each.ident for service in services for each in self.containers(service)]
        if idents:
            self.tools.run("rm", "--force", "--volumes", *idents, timeout=_CLOSE_S)

    def containers(self, service: str) -> list[Container]:
        """Return the containers of a service, by name."""
        label = f"label=com.docker.compose.service={service}"
        listed = self.tools.run(
            "ps", "--all", "--filter", self._filter, "--filter", label, "--format", "{{.ID}} {{.Names}}"
        ).stdout.split()
        pairs = sorted(zip(listed[1::2], listed[::2], strict=True), key=lambda pair: (len(pair[0]), pair[0]))
        return [Container(self.tools, ident, name) for name, ident in pairs]

    def wait_ready(self, containers: Sequence[Container]) -> None:
        """Wait until each has said that it is ready. Raise LabError with the end of the log of one that did not."""
        deadline = time.monotonic() + _READY_S
        waiting = list(containers)
        while waiting := [each for each in waiting if not each.find_event()]:
            if time.monotonic() > deadline:
                log = waiting[0].log()
                raise LabError(f"The container {waiting[0].name} is not ready; its log ends: {log[-600:] or '(empty)'}")
            time.sleep(0.2)

    def close(self) -> None:
        """Remove every container, network and volume. Twice is harmless."""
        if self._janitor.poll() is not None:
            return
        done = subprocess.run(  # noqa: S603 - a constant script
            self._script(_REMOVE), capture_output=True, timeout=_CLOSE_S, start_new_session=True, check=False
        )
        # Where something is left, the janitor tries once more.
        self._janitor.communicate(b"done\n" if done.returncode == 0 else b"")

    @property
    def _filter(self) -> str:
        return f"label={_LABEL}={self.name}"

    def _script(self, text: str) -> list[str]:
        return ["/bin/sh", "-c", text, "p2pnode-docker-janitor", self.tools.docker, self._filter]
