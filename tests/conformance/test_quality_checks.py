"""What every quality check owes: a listed file, a score in [0, 1], no exception, bounded time."""

import importlib
import json
import pkgutil
import sys
import time
from collections.abc import Callable
from random import Random

import msgspec
import pytest

from cascaded.policy.quality import assess, checks
from cascaded.policy.quality.checks import CHECKS
from cascaded.policy.quality.reading import Reading, read
from cascaded.types.request import Asks
from cascaded.types.result import Check, Completion

CHARS = 32_768
ALL_RULES_MS_MAX = 5.0
MEGABYTE_MS_MAX = 20.0
TRIES = 7
REASON_CHARS_MAX = 120

_random = Random(7)
HOSTILE = {
    "empty": "",
    "blank": " \n\t\u200b",
    "one letter": "a" * CHARS,
    "one letter, 1 MB": "a" * 1_000_000,
    "unicode": "".join(chr(_random.randrange(32, 0xD7FF)) for _ in range(CHARS)),
    "unicode, 1 MB": "".join(chr(_random.randrange(32, 0xD7FF)) for _ in range(1_000_000)),
    "astral": "".join(chr(_random.randrange(0x10000, 0x10FFFF)) for _ in range(CHARS)),
    "right to left": "\u202eהנהר עלה באביב. ارتفع النهر في الربيع. " * 300,
    "Han": "".join(chr(_random.randrange(0x4E00, 0x9FFF)) for _ in range(CHARS)),
    "nested arrays": "[" * CHARS,
    "nested objects": '{"a":' * 5_000 + "1" + "}" * 5_000,
    "nulls": "\0" * CHARS,
    "lone surrogates": "\ud800 \udfff" * 1_000,
    "fences": "```a\n" * (CHARS // 5),
    "spaces after a brace": "{" + " " * CHARS,
    "almost words": "i can't " * (CHARS // 8),
    "list marks": "1. " * (CHARS // 3),
    "unclosed thought": "<think>" + "so " * 9_000,
    "numbers": json.dumps(list(range(5_000))),
}
SCHEMA = msgspec.Raw(
    b'{"$defs":{"n":{"anyOf":[{"type":"integer"},{"$ref":"#/$defs/n"}]}},"type":"array",'
    b'"items":{"$ref":"#/$defs/n"},"uniqueItems":true}'
)
ASKS = {
    "nothing": Asks(),
    "an object": Asks(json_object=True),
    "a schema": Asks(json_schema=SCHEMA),
    "no schema": Asks(json_schema=msgspec.Raw(b"{nonsense")),
    "tools": Asks(tools=("find",), tool_required=True),
}

every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__module__)
every_text = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


def modules() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(checks.__path__))


def test_every_file_is_listed_once() -> None:
    listed = sorted(check.__module__.rsplit(".", 1)[-1] for check in CHECKS)
    assert listed == modules()


@pytest.mark.parametrize("name", modules())
def test_the_name_is_the_file(name: str) -> None:
    module = importlib.import_module(f"cascaded.policy.quality.checks.{name}")
    assert name == module.NAME
    assert module.check(read("a question", Completion(text="an answer"), Asks())).name == name


@every_check
@every_text
def test_hostile_answers(check: Callable[[Reading], Check], text: str) -> None:
    for asks in ASKS.values():
        reading = read("Reply in JSON, with a list of five words in Python?", _said(text), asks)
        found = check(reading)
        assert 0 <= found.score <= 1
        assert len(found.reason) <= REASON_CHARS_MAX
        assert found == check(reading)


@every_check
@every_text
def test_hostile_questions(check: Callable[[Reading], Check], text: str) -> None:
    found = check(read(text, _said("It is the river that rose in spring."), Asks()))
    assert 0 <= found.score <= 1


@every_check
@every_text
def test_hostile_tool_calls(check: Callable[[Reading], Check], text: str) -> None:
    answer = Completion(tool_calls=((text[:100], text), ("find", text)) * 40)
    assert 0 <= check(read("Find it.", answer, ASKS["tools"])).score <= 1


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer multiplies the time")
@every_text
@pytest.mark.parametrize("asks", ASKS.values(), ids=ASKS)
def test_all_rules_are_fast(text: str, asks: Asks) -> None:
    """Processor time of the best of a few tries: what the code takes, not what else runs."""
    best = min(_took_ms(text, asks) for _ in range(TRIES))
    assert best < (ALL_RULES_MS_MAX if len(text) <= 2 * CHARS else MEGABYTE_MS_MAX)


def _took_ms(text: str, asks: Asks) -> float:
    started = time.thread_time()
    assess("Reply in JSON, please, and give me three reasons. " * 40, _said(text), asks)
    return (time.thread_time() - started) * 1e3


def _said(text: str) -> Completion:
    return Completion(text=text, finish_reason="stop")
