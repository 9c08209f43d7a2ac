"""The control API over HTTP: answers, errors, streams, and the client."""

import json
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.api import Api, running_api

from p2pnode import Address, Home, NetworkChanged, NotRunningError, PeerNotFoundError
from p2pnode.api import types as t
from p2pnode.api.application import ROUTES
from p2pnode.api.client import Client
from p2pnode.api.openapi import document

PEER = "12D3KooWPK7MsXCzqaJX1zWetqBFaLs9JA2pfjfMgmf6wHNeDBCE"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running_api(tmp_path_factory.mktemp("home")) as running:
        yield running


def test_card_is_private_and_removed_at_the_end(tmp_path: Path) -> None:
    """Port and token are for the owner only, and gone when the server is."""
    with running_api(tmp_path) as running:
        assert stat.S_IMODE(running.home.api.stat().st_mode) == 0o600
        assert len(running.token) == 64
    assert not (tmp_path / "api.json").exists()


def test_server_that_nobody_asked_stops(tmp_path: Path) -> None:
    """It has loaded nothing yet; its port is free again."""
    with running_api(tmp_path) as running:
        port = running.port
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


def test_first_requests_wait_for_what_serves_them(tmp_path: Path) -> None:
    """Those that come before it is loaded are all answered."""
    with running_api(tmp_path) as running:
        waiting = [running.raw() for _ in range(5)]
        for sock in waiting:
            sock.sendall(f"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n\r\n".encode())
        for sock in waiting:
            with sock:
                assert sock.recv(100).startswith(b"HTTP/1.1 401 ")


def test_status_has_the_fields_of_the_contract(api: Api) -> None:
    """docs/cli.md: `status --json`."""
    status, headers, body = api.request("GET", "/v1/status")
    assert status == 200
    assert headers["content-type"] == "application/json"
    wanted = {"peer_id", "user_id", "role", "nat", "addresses", "peers", "routing_table", "records", "uptime_s"}
    assert wanted | {"rss_bytes"} <= set(body)


def test_document_is_served(api: Api) -> None:
    """The reference is what the node itself says."""
    status, _, body = api.request("GET", "/v1/openapi.json")
    assert status == 200
    assert body["paths"] == json.loads(json.dumps(document(ROUTES, version="x")))["paths"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/", None, 404, "unknown_route"),
        ("GET", "/v1/status/", None, 404, "unknown_route"),
        ("GET", "/v1/../v1/status", None, 404, "unknown_route"),
        ("DELETE", "/v1/status", None, 405, "wrong_method"),
        ("OPTIONS", "/v1/status", None, 405, "wrong_method"),
        ("GET", "/v1/find", None, 400, "invalid_request"),
        ("GET", "/v1/find?peer=12D3KooW", None, 400, "invalid_peer"),
        ("GET", f"/v1/find?peer={PEER}&timeout=x", None, 400, "invalid_request"),
        ("GET", f"/v1/find?peer={PEER}&timeout=-1", None, 400, "invalid_request"),
        ("GET", f"/v1/find?peer={PEER}", None, 404, "peer_not_found"),
        ("GET", "/v1/history?peer=nobody", None, 404, "peer_not_found"),
        ("GET", f"/v1/contacts/one?peer={PEER}", None, 404, "not_found"),
        ("POST", "/v1/messages", b"", 400, "invalid_request"),
        ("POST", "/v1/messages", b"{", 400, "invalid_request"),
        ("POST", "/v1/messages", b"\xff", 400, "invalid_request"),
        ("POST", "/v1/messages", b"[" * 50_000, 400, "invalid_request"),
        ("POST", "/v1/messages", b'{"peer":1,"text":"x"}', 400, "invalid_request"),
        ("POST", "/v1/messages", b'{"peer":"a"}', 400, "invalid_request"),
        ("POST", "/v1/hello", b'{"host":"h","port":0}', 400, "invalid_request"),
        ("POST", "/v1/connect", b'{"peer":"' + PEER.encode() + b'"}', 500, "failed"),
    ],
)  # fmt: skip
def test_failure_is_json_with_a_stable_code(
    api: Api, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    """Every refusal has the same shape; no traceback leaves the node."""
    got, headers, answer = api.request(method, path, body)
    assert (got, answer["error"]["code"]) == (status, code)
    assert set(answer["error"]) == {"code", "message"}
    assert "Traceback" not in answer["error"]["message"]
    assert headers["content-type"] == "application/json"


def test_an_error_without_a_class_of_its_own_is_a_plain_one() -> None:
    """Classes whose objects bear different codes (what cannot be sent) are nobody's answer to `failed`."""
    from p2pnode.api.client import _BY_CODE
    from p2pnode.chat.files.sources import SourceError

    assert "failed" not in _BY_CODE
    assert SourceError not in _BY_CODE.values()
    assert _BY_CODE["peer_not_found"] is PeerNotFoundError


def test_client_reads_answers_and_raises_the_nodes_errors(api: Api) -> None:
    """The client gives structs, and the error class that belongs to the code."""
    client = Client(api.home)
    assert client.get("/v1/status", t.Status).name == "fake"
    contact = client.post("/v1/contacts", t.Contact, t.ContactAdd(PEER, "bob"))
    assert (contact.name, contact.state) == ("bob", "accepted")
    assert [c.name for c in client.get("/v1/contacts", t.Contacts).contacts] == ["bob"]
    assert client.get("/v1/messages", t.Messages, t.MessagesQuery(with_="bob")).messages == []
    with pytest.raises(PeerNotFoundError, match="Nobody knows"):
        client.get("/v1/find", t.FindAnswer, t.PeerQuery(PEER))


def test_events_are_followed_line_by_line(api: Api) -> None:
    """A stream gives each event as it happens."""
    got: list[t.Event] = []
    done = threading.Event()

    def follow() -> None:
        for event in Client(api.home).follow("/v1/events", t.Event):
            got.append(event)
            done.set()
            return

    thread = threading.Thread(target=follow)
    thread.start()
    while not done.wait(0.02):
        api.emit(NetworkChanged((Address("192.0.2.1", 1),), "none"))
    thread.join(10)
    assert (got[0].event, got[0].nat, got[0].addresses) == ("network", "none", ["192.0.2.1:1"])


def test_client_without_a_node_says_so(tmp_path: Path) -> None:
    """A card that a crashed node left is not believed: another program may listen there now."""
    home = Home(tmp_path)
    with pytest.raises(NotRunningError):
        Client(home)
    home.create()
    home.write_api_card(b'{"port": 1, "token": "t"}')
    with pytest.raises(NotRunningError):
        Client(home)
    with home.locked(), pytest.raises(NotRunningError):
        Client(home).get("/v1/status", t.Status, timeout=1)
