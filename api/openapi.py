"""The OpenAPI 3.1 document, made from the table of routes and the structs they name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec

from p2pnode.api.routing import Route
from p2pnode.api.types import ErrorAnswer

__all__ = ["document"]

_REF = "#/components/schemas/{name}"
_ERRORS = {
    "400": "The request is malformed",
    "401": "The token is missing or wrong",
    "403": "Refused: by the other side, by a block, or because a web page asked",
    "404": "Nobody or nothing of that name",
    "409": "Not possible in the present state",
    "413": "The body is too large",
    "415": "The body is not application/json",
    "421": "The Host is not ours",
    "429": "Too many requests",
    "500": "The node failed",
    "502": "The peer could not be reached",
    "504": "It took too long",
}


def document(routes: Iterable[Route], *, version: str) -> dict[str, Any]:
    """Return the document as JSON-like values.

    OpenAPI Specification 3.1.0; the schemas are JSON Schema 2020-12, which msgspec writes.
    """
    routes = list(routes)
    types = {ErrorAnswer} | {r.gives for r in routes if r.gives} | {r.takes for r in routes if r.takes}
    ordered = sorted(types, key=lambda t: t.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "p2pnode control API",
            "version": version,
            "description": "Loopback only. Address and token stand in HOME/api.json.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.call.__name__,
        "summary": route.summary,
        "description": inspect.cleandoc(route.call.__doc__ or route.summary),
        "responses": {"200": _success(route)},
    }
    if route.takes is not None and route.in_query:
        schema = components[route.takes.__name__]
        operation["parameters"] = [
            {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": field}
            for name, field in schema["properties"].items()
        ]
    elif route.takes is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": _ref(route.takes)}}
    for status, description in _ERRORS.items():
        operation["responses"][status] = {
            "description": description,
            "content": {"application/json": _ref(ErrorAnswer)},
        }
    return operation


def _success(route: Route) -> dict[str, Any]:
    if route.text:
        return {"description": route.summary, "content": {route.text: {"schema": {"type": "string"}}}}
    if route.gives is None:
        return {"description": route.summary, "content": {"application/json": {"schema": {"type": "object"}}}}
    media = "application/x-ndjson" if route.stream else "application/json"
    text = f"{route.summary}; one object per line, until the client goes" if route.stream else route.summary
    return {"description": text, "content": {media: _ref(route.gives)}}


def _ref(struct: type) -> dict[str, Any]:
    return {"schema": {"$ref": _REF.format(name=struct.__name__)}}
