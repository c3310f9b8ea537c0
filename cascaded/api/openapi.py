"""The OpenAPI document, made from the route table and from the structs that are read and told."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, get_type_hints

import msgspec

from cascaded.api.errors import ERRORS, anthropic_response, anthropic_status
from cascaded.api.routes import WHO, Query, Route
from cascaded.api.shapes import AnthropicError, Error
from cascaded.wire.protocol import HEADER

JSON = dict[str, Any]
VERSION = "3.1.0"
API_VERSION = "1"
_REF = "#/components/schemas/{name}"
_MONEY = {"type": "string", "format": "decimal"}
_TOLD_MONEY = {"type": "number", "format": "decimal"}
_EVENTS = "text/event-stream"
_PROTOCOL = Query(HEADER, "The version of this protocol that the caller speaks.", int)
_PARAMETER = re.compile(r"\{([a-z_]+)\}")


def document(routes: Sequence[Route]) -> JSON:
    """The whole document, as plain data."""
    types = {one for route in routes for one in (route.body, route.answer) if one is not None}
    named = sorted({*types, Error, AnthropicError}, key=lambda one: one.__name__)
    shapes, components = msgspec.json.schema_components(
        map(_describable, named), ref_template=_REF, schema_hook=_anything
    )
    schemas = dict(zip(named, shapes, strict=True))
    paths: JSON = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": VERSION,
        "info": {
            "title": "cascaded",
            "version": API_VERSION,
            "description": "The LLM cost-control sidecar. Every path is there under `/v1` too."
            " Money is US dollars as an exact decimal.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://localhost", "description": "On the daemon's Unix socket."}],
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": _told(components),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _describable(kind: type) -> type:
    """The struct with its absent raw members left optional: msgspec cannot show their default."""
    hints = get_type_hints(kind, include_extras=True)
    fields = [(one.name, hints[one.name], _default(one)) for one in msgspec.structs.fields(kind)]
    forbids = kind.__struct_config__.forbid_unknown_fields  # type: ignore[attr-defined]
    named = {"__doc__": kind.__doc__}
    return msgspec.defstruct(
        kind.__name__, fields, kw_only=True, forbid_unknown_fields=forbids, namespace=named
    )


def _default(one: msgspec.structs.FieldInfo) -> Any:
    if one.required:
        return msgspec.NODEFAULT
    if one.default is msgspec.NODEFAULT:
        return msgspec.field(default_factory=one.default_factory)
    if isinstance(one.default, msgspec.Raw):
        return msgspec.field(default_factory=lambda: one.default)
    return msgspec.field(default=one.default)


def _anything(kind: type) -> JSON:
    """For members of which nothing is said but that they are there."""
    if kind is not object:
        raise NotImplementedError(kind)
    return {"description": "Any JSON."}


def _operation(route: Route, schemas: dict[type, JSON]) -> JSON:
    title, _, _ = route.does.partition(". ")
    errors = route.errors if route.foreign else (*route.errors, "unsupported_protocol")
    operation: JSON = {
        "operationId": _name(route),
        "summary": title.rstrip("."),
        "description": f"{route.does}\n\n**Who:** {WHO[route.who]}",
        "parameters": list(_parameters(route)),
        "responses": _answers(route, schemas)
        | _refusals(errors, anthropic=route.refuse is anthropic_response),
    }
    if route.body is not None:
        content = {"application/json": {"schema": schemas[route.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _name(route: Route) -> str:
    words = [word for word in re.split(r"[^a-z]+", route.path) if word]
    return "_".join((route.method.lower(), *words))


def _parameters(route: Route) -> Iterable[JSON]:
    in_path = set(_PARAMETER.findall(route.path))
    for one in route.parameters:
        yield _parameter(one, "path" if one.name in in_path else "query")
    spoken = () if route.foreign else (_PROTOCOL,)
    for one in (*route.headers, *spoken):
        yield _parameter(one, "header")


def _parameter(one: Query, where: str) -> JSON:
    return {
        "name": one.name,
        "in": where,
        "required": where == "path",
        "description": one.meaning,
        "schema": msgspec.json.schema(one.kind),
    }


def _answers(route: Route, schemas: dict[type, JSON]) -> JSON:
    shape = schemas[route.answer] if route.answer else {}
    content: JSON = {media: {"schema": shape} for media in route.media}
    if route.streams:
        content[_EVENTS] = {"schema": {"type": "string"}}
    told = {"description": "The answer.", "content": content}
    return {str(status): told for status in route.statuses}


def _refusals(codes: Iterable[str], *, anthropic: bool) -> JSON:
    """One answer for each status, with the codes that it may have."""
    by_status: dict[str, list[str]] = {}
    for code in codes:
        kind = ERRORS[code]
        status = anthropic_status(kind) if anthropic else kind.status
        by_status.setdefault(str(status), []).append(kind.code or code)
    if "upstream_refused" in codes:
        by_status["4XX"] = ["upstream_refused"]  # a provider's own status is kept
    shape = AnthropicError if anthropic else Error
    content = {"application/json": {"schema": {"$ref": _REF.format(name=shape.__name__)}}}
    return {
        status: {"description": " or ".join(f"`{code}`" for code in told), "content": content}
        for status, told in sorted(by_status.items())
    }


def _told(schema: Any) -> Any:
    """Money that is told is a number; what the client reads it into is not for others to know."""
    if isinstance(schema, list):
        return [_told(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if {key: one for key, one in schema.items() if key != "default"} == _MONEY:
        return _TOLD_MONEY
    return {key: _told(one) for key, one in schema.items()}
