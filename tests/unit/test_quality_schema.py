"""The part of JSON Schema that answers are held to."""

import time

import pytest

from cascaded.policy.quality.schema import violation


@pytest.mark.parametrize(
    ("schema", "good", "bad", "keyword"),
    [
        ({"type": "object"}, {}, [], "type"),
        ({"type": "integer"}, 1.0, 1.5, "type"),
        ({"type": "integer"}, 1, True, "type"),
        ({"type": "number"}, 1.5, True, "type"),
        ({"type": ["string", "null"]}, None, 1, "type"),
        ({"type": "boolean"}, False, 0, "type"),
        ({"enum": ["a", 1]}, 1.0, True, "enum"),
        ({"const": True}, True, 1, "const"),
        ({"required": ["a"]}, {"a": None}, {"b": 1}, "required"),
        ({"minLength": 2, "maxLength": 3}, "ab", "a", "minLength"),
        ({"maxLength": 3}, "abc", "abcd", "maxLength"),
        ({"minItems": 1}, [1], [], "minItems"),
        ({"maxItems": 1}, [1], [1, 2], "maxItems"),
        ({"minProperties": 1}, {"a": 1}, {}, "minProperties"),
        ({"maxProperties": 1}, {"a": 1}, {"a": 1, "b": 2}, "maxProperties"),
        ({"minimum": 0}, 0, -1, "minimum"),
        ({"maximum": 0}, 0, 0.5, "maximum"),
        ({"exclusiveMinimum": 0}, 1, 0, "exclusiveMinimum"),
        ({"exclusiveMaximum": 0}, -1, 0, "exclusiveMaximum"),
        ({"uniqueItems": True}, [1, True, 2], [1, 2, 1.0], "uniqueItems"),
        ({"additionalProperties": False}, {}, {"x": 1}, "a value that is not allowed"),
        ({"additionalProperties": {"type": "string"}}, {"x": "y"}, {"x": 1}, "type"),
        ({"items": {"type": "string"}}, ["a"], ["a", 1], "type"),
        ({"prefixItems": [{"const": 1}], "items": {"const": 2}}, [1, 2], [2, 2], "const"),
        ({"prefixItems": [{"const": 1}]}, [1, 5], [5], "const"),
        ({"anyOf": [{"const": 1}, {"const": 2}]}, 2, 3, "anyOf"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, 1, 6, "oneOf"),
        ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, 2, 4, "maximum"),
        ({"not": {"const": 1}}, 2, 1, "not"),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}}, None, 1, "type"),
        ({"properties": {"a": {"$ref": "#"}}, "type": "object"}, {"a": {}}, {"a": 1}, "type"),
    ],
)
def test_keywords(schema: object, good: object, bad: object, keyword: str) -> None:
    assert violation(schema, good) is None
    broken = violation(schema, bad)
    assert broken is not None
    assert broken.startswith(f"{keyword} at $")


def test_the_path_leads_to_the_place() -> None:
    schema = {"properties": {"a": {"items": {"properties": {"b": {"type": "string"}}}}}}
    assert violation(schema, {"a": [{}, {"b": 1}]}) == "type at $.a[1].b"


def test_names_that_the_model_invented_stay_out_of_the_reason() -> None:
    broken = violation({"additionalProperties": False}, {"my secret": 1})
    assert broken == "a value that is not allowed at $.*"


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        "x",
        True,
        {"type": "thing"},
        {"type": 5},
        {"enum": "a"},
        {"required": "a"},
        {"required": [5]},
        {"minimum": "5"},
        {"minimum": True},
        {"properties": [1]},
        {"anyOf": {}},
        {"prefixItems": {}},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/nowhere/at/all"},
        {"$ref": 5},
        {"$ref": "#"},
        {"pattern": "(a+)+$"},
        {"format": "email"},
        {"patternProperties": {"^x": {}}, "additionalProperties": False},
    ],
)
@pytest.mark.parametrize("value", [{"x": 1}, [1], 1, "aaaa"])
def test_what_is_not_understood_passes(schema: object, value: object) -> None:
    assert violation(schema, value) is None


def test_bounds() -> None:
    started = time.thread_time()
    circle = {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}]}
    assert violation(circle, 1) is None
    assert violation({"items": {"type": "string"}}, ["x"] * 100_000 + [1]) is None
    assert violation({"uniqueItems": True}, [1] * 100_000) is None
    deep: object = 1
    for _ in range(500):
        deep = [deep]
    assert violation({"items": {"$ref": "#"}}, deep) is None
    assert time.thread_time() - started < 0.5
