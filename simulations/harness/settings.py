"""A scenario's settings as people type them: `--set loss=0.2`. Says what each may be, and reads it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from p2pnode.core.errors import P2PError
from p2pnode.simulations.harness.errors import SettingError
from p2pnode.simulations.harness.scenario import NetworkSettings, Scenario

__all__ = [
    "SettingInfo",
    "describe",
    "nearest",
    "read_nodes",
    "read_seed",
    "read_setting",
    "read_settings",
    "show",
    "split_pair",
]

S = TypeVar("S", bound=NetworkSettings)

SEED_MAX = 2**63 - 1
_TEXT_MAX = 1000
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class SettingInfo:
    """One setting. `allowed`: "a number from 0 to 1". `many`: its value is a list, typed with commas."""

    name: str
    allowed: str
    default: str
    description: str
    many: bool = False


@cache
def describe(settings: type[NetworkSettings]) -> dict[str, SettingInfo]:
    """Return what may be set, by name: the scenario's own first, those of its bases after them. Not to be changed."""
    info = inspect.type_info(settings)
    if not isinstance(info, inspect.StructType):
        raise TypeError("settings are a msgspec.Struct")
    owners = [base.__struct_fields__ for base in settings.__mro__ if issubclass(base, NetworkSettings)]
    fields = sorted(info.fields, key=lambda field: sum(field.name in names for names in owners))  # stable within each
    return {field.name: _describe(field) for field in fields}


def nearest(name: str, names: Sequence[str]) -> str:
    """Return " Did you mean 'x'?", or "" when nothing is near."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def split_pair(option: str, text: str) -> tuple[str, str]:
    """Split KEY=VALUE. Raise SettingError."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise SettingError(f"{option} takes KEY=VALUE, not {text[:60]!r}.")
    return key.strip().replace("-", "_"), value.strip()


def read_settings(scenario: Scenario, given: Mapping[str, str], option: str = "--set") -> Any:
    """Return the scenario's settings with the `given` texts filled in. Raise SettingError naming key, value, range."""
    values = {name: read_setting(scenario, name, text, option) for name, text in given.items()}
    try:
        return scenario.settings(**values)
    except (ValueError, TypeError, P2PError) as exc:  # of `__post_init__`, where settings must fit each other
        reason = str(exc).rstrip(".")
        raise SettingError(f"{option} {_shown(given)}: {reason}{'' if reason.endswith('?') else '.'}") from exc


def read_setting(scenario: Scenario, name: str, text: str, option: str = "--set") -> Any:
    """Return the value of one setting. Raise SettingError naming key, value, range."""
    known = describe(scenario.settings)
    if name not in known:
        if name in ("nodes", "seed"):
            raise SettingError(f"{option} {name}: that is an option of its own, --{name}.")
        hint = nearest(name, list(known)) or f" It has {', '.join(known)}."
        raise SettingError(f"{scenario.name} has no setting {name[:60]!r}.{hint}")
    kind = next(field.type for field in msgspec.structs.fields(scenario.settings) if field.name == name)
    try:
        return _read(text, kind)
    except (ValueError, OverflowError) as exc:
        info = known[name]
        what = f" ({info.description})" if info.description else ""
        raise SettingError(f"{option} {name}={text[:60]}: {name} is {info.allowed}{what}.") from exc


def read_nodes(scenario: Scenario, text: str | None, option: str = "--nodes") -> int:
    """Return how many nodes. Raise SettingError."""
    if text is None:
        return scenario.nodes
    least, most = scenario.nodes_min, scenario.nodes_max
    return _whole(text, option, least, most, f"{scenario.name} takes")


def read_seed(text: str | None, option: str = "--seed") -> int:
    """Return the seed, 1 by default. Raise SettingError."""
    return 1 if text is None else _whole(text, option, 0, SEED_MAX, "a seed is")


def _whole(text: str, option: str, least: int, most: int, what: str) -> int:
    value = int(text) if len(text) < 30 and text.isascii() and text.strip().isdecimal() else -1
    if not least <= value <= most:
        raise SettingError(f"{option} {text[:40]}: {what} a whole number from {least:,} to {most:,}.")
    return value


def _shown(given: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value[:60]}" for key, value in given.items())


def _read(text: str, kind: Any) -> Any:
    """Read one value; ValueError (msgspec's ValidationError is one) when it is none."""
    if len(text) > _TEXT_MAX:
        raise ValueError("too long")
    info = inspect.type_info(kind)
    plain = _plain(info)
    raw: Any = text
    if isinstance(plain, inspect.BoolType):
        word = text.lower()
        if word not in (*_YES, *_NO):
            raise ValueError(text)
        raw = word in _YES
    elif isinstance(plain, (inspect.ListType, inspect.VarTupleType, inspect.TupleType)):
        raw = [part.strip() for part in text.split(",") if part.strip()]
    elif text.lower() == "none":
        raw = None
    value = msgspec.convert(raw, kind, strict=False)
    for each in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(each, float) and not math.isfinite(each):
            raise ValueError(text)
    return value


def _plain(info: inspect.Type) -> inspect.Type:
    """Return the type beneath a description, and beneath `| None`."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    if isinstance(info, inspect.UnionType):
        others = [each for each in info.types if not isinstance(each, inspect.NoneType)]
        return _plain(others[0]) if len(others) == 1 else info
    return info


def _describe(field: inspect.Field) -> SettingInfo:
    description = ""
    info = field.type
    while isinstance(info, inspect.Metadata):
        description = str((info.extra_json_schema or {}).get("description", "")) or description
        info = info.type
    plain = _plain(info)
    many = isinstance(plain, (inspect.ListType, inspect.VarTupleType, inspect.TupleType))
    default: Any = field.default
    if default is msgspec.NODEFAULT:
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else "(to be given)"
    return SettingInfo(field.name, _allowed(info), show(default), description, many)


def show(value: Any) -> str:
    """Return a setting's value as one would type it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(show(each) for each in value)
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return "none" if value is None else str(getattr(value, "value", value))


def _allowed(info: inspect.Type) -> str:
    while isinstance(info, inspect.Metadata):
        info = info.type
    match info:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"a whole number{_range(info)}"
        case inspect.FloatType():
            return f"a number{_range(info)}"
        case inspect.LiteralType():
            return "one of " + ", ".join(str(value) for value in info.values)
        case inspect.EnumType():
            return "one of " + ", ".join(str(each.value) for each in info.cls)
        case inspect.UnionType():
            return " or ".join(_allowed(each) for each in info.types)
        case inspect.NoneType():
            return "none"
        case inspect.ListType() | inspect.VarTupleType():
            return f"a list with commas, each {_allowed(info.item_type)}"
        case _:
            return "a text"


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    def number(value: float) -> str:
        return f"{value:,}" if isinstance(value, int) else f"{value:,.15g}"

    low = info.ge if info.ge is not None else info.gt
    high = info.le if info.le is not None else info.lt
    low_open, high_open = info.ge is None, info.le is None
    if low is None and high is None:
        return ""
    if low is not None and high is not None and not low_open and not high_open:
        return f" from {number(low)} to {number(high)}"
    parts = []
    if low is not None:
        parts.append(f"above {number(low)}" if low_open else f"of {number(low)} or more")
    if high is not None:
        parts.append(f"below {number(high)}" if high_open else f"of at most {number(high)}")
    return " " + " and ".join(parts)
