"""One run of the program: its streams, home and settings. Commands get it as `ctx.obj`; tests make their own."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import typer

if TYPE_CHECKING:
    import msgspec

    from p2pnode import AccountKey, Config, Home, NodeKey
    from p2pnode.api.client import Client
    from p2pnode.chat import DatabaseKey
    from p2pnode.cli.progress import What

__all__ = ["Invocation", "invocation_of"]

PASSPHRASE_VARIABLE = "P2PNODE_PASSPHRASE"  # noqa: S105 - the variable's name


@dataclass
class Invocation:
    """`started_at`: `time.monotonic()` when the program began, from which `ready` counts."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    stdin: TextIO = field(default_factory=lambda: sys.stdin)
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    started_at: float = field(default_factory=time.monotonic)
    home_option: Path | None = None
    global_options: dict[str, Any] = field(default_factory=dict)
    json: bool = False
    _home: Home | None = None
    _log: LogStream | None = None

    @property
    def home(self) -> Home:
        """`--home`, else P2PNODE_HOME, else the platform's place."""
        if self._home is None:
            from p2pnode import Home

            path = self.home_option
            if path is None and self.environ.get("P2PNODE_HOME"):
                path = Path(self.environ["P2PNODE_HOME"])
            if path is None:
                from p2pnode import default_home

                path = default_home()
            self._home = Home(path.expanduser().absolute())
        return self._home

    def config(self, **command_line: Any) -> Config:
        """Return all settings; sets `json`. Raise InvalidConfigError.

        `command_line`: option name with underscores to its value, None when it was not given.
        """
        from p2pnode import Config

        given = {name.replace("_", "-"): value for name, value in {**self.global_options, **command_line}.items()}
        if given.get("json") is not None:
            self.json = bool(given["json"])  # errors in the settings themselves are to be JSON already
        config = Config.load(self.home.config, environ=self.environ, command_line=given)
        self.json = config["json"]
        return config

    def set_up_log(self, config: Config) -> None:
        """Let structlog write to stderr; only for commands that run parts of a node themselves (0.15 s)."""
        from p2pnode.core.logs import set_up

        self._log = LogStream(self.stderr)
        set_up(config["log-level"], config["log-format"], cast("TextIO", self._log))

    @contextlib.contextmanager
    def log_held(self) -> Iterator[None]:
        """Keep the log off the terminal while a screen covers it; the last lines are written afterwards."""
        if self._log is None or not self.stderr.isatty():
            yield
            return
        self._log.hold()
        try:
            yield
        finally:
            self._log.release()

    def client(self) -> Client:
        """Return a client of the node on this home. Raise NotRunningError."""
        from p2pnode.api.client import Client

        return Client(self.home)

    def keys(self, config: Config) -> tuple[NodeKey, AccountKey]:
        """Return node and account key, created when there are none. Raise KeyFileError, StorageError."""
        import secrets

        from p2pnode import load_or_create_account_key, load_or_create_node_key

        self.home.create()
        passphrase = self.passphrase(config)
        node_key = load_or_create_node_key(self.home.node_key, secrets.token_bytes, passphrase)
        return node_key, load_or_create_account_key(self.home.account_key, secrets.token_bytes, passphrase)

    def database_key(self, node_key: NodeKey) -> DatabaseKey:
        """Return the key of the message database: it is encrypted where the keys are."""
        from p2pnode.chat import DatabaseKey
        from p2pnode.core.keyfile import is_encrypted

        return DatabaseKey.of(node_key, wanted=is_encrypted(self.home.node_key))

    def passphrase(self, config: Config, question: str = "Passphrase: ") -> Callable[[], str]:
        """Return what asks for the passphrase, once: environment, file, or a prompt on a terminal."""
        answer: list[str] = []

        def ask() -> str:
            if not answer:
                answer.append(self._ask(config, question))
            return answer[0]

        return ask

    def _ask(self, config: Config, question: str) -> str:
        from p2pnode import KeyFileError

        if self.environ.get(PASSPHRASE_VARIABLE):
            return self.environ[PASSPHRASE_VARIABLE]
        path: Path | None = config["passphrase-file"]
        if path is not None:
            try:
                with path.open(encoding="utf-8") as file:
                    return file.readline(4096).rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
                raise KeyFileError(f"The passphrase file {path} cannot be read: {reason}.") from exc
        if self.stdin.isatty():
            import getpass

            return getpass.getpass(question, stream=self.stderr)
        raise KeyFileError(
            f"The keys in {self.home} are locked: give the passphrase in {PASSPHRASE_VARIABLE} or with"
            " --passphrase-file FILE."
        )

    def network_secret(self, config: Config) -> str:
        """Return the private network's secret (environment, config.toml or a named file). Raise InvalidConfigError."""
        from p2pnode import InvalidConfigError

        path: Path | None = config["network-secret-file"]
        option = config.settings["network-secret"].option
        if path is None:
            secret: str = config["network-secret"]
            return secret
        place = config.settings["network-secret-file"].place
        if config["network-secret"]:
            other = config.settings["network-secret"].place
            raise InvalidConfigError(f"The network secret is given twice: {other}; {place}.", key="network-secret")
        try:
            if str(path) == "-":
                return str(option.parse(self.stdin.readline(4096).rstrip("\r\n")))
            with path.open(encoding="utf-8") as file:
                return str(option.parse(file.readline(4096).rstrip("\r\n")))
        except OSError as exc:
            why = exc.strerror or "not a file"
        except UnicodeDecodeError:
            why = "it is not UTF-8 text"
        except ValueError as exc:
            raise InvalidConfigError(f"{place}: {exc}.", key="network-secret-file") from exc
        raise InvalidConfigError(f"{place}: {path} cannot be read: {why}.", key="network-secret-file")

    # Output

    def emit(self, result: msgspec.Struct, *lines: str) -> None:
        """Print a result: as one JSON object, or as lines for people."""
        if self.json:
            import msgspec

            self.line(msgspec.json.encode(result).decode())
        else:
            for text in lines:
                self.line(text)

    def line(self, text: str) -> None:
        """Write one line to stdout, at once."""
        self.stdout.write(text + "\n")
        self.stdout.flush()

    def note(self, text: str) -> None:
        """Write one line for people to stderr, when there is one to write to."""
        with contextlib.suppress(OSError, ValueError):
            self.stderr.write(text + "\n")
            self.stderr.flush()

    @contextlib.contextmanager
    def progress(self, what: What) -> Iterator[None]:
        """Show that something takes a while: moving on a terminal, one line per 5 s elsewhere."""
        from p2pnode.cli.progress import progress

        with progress(what, self.stderr):
            yield


class LogStream:
    """Where the log goes: to `stream`, or held back, at most HELD pieces."""

    HELD = 400

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held: deque[str] | None = None

    def write(self, text: str) -> int:
        if self._held is not None:
            self._held.append(text)
            return len(text)
        return self._stream.write(text)

    def flush(self) -> None:
        if self._held is None:
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def hold(self) -> None:
        self._held = deque(maxlen=self.HELD)

    def release(self) -> None:
        held, self._held = self._held or (), None
        with contextlib.suppress(OSError, ValueError):
            self._stream.write("".join(held))
            self._stream.flush()


def invocation_of(ctx: typer.Context) -> Invocation:
    """Return the run that a command belongs to."""
    obj = ctx.find_root().obj
    if not isinstance(obj, Invocation):
        raise TypeError("p2pnode commands run through p2pnode.cli.main.run")
    return obj
