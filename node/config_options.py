"""The table of options: name, kind, default, what it means, how its text is read and shown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2pnode.core.address import DEFAULT_PORT, Address, Scope, split_host_port
from p2pnode.core.clean import clean, clean_name
from p2pnode.core.errors import InvalidPeerError

if TYPE_CHECKING:
    from p2pnode.peerspec import PeerSpec

__all__ = ["OPTIONS", "Option", "parse_listen"]

MIN_SECRET, MAX_SECRET = 8, 1024  # characters; a short one can be guessed from one recorded datagram
MAX_PATHS = 8
MAX_SAMPLE = 1_000
MASK = "********"

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `kind`: `flag`, `one` or `many` (a list; in the environment separated by spaces).

    `read` turns one text, or a number from TOML, into a value and raises ValueError with the reason.
    """

    name: str
    help: str
    default: Any
    read: Callable[[Any], Any] = field(default=_same)
    kind: str = "one"
    write: Callable[[Any], Any] = field(default=_same)

    def parse(self, raw: Any) -> Any:
        """Read a value from the command line, the environment or TOML. Raise ValueError with the reason."""
        if self.kind == "flag":
            return _flag(raw)
        if self.kind == "many":
            items = raw.split() if isinstance(raw, str) else raw
            if not isinstance(items, list):
                raise ValueError("a list of texts is wanted")
            values: list[Any] = []
            for item in items:
                value = self.read(item)
                values.extend(value if isinstance(value, tuple) and not isinstance(value, Address) else [value])
            return tuple(values)
        if isinstance(raw, list):
            raise ValueError("one value is wanted, not a list")
        return self.read(raw)

    def show(self, value: Any) -> Any:
        """Return the value in the form of config.toml."""
        if self.kind == "many":
            return [self.write(item) for item in value]
        return self.write(value)


def _flag(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    text = str(raw).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError(f"{str(raw)[:80]!r} is neither true nor false")
    return text in _TRUE


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"{str(raw)[:80]!r} is not a text")
    return raw


def _name(raw: Any) -> str:
    text = _text(raw).strip()
    if text and clean_name(text) != text:
        raise ValueError(f"{clean(text, limit=40)!r} is not a name (1 to 32 visible characters, none of / \\ @ :)")
    return text


def _network(raw: Any) -> str:
    text = _text(raw).strip()
    if not text or len(text) > 64 or not text.isprintable():
        raise ValueError(f"{text[:80]!r} is not a network id (1 to 64 visible characters)")
    return text


def parse_listen(raw: Any) -> tuple[Address, ...]:
    """Read IP:PORT, IP, localhost:PORT, or a bare PORT: all addresses of both families. Raise ValueError."""
    text = str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else _text(raw).strip()
    if text.lstrip(":").isdigit() and text.count(":") <= 1:
        port = int(text.lstrip(":"))
        return Address.of("0.0.0.0", port), Address.of("::", port)
    host, port = split_host_port(text, default_port=DEFAULT_PORT)
    try:
        address = Address.of("127.0.0.1" if host == "localhost" else host, port)
    except ValueError as exc:
        raise ValueError(f"{text[:80]!r} is not IP:PORT (an address of this machine; 0.0.0.0 or [::] for all)") from exc
    if address.scope is Scope.MULTICAST:
        raise ValueError(f"{text[:80]!r} is a multicast address, which no node can listen on")
    return (address,)


def _bootstrap(raw: Any) -> PeerSpec:
    from p2pnode.peerspec import parse_peer  # with cryptography beneath: not for `--help`

    try:
        spec = parse_peer(_text(raw))
    except InvalidPeerError as exc:
        raise ValueError(exc.message.rstrip(".")) from exc
    if not (spec.hosts or spec.tcp_hosts) or (spec.user is None and spec.peer is None):
        raise ValueError(f"{spec.text[:120]!r} is not ID@HOST:PORT, the line that a bootstrap node prints")
    if spec.peer is None:
        raise ValueError(f"{spec.text[:120]!r} names a user; a bootstrap node is named by its peer id (12D3KooW...)")
    return spec


def _seconds(raw: Any) -> float:
    try:
        value = float(raw) if not isinstance(raw, bool) else math.nan
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 31_536_000:
        raise ValueError(f"{str(raw)[:80]!r} is not a number of seconds (0 to a year)")
    return value


def _positive_seconds(raw: Any) -> float:
    value = _seconds(raw)
    if value < 1:
        raise ValueError(f"{value:g} is too short; the least is 1 second")
    return value


def _count(raw: Any) -> int:
    text = str(raw)
    if isinstance(raw, bool) or not (text.isascii() and text.isdigit()) or not 1 <= int(text[:12]) <= 1_000_000:
        raise ValueError(f"{text[:80]!r} is not a count (1 to 1,000,000)")
    return int(text)


def _days(raw: Any) -> int:
    text = str(raw)
    if isinstance(raw, bool) or not (text.isascii() and text.isdigit()) or int(text[:9]) > 36_500:
        raise ValueError(f"{text[:80]!r} is not a number of days (1 to 36,500; 0: for ever)")
    return int(text)


def _bytes(raw: Any) -> int:
    text = str(raw).strip()
    units = {"k": 10**3, "M": 10**6, "G": 10**9}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    if isinstance(raw, bool) or not (number.isascii() and number.isdigit()) or int(number[:15]) * unit > 2**38:
        raise ValueError(f"{text[:80]!r} is not a number of bytes (at most 256 GiB; 5M, 2G)")
    return int(number) * unit


def _bandwidth(raw: Any) -> int:
    text = str(raw)
    if isinstance(raw, bool) or not (text.isascii() and text.isdigit()) or not 100_000 <= int(text[:15]) <= 10**12:
        raise ValueError(f"{text[:80]!r} is not a bandwidth (at least 100000 bytes per second)")
    return int(text)


def _choice(*choices: str) -> Callable[[Any], str]:
    def read(raw: Any) -> str:
        if raw not in choices:
            raise ValueError(f"{str(raw)[:80]!r} is none of {', '.join(choices)}")
        return str(raw)

    return read


def parse_metrics(raw: Any) -> Address:
    """Read IP:PORT or localhost:PORT; 0 stands for a free port. Raise ValueError."""
    text = _text(raw).strip()
    if not text.rpartition(":")[2].isdigit() or text.isdigit():
        raise ValueError(f"{text[:80]!r} is not HOST:PORT")
    return parse_listen(text)[0]


def _proxy(raw: Any) -> str:
    from p2pnode.proxy import parse_proxy

    text = _text(raw)
    parse_proxy(text)
    return text


def _path(raw: Any) -> Path:
    return Path(_text(raw)).expanduser()


def _secret(raw: Any) -> str:
    # The value must not be part of a sentence: those are logged.
    if not isinstance(raw, str) or not MIN_SECRET <= len(raw) <= MAX_SECRET:
        raise ValueError(f"a network secret is a text of {MIN_SECRET} to {MAX_SECRET} characters")
    return raw


def _paths(raw: Any) -> int:
    count = _count(raw)
    if count > MAX_PATHS:
        raise ValueError(f"{count} paths are too many; the most is {MAX_PATHS}")
    return count


def _sample(raw: Any) -> int:
    count = 0 if str(raw) == "0" else _count(raw)
    if count > MAX_SAMPLE:
        raise ValueError(f"{count} members are too many for a sample; the most is {MAX_SAMPLE:,}")
    return count


_ALL_ADDRESSES = (Address("0.0.0.0", DEFAULT_PORT), Address("::", DEFAULT_PORT))

OPTIONS: dict[str, Option] = {
    option.name: option
    for option in (
        Option("name", "the name others see", "", _name),
        Option("bootstrap", "nodes to join through, ID@HOST:PORT", (), _bootstrap, "many", str),
        Option("network", "network id; nodes of different networks never talk", "public", _network),
        Option("network-secret", "what the members of a private network share", "", _secret, "one",
               lambda secret: MASK if secret else ""),
        Option("network-secret-file", "file whose first line is the network secret, - for standard input", None, _path,
               "one", lambda path: None if path is None else str(path)),
        Option("paths", "node-disjoint paths of a lookup; one liar misleads at most one", 2, _paths),
        Option("listen", "where to receive, IP:PORT (UDP)", _ALL_ADDRESSES, parse_listen, "many", str),
        Option("tcp", "where to let in nodes that UDP does not reach, IP:PORT (TLS on TCP)", (), parse_listen, "many",
               str),
        Option("proxy", "HTTP proxy for TLS on TCP, http://HOST:PORT", "", _proxy, "one",
               lambda proxy: MASK if "@" in proxy else proxy),
        Option("no-proxy", "hosts and domains that are dialled without the proxy, separated by commas", "", _text),
        Option("metrics", "where to serve the counters to Prometheus, IP:PORT (HTTP, read by whoever can reach it)",
               None, parse_metrics, "one", lambda address: "" if address is None else str(address)),
        Option("lan", "find peers on the local network by multicast", True, kind="flag"),
        Option("portmap", "ask the router for a port", True, kind="flag"),
        Option("relay-only", "tell no peer an address of this machine; sessions go through relays", False, kind="flag"),
        Option("relay", "relay for others where this node is public, within limits", True, kind="flag"),
        Option("relay-bandwidth", "bytes per second that are relayed for others, all together", 4_000_000, _bandwidth),
        Option("keep-records", "whether records stored for others survive a restart; auto: those of bootstrap nodes",
               "auto", _choice("auto", "yes", "no")),
        Option("idle-timeout", "seconds after which an unused session closes", 300.0, _positive_seconds),
        Option("downloads", "folder for files of others; default: downloads in the home", None, _path, "one",
               lambda path: None if path is None else str(path)),
        Option("auto-accept", "take files of contacts up to so many bytes without asking; 0: none", 0, _bytes),
        Option("peers", "file with people at fixed addresses: name, host, port, optional key on each line", None, _path,
               "one", lambda path: None if path is None else str(path)),
        Option("claim-name", "let whoever looks for your name find you", True, kind="flag"),
        Option("tell-contacts", "tell contacts who ask about somebody whether you know that person, too", True,
               kind="flag"),
        Option("read-receipts", "tell contacts which of their messages were read", True, kind="flag"),
        Option("on-message", "a command for each message that comes, with it as JSON on standard input", "", _text),
        Option("bell", "ring the terminal's bell for what is said to you alone, or names you", True, kind="flag"),
        Option("desktop-notices", "the same on the desktop (extra `desktop`): off, names (who), text (and what)",
               "text", _choice("off", "names", "text")),
        Option("keep-days", "days after which messages are removed; 0: never", 0, _days),
        Option("plain", "line mode instead of the chat screen", False, kind="flag"),
        Option("headless", "no console; events as JSON lines on stdout", False, kind="flag"),
        Option("json", "results as JSON", False, kind="flag"),
        Option("wait", "seconds that send waits for the delivery", 10.0, _seconds),
        Option("count", "how many round trips ping makes", 4, _count),
        Option("sample", "how many members topic list draws at random; 0 for all", 0, _sample),
        Option("timeout", "seconds that find, connect and ping may take", 15.0, _positive_seconds),
        Option("log-level", "least level that is logged", "warning",
               _choice("debug", "info", "warning", "error", "critical")),
        Option("log-format", "form of the log on stderr", "auto", _choice("auto", "console", "json")),
        Option("passphrase-file", "file whose first line unlocks the keys", None, _path, "one",
               lambda path: None if path is None else str(path)),
        Option("allow-doc-addresses", "laboratories only: documentation networks count as public", False, kind="flag"),
    )
}  # fmt: skip
