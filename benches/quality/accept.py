"""Whether a weak model's answer is right: accept it, or escalate to a strong one.

Every figure is of answers that were held out: by cross-validation over questions, or ("unseen")
with the whole task left out. Fitted on the same rows are the baseline, TF-IDF of question and
answer with logistic regression, and the floor, their lengths alone. Intervals are paired bootstraps
over questions.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from math import log, log1p, sqrt
from random import Random
from typing import NamedTuple

from benches.quality.report import DATA, Curve, Measured
from benches.quality.report import Row as Line
from benches.quality.rules import timed
from cascaded._core import fit_logistic
from cascaded.daemon.quality import shipped_judgement
from cascaded.policy.quality.fitting import Row, area, fit, fold_of, logits, scales_of
from cascaded.policy.quality.judgement import CONSTANT, Vector, traits
from cascaded.policy.quality.verdict import read_answer
from cascaded.types.request import Asks
from cascaded.types.result import Completion
from scripts.fit_quality import COST, Answered, answers, row_of, with_evidence

TASK_LOSS_MAX = 0.03
RESAMPLED = 400
SEED = 7
GAIN = 0.95
GOOD_KEPT = 0.80
TIMED_CHARS = 8_192
MIN_DOCUMENTS = 2
_WORD = re.compile(r"\w\w+")
_LLAMA = ("Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-70B-Instruct")
_GPT = ("gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06")
_CLAUDE = ("claude-3-haiku-20240307", "claude-3-5-sonnet-20241022")
PAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    **{f"zeroeval {task}": (_LLAMA, _GPT, _CLAUDE) for task in ("gsm", "crux", "math-l5")},
    "mmlu_pro": (
        ("Llama-3.1-8B-Instruct", "Llama-3.1-70B-Instruct"),
        ("gemini-1.5-flash-002", "gemini-1.5-pro-002"),
    ),
    "routellm_gsm8k": (("mixtral_8x7b", "gpt4_1106"),),
    "routellm_mmlu": (("mixtral_8x7b", "gpt4_1106"),),
    "openai_gsm8k": tuple(
        (weak, "175b_verification") for weak in ("6b_finetuning", "6b_verification")
    ),
    "routerarena": (("claude-3-haiku-20240307", "gemini-2.0-flash-001"),),
}
"""Weak and strong models of each task."""


class Case(NamedTuple):
    """A weak model's answer, and whether the strong one's is right."""

    task: str
    answered: Answered
    strong_right: bool
    row: Row


def cases() -> list[Case]:
    """Every weak answer of every pair."""
    by_question: dict[tuple[str, str], dict[str, Answered]] = {}
    for answered in answers():
        key = (answered.task, answered.group)
        by_question.setdefault(key, {})[answered.model] = answered
    return [
        Case(task, said[weak], said[strong].right, row_of(said[weak]))
        for (task, _), said in by_question.items()
        for weak, strong in PAIRS[task]
        if weak in said and strong in said
    ]


Fit = Callable[[Sequence[Case], Sequence[Case]], list[float]]
"""Scores of the second, by a fit on the first."""


def ours(known: Sequence[Case], asked: Sequence[Case]) -> list[float]:
    """The judgement, fitted as the shipped one is."""
    scales = scales_of([case.row for case in known])
    vectors = [scales.vector(case.row.traits) for case in known]
    good = [case.row.good for case in known]
    weights = fit(vectors, good, prior=with_evidence(scales), cost=COST)
    return logits(weights, (scales.vector(case.row.traits) for case in asked))


def tf_idf(known: Sequence[Case], asked: Sequence[Case]) -> list[float]:
    """Words of question and answer, weighed as usual."""
    counted = [_words(case) for case in known]
    documents = Counter(word for words in counted for word in words)
    places = {word: at for at, word in enumerate(documents, 1) if documents[word] >= MIN_DOCUMENTS}
    rarity = {word: 1 + log((1 + len(known)) / (1 + documents[word])) for word in places}

    def vector(words: Counter[str]) -> Vector:
        values = {
            places[word]: (1 + log(times)) * rarity[word]
            for word, times in words.items()
            if word in places
        }
        length = sqrt(sum(value * value for value in values.values())) or 1.0
        return [0, *values], [CONSTANT, *(value / length for value in values.values())]

    good = [case.row.good for case in known]
    zero = [0.0] * (1 + len(documents))
    weights = fit_logistic([vector(words) for words in counted], good, zero, 1.0)
    return logits(weights, (vector(_words(case)) for case in asked))


def _words(case: Case) -> Counter[str]:
    return Counter(_WORD.findall(f"{case.answered.question}\n{case.answered.text}".lower()))


def lengths(known: Sequence[Case], asked: Sequence[Case]) -> list[float]:
    """How long question and answer are."""

    def vector(case: Case) -> Vector:
        question, text = len(case.answered.question), len(case.answered.text)
        return [0, 1, 2], [CONSTANT, log1p(question) - 6, log1p(text) - 6]

    good = [case.row.good for case in known]
    weights = fit_logistic([vector(case) for case in known], good, [0.0] * 3, 1.0)
    return logits(weights, map(vector, asked))


def held_out(all_of: Sequence[Case], work: Fit, part: Callable[[Case], object]) -> list[float]:
    """Each case's score, by a fit without its part."""
    parts = [part(case) for case in all_of]
    scores = [0.0] * len(all_of)
    for one in sorted(set(parts), key=str):
        held = [at for at, own in enumerate(parts) if own == one]
        known = [case for case, own in zip(all_of, parts, strict=True) if own != one]
        said = work(known, [all_of[at] for at in held])
        for at, score in zip(held, said, strict=True):
            scores[at] = score
    return scores


def areas(all_of: Sequence[Case], scores: Sequence[float]) -> dict[str, float]:
    """The area under the curve of all, and of each task."""
    good = [case.row.good for case in all_of]
    found = {"all": area(scores, good)}
    for task in PAIRS:
        own = [at for at, case in enumerate(all_of) if case.task == task]
        found[task] = area([scores[at] for at in own], [good[at] for at in own])
    return found


def resampled(
    all_of: Sequence[Case], measure: Callable[[Sequence[int]], float]
) -> tuple[float, float]:
    """The middle 95% of a measure over questions drawn with replacement."""
    order = sorted(range(len(all_of)), key=lambda at: all_of[at].row.group)
    groups = [list(own) for _, own in groupby(order, key=lambda at: all_of[at].row.group)]
    random = Random(SEED)
    found = sorted(
        measure([at for own in random.choices(groups, k=len(groups)) for at in own])
        for _ in range(RESAMPLED)
    )
    return found[RESAMPLED // 40], found[-1 - RESAMPLED // 40]


def escalation(all_of: Sequence[Case], scores: Sequence[float]) -> list[tuple[float, float]]:
    """(share escalated, share right), the worst answers first."""
    order = sorted(range(len(all_of)), key=lambda at: scores[at])
    right = sum(case.row.good for case in all_of)
    curve = [(0.0, right / len(all_of))]
    for number, at in enumerate(order, 1):
        right += all_of[at].strong_right - all_of[at].row.good
        curve.append((number / len(all_of), right / len(all_of)))
    return curve


def mean_height(curve: Sequence[tuple[float, float]]) -> float:
    """The area under it."""
    return sum(up for _, up in curve) / len(curve)


def share_for_gain(curve: Sequence[tuple[float, float]]) -> float:
    """How many must be escalated for 95% of what the strong model adds."""
    weak, strong = curve[0][1], curve[-1][1]
    wanted = weak + GAIN * (strong - weak)
    return next(share for share, right in curve if right >= wanted)


def false_accepts(all_of: Sequence[Case], scores: Sequence[float]) -> float:
    """The share of the wrong answers that is kept where 80% of the right ones are."""
    pairs = [(score, case.row.good) for case, score in zip(all_of, scores, strict=True)]
    good = sorted((score for score, well in pairs if well), reverse=True)
    bar = good[int(GOOD_KEPT * len(good))]
    bad = [score for score, well in pairs if not well]
    return sum(score >= bar for score in bad) / len(bad)


def measure() -> tuple[Measured, list[str]]:
    """Fit, hold out, compare."""
    if not DATA.is_dir():
        print(f"skipped: {DATA} is not there")
        return Measured(()), []
    all_of = cases()
    folds: dict[str, list[float]] = {}
    unseen: dict[str, list[float]] = {}
    for name, work in (("ours", ours), ("tf-idf", tf_idf), ("lengths", lengths)):
        folds[name] = held_out(all_of, work, lambda case: fold_of(case.row.group))
        unseen[name] = held_out(all_of, work, lambda case: case.task)
    curves = {name: escalation(all_of, scores) for name, scores in folds.items()}
    lines = [
        _time(),
        *_areas(all_of, folds),
        *_money(all_of, folds, curves),
        *_unseen(all_of, unseen),
    ]
    picture = Curve(
        "Weak answers escalated, the least probable first",
        "share escalated",
        "share right",
        {name: curve[:: max(len(curve) // 200, 1)] for name, curve in curves.items()},
    )
    return Measured(lines, (picture,)), list(_missed(all_of, folds))


def _time() -> Line:
    """Of the probability, beside the rules, on answers that are as slow as they come."""
    judgement = shipped_judgement()
    slow = (
        "So 12 * 7 = 84 and then 3 + 4 = 7. ",
        "$\\frac{12}{7} \\times 3 = x^2$ so ",
        "word 日本 ",
    )
    worst = 0.0
    for text in slow:
        completion = Completion(text=(text * TIMED_CHARS)[:TIMED_CHARS], finish_reason="stop")
        reading, flawless, _ = read_answer(text * 10, completion, Asks())
        worst = max(worst, timed(lambda r=reading, f=flawless: judgement.chance(traits(r, f)))[1])  # type: ignore[misc]
    return Line("one probability, answers of 8 KB, worst p99", worst, unit="ms", goal="≤ 10 ms")


def _areas(all_of: Sequence[Case], scores: dict[str, list[float]]) -> Iterator[Line]:
    mine, theirs = areas(all_of, scores["ours"]), areas(all_of, scores["tf-idf"])
    short = areas(all_of, scores["lengths"])
    good = [case.row.good for case in all_of]

    def of(name: str, own: Sequence[int]) -> float:
        return area([scores[name][at] for at in own], [good[at] for at in own])

    within = resampled(all_of, lambda own: of("ours", own))
    yield Line("AUROC, pooled", mine["all"], theirs["all"], short["all"], 1, within, len(all_of))
    ahead = resampled(all_of, lambda own: of("ours", own) - of("tf-idf", own))
    lead = mine["all"] - theirs["all"]
    yield Line("AUROC, ours minus TF-IDF", lead, None, None, None, ahead, len(all_of), "> 0")
    for task in PAIRS:
        count = sum(case.task == task for case in all_of)
        goal = f"≥ baseline − {TASK_LOSS_MAX}"
        yield Line(f"AUROC, {task}", mine[task], theirs[task], short[task], 1, None, count, goal)


def _money(
    all_of: Sequence[Case],
    scores: dict[str, list[float]],
    curves: dict[str, list[tuple[float, float]]],
) -> Iterator[Line]:
    mine, theirs = curves["ours"], curves["tf-idf"]
    chance = (mine[0][1] + mine[-1][1]) / 2
    best = mean_height(escalation(all_of, [case.row.good - case.strong_right for case in all_of]))
    count = len(all_of)
    yield Line(
        "area under share right by share escalated",
        *(mean_height(mine), mean_height(theirs), chance, best, None, count),
    )
    yield Line(
        "share escalated for 95% of the strong models' gain",
        *(share_for_gain(mine), share_for_gain(theirs), GAIN, None, None, count),
    )
    kept = false_accepts(all_of, scores["ours"]), false_accepts(all_of, scores["tf-idf"])
    yield Line("wrong answers kept where 80% of the right are", *kept, GOOD_KEPT, 0, None, count)


def _unseen(all_of: Sequence[Case], scores: dict[str, list[float]]) -> Iterator[Line]:
    mine, theirs = areas(all_of, scores["ours"]), areas(all_of, scores["tf-idf"])
    short = areas(all_of, scores["lengths"])
    for name, found in (("pooled", "all"), *((task, task) for task in PAIRS)):
        yield Line(f"AUROC, task unseen, {name}", mine[found], theirs[found], short[found], 1)

    def mean(found: dict[str, float]) -> float:
        return sum(found[task] for task in PAIRS) / len(PAIRS)

    yield Line("AUROC, task unseen, mean of tasks", mean(mine), mean(theirs), mean(short), 1)


def _missed(all_of: Sequence[Case], scores: dict[str, list[float]]) -> Iterator[str]:
    mine, theirs = areas(all_of, scores["ours"]), areas(all_of, scores["tf-idf"])
    for task in PAIRS:
        if mine[task] < theirs[task] - TASK_LOSS_MAX:
            yield f"{task} is {theirs[task] - mine[task]:.3f} below TF-IDF"
    if mine["all"] <= theirs["all"]:
        yield "pooled, TF-IDF is as good"
