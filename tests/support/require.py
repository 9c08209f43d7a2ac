"""Skip with a one-line reason what this machine cannot run; P2PNODE_REQUIRE_ALL=1 turns the skip into a failure."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache

import pytest

__all__ = ["require", "require_namespaces"]


def require(possible: bool, reason: str) -> None:
    """Go on when `possible`; otherwise skip the calling test with `reason` (fail under P2PNODE_REQUIRE_ALL=1)."""
    if possible:
        return
    if os.environ.get("P2PNODE_REQUIRE_ALL") == "1":
        pytest.fail(f"P2PNODE_REQUIRE_ALL=1, but {reason}")
    pytest.skip(reason)


def require_namespaces() -> list[str]:
    """Return the command line that runs what follows it in a network namespace of its own, as root of it."""
    command = _namespace_command()
    require(bool(command), "network namespaces need root or user namespaces")
    return list(command)


@lru_cache(maxsize=1)
def _namespace_command() -> tuple[str, ...]:
    for options in (("-n",), ("-Urn",)):
        command = ("unshare", *options)
        try:
            # `ip link` shows that the namespace may be configured, not only entered.
            script = "ip link set lo up"
            done = subprocess.run([*command, "sh", "-c", script], capture_output=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return command
    return ()
