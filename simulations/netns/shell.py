"""A topology to play in: one shell per host, bootstrap nodes running, p2pnode set up to use them."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from p2pnode.simulations.netns.lab import Lab, LabSettings
from p2pnode.simulations.netns.nodes import node_environment
from p2pnode.simulations.netns.probes import Verdict
from p2pnode.simulations.netns.spaces import find_tool
from p2pnode.simulations.netns.topology import Host

__all__ = ["play"]

_NAMES = "abcdefghijklmnopqrstuvwxyz"


def play(settings: LabSettings, kinds: Sequence[str], *, plain: bool, note: Callable[[str], None]) -> int:
    """Open the shells and wait until they have ended; return the exit code. Raise LabError.

    With tmux on a terminal: a window per host. Otherwise, or `plain`: one shell, in host a.
    """
    with Lab(settings) as lab:
        bootstrap = lab.bootstrap(3)
        hosts = [lab.home(name, kind) for name, kind in zip(_NAMES, kinds, strict=False)]
        verdicts = lab.prove(hosts)
        for host in hosts:
            note(f"{host.name}: {host.kind}, {_addresses(host)}; {_in_words(verdicts[host.name])}")
        for node in bootstrap:
            node.ready()
        folder = _programs(lab, hosts)
        tmux = None if plain or not sys.stdin.isatty() or not sys.stdout.isatty() else shutil.which("tmux")
        if tmux is not None:
            note("One tmux window per host; ctrl-b n is the next. The laboratory ends with the last shell.")
            return _wait(lab, _tmux(lab, tmux, hosts, folder))
        for host in hosts[1:]:
            note(f"For a shell in host {host.name}, in another terminal: {folder / host.name}")
        note("This is a shell in host a; try: p2pnode join alice")
        return _wait(lab, [str(folder / hosts[0].name)])


def _addresses(host: Host) -> str:
    own = ", ".join(ip for ip in (host.ip, host.ipv6) if ip is not None)
    return own if host.router is None else f"{own}, seen as {host.public_ip}"


def _in_words(verdict: Verdict) -> str:
    """Say what was probed there."""
    if not verdict.udp:
        ports = ", ".join(map(str, verdict.tcp or ()))
        return f"no UDP; TCP to port {ports} passes" if ports else "no internet"
    return f"mapping {verdict.mapping}, filtering {verdict.filtering}"


def _wait(lab: Lab, argv: list[str]) -> int:
    # A process namespace: whatever is started in the shells, also in the background, ends with them.
    command = [find_tool("unshare"), "--pid", "--fork", "--kill-child", *argv]
    # Ctrl-C belongs to what runs in the shell. A handler, not SIG_IGN: that would be inherited by the shell.
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        return lab.spawn(command, env=node_environment()).wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _tmux(lab: Lab, tmux: str, hosts: Sequence[Host], folder: Path) -> list[str]:
    """Return the command of a tmux server of our own (no configuration of the user's) with a window per host."""
    argv = [tmux, "-f", os.devnull, "-S", str(lab.directory / "tmux")]
    for host in hosts:
        new = "new-session" if host is hosts[0] else "new-window"
        argv += [new, "-n", host.name, str(folder / host.name), ";"]
    return [*argv, "select-window", "-t", f"={hosts[0].name}"]


def _programs(lab: Lab, hosts: Sequence[Host]) -> Path:
    """Write a program per host that opens a shell there, and `p2pnode`, which is this installation."""
    folder = lab.directory / "bin"
    folder.mkdir()
    _write_program(folder / "p2pnode", [sys.executable, "-m", "p2pnode"], '"$@"')
    for host in hosts:
        settings = {
            "P2PNODE_HOME": str(lab.directory / f"home-{host.name}"),
            "P2PNODE_BOOTSTRAP": " ".join(lab.bootstrap_lines),
            "P2PNODE_ALLOW_DOC_ADDRESSES": "1",
            "PATH": f"{folder}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "PS1": f"{host.name} ({host.kind})$ ",
        }
        enter = [find_tool("nsenter"), f"--net={host.space.path}", "env", *(f"{k}={v}" for k, v in settings.items())]
        _write_program(folder / host.name, [*enter, os.environ.get("SHELL") or "/bin/sh"])
    return folder


def _write_program(path: Path, argv: Sequence[str], rest: str = "") -> None:
    path.write_text(f"#!/bin/sh\nexec {shlex.join(argv)} {rest}\n")
    path.chmod(0o700)
