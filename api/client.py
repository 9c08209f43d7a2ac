"""The control API's client: what the command line uses. Standard library only, so that importing it is cheap."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from p2pnode import Home, NotRunningError, P2PError, P2PTimeoutError

__all__ = ["Client"]

T = TypeVar("T", bound=msgspec.Struct)
_BY_CODE = {cls.code: cls for cls in P2PError.__subclasses__() if "code" in vars(cls)}  # others have one per object
_GRACE_S = 5.0  # beyond the time that the node was given: it answers a time-out itself, with a better sentence


class Client:
    """Speaks to the node that runs on `home`. Each call is one connection. Raise NotRunningError when there is none."""

    def __init__(self, home: Home) -> None:
        if home.holder() is None:
            # Checked first: after a crash another program may listen on the port that api.json names.
            raise NotRunningError(f"No node runs on the home {home}; start one with: p2pnode join")
        try:
            card = json.loads(home.api.read_text())
            self.port = int(card["port"])
            self._token = str(card["token"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise NotRunningError(
                f"The node on the home {home} is starting, or keeps no control API; try again in a moment."
            ) from exc

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, gives: type[T], query: msgspec.Struct | None = None, *, timeout: float = 15.0) -> T:
        """GET `path` with `query` and return the answer. Raise the P2PError that the node answered."""
        return self._exchange("GET", path, gives, query, timeout)

    def post(self, path: str, gives: type[T], body: msgspec.Struct, *, timeout: float = 15.0) -> T:
        """POST `body` and return the answer. Raise the P2PError that the node answered."""
        return self._exchange("POST", path, gives, body, timeout)

    def patch(self, path: str, gives: type[T], body: msgspec.Struct, *, timeout: float = 15.0) -> T:
        """PATCH with `body`."""
        return self._exchange("PATCH", path, gives, body, timeout)

    def delete(self, path: str, gives: type[T], query: msgspec.Struct, *, timeout: float = 15.0) -> T:
        """DELETE what `query` names."""
        return self._exchange("DELETE", path, gives, query, timeout)

    def follow(self, path: str, gives: type[T], query: msgspec.Struct | None = None) -> Iterator[T]:
        """Open a stream, and yield its objects until the node ends it."""
        decoder = msgspec.json.Decoder(gives)
        connection, response = self._open("GET", path, query, None)

        def objects() -> Iterator[T]:
            try:
                while line := response.readline():
                    if line.strip():
                        yield decoder.decode(line)
            except OSError as exc:
                raise NotRunningError("The node has stopped.") from exc
            finally:
                connection.close()

        return objects()

    def _exchange(self, method: str, path: str, gives: type[T], request: msgspec.Struct | None, timeout: float) -> T:
        connection, response = self._open(method, path, request, timeout + _GRACE_S)
        try:
            return msgspec.json.decode(response.read(), type=gives)
        except TimeoutError as exc:
            raise P2PTimeoutError("The node does not answer.") from exc
        except (OSError, http.client.HTTPException) as exc:
            raise NotRunningError("The node has stopped.") from exc
        finally:
            connection.close()

    def _open(
        self, method: str, path: str, request: msgspec.Struct | None, timeout: float | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = {"Authorization": f"Bearer {self._token}"}
        body = None
        if request is not None and method in ("GET", "DELETE"):
            fields = {k: v for k, v in msgspec.to_builtins(request).items() if v is not None}
            path = f"{path}?{urlencode(fields)}"
        elif request is not None:
            body = msgspec.json.encode(request)
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
        except TimeoutError as exc:
            connection.close()
            raise P2PTimeoutError("The node does not answer.") from exc
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            raise NotRunningError("The node does not answer on its control API; it is starting or stopping.") from exc
        if response.status != 200:
            data = response.read()
            connection.close()
            raise _error(response.status, data)
        return connection, response


def _error(status: int, data: bytes) -> P2PError:
    try:
        body = json.loads(data)["error"]
        code, message, trace = str(body["code"]), str(body["message"]), body.get("trace")
    except (ValueError, KeyError, TypeError):
        code, message, trace = "failed", f"The control API answered with status {status}.", None
    error = _BY_CODE.get(code, P2PError)(message)
    error.code = code
    if trace:
        error.facts["trace"] = trace
    return error
