"""What holds for every test, however it was started."""

import gc
import os
import signal
import sys
from pathlib import Path

import pytest

LONG_FIRST = ("system", "cli", "simulations")  # folders

# Tests start the program hundreds of times. It is compiled once, as an installed one is, also where that is off.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Python's own thresholds look through all that was loaded some thousand times in a run.
gc.set_threshold(20_000, 20, 20)

# A runner that starts this in the background of a script leaves SIGINT ignored, and every child would inherit that:
# tests of Ctrl-C would wait for what never comes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: with two processes the last ones decide when a run ends."""
    root = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(root).parts[0]
        return LONG_FIRST.index(folder) if folder in LONG_FIRST else len(LONG_FIRST)

    items.sort(key=place)
