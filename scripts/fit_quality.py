"""Fit the judgement that travels with the package: `cascaded/data/quality.json`.

    python -m scripts.fit_quality

Reads the development data beside the checkout (`../shared/data/cascade`): answers of some twenty
models, each known to be right or wrong, from WildEval/ZeroEval (Apache-2.0; GSM8K, MATH and
CRUXEval MIT), TIGER-AI-Lab/MMLU-Pro (MIT), lm-sys/RouteLLM (Apache-2.0; GSM8K and MMLU MIT),
openai/grade-school-math (MIT) and RouteWorks/RouterArena (Apache-2.0). Nothing of it is copied:
what is kept are weights of signals and of slots that words are hashed into.

The data has neither log-probabilities nor samples. The weights of that evidence come from
`scripts/fit_certainty.py --samples 3`: agreement as it prints it, log-probabilities at half, for
their level is one small model's. A judge's is that of one with an area under the curve of 0.87.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from cascaded.policy.quality.fitting import (
    Row,
    fit,
    out_of_fold,
    scales_of,
    straightened,
)
from cascaded.policy.quality.judgement import EVIDENCE, Evidence, Judgement, Scales, traits
from cascaded.policy.quality.verdict import read_answer
from cascaded.types.request import Asks
from cascaded.types.result import Completion

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "cascade"
KEPT = ROOT / "cascaded" / "data" / "quality.json"
LETTERS = "ABCDEFGHIJKLMNOP"
COST: Final = 0.1
"""Chosen by cross-validation, as were the number of slots and of parts of a range."""
EVIDENCE_WEIGHTS: Final = dict.fromkeys(EVIDENCE, 0.0) | {
    "certainty": 0.4,
    "certainty_least": 0.8,
    "spread": 0.5,
    "agreement": 2.1,
    "judge": 2.8,
}


class Answered(NamedTuple):
    """One answer of one model to a question of a data set."""

    task: str
    group: str
    """Its question, whoever answered."""
    model: str
    question: str
    text: str
    right: bool


def answers() -> Iterator[Answered]:
    """Every answer of the development data. Those of MMLU have no text."""
    for name, read in READERS.items():
        with (DATA / f"{name}.jsonl").open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                for task, model, question, text, right in read(json.loads(line)):
                    yield Answered(task, f"{name}:{number}", model, question, text, bool(right))


_Said = Iterator[tuple[str, str, str, str, bool]]


def _zeroeval(row: dict[str, Any]) -> _Said:
    for model, said in row["responses"].items():
        task = f"zeroeval {row['task']}" if "task" in row else "openai_gsm8k"
        yield task, model, row["question"], said["text"], said["correct"]


def _mmlu_pro(row: dict[str, Any]) -> _Said:
    options = (f"{letter}. {text}" for letter, text in zip(LETTERS, row["options"], strict=False))
    question = "\n".join([row["question"], *options])
    for model, said in row["responses"].items():
        yield "mmlu_pro", model, question, said["text"], said["correct"]


def _routellm_gsm8k(row: dict[str, Any]) -> _Said:
    for model in ("mixtral_8x7b", "gpt4_1106"):
        yield "routellm_gsm8k", model, row["question"], row[model]["text"], row[model]["correct"]


def _routellm_mmlu(row: dict[str, Any]) -> _Said:
    for model in ("mixtral_8x7b", "gpt4_1106"):
        yield "routellm_mmlu", model, row["prompt"], "", row[f"{model}_correct"]


def _routerarena(row: dict[str, Any]) -> _Said:
    for model, said in row["models"].items():
        yield "routerarena", model, row["prompt"], said["text"], said["score"] >= 0.5


READERS = {
    "zeroeval": _zeroeval,
    "mmlu_pro": _mmlu_pro,
    "routellm_gsm8k": _routellm_gsm8k,
    "openai_gsm8k_solutions": _zeroeval,
    "routerarena_sub10": _routerarena,
    "routellm_mmlu": _routellm_mmlu,
}


def row_of(answered: Answered) -> Row:
    """It in numbers, as of a model that chose to stop."""
    completion = Completion(text=answered.text, finish_reason="stop")
    reading, flawless, _ = read_answer(answered.question, completion, Asks())
    rules = flawless if answered.text else 1.0
    return Row(traits(reading, rules, Evidence()), answered.right, answered.group)


def with_evidence(scales: Scales) -> list[float]:
    """What the weights are pulled to: nothing, but for the evidence that the data has not."""
    prior = [0.0] * scales.size
    for place, name in enumerate(EVIDENCE, scales.evidence):
        prior[place] = EVIDENCE_WEIGHTS[name]
    return prior


def main() -> int:
    """Read, fit, write."""
    if not DATA.is_dir():
        print(f"{DATA} is not there: nothing to fit on")
        return 1
    rows = [row_of(answered) for answered in answers()]
    good = [row.good for row in rows]
    scales = scales_of(rows)
    vectors = [scales.vector(row.traits) for row in rows]
    prior = with_evidence(scales)
    held = out_of_fold(rows, vectors, prior=prior, cost=COST)
    slope, offset = straightened(held, good)
    judgement = Judgement(
        source="right and wrong answers to public exam questions (scripts/fit_quality.py)",
        rows=len(rows),
        good_share=round(sum(good) / len(good), 4),
        scales=scales,
        weights=tuple(fit(vectors, good, prior=prior, cost=COST)),
        slope=round(slope, 4),
        offset=round(offset, 4),
    )
    KEPT.write_bytes(msgspec.json.encode(judgement) + b"\n")
    print(
        f"{len(rows)} answers, slope {slope:.3f}, offset {offset:.3f}: {KEPT.stat().st_size} bytes"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
