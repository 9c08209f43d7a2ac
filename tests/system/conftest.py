"""Collected on request only, by `.ci/run`: the laboratory with P2PNODE_LAB=quick or full, Docker with
P2PNODE_DOCKER=1 (`.ci/slow.d/30-docker` provides an engine), the flood with P2PNODE_FLOOD=1, sweeps with lost workers
with P2PNODE_SWEEPS=1."""

import os

collect_ignore_glob = [
    *([] if os.environ.get("P2PNODE_DOCKER") == "1" else ["test_docker_*.py"]),
    *([] if os.environ.get("P2PNODE_FLOOD") == "1" else ["test_system_flood.py"]),
    *([] if os.environ.get("P2PNODE_SWEEPS") == "1" else ["test_simulate_sweeps.py"]),
    *(
        []
        if os.environ.get("P2PNODE_LAB")
        else ["test_lab_*.py", "test_matrix_in_both_worlds.py", "test_model_against_kernel.py"]
    ),
]
