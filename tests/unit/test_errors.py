"""The error table: every code that the package uses is in it, and none that it does not use."""

import ast
import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from cascaded.api.errors import ERRORS, error_object, error_response
from cascaded.types.decision import Refusal
from cascaded.types.errors import ProviderError

PACKAGE = Path(__file__).parents[2] / "cascaded"
TABLE = PACKAGE / "api" / "errors.py"
RAISING = {"ProviderError": 0, "_error": 0}
"""Calls that name a code, and at which place; `Refusal` does by keyword."""


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py*")):
        if path != TABLE and path.suffix in (".py", ".pyi"):
            yield path, ast.parse(path.read_text())


def named_codes(tree: ast.Module) -> Iterator[str]:
    """Codes that are given to refusals and faults as they are made."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        given = [word.value for word in node.keywords if name == "Refusal" and word.arg == "code"]
        if name in RAISING:
            given += node.args[RAISING[name] : RAISING[name] + 1]
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value


def test_every_code_in_use_is_in_the_table() -> None:
    used = {
        (code, path.name)
        for path, tree in trees()
        for code in named_codes(tree)
        if re.fullmatch(r"[a-z_]+", code)
    }
    assert len(used) > 15, "the scan finds them"
    assert {(code, name) for code, name in used if code not in ERRORS} == set()


def test_every_code_in_the_table_is_in_use() -> None:
    constants = {
        node.value
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(ERRORS) - constants == set()


def test_every_code_that_a_provider_may_raise_is_documented() -> None:
    documented = set(re.findall(r"`(upstream_\w+)`", ProviderError.__doc__ or ""))
    assert documented == {code for code in ERRORS if code.startswith("upstream_")}


@pytest.mark.parametrize("code", ERRORS)
def test_each_says_what_it_means_and_what_to_do(code: str) -> None:
    for text in (ERRORS[code].meaning, ERRORS[code].remedy):
        assert re.fullmatch(r"[A-Z`][^|\n]{8,200}\.", text), text


@pytest.mark.parametrize("code", ERRORS)
def test_how_each_is_told(code: str) -> None:
    kind = ERRORS[code]
    response = error_response(Refusal(code=code, message="m", param="p"), "r-1")
    assert 400 <= response.status == kind.status < 600
    assert kind.status == 499 or HTTPStatus(kind.status)
    assert response.headers["x-request-id"] == "r-1"
    assert response.headers["x-should-retry"] == str(kind.retry).lower()
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {
        "error": {"message": "m", "type": kind.type, "param": "p", "code": kind.code or code}
    }
    told = error_object(Refusal(code=code, message="m", details={"limit": 5}))
    assert told["param"] is None
    assert ("limit" in told) is not code.startswith("upstream_")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, (None, None)),
        (0.0, ("1", "0")),
        (0.25, ("1", "250")),
        (1.6, ("2", "1600")),
        (86_400.0, ("86400", "86400000")),
    ],
)
def test_when_to_come_back(seconds: float | None, told: tuple[str | None, str | None]) -> None:
    """Never zero in whole seconds: clients would hammer."""
    refusal = Refusal(code="overloaded", message="m", retry_after_s=seconds)
    headers = error_response(refusal, "r").headers
    assert (headers.get("retry-after"), headers.get("retry-after-ms")) == told


def test_an_upstream_that_refused_the_request_keeps_its_status() -> None:
    def status(code: str, **details: object) -> int:
        return error_response(Refusal(code=code, message="m", details=details), "r").status

    assert status("upstream_refused", upstream_status=422) == 422
    assert status("upstream_refused", upstream_status=None) == 400
    assert status("upstream_refused") == 400
    assert status("upstream_server_error", upstream_status=500) == 502
