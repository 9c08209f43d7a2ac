"""`join --headless` and `bootstrap` as real processes: events, leaving, ports, somebody else's key."""

import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import Processes, processes

pytestmark = pytest.mark.slow

OTHER = "12D3KooWPK7MsXCzqaJX1zWetqBFaLs9JA2pfjfMgmf6wHNeDBCE"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    with processes(tmp_path) as running:
        yield running


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_ready_is_the_first_line_and_has_the_fields_of_the_contract(started: Processes) -> None:
    """docs/cli.md, "events": alone is said on stderr, with the line to type elsewhere."""
    peer = started.join("alice")
    ready = peer.ready()
    assert peer.events[0] == ready
    wanted = {"event", "peer_id", "user_id", "addresses", "bootstrap", "api", "peers", "seconds"}
    assert wanted <= set(ready)
    assert ready["bootstrap"] == f"{ready['peer_id']}@{ready['addresses'][0]}"
    assert ready["alone"] is True
    assert f"p2pnode join --bootstrap {ready['bootstrap']}" in peer.log()
    assert ready["api"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signals_leave_cleanly_within_two_seconds(started: Processes, number: int, code: int) -> None:
    """Ctrl-C: exit 130; SIGTERM, a service manager's ordinary stop: 0. Says `stopping`, leaves no card."""
    peer = started.join("alice")
    peer.ready()
    begun = time.monotonic()
    peer.process.send_signal(number)
    assert peer.process.wait(5) == code
    assert time.monotonic() - begun < 2.0
    peer.wait_event(lambda event: event["event"] == "stopping")
    assert not (peer.home / "api.json").exists()
    assert "Traceback" not in peer.log()


def test_explicit_port_in_use_is_an_error(started: Processes) -> None:
    """One sentence, exit 1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        peer = started.join("alice", listen=f"127.0.0.1:{taken.getsockname()[1]}")
        assert peer.process.wait(10) == 1
    assert peer.log().count("\n") == 1
    assert str(taken) not in peer.log()
    assert peer.log().startswith("p2pnode: ")


def test_bootstrap_address_of_somebody_else_is_an_error(started: Processes) -> None:
    """Whoever answers there has another key: said by name, exit 1."""
    real = started.bootstrap("b").ready()
    where = real["bootstrap"].partition("@")[2]
    peer = started.join("alice", "--bootstrap", f"{OTHER}@{where}")
    assert peer.process.wait(15) == 1
    assert real["peer_id"] in peer.log()


def test_corrupt_database_is_refused_by_join(started: Processes, tmp_path: Path) -> None:
    """One sentence, exit 1, and the file stays."""
    home = tmp_path / "alice"
    home.mkdir(mode=0o700)
    (home / "chat.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 9000)
    peer = started.join("alice")
    assert peer.process.wait(15) == 1
    assert "chat.db" in peer.log()
    assert peer.log().count("\n") == 1
    assert (home / "chat.db").stat().st_size == 9016


def test_entrance_where_nobody_listens_is_an_error(started: Processes) -> None:
    """`join alice localhost PORT` with nobody there."""
    port = str(free_port())
    peer = started.start(
        "alice", "join", "alice", "127.0.0.1", port, "--headless", "--no-lan", "--listen", "127.0.0.1:0"
    )
    assert peer.process.wait(15) == 1
    assert port in peer.log()


def test_two_peers_talk_through_the_command_line(started: Processes) -> None:
    """find, connect, ping, send, messages, history, contacts, peers: the JSON of docs/cli.md."""
    boot = started.bootstrap("b")
    alice, bob = (started.join(name, bootstrap=[boot]) for name in ("alice", "bob"))
    alice.ready()
    bob.ready()  # published
    found = alice.cli("find", bob.id, "--json").json
    assert {"peer", "online", "age_s", "addresses", "name", "hops", "seconds"} <= set(found)
    assert (found["peer"], found["online"], found["name"]) == (bob.id, True, "bob")
    assert (found["state"], found["evidence"]) == ("online", "record")
    assert found["holders"] >= 1
    connected = alice.cli("connect", bob.user, "--json").json
    assert {"connected", "peer", "path", "seconds", "rtt_ms", "reason", "explanation", "trace"} == set(connected)
    assert (connected["peer"], connected["path"]) == (bob.id, "lan")
    assert {"at_s", "step", "result"} == set(connected["trace"][0])
    sent = alice.cli("send", bob.user, "-", "--json", stdin="hello \u00e9\n").json
    assert (sent["state"], sent["delivered"], sent["devices"]) == ("delivered", True, 1)
    event = bob.wait_event(lambda e: e["event"] == "message")
    assert {"id", "from", "from_user", "from_name", "to", "text", "sent_at"} <= set(event)
    assert (event["id"], event["from"], event["text"], event["to"]) == (sent["id"], alice.id, "hello \u00e9", bob.id)
    assert bob.cli("contacts", "add", alice.user, "--name", "al", "--json").json["state"] == "accepted"
    assert bob.cli("history", "al", "--search", "HELLO", "--json").json["messages"][0]["from_name"] == "al"
    assert len(bob.cli("messages", "--with", "al", "--json").json["messages"]) == 1
    numbers = [
        x.cli("contacts", "verify", y.user, "--json").json["safety_number"] for x, y in ((alice, bob), (bob, alice))
    ]
    assert numbers[0] == numbers[1]
    assert [p["peer"] for p in alice.cli("peers", "--json").json["peers"]] == [bob.id]
    assert alice.cli("ping", bob.id, "-n", "2", "--json").out.count("\n") == 2
    where = bob.ready()["addresses"][0].rpartition(":")
    assert alice.cli("ping", where[0], where[2], "--json").json["peer"] == bob.id
    said = alice.cli("topic", "announce", "chess", "a game?", "--json").json
    assert (said["topic"], said["text"], said["stored"] >= 1) == ("chess", "a game?", True)
    bob.cli("topic", "announce", "chess")
    listed = bob.cli("topic", "list", "chess", "--json").json
    assert {(m["peer"], m["text"], m["own"]) for m in listed["members"]} == {
        (alice.id, "a game?", False), (bob.id, "bob", True)}  # fmt: skip
    assert listed["complete"]
    assert alice.cli("topic", "withdraw", "chess").code == 0
    unknown = alice.cli("find", OTHER, "--json")
    assert (unknown.code, unknown.json["error"]["code"]) == (1, "peer_not_found")
    assert "session with us" in alice.cli("find", bob.id).out
    assert bob.stop() == 0
    gone = alice.wait_event(lambda e: e["event"] == "presence" and not e["online"])
    assert {"peer", "online", "age_s", "state", "evidence", "last_seen"} <= set(gone)
    assert (gone["peer"], gone["state"], gone["evidence"]) == (bob.id, "offline", "goodbye")
    assert "offline (it said goodbye" in alice.cli("find", bob.id).out
    assert len(bob.cli("history", "al", "--json").json["messages"]) == 1  # also when no node runs


def test_metrics_of_a_bootstrap_node_are_served_where_it_was_told(started: Processes) -> None:
    """`--metrics 127.0.0.1:0`: the page without a token; nothing else is there; a taken port is one sentence."""
    node = started.bootstrap("boot", "--metrics", "127.0.0.1:0")
    node.ready()
    url = re.search(r"Metrics: (http://127\.0\.0\.1:[0-9]+)/metrics", node.log())
    assert url is not None
    with urllib.request.urlopen(f"{url[1]}/metrics") as answer:  # noqa: S310 - our own node
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert b"\np2pnode_uptime_seconds " in answer.read()
    for path, method, status in (("/v1/status", "GET", 404), ("/metrics", "POST", 405)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(url[1] + path, method=method))  # noqa: S310
        assert refused.value.code == status
        refused.value.close()
    second = started.bootstrap("second", "--metrics", url[1].removeprefix("http://"))
    assert second.process.wait(10) == 1
    assert "Metrics cannot be served at" in second.log()
    wrong = started.bootstrap("wrong", "--metrics", "nowhere")
    assert wrong.process.wait(10) == 2
    assert "'nowhere' is not HOST:PORT" in wrong.log()
