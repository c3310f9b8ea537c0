"""What the quality rules catch, what they cost, and how long they take.

Without the development data only the timing is measured. Rules were tuned on the even rows of each
file; the odd rows are held out.
"""

import json
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import msgspec

from benches.quality.report import DATA, Measured, Row
from cascaded.policy.quality import assess
from cascaded.types.request import Asks
from cascaded.types.result import Completion

THRESHOLD = 0.60
FALSE_REJECTS_MAX = 0.03
RULES_MS_MAX = 5.0
TIMED_CHARS = 32_768
TIMED_RUNS = 200
REFUSAL_REJECTS = 0.6
STRONG = (
    "gpt-4o-2024-08-06",
    "claude-3-5-sonnet-20241022",
    "Meta-Llama-3.1-70B-Instruct",
    "gemini-1.5-pro-002",
    "Llama-3.1-70B-Instruct",
    "gpt4_1106",
    "gemini-2.0-flash-001",
)


class Answered(NamedTuple):
    """One answer of one model to a question of a data set."""

    source: str
    model: str
    question: str
    text: str
    right: bool
    held_out: bool


def rows(name: str) -> Iterator[tuple[dict[str, Any], bool]]:
    """(row, held out) of a file of the development data."""
    with (DATA / name).open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            yield json.loads(line), number % 2 == 1


def zeroeval(row: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """(model, question, text, right) of each whole response."""
    for model, said in row["responses"].items():
        if not said.get("truncated"):
            yield model, row["question"], said["text"], said["correct"]


def mmlu_pro(row: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """(model, question with options, text, right)."""
    question = "\n".join([row["question"], *row["options"]])
    for model, said in row["responses"].items():
        yield model, question, said["text"], said["correct"]


def routerarena(row: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """(model, prompt, text, scored at least a half)."""
    for model, said in row["models"].items():
        yield model, row["prompt"], said["text"], said["score"] >= 0.5


def routellm(row: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """(model, question, text, right)."""
    for model in ("mixtral_8x7b", "gpt4_1106"):
        yield model, row["question"], row[model]["text"], row[model]["correct"]


READERS = {
    "zeroeval": zeroeval,
    "mmlu_pro": mmlu_pro,
    "routerarena_sub10": routerarena,
    "openai_gsm8k_solutions": zeroeval,
    "routellm_gsm8k": routellm,
}


def answers() -> Iterator[Answered]:
    """Every answer whose whole text and whether it is right are known."""
    for source, read in READERS.items():
        for row, held_out in rows(f"cascade/{source}.jsonl"):
            for model, question, text, right in read(row):
                yield Answered(source, model, question, text, right, held_out)


def area(right: list[float], wrong: list[float]) -> float:
    """The chance that a right answer scores above a wrong one; 0.5 is none the wiser."""
    if not right or not wrong:
        return float("nan")
    wrong = sorted(wrong)
    wins = sum(bisect_left(wrong, score) + bisect_right(wrong, score) for score in right)
    return wins / 2 / (len(right) * len(wrong))


def score(answered: Answered) -> float:
    """The rules' score of one answer, as of a model that chose to stop."""
    completion = Completion(text=answered.text, finish_reason="stop")
    return assess(answered.question, completion, Asks()).score


def rejects(name: str, scored: list[tuple[Answered, float]]) -> float:
    """Print one line; gives the share of right answers that would be rejected."""
    right = [value for answered, value in scored if answered.right]
    wrong = [value for answered, value in scored if not answered.right]
    false = sum(value < THRESHOLD for value in right) / max(len(right), 1)
    true = sum(value < THRESHOLD for value in wrong) / max(len(wrong), 1)
    print(
        f"  {name:40} right {len(right):4} rejected {false:6.2%}   "
        f"wrong {len(wrong):4} rejected {true:6.2%}   AUC {area(right, wrong):.3f}"
    )
    return false


def correctness() -> float:
    """Rejects of right and wrong answers; gives the false rejects of strong models."""
    scored = [(answered, score(answered)) for answered in answers()]
    print(f"correctness, threshold {THRESHOLD} (rules see form, not truth: AUC is near 0.5)")
    for held_out in (False, True):
        part = [pair for pair in scored if pair[0].held_out == held_out]
        print("held out" if held_out else "tuned on")
        for source, model in sorted({(pair[0].source, pair[0].model) for pair in part}):
            rejects(
                f"{source} {model}",
                [p for p in part if (p[0].source, p[0].model) == (source, model)],
            )
        worst = rejects("all strong models", [p for p in part if p[0].model in STRONG])
        rejects("all other models", [p for p in part if p[0].model not in STRONG])
    return worst


def mismatched() -> None:
    """Answers to another question: what the off-topic check catches."""
    right = [answered for answered in answers() if answered.right and answered.held_out]
    Random(3).shuffle(right)
    pairs = list(pairwise(right))
    caught = sum(
        assess(one.question, Completion(text=other.text), Asks()).score < THRESHOLD
        for one, other in pairs
        if one.question != other.question
    )
    print(
        f"answers to another question (held out): {caught} of {len(pairs)} rejected"
        f" ({caught / len(pairs):.1%})"
    )


def refusals() -> None:
    """XSTest completions: full and partial refusals against compliance."""
    print("refusal check on XSTest")
    for held_out in (False, True):
        counts: dict[tuple[str, bool], int] = {}
        for row, held in rows("guardrails/xstest.jsonl"):
            for said in row["completions"].values() if held == held_out else ():
                verdict = assess(row["prompt"], Completion(text=said["text"]), Asks())
                check = next(check for check in verdict.checks if check.name == "refusal")
                key = (said["final_label"][2:], check.score < REFUSAL_REJECTS)
                counts[key] = counts.get(key, 0) + 1
        full, partial, kept = (
            (counts.get((label, True), 0), counts.get((label, False), 0))
            for label in ("full_refusal", "partial_refusal", "full_compliance")
        )
        precision = (full[0] + partial[0]) / (full[0] + partial[0] + kept[0])
        print(
            f"  {'held out' if held_out else 'tuned on'}: precision {precision:.3f}"
            f"   recall full {full[0] / sum(full):.3f} ({full[0]}/{sum(full)})"
            f"   partial {partial[0] / sum(partial):.3f} ({partial[0]}/{sum(partial)})"
            f"   compliance rejected {kept[0]}/{sum(kept)}"
        )


def texts() -> dict[str, str]:
    """Answers of `TIMED_CHARS`, ordinary and hostile, and two of a megabyte."""
    random = Random(1)
    prose = "The river rose in spring, and 12 boats went down to the sea without their crews. "
    varied = [" ".join(random.sample(prose.split(), 12)) for _ in range(TIMED_CHARS // 60)]
    return {
        "prose": ". ".join(varied)[:TIMED_CHARS],
        "one letter": "a" * TIMED_CHARS,
        "random unicode": "".join(chr(random.randrange(32, 0xD7FF)) for _ in range(TIMED_CHARS)),
        "Han": "".join(chr(random.randrange(0x4E00, 0x9FFF)) for _ in range(TIMED_CHARS)),
        "open braces": "{\n" * (TIMED_CHARS // 2),
        "fences": "```a\n" * (TIMED_CHARS // 5),
        "JSON": json.dumps([{"a": number, "b": "x"} for number in range(TIMED_CHARS // 20)]),
        "1 MB of a letter": "a" * 1_000_000,
        "1 MB of unicode": "".join(chr(random.randrange(32, 0xD7FF)) for _ in range(1_000_000)),
    }


SCHEMA = msgspec.Raw(
    b'{"type":"array","items":{"type":"object","properties":{"a":{"type":"integer"},'
    b'"b":{"type":"string","minLength":1}},"required":["a","b"],"additionalProperties":false}}'
)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(median, 99th percentile) in milliseconds of this thread's own processor time.

    Other work on the machine would show in a wall clock's 99th percentile, not in this one.
    """
    took = []
    for _ in range(TIMED_RUNS):
        started = time.thread_time()
        work()
        took.append((time.thread_time() - started) * 1e3)
    took.sort()
    return took[TIMED_RUNS // 2], took[TIMED_RUNS * 99 // 100]


def timing() -> float:
    """All rules together; gives the worst 99th percentile."""
    print(f"time of all rules, answers of {TIMED_CHARS:,} characters, ms")
    question = "Please answer in JSON, in under 100 words, and list three reasons. " * 30
    worst = 0.0
    for name, text in texts().items():
        for asks, label in ((Asks(), ""), (Asks(json_schema=SCHEMA), "+ schema")):
            completion = Completion(text=text, finish_reason="stop")
            median, p99 = timed(lambda c=completion, a=asks: assess(question, c, a))  # type: ignore[misc]
            worst = max(worst, p99) if len(text) <= 2 * TIMED_CHARS else worst
            print(f"  {name:18} {label:9} median {median:6.2f}   p99 {p99:6.2f}")
    return worst


def measure() -> tuple[Measured, list[str]]:
    """What the rules catch, and how long they take."""
    rows = []
    if DATA.is_dir():
        false = correctness()
        mismatched()
        refusals()
        goal = f"≤ {FALSE_REJECTS_MAX}"
        rows.append(Row("right answers of strong models rejected", false, floor=0.0, goal=goal))
    else:
        print(f"skipped what needs data: {DATA} is not there")
    worst = timing()
    goal = f"≤ {RULES_MS_MAX} ms"
    rows.append(Row("all rules, answers up to 64 KB, worst p99", worst, goal=goal, unit="ms"))
    bounds = (FALSE_REJECTS_MAX, RULES_MS_MAX) if DATA.is_dir() else (RULES_MS_MAX,)
    missed = [row.measure for row, most in zip(rows, bounds, strict=True) if row.ours > most]
    return Measured(rows), missed
