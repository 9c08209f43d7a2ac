"""Finding scenarios: those that come with p2pnode by name, a user's own by its file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import linecache
import pkgutil
import sys
import traceback
from dataclasses import dataclass
from importlib.abc import SourceLoader
from pathlib import Path
from types import ModuleType

from p2pnode.core.errors import P2PError
from p2pnode.simulations.harness.errors import ScenarioFileError, SettingError
from p2pnode.simulations.harness.scenario import NetworkSettings, Scenario
from p2pnode.simulations.harness.settings import describe, nearest

__all__ = ["Source", "load", "names", "source_of", "where_in"]

FILE_BYTES_MAX = 1_000_000


@dataclass(frozen=True)
class Source:
    """What was asked for: a name, or a file with its text, so that another machine can run it too."""

    target: str
    """As typed: `lookup`, or `./my.py`."""
    text: str | None = None
    """The file's content; None for a scenario that comes with p2pnode."""


class _TextLoader(SourceLoader):
    """Makes a module from a text that was already read."""

    def __init__(self, path: str, text: str) -> None:
        self._path, self._text = path, text

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002 - importlib's name
        return self._path

    def get_data(self, path: str) -> bytes:
        if path != self._path:
            raise OSError(path)  # no compiled file beside it
        return self._text.encode()


def names() -> list[str]:
    """Return the scenarios that come with p2pnode, sorted."""
    from p2pnode.simulations import scenarios

    return sorted(each.name.replace("_", "-") for each in pkgutil.iter_modules(scenarios.__path__))


def source_of(target: str) -> Source:
    """Find what was typed. Raise SettingError for an unknown name, ScenarioFileError for a file that cannot be read."""
    if not (target.endswith(".py") or "/" in target or "\\" in target):
        known = names()
        if target not in known:
            raise SettingError(
                f"There is no scenario {target[:60]!r}.{nearest(target, known) or ' --list shows them all.'}"
            )
        return Source(target)
    path = Path(target).expanduser()
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError as exc:
        raise SettingError(f"There is no scenario file {target}.") from exc
    except (OSError, ValueError) as exc:
        raise ScenarioFileError(f"{target} cannot be read: {getattr(exc, 'strerror', None) or exc}.") from exc
    if len(data) > FILE_BYTES_MAX:
        raise ScenarioFileError(f"{target} is larger than a scenario file may be ({FILE_BYTES_MAX:,} bytes).")
    try:
        return Source(target, data.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise ScenarioFileError(f"{target}, line {line}: it is not UTF-8 text.") from exc


def load(source: Source) -> Scenario:
    """Return the scenario. Raise ScenarioFileError: one sentence with the line."""
    if source.text is None:
        module = importlib.import_module(f"p2pnode.simulations.scenarios.{source.target.replace('-', '_')}")
    else:
        module = _module_of(source.target, source.text)
    scenario = getattr(module, "SCENARIO", None)
    if not isinstance(scenario, Scenario):
        raise ScenarioFileError(f"{source.target} defines no SCENARIO = Scenario(...).")
    try:
        if not issubclass(scenario.settings, NetworkSettings):
            raise TypeError("they are no subclass of NetworkSettings")
        describe(scenario.settings)
    except TypeError as exc:  # msgspec's: limits that do not go with a type, types it does not know
        raise ScenarioFileError(f"{source.target}: its settings cannot be: {exc}.") from exc
    return scenario


def where_in(error: BaseException, path: str) -> str:
    """Return "PATH, line N" of the innermost place in `path` that an error came through; "" when there is none."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{path}, line {lines[-1]}" if lines else ""


def _module_of(target: str, text: str) -> ModuleType:
    """Run a scenario file's text as a module of its own."""
    # By content: two files of the same name in one process do not meet. msgspec looks the module up by its name.
    name = f"p2pnode_scenario_{hashlib.sha256(f'{target}/{text}'.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _TextLoader(target, text)
    spec = importlib.util.spec_from_loader(name, loader, origin=target)
    if spec is None:
        raise ScenarioFileError(f"{target} cannot be loaded.")
    module = importlib.util.module_from_spec(spec)
    module.__file__ = target
    linecache.cache[target] = (len(text), None, text.splitlines(keepends=True), target)  # for tracebacks elsewhere
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except KeyboardInterrupt:
        del sys.modules[name]
        raise
    except BaseException as exc:  # a file may do anything, sys.exit() too
        del sys.modules[name]
        reason = exc.msg if isinstance(exc, SyntaxError) else f"{type(exc).__name__}: {exc}"
        if isinstance(exc, P2PError):
            reason = exc.message
        where = where_in(exc, target) or target
        raise ScenarioFileError(f"{where}: {reason}".rstrip(".: ") + ".") from exc
    return module
