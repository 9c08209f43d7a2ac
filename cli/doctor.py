"""`p2pnode doctor`: one finding per line, each wrong one with a way out. Changes nothing, and needs no running node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pnode import Address, Config, Home, P2PError
from p2pnode.cli.invocation import Invocation

__all__ = ["Finding", "examine"]

_MDNS = Address("224.0.0.251", 5353)


@dataclass(frozen=True, slots=True)
class Finding:
    """`ok` None: not known. `advice`: what to do about it."""

    check: str
    ok: bool | None
    message: str
    advice: str = ""


def examine(invocation: Invocation) -> list[Finding]:
    """Carry out every check."""
    home = invocation.home
    findings = [_python()]
    config: Config | None = None
    try:
        config = invocation.config(json=invocation.json or None)
        invocation.set_up_log(config)
        findings.append(Finding("settings", True, f"{home.config} and the environment are valid"))
    except P2PError as error:
        findings.append(
            Finding("settings", False, error.message, "correct that line; p2pnode config check looks again")
        )
    findings += _home(home)
    if config is not None:
        findings += _keys(invocation, config)
    findings.append(_database(home))
    findings += _node(invocation)
    findings += asyncio.run(_network(config, running=home.holder() is not None))
    return findings


def _python() -> Finding:
    version = ".".join(str(n) for n in sys.version_info[:3])
    if sys.version_info < (3, 11):  # noqa: UP036 - somebody may run it from a source tree with an older one
        return Finding("python", False, f"{version} is too old", "install Python 3.11 or later")
    return Finding("python", True, version)


def _home(home: Home) -> Iterator[Finding]:
    if not os.path.lexists(home.path):
        parent = next(p for p in home.path.parents if p.exists())
        if os.access(parent, os.W_OK):
            yield Finding("home", True, f"{home} does not exist yet; the first join makes it")
        else:
            yield Finding(
                "home", False, f"{home} cannot be made: {parent} is not writable", "choose another: --home DIR"
            )
        return
    if not home.path.is_dir():
        yield Finding("home", False, f"{home} is not a directory", "choose another: --home DIR")
        return
    status = home.path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        yield Finding("home", False, f"{home} belongs to another user", "choose another: --home DIR")
    elif mode & 0o022:
        yield Finding("home", False, f"others can write to {home} (mode {mode:o})", f"chmod 700 {home}")
    elif not os.access(home.path, os.W_OK):  # also says no on a read-only file system
        yield Finding("home", False, f"{home} cannot be written", "make it writable, or choose another: --home DIR")
    else:
        yield Finding("home", True, f"{home}, mode {mode:o}")
    if shutil.disk_usage(home.path).free < 10 * 1024 * 1024:
        yield Finding("disk", False, "less than 10 MiB are free", "make room: messages can no longer be stored")


def _keys(invocation: Invocation, config: Config) -> Iterator[Finding]:
    from p2pnode.core.keyfile import is_encrypted, load_account_key, load_node_key

    load: Callable[..., object]
    passphrase = invocation.passphrase(config)
    for path, load in ((invocation.home.node_key, load_node_key), (invocation.home.account_key, load_account_key)):
        if not os.path.lexists(path):
            yield Finding("key", True, f"{path.name} does not exist yet; the first join makes it")
            continue
        try:
            if is_encrypted(path) and not _can_ask(invocation, config):
                yield Finding("key", None, f"{path.name} is encrypted and no passphrase is given")
                continue
            load(path, passphrase)
        except P2PError as error:
            yield Finding("key", False, error.message, _key_advice(path))
        else:
            yield Finding("key", True, f"{path.name} is readable and for its owner only")


def _key_advice(path: Path) -> str:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            return f"chmod 600 {path}"
    except OSError:
        pass
    return f"restore {path} from a backup; moving it away gives this home a new identity"


def _can_ask(invocation: Invocation, config: Config) -> bool:
    return bool(invocation.environ.get("P2PNODE_PASSPHRASE") or config["passphrase-file"] or invocation.stdin.isatty())


def _database(home: Home) -> Finding:
    if not home.chat_db.exists():
        return Finding("database", True, "chat.db does not exist yet")
    import sqlite3
    from urllib.parse import quote

    from p2pnode.chat.engine import encryption_available, is_plain
    from p2pnode.core.keyfile import is_encrypted

    with contextlib.suppress(OSError, P2PError):
        plain, locked = is_plain(home.chat_db), is_encrypted(home.node_key)
        if not plain and locked:
            return Finding("database", None, "chat.db is encrypted; every start looks whether it is whole")
        if plain and locked and not encryption_available():
            return Finding("database", None, "the keys are encrypted, the messages are not",
                           "pip install 'p2pnode[encryption]'; the next start encrypts them")  # fmt: skip

    advice = f"restore {home.chat_db} from a backup, or move it away to begin with an empty history; the keys are safe"
    try:
        connection = sqlite3.connect(f"file:{quote(str(home.chat_db))}?mode=ro", uri=True, timeout=2)
        try:
            answers = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        return Finding("database", False, f"{home.chat_db} is damaged: {error}", advice)
    if answers != ["ok"]:
        return Finding("database", False, f"{home.chat_db} is damaged: {answers[0]}", advice)
    return Finding("database", True, f"chat.db is whole (schema {version})")


def _node(invocation: Invocation) -> Iterator[Finding]:
    from p2pnode.api import types as t

    holder = invocation.home.holder()
    if holder is None:
        yield Finding("node", True, "none runs on this home")
        return
    try:
        status = invocation.client().get("/v1/status", t.Status, timeout=3)
    except P2PError as error:
        yield Finding("node", False, f"process {holder} holds the home, but: {error.message}", f"stop process {holder}")
        return
    yield Finding(
        "node", True, f"process {holder} runs it; {status.routing_table} nodes known, {status.peers} sessions"
    )
    if status.alone:
        yield Finding(
            "network", None, "no other node answers yet", "join with --bootstrap ID@HOST:PORT of any other node"
        )
    skew = status.clock_skew_s
    if skew is None and status.alone:
        yield Finding("clock", None, "no other node has told its time yet")
    elif skew is None:
        yield Finding("clock", True, "no node objects to it")
    elif abs(skew) > 300:
        text = f"this computer's clock differs by {skew:+.0f} s from that of other nodes"
        yield Finding("clock", False, text, "set the clock (timedatectl set-ntp true)")
    else:
        yield Finding("clock", True, f"within {abs(skew):.0f} s of other nodes")


async def _network(config: Config | None, *, running: bool) -> list[Finding]:
    from p2pnode import RealNetwork

    network = RealNetwork()
    findings: list[Finding] = []
    if config is not None and not running:
        explicit = config.explicit("listen")
        findings += [await _port(network, address, explicit=explicit) for address in config["listen"]]
    names = [i.name for i in network.interfaces() if any(Address(a, 0).scope.value != "loopback" for a in i.addresses)]
    if names:
        findings.append(Finding("interfaces", True, ", ".join(names)))
    else:
        findings.append(
            Finding("interfaces", None, "only loopback is up", "connect this computer to a network to reach others")
        )
    if config is None or config["lan"]:
        findings.append(await _multicast(network))
    return findings


async def _port(network: object, address: Address, *, explicit: bool) -> Finding:
    from p2pnode import RealNetwork

    assert isinstance(network, RealNetwork)  # noqa: S101 - imported inside, to keep this module light
    try:
        sock = await network.open_udp(address, lambda _data, _source: None)
    except OSError as error:
        if address.is_ipv6 and not explicit:
            return Finding("port", None, f"{address}: {error.strerror}", "IPv4 is used alone")
        ok = False if explicit else None
        return Finding("port", ok, f"UDP {address}: {error.strerror}", "stop what uses it, or set another listen")
    sock.close()
    return Finding("port", True, f"UDP {address} is free")


async def _multicast(network: object) -> Finding:
    from p2pnode import RealNetwork

    assert isinstance(network, RealNetwork)  # noqa: S101 - as above
    try:
        group = await network.open_multicast(_MDNS, lambda _data, _source: None)
    except OSError as error:
        return Finding(
            "multicast",
            None,
            f"cannot be used ({error.strerror})",
            "peers on the LAN need --bootstrap, or use --no-lan",
        )
    group.close()
    return Finding("multicast", True, "peers on the LAN can be found")
