"""Settings, and where each came from.

The command line wins over the environment (`P2PNODE_<OPTION>`), that over `HOME/config.toml`, that over the default.
A wrong value names its place: file, line and key; variable; or option. The file is flat: one `option = value` per
setting, with the names of the command line (`idle-timeout` or `idle_timeout`; `lan = false` or `no-lan = true`).
"""

from __future__ import annotations

import contextlib
import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pnode.config_options import OPTIONS, Option
from p2pnode.core.errors import InvalidConfigError

__all__ = ["Config", "Setting"]

_OF_OTHERS = {
    "proxy": ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"),
    "no-proxy": ("NO_PROXY", "no_proxy"),
}
"""Variables that other programs read as well, the first that is set counts."""
_MAX_FILE_BYTES = 256 * 1024  # a settings file is typed by hand; anything larger is a mistake


@dataclass(frozen=True, slots=True)
class Setting:
    """One option's value. `origin`: `command line`, `environment`, `file` or `default`; `place` says it in full."""

    option: Option
    value: Any
    origin: str
    place: str

    @property
    def shown(self) -> Any:
        """The value as one would write it into config.toml: JSON-like, nothing secret."""
        return self.option.show(self.value)


class Config:
    """Every option's value with its origin. `config["lan"]` is the value."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self.settings = dict(settings)

    def __getitem__(self, name: str) -> Any:
        return self.settings[name].value

    def explicit(self, name: str) -> bool:
        """Whether somebody set the option, rather than the default."""
        return self.settings[name].origin != "default"

    @classmethod
    def load(
        cls,
        path: Path | None,
        *,
        environ: Mapping[str, str],
        command_line: Mapping[str, Any] | None = None,
    ) -> Config:
        """Collect all settings. Raise InvalidConfigError with the first wrong one's place.

        `path`: config.toml, which need not exist. `command_line`: option name to text, list or bool; None is not given.
        """
        given: dict[str, Setting] = {name: Setting(o, o.default, "default", "default") for name, o in OPTIONS.items()}
        if path is not None:
            given.update(_from_file(path))
        given.update(_from_environment(environ))
        for name, raw in (command_line or {}).items():
            if raw is None or raw == []:
                continue
            option = OPTIONS[name]
            flag = f"--no-{name}" if raw is False else f"--{name}"
            value = _parsed(option, raw, place=flag)
            given[name] = Setting(option, value, "command line", flag)
        return cls(given)


def _parsed(option: Option, raw: Any, *, place: str, **facts: object) -> Any:
    try:
        return option.parse(raw)
    except ValueError as exc:
        raise InvalidConfigError(f"{place}: {exc}.", key=option.name, **facts) from exc


def _from_environment(environ: Mapping[str, str]) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for name, option in OPTIONS.items():
        variable = "P2PNODE_" + name.replace("-", "_").upper()
        if environ.get(variable):
            value = _parsed(option, environ[variable], place=variable, variable=variable)
            found[name] = Setting(option, value, "environment", variable)
            continue
        for variable in _OF_OTHERS.get(name, ()):
            # Other programs' variable: what means nothing to us is no error.
            with contextlib.suppress(ValueError):
                if environ.get(variable) and (value := option.parse(environ[variable])):
                    found[name] = Setting(option, value, "environment", variable)
                    break
        negated = "P2PNODE_NO_" + name.replace("-", "_").upper()
        if option.kind == "flag" and environ.get(negated):
            value = not _parsed(option, environ[negated], place=negated, variable=negated)
            found[name] = Setting(option, value, "environment", negated)
    return found


def _from_file(path: Path) -> dict[str, Setting]:
    text = _read(path)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        match = re.search(r"\(at line (\d+), column \d+\)", str(exc))
        line = int(match[1]) if match else text.count("\n") + 1
        reason = re.sub(r"\s*\(at .*\)", "", str(exc))
        key = _key_on(text, line)
        named = f"{key}: " if key else ""
        raise InvalidConfigError(
            f"{path}, line {line}: {named}{reason[:1].lower()}{reason[1:]}.", file=str(path), line=line, key=key
        ) from exc
    except RecursionError as exc:
        raise InvalidConfigError(f"{path}: values are nested too deep.", file=str(path)) from exc
    found: dict[str, Setting] = {}
    for key, raw in table.items():
        line = _line_of(text, key)
        place = f"{path}, line {line}"
        name, negated = _option_name(key)
        if name is None:
            close = difflib.get_close_matches(key.replace("_", "-"), OPTIONS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(OPTIONS)}."
            raise InvalidConfigError(
                f"{place}: {key[:80]} is not an option; {hint}", file=str(path), line=line, key=key
            )
        option = OPTIONS[name]
        if isinstance(raw, dict) or (option.kind == "flag" and not isinstance(raw, bool)):
            kind = "true or false" if option.kind == "flag" else "a value, not a table"
            raise InvalidConfigError(f"{place}: {key} takes {kind}.", file=str(path), line=line, key=key)
        if name in found:
            raise InvalidConfigError(f"{place}: {key} sets {name} a second time.", file=str(path), line=line, key=key)
        value = _parsed(option, raw, place=f"{place}: {key}", file=str(path), line=line)
        found[name] = Setting(option, not value if negated else value, "file", place)
    return found


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise InvalidConfigError(f"{path} is larger than {_MAX_FILE_BYTES // 1024} KiB.", file=str(path))
        return data.decode()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as exc:
        raise InvalidConfigError(f"{path} cannot be read ({exc.strerror}).", file=str(path)) from exc
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        raise InvalidConfigError(f"{path}, line {line}: not UTF-8 text.", file=str(path), line=line) from exc


def _option_name(key: str) -> tuple[str | None, bool]:
    """Return (option, whether `no-` negates it), (None, False) when there is no such option."""
    name = key.replace("_", "-")
    if name in OPTIONS:
        return name, False
    positive = name.removeprefix("no-")
    if positive != name and positive in OPTIONS and OPTIONS[positive].kind == "flag":
        return positive, True
    return None, False


def _line_of(text: str, key: str) -> int:
    """Return the line (from 1) on which top-level `key` is set.

    tomllib gives no positions. The key's value ends on the first line up to which the text is valid TOML that has the
    key; its start is the last line before that which looks like the key.
    """
    lines = text.splitlines()
    pattern = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    candidates = [i for i, line in enumerate(lines, 1) if pattern.match(line)]
    if len(candidates) == 1:
        return candidates[0]
    for end in range(1, len(lines) + 1):
        try:
            if key not in tomllib.loads("\n".join(lines[:end])):
                continue
        except tomllib.TOMLDecodeError:
            continue
        return max((c for c in candidates if c <= end), default=end)
    return 1


def _key_on(text: str, line: int) -> str:
    lines = text.splitlines()
    match = re.match(r"\s*([A-Za-z0-9_-]+)\s*=", lines[line - 1]) if 0 < line <= len(lines) else None
    return match[1] if match else ""
