"""Tests that need a Docker engine are collected with P2PNODE_DOCKER=1 only: `.ci/slow.d/30-docker` provides one."""

import os

collect_ignore_glob = [] if os.environ.get("P2PNODE_DOCKER") == "1" else ["test_docker_*.py"]
