"""What goes wrong before, in and after a run, each as one sentence."""

from __future__ import annotations

from p2pnode.core.errors import P2PError

__all__ = ["MissingPackageError", "ScenarioFailedError", "ScenarioFileError", "SettingError", "require_packages"]


class SettingError(P2PError):
    """A scenario, setting or sweep that does not exist or cannot be: wrong usage."""

    code = "usage"


class ScenarioFileError(P2PError):
    """A user's scenario file that cannot be read or run."""

    code = "scenario_file"


class ScenarioFailedError(P2PError):
    """A run that ended in an error, or in which something that must hold did not."""

    code = "scenario_failed"


class MissingPackageError(P2PError):
    """A package of the extra `simulations` is not installed."""

    code = "missing_package"


def require_packages(what: str, *packages: str) -> None:
    """Raise MissingPackageError when one of `packages` is not installed. `what` needs them: begins the sentence."""
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f"{what} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed:"
            " pip install 'p2pnode[simulations]'"
        )
