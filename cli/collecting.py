"""When Python looks for objects that nobody uses: not while modules are loaded.

Loading makes hundreds of thousands of objects that stay. To look through them again and again for what could be freed
takes up to a sixth of each start.
"""

from __future__ import annotations

import gc

__all__ = ["loaded", "loading"]

_PYTHONS_OWN = gc.get_threshold()
_WHILE_LOADING = 1_000_000  # objects more than before: what makes as many by mistake is still looked through


def loading() -> None:
    """A command begins: modules are about to be loaded."""
    gc.set_threshold(_WHILE_LOADING)


def loaded() -> None:
    """All is there that stays: leave it alone from now on, and look for the rest as usual."""
    gc.freeze()
    gc.set_threshold(*_PYTHONS_OWN)
