"""Private networks, metrics, `dht` and `find` as users meet them: settings, real processes, the control API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import p2pnode
from support.processes import Processes, eventually, processes, run

SECRET = "correct horse battery"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    with processes(tmp_path) as running:
        yield running


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_secret_is_never_shown(tmp_path: Path, form: list[str]) -> None:
    """`config show` masks it, wherever it comes from; the origin is told."""
    result = p2pnode("config", "show", *form, home=tmp_path, env={"P2PNODE_NETWORK_SECRET": SECRET})
    assert result.code == 0
    assert SECRET not in result.out + result.err
    assert "********" in result.out
    assert "P2PNODE_NETWORK_SECRET" in result.out
    (tmp_path / "config.toml").write_text(f'network-secret = "{SECRET}"\n')
    result = p2pnode("config", "show", *form, home=tmp_path)
    assert SECRET not in result.out + result.err
    assert "********" in result.out


def test_wrong_secrets_are_refused_without_being_repeated(tmp_path: Path) -> None:
    """Too short, missing file, given twice: one sentence, which never holds the secret; no argument takes one."""
    short = p2pnode("config", "check", home=tmp_path, env={"P2PNODE_NETWORK_SECRET": "hush"})
    assert short.code == 2
    assert "P2PNODE_NETWORK_SECRET: a network secret is a text of 8 to 1024 characters" in short.err
    assert "hush" not in short.err
    missing = p2pnode("join", "--headless", "--network-secret-file", str(tmp_path / "none"), home=tmp_path)
    assert missing.code == 2
    assert "cannot be read" in missing.err
    (tmp_path / "secret").write_text("hush\n")
    weak = p2pnode("join", "--headless", "--network-secret-file", str(tmp_path / "secret"), home=tmp_path)
    assert weak.code == 2
    assert "8 to 1024" in weak.err
    assert "hush" not in weak.err
    env = {"P2PNODE_NETWORK_SECRET": SECRET}
    twice = p2pnode("join", "--network-secret-file", str(tmp_path / "secret"), home=tmp_path, env=env)
    assert twice.code == 2
    assert "given twice" in twice.err
    assert SECRET not in twice.err
    assert p2pnode("join", "--network-secret", SECRET, home=tmp_path).code == 2


def test_paths_are_one_to_eight(tmp_path: Path) -> None:
    """`--paths` outside 1..8 is refused by name; within, it is a setting like others."""
    for wrong in ("0", "9", "two"):
        result = p2pnode("join", "--headless", "--paths", wrong, home=tmp_path)
        assert result.code == 2
        assert "--paths" in result.err
    shown = p2pnode("config", "show", "--json", home=tmp_path, env={"P2PNODE_PATHS": "4"})
    assert json.loads(shown.out)["settings"]["paths"]["value"] == 4


@pytest.mark.slow
def test_private_network_of_real_processes(started: Processes, tmp_path: Path) -> None:
    """By file and by standard input the right secret joins; another one, and none, is one sentence and exit 1. `find`
    tells hops, queried, late and elapsed; `dht` the table; `/metrics` needs the token."""
    (tmp_path / "right").write_text(SECRET + "\n")
    (tmp_path / "wrong").write_text(SECRET + "!\n")
    boot = started.bootstrap("b", "--network-secret-file", str(tmp_path / "right"))
    spec = boot.ready()["bootstrap"]
    alice = started.join("alice", "--bootstrap", spec, "--network-secret-file", str(tmp_path / "right"), "--paths", "3")
    assert alice.ready()["alone"] is False
    for number, more in enumerate((["--network-secret-file", str(tmp_path / "wrong")], [])):
        mallory = started.join(f"mallory{number}", "--bootstrap", spec, *more)
        assert mallory.process.wait(15) == 1
        assert mallory.log().count("belongs to another network, or its secret differs") >= 1
        assert "Traceback" not in mallory.log()
    found = run(alice.home, "find", boot.id, "--json").json
    assert {"hops", "queried", "late", "elapsed_s", "seconds"} <= set(found)
    assert found["queried"] >= 1
    text = run(alice.home, "find", boot.id).out
    assert "queried" in text
    assert "late" in text
    dht = run(alice.home, "dht", "--json").json
    loopback = next(table for table in dht["tables"] if (table["realm"], table["family"]) == ("loopback", "ipv4"))
    assert (loopback["contacts"], sum(loopback["buckets"]), loopback["estimated_nodes"]) == (1, 1, 2.0)
    assert dht["records"] >= 1
    assert dht["bytes_in"]["sealed"] > 0
    table = run(alice.home, "dht").out
    assert "loopback" in table
    assert "signed_request" in table
    eventually(lambda: "1 of the 1 nearest nodes hold it" in run(alice.home, "dht").out, what="the read-back")
    card = json.loads((alice.home / "api.json").read_text())
    url = f"http://127.0.0.1:{card['port']}/metrics"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=10)
    assert refused.value.code == 401
    refused.value.close()
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {card['token']}"})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own node
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        page = answer.read().decode()
    assert 'p2pnode_dht_bucket_contacts{realm="loopback",family="ipv4",bucket="0"} 1\n' in page
    spent = next(line for line in page.splitlines() if line.startswith("p2pnode_dht_verification_seconds_total "))
    print(spent, f"({len(page)} bytes in all)")
    assert float(spent.split()[1]) > 0


@pytest.mark.slow
def test_ping_and_connect_across_networks_say_wrong_network(started: Processes, tmp_path: Path) -> None:
    """`ping HOST PORT` and `connect ID@HOST:PORT` towards a private node: error code wrong_network, as JSON too."""
    (tmp_path / "right").write_text(SECRET + "\n")
    boot = started.bootstrap("b", "--network-secret-file", str(tmp_path / "right"))
    spec = boot.ready()["bootstrap"]
    host, _, port = spec.partition("@")[2].rpartition(":")
    other = started.join("other")
    other.ready()
    for command in (["ping", host, port], ["connect", spec]):
        result = run(other.home, *command, "--json")
        assert result.code == 1
        assert result.json["error"]["code"] == "wrong_network"
