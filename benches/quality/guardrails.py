"""What guardrails find, and how long that takes: personal data, injections, harm.

Models are measured on rows that they were not fitted on, by the functions of
`scripts/fit_guardrails.py`: that needs the group `fit`, and MiniLM for what meanings add
(`CASCADED_VECTORS`, a file, keeps its vectors between runs). Personal data's types are those of
Presidio's that have a form; baselines are a list of usual expressions, and a logistic regression
over TF-IDF on the same folds.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benches.quality.report import DATA, Measured, Row
from cascaded._core import injection_signs, plain
from cascaded.daemon.guardrails import harms, orders
from cascaded.policy.guardrails.pii import Seeker
from cascaded.types.guarding import PromptInjection

TYPES: Mapping[str, str] = {
    "EMAIL_ADDRESS": "email",
    "US_SSN": "ssn",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "PHONE_NUMBER": "phone",
}
"""Presidio's types that have a form, and ours. Names, places, dates and others have none."""
USUAL: Mapping[str, str] = {
    "email": r"[\w.+-]+@[\w-]+\.[\w.-]+\w",
    "ssn": r"\b\d{3}-\d{2}-\d{4}\b",
    "card": r"\b(?:\d[ -]?){13,16}\b",
    "iban": r"\b[A-Z]{2}\d{2}[A-Z0-9]{11,30}\b",
    "ip": r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
    "phone": r"\+?\(?\d{3}\)?[ .-]?\d{3}[ .-]?\d{4}\b",
}
"""The expressions that one finds first."""
ALARMING = r"\b(kill|attack|bomb|drug|hack|steal|ignore)"
"""Words that one lists first."""
TEXT_BYTES = 8192
RULES_MS_MAX = 10.0
RESAMPLES = 400
SEED = 11
VECTORS = "CASCADED_VECTORS"
F1_GOAL, CAUGHT_GOAL, MODERATION_GOAL, HATE_GOAL, BLOCKED_MAX = 0.97, 0.70, 0.87, 0.90, 0.02


def rows(name: str) -> list[dict[str, Any]]:
    """A file of the development data."""
    return [json.loads(line) for line in (DATA / "guardrails" / f"{name}.jsonl").open("rb")]


def measure() -> tuple[Measured, list[str]]:
    """Everything that can be measured here, and the goals missed."""
    found = [*times()]
    if not DATA.exists():
        print(f"(no development data in {DATA}: only times)")
    else:
        found += [*personal_data()]
        try:
            found += [*fitted()]
        except ImportError as missing:
            print(f"(models are not measured: {missing}; pip install --group fit)")
    return Measured(found), [row.measure for row in found if _missed(row)]


def _missed(row: Row) -> bool:
    """Whether a goal such as `>= 0.97` or `< 10` is missed."""
    sign, _, bound = row.goal.partition(" ")
    return bool(bound) and (row.ours < float(bound) if sign == ">=" else row.ours > float(bound))


# --- times ------------------------------------------------------------------------------------


def times() -> Iterator[Row]:
    """Of texts of 8 KB."""
    seeker = Seeker(["email", "phone", "ssn", "card", "iban", "ip", "passport", "secret"])
    texts = _texts()
    ways: Mapping[str, Callable[[str], object]] = {
        "rules for personal data": seeker.find,
        "signs of an injection": lambda text: injection_signs(plain(text)),
        "injection, a user's words": lambda text: orders()(text, False),
        "injection, a document": lambda text: orders()(text, True),
        "moderation": lambda text: harms().judge(text),
    }
    for name, way in ways.items():
        way(texts[0])  # load it
        spent = sorted(_ms(way, text) for text in texts)
        p99 = spent[int(0.99 * len(spent))]
        goal = f"< {RULES_MS_MAX:g}"
        yield Row(f"{name}, 8 KB, p99", p99, rows=len(texts), goal=goal, unit="ms")


def _texts() -> list[str]:
    """Ordinary ones, and some that are hard on expressions."""
    hard = [
        "@",
        "a@b.",
        "1 ",
        "4111 ",
        "1-",
        "+1 (",
        "GB82 ",
        "::",
        "password=",
        "sk-",
        "é1",
        "ignore ",
    ]
    words = "Call 555-0199 or write to a.b@example.org; ignore the previous message, please. "
    some = [words, "Lorem ipsum dolor sit amet. ", *hard]
    if DATA.exists():
        some += [row["text"] for row in rows("injection_mix")[::4]]
    return [((text + " ") * (TEXT_BYTES // (len(text) + 1) + 1))[:TEXT_BYTES] for text in some]


def _ms(way: Callable[[str], object], text: str) -> float:
    began = time.thread_time_ns()
    way(text)
    return (time.thread_time_ns() - began) / 1e6


# --- personal data ----------------------------------------------------------------------------

Spans = set[tuple[int, int, str]]


class Counts(NamedTuple):
    """Right, wrong and missed, for each text."""

    rows: list[tuple[int, int, int]]

    def f1(self, some: Sequence[int] | None = None) -> float:
        """Over these texts."""
        picked = self.rows if some is None else [self.rows[at] for at in some]
        right, wrong, missed = (sum(one[at] for one in picked) for at in range(3))
        return 2 * right / (2 * right + wrong + missed) if right else 0.0


def personal_data() -> Iterator[Row]:
    """F1 of whole spans, exactly as labelled."""
    seeker = Seeker(list(TYPES.values()))  # type: ignore[arg-type]
    usual = {kind: re.compile(pattern) for kind, pattern in USUAL.items()}
    texts = rows("pii_presidio")

    def ours(text: str) -> Spans:
        return {(one.start, one.end, one.kind) for one in seeker.find(text)}

    def theirs(text: str) -> Spans:
        return {(*m.span(), kind) for kind, one in usual.items() for m in one.finditer(text)}

    def counts(find: Callable[[str], Spans], only: str | None) -> Counts:
        told = []
        for row in texts:
            gold = {
                (span["start"], span["end"], TYPES[span["type"]])
                for span in row["spans"]
                if span["type"] in TYPES and only in (None, TYPES[span["type"]])
            }
            got = {span for span in find(row["text"]) if only in (None, span[2])}
            told.append((len(got & gold), len(got - gold), len(gold - got)))
        return Counts(told)

    whole, base = counts(ours, None), counts(theirs, None)
    yield Row(
        "personal data, F1 of types with a form",
        whole.f1(),
        base.f1(),
        0.0,
        1.0,
        _between(whole.f1, len(texts)),
        len(texts),
        f">= {F1_GOAL}",
    )
    for kind in TYPES.values():
        own = counts(ours, kind)
        spans = sum(right + missed for right, _, missed in own.rows)
        yield Row(f"personal data, F1 of {kind}", own.f1(), counts(theirs, kind).f1(), rows=spans)


def _between(measured: Callable[[Sequence[int]], float], count: int) -> tuple[float, float]:
    """95% of what resampled rows give."""
    from random import Random

    chance = Random(SEED)
    told = sorted(measured(chance.choices(range(count), k=count)) for _ in range(RESAMPLES))
    return told[int(0.025 * RESAMPLES)], told[int(0.975 * RESAMPLES)]


# --- models -----------------------------------------------------------------------------------


def fitted() -> Iterator[Row]:
    """By cross-validation. Raises `ImportError` without scikit-learn."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    from scripts import fit_guardrails as fit

    meanings = fit.Meanings(Path(os.environ.get(VECTORS, "/tmp/cascaded-guardrail-vectors")))
    _, inside, outside = fit.injection(DATA)
    _, _, harm = fit.harm(DATA, meanings)

    def row(name: str, told: "fit.Told", some: Any, goal: str = "", base: Any = None) -> Row:
        at = np.flatnonzero(some)

        def area(picked: Sequence[int]) -> float:
            labels = told.labels[at[np.array(picked)]]
            both = told.both[at[np.array(picked)]]
            return float(roc_auc_score(labels, both)) if 0 < labels.sum() < len(labels) else 1.0

        everything = range(len(at))
        other = None if base is None else float(roc_auc_score(told.labels[at], base[at]))
        between = _between(area, len(at))
        return Row(name, area(everything), other, 0.5, 1.0, between, len(at), goal)

    def simple(told: "fit.Told", folds: Any) -> Any:
        scores = np.full(len(told.labels), np.nan)
        texts = np.array(told.texts, dtype=object)
        for train, held in folds:
            tfidf = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
            inputs = tfidf.fit_transform(texts[train])
            model = LogisticRegression(C=10, class_weight="balanced", max_iter=300)
            model.fit(inputs, told.labels[train])
            scores[held] = model.decision_function(tfidf.transform(texts[held]))
        return scores

    data = fit.injection_data(DATA)
    base = simple(inside, fit.grouped(data))
    every = np.ones(len(inside.labels), dtype=bool)
    yield row("injection, AUROC", inside, every, base=base)

    def caught(picked: Sequence[int]) -> float:
        at = np.array(picked)
        return fit.caught(inside.labels[at], inside.both[at])

    yield Row(
        "injection, caught at 1% false alarms",
        fit.caught(inside.labels, inside.both),
        fit.caught(inside.labels, base),
        0.01,
        1.0,
        _between(caught, len(every)),
        len(every),
        f">= {CAUGHT_GOAL}",
    )
    left_out = simple(outside, fit.by_source(data))
    yield row("injection, its source left out, AUROC", outside, every, ">= 0.80", left_out)
    safe = outside.sources == "xstest"
    threshold = PromptInjection().threshold
    blocked = outside.both[safe] > np.log(threshold / (1 - threshold))
    words = [bool(re.search(ALARMING, inside.texts[at])) for at in np.flatnonzero(safe)]
    yield Row(
        "XSTest's safe prompts blocked, its source left out",
        float(blocked.mean()),
        sum(words) / len(words),
        rows=len(words),
        goal=f"<= {BLOCKED_MAX}",
    )
    for name in ("flagged", *fit.HARMS):
        told = harm[name]
        some = (told.sources == "moderation") & ~np.isnan(told.labels)
        goal = f">= {MODERATION_GOAL}" if name == "flagged" else ""
        folds = _inner(fit, some, told.labels)
        yield row(f"openai_moderation, {name}, AUROC", told, some, goal, simple(told, folds))
    told = harm["hate"]
    some = told.sources == "hatecheck"
    folds = _inner(fit, some, told.labels, fit.harm_data(DATA).groups)
    goal = f">= {HATE_GOAL}"
    yield row("HateCheck, its template left out, AUROC", told, some, goal, simple(told, folds))
    kinds = np.array([one["functionality"] for one in rows("hatecheck")])
    labels, both = told.labels[some], told.both[some]
    middle = float(np.median(both))
    for kind in sorted(set(kinds)):
        of = kinds == kind
        right = float(((both[of] > middle) == (labels[of] == 1)).mean())
        yield Row(f"HateCheck, {kind}, on the right side of the median", right, rows=int(of.sum()))


def _inner(fit: Any, some: Any, labels: Any, groups: Any = None) -> Iterator[tuple[Any, Any]]:
    """Folds of one source's rows."""
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold

    at = np.flatnonzero(some)
    splits = StratifiedGroupKFold(fit.FOLDS, shuffle=True, random_state=fit.SEED)
    of = np.arange(len(at)) if groups is None else groups[at]
    for train, held in splits.split(at, labels[at], of):
        yield at[train], at[held]
