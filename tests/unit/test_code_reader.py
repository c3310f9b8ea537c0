"""How many ways there are through the code in a prompt."""

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded.adapters import code_reader
from cascaded.adapters.code_reader import MAX_CODE_BYTES, TreeSitterReader, code_in

T = TypeVar("T")

PYTHON = """
def easy(a):
    return a

def winding(a, b):
    if a and b:
        return 1
    elif a:
        for x in b:
            while x:
                x -= 1
    try:
        pass
    except ValueError:
        pass
    return 2 if a else 3
"""
SAMPLES = {
    "python": (PYTHON, 8),
    "javascript": ("function f(a) { if (a && b) { for (;;) {} } return a ? 1 : 2; }", 5),
    "typescript": (
        "function f(a: number): number { switch (a) { case 1: return 1; default: return 2; } }",
        2,
    ),
    "java": (
        "class A { int f(int a) { if (a > 1 || a < 0) return 1; while (a > 2) a--; return 0; } }",
        4,
    ),
    "go": ("func f(a int) int { if a > 1 { return 1 }; for a > 0 { a-- }; return 0 }", 3),
    "rust": ("fn f(a: i32) -> i32 { match a { 1 => 2, 2 => 3, _ => 0 } }", 4),
    "cpp": ("int f(int a) { if (a) { return 1; } do { a--; } while (a); return 0; }", 3),
}


async def offload(work: Callable[[], T]) -> T:
    return work()


def reader() -> TreeSitterReader:
    return TreeSitterReader(offload)


@pytest.mark.parametrize("language", SAMPLES)
async def test_ways_are_counted_by_the_function_that_has_most(language: str) -> None:
    code, ways = SAMPLES[language]
    assert await reader().cyclomatic(f"Explain:\n```{language}\n{code}\n```\nthanks") == ways


async def test_code_without_a_fence_is_seen_by_its_look() -> None:
    assert await reader().cyclomatic("What does this do?\n" + PYTHON) == 8
    assert await reader().cyclomatic("What is a function in the law of torts?") is None
    assert await reader().cyclomatic("```\njust words\n```") is None


async def test_hostile_code_is_bounded() -> None:
    for text in (
        "```python\n" + "if a:\n" * 100_000,
        "```cpp\n" + "{" * 100_000,
        "```" * 50_000,
        "```js\n" + "a&&" * 100_000,
        "def f(:\n" + "(" * 100_000,
    ):
        found = await reader().cyclomatic(text)
        assert found is None or found <= MAX_CODE_BYTES


async def test_without_the_parsers_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(code_reader, "import_module", missing)
    assert await reader().cyclomatic("```python\nx\n```") is None


@given(st.text(max_size=500))
def test_any_text_may_be_looked_at(text: str) -> None:
    list(code_in(text))
