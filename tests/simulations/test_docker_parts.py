"""What `lab --docker` decides without an engine: rules of a router container, what it saw, what is missing."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.cli import p2pnode
from support.require import require, require_namespaces

from p2pnode.core.address import Address
from p2pnode.simulations.docker import matrix, prober, router
from p2pnode.simulations.docker.project import COMPOSE_FILE
from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.kinds import KINDS
from p2pnode.simulations.probing import Verdict

WITHOUT = {**{k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}, "NO_COLOR": "1"}


def test_kinds_of_a_container() -> None:
    """One router with a living line that lets UDP pass; others are refused with the list."""
    kinds = router.possible_kinds()
    assert {"fullcone", "address-restricted", "port-restricted", "symmetric", "symmetric-sequential"} <= set(kinds)
    for name in set(KINDS) - set(kinds):
        with pytest.raises(LabError, match="there are: fullcone"):
            router.router_kind(name)
    assert all(kind in kinds for plan in (matrix.QUICK, matrix.FULL) for cell in plan.cells for kind in cell)


@pytest.mark.namespace
@pytest.mark.parametrize("name", router.possible_kinds())
def test_rules_are_taken_by_the_kernel(name: str) -> None:
    """With the interface names that the container happens to have; the witness's sets are listed as they are read."""
    require(shutil.which("nft") is not None, "needs nftables")
    text = router.rules(KINDS[name], "203.0.113.51", "192.168.101.1", wan="eth1", lan="eth0", rng=random.Random(1))
    assert "wan0" not in text
    assert "lan0" not in text
    script = (
        "nft -f - && nft add element ip witness sent { 203.0.113.52 . 5000 . 4747 } && nft -j list table ip witness"
    )
    done = subprocess.run(
        [*require_namespaces(), "sh", "-c", script], input=text, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert router.flows_from_json(done.stdout) == {"sent": {("203.0.113.52", 5000, 4747)}, "received": set()}


@pytest.mark.namespace
def test_an_address_is_added_without_ip() -> None:
    """The second address of an interface, as /24, found by the network that it is in."""
    code = (
        "from p2pnode.simulations.docker.addresses import *; import subprocess as s;"
        "s.run('ip link add eth7 type veth peer name other'.split());"
        "s.run('ip address add 192.168.101.254/24 dev eth7'.split());"
        "assert interface_of('192.168.101.1') == 'eth7'; add_address('192.168.101.1');"
        "s.run(['ip', '-o', '-4', 'address', 'show', 'eth7'])"
    )
    done = subprocess.run(
        [*require_namespaces(), sys.executable, "-c", code], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert "192.168.101.254/24" in done.stdout
    assert "192.168.101.1/24" in done.stdout


def test_router_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong arguments: 2 and a sentence; an address of no network here: 1."""
    assert router.main(["port-restricted"]) == 2
    assert router.main(["fulcone", "203.0.113.51", "192.168.101.1"]) == 2
    assert "did you mean fullcone?" in capsys.readouterr().err
    assert router.main(["fullcone", "198.51.100.77", "192.168.101.1"]) == 1
    assert capsys.readouterr().err == "router: no interface is in the network of 198.51.100.77\n"
    assert prober.main(["serve", "203.0.113.21"]) == 2


def test_verdict_survives_the_way_out_of_the_container() -> None:
    """What `prober ask` prints is read as what was found."""
    found = replace(Verdict(), own=Address("192.168.101.2", 4000), public=Address("203.0.113.51", 50_000), udp=True)
    found = replace(found, public_ips=("203.0.113.51",), tcp=(443, 80), hairpin=False, nat=True)
    assert prober.verdict_from_json(json.dumps(found.to_json())) == found
    assert prober.verdict_from_json(json.dumps(Verdict().to_json())) == Verdict()


def test_compose_file_and_program_agree() -> None:
    """Addresses that the program relies on are those of compose.yaml; nothing there has more rights than it needs."""
    text = COMPOSE_FILE.read_text(encoding="utf-8")
    for variable, default in {"WAN": "203.0.113", "LAN_A": "192.168.101", "LAN_B": "192.168.102"}.items():
        text = text.replace("${" + variable + ":-" + default + "}", default)
    services = yaml.safe_load(text)["services"]
    for address, service in zip(("203.0.113.51", "203.0.113.52"), ("router-a", "router-b"), strict=True):
        assert services[service]["networks"]["wan"]["ipv4_address"] == address
        assert address in services[service]["command"]
    for name, service in services.items():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        trusted = name.startswith("router") or name == "prober"
        assert service.get("cap_add", []) == (["NET_ADMIN"] if trusted else [])


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--docker", "kinds"), 2, "--docker is for the matrix"),
        (("--docker",), 2, "--docker is for the matrix"),
        (("--docker", "matrix", "--loss", "5"), 2, "are of the namespaces' wire"),
        (("--docker", "matrix", "fulcone"), 2, "did you mean fullcone?"),
        (("--docker", "matrix", "cgnat"), 1, "A container is no router of kind cgnat"),
    ],
)
def test_wrong_usage_starts_nothing(arguments: tuple[str, ...], code: int, sentence: str) -> None:
    """One sentence, before any engine is asked."""
    result = p2pnode("lab", *arguments)
    assert result.code == code
    assert sentence in result.err
    assert result.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("programs", "sentence"),
    [
        ({}, "apt-get install docker.io docker-compose"),
        ({"docker": "exit 1"}, 'eval "$(scripts/docker-engine start)"'),
        ({"docker": '[ "$1" = version ] && echo 20.10'}, "apt-get install docker-compose"),
    ],
    ids=["no docker", "no engine", "no compose"],
)
def test_what_is_missing_is_named(programs: dict[str, str], sentence: str, tmp_path: Path) -> None:
    """Exit 1 and what to do about it."""
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "p2pnode", "lab", "--docker", "matrix"],
        capture_output=True,
        text=True,
        env={**WITHOUT, "PATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
