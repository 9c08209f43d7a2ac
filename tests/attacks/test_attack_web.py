"""security.md Y1 (web pages against the control API) and what of Y2 concerns its limits."""

import contextlib
from collections.abc import Iterator

import pytest
from support.api import Api, running_api

from p2pnode.api.http import MAX_CONNECTIONS


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running_api(tmp_path_factory.mktemp("home")) as running:
        yield running


def refused(answer: tuple[int, dict[str, str], dict[str, dict[str, str]]], status: int, code: str) -> None:
    got, headers, body = answer
    assert (got, body["error"]["code"]) == (status, code)
    assert not any(name.startswith("access-control-") for name in headers)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "localhost"])
def test_y1_dns_rebinding_is_refused_by_host(api: Api, host: str) -> None:
    """A page under a name of its own that now resolves to 127.0.0.1 is not served, even with the token."""
    refused(api.request("GET", "/v1/status", host=host.format(port=api.port)), 421, "wrong_host")


def test_y1_request_without_host_is_refused(api: Api) -> None:
    """HTTP/1.1 without Host does not reach the application."""
    with api.raw() as sock:
        sock.sendall(f"GET /v1/status HTTP/1.1\r\nAuthorization: Bearer {api.token}\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:{port}", ""])
def test_y1_any_origin_is_refused(api: Api, origin: str) -> None:
    """Whatever a browser sends on behalf of a page: no page is served by us, so none may ask."""
    refused(api.request("GET", "/v1/status", origin=origin.format(port=api.port)), 403, "wrong_origin")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_y1_other_sites_are_refused_without_origin_too(api: Api, site: str) -> None:
    """A GET from an <img> carries no Origin, but Sec-Fetch-Site."""
    refused(api.request("GET", "/v1/status", sec_fetch_site=site), 403, "wrong_origin")


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer x", "Basic {token}", "{token}", "Bearer {token}x", "Bearer é"]
)
def test_y1_wrong_token_is_refused(api: Api, authorization: str) -> None:
    """No token, half a token, another scheme, a character too many."""
    answer = api.request("GET", "/v1/status", authorization=authorization.format(token=api.token))
    refused(answer, 401, "unauthorized")
    assert answer[1]["www-authenticate"] == "Bearer"


def test_y1_missing_token_is_refused_on_every_path(api: Api) -> None:
    """Also where nothing is: what exists is nobody's business."""
    for path in ("/", "/v1/status", "/v1/openapi.json", "/v1/events"):
        refused(api.request("GET", path, drop=("authorization",)), 401, "unauthorized")


def test_y1_token_in_a_url_or_cookie_is_worth_nothing(api: Api) -> None:
    """URLs end in histories and logs, cookies are sent by the browser itself."""
    path = f"/v1/status?token={api.token}&authorization={api.token}"
    answer = api.request("GET", path, drop=("authorization",), cookie=f"token={api.token}")
    refused(answer, 401, "unauthorized")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_y1_simple_cross_site_bodies_are_refused(api: Api, kind: str) -> None:
    """The content types that a form can send without asking are not read."""
    refused(api.request("POST", "/v1/messages", b"{}", content_type=kind), 415, "wrong_content_type")


def test_y1_preflight_gets_no_consent(api: Api) -> None:
    """CORS is never granted."""
    answer = api.request(
        "OPTIONS", "/v1/messages", drop=("authorization",), origin="https://evil.example",
        access_control_request_method="POST",
    )  # fmt: skip
    refused(answer, 403, "wrong_origin")


def test_y1_answers_forbid_framing_sniffing_and_caching(api: Api) -> None:
    """The headers that keep a browser from making something of an answer."""
    for answer in (api.request("GET", "/v1/status"), api.request("GET", "/nothing")):
        headers = answer[1]
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_y1_websocket_from_a_page_is_refused(api: Api) -> None:
    """An upgrade is treated as what it is: a request with an Origin."""
    headers = {"upgrade": "websocket", "connection": "Upgrade", "origin": "https://evil.example"}
    refused(api.request("GET", "/v1/events", **headers), 403, "wrong_origin")


def test_y2_large_bodies_are_refused_by_their_announcement(api: Api) -> None:
    """10 MiB announced: refused before a byte of it is read."""
    answer = api.request("POST", "/v1/messages", b"", content_length=str(10 * 1024 * 1024))
    refused(answer, 413, "too_large")


def test_y2_large_chunked_bodies_are_cut_off(api: Api) -> None:
    """10 MiB without announcement: reading stops at the limit."""
    with api.raw() as sock:
        sock.sendall(
            f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nAuthorization: Bearer {api.token}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        try:
            for _ in range(160):
                sock.sendall(chunk)
        except OSError:
            pass  # it has closed the connection in our face, as it may
        else:
            assert b" 413 " in sock.recv(100)
    assert api.request("GET", "/v1/status")[0] == 200


def test_y2_endless_head_is_refused(api: Api) -> None:
    """A head beyond 16 KiB ends the connection."""
    with api.raw() as sock:
        try:
            sock.sendall(b"GET / HTTP/1.1\r\n" + b"X-Pad: y\r\n" * 10_000)
            answer = sock.recv(100)
        except OSError:
            answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.slow
def test_y2_who_does_not_know_the_token_keeps_no_connection(api: Api) -> None:
    """A refused request ends its connection: the start of a second one cannot hold it for ever."""
    with api.raw() as sock:
        sock.settimeout(5)
        sock.sendall(f"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\n\r\n".encode())
        received = b""
        with contextlib.suppress(ConnectionResetError):  # an end, too: what we sent was not read any more
            while data := sock.recv(4096):
                received += data
                with contextlib.suppress(OSError):
                    sock.sendall(b"GET")
        assert received.startswith(b"HTTP/1.1 401 ")


def test_y2_connections_beyond_the_limit_are_cut_off(api: Api) -> None:
    """1,000 slow clients: at most 64 are kept, and when they go the API answers again."""
    slow = [api.raw() for _ in range(1000)]
    try:
        open_now = 0
        for sock in slow:
            sock.settimeout(0.001 if open_now > MAX_CONNECTIONS else 0.05)
            try:
                open_now += sock.recv(1) != b""
            except TimeoutError:
                open_now += 1
            except OSError:
                continue
        assert open_now <= MAX_CONNECTIONS
    finally:
        for sock in slow:
            sock.close()
    for _ in range(50):
        try:
            assert api.request("GET", "/v1/status")[0] == 200
        except OSError:
            continue
        return
    raise AssertionError("the API does not answer after the slow clients have gone")
