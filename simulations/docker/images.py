"""The two images of compose.yaml: reused, or built where this package lies in a checkout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from p2pnode.simulations.docker.tools import Tools
from p2pnode.simulations.netns.errors import LabError

__all__ = ["find_images"]

# Image and target of the Dockerfile, by compose.yaml's variable
_IMAGES = {"P2PNODE_IMAGE": ("p2pnode", "node"), "P2PNODE_ROUTER_IMAGE": ("p2pnode-router", "router")}


def find_images(tools: Tools, progress: Callable[[str], None]) -> dict[str, str]:
    """Return the names of the images by compose.yaml's variables, building those that are missing.

    Raise LabError when one is missing that cannot be built.
    """
    found: dict[str, str] = {}
    for variable, (usual, target) in _IMAGES.items():
        name = os.environ.get(variable) or usual
        if not tools.has_image(name):
            checkout = Path(__file__).resolve().parents[2]
            if name != usual or not (checkout / "Dockerfile").is_file():
                how = f"docker build -t {name} --target {target} ."
                raise LabError(f"There is no image {name}; build it in a checkout of p2pnode: {how}")
            progress(f"Building the image {name}")
            tools.build(checkout, name, target)
        found[variable] = name
    return found
