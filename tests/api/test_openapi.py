"""The OpenAPI document: complete, consistent, and true to the routes."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from p2pnode.api import types
from p2pnode.api.application import ROUTES
from p2pnode.api.openapi import document

DOCUMENT = json.loads(json.dumps(document(ROUTES, version="1.2.3")))
OPERATIONS = [(path, method, op) for path, item in DOCUMENT["paths"].items() for method, op in item.items()]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_document_has_what_the_specification_requires() -> None:
    """OpenAPI 3.1.0, "OpenAPI Object": openapi, info with title and version, paths."""
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["title"]
    assert DOCUMENT["info"]["version"] == "1.2.3"
    assert set(DOCUMENT["security"][0]) <= set(DOCUMENT["components"]["securitySchemes"])


def test_every_route_is_described() -> None:
    """No route is missing, none is invented, operation ids are unique."""
    assert {(path, method.upper()) for path, method, _ in OPERATIONS} == {(r.path, r.method) for r in ROUTES}
    ids = [op["operationId"] for _, _, op in OPERATIONS]
    assert len(ids) == len(set(ids))
    for _, _, op in OPERATIONS:
        assert op["summary"]
        assert op["description"]


def test_every_reference_leads_somewhere() -> None:
    """Each $ref names a schema that is there."""
    schemas = DOCUMENT["components"]["schemas"]
    for reference in references(DOCUMENT):
        assert reference.removeprefix("#/components/schemas/") in schemas


def test_every_struct_is_described() -> None:
    """All structs of the API stand in the document, with a description."""
    structs = {n for n in types.__all__ if n != "rfc3339" and not n.endswith("Query")}
    schemas = DOCUMENT["components"]["schemas"]
    assert structs <= set(schemas)
    for name in structs:
        assert schemas[name]["description"]


@pytest.mark.parametrize(("path", "method", "op"), OPERATIONS, ids=[f"{m} {p}" for p, m, _ in OPERATIONS])
def test_operation_is_complete(path: str, method: str, op: dict[str, Any]) -> None:
    """Answers and errors have schemas; parameters are named once; bodies are JSON."""
    assert re.fullmatch(r"(/[a-z0-9.]+)+", path)
    assert "200" in op["responses"]
    for status, answer in op["responses"].items():
        assert answer["description"], status
        assert answer["content"]
    names = [p["name"] for p in op.get("parameters", ())]
    assert len(names) == len(set(names))
    for parameter in op.get("parameters", ()):
        assert parameter["in"] == "query"
        assert parameter["schema"]
    if method in ("post", "patch"):
        assert list(op["requestBody"]["content"]) == ["application/json"]
