"""Fit `cascaded/policy/quality/similarity.py`: what a cosine says of whose answer it is.

    python -m scripts.fit_similarity

Needs the embedder (`cascaded models pull minilm`, extra `onnx`) and the development data that
`scripts/fit_quality.py` names; takes some minutes. Every answer is paired with its own question
and with another one of its task, drawn at random. Prints the three numbers, moved to one answer in
twenty that is to another question, and what the default limit finds and loses in each task.
"""

import asyncio
import sys
from math import log, log1p
from random import Random
from typing import NamedTuple

from cascaded._core import fit_logistic
from cascaded.config import Config, schema
from cascaded.daemon.small_models import make_small_models
from cascaded.policy.heads import similarity
from cascaded.policy.quality.fitting import area
from cascaded.policy.quality.judgement import CONSTANT, odds
from cascaded.policy.quality.reading import plain, words_of
from cascaded.policy.quality.similarity import ANSWER_WORDS_MIN
from cascaded.types.vectors import Unavailable, Vector
from scripts.fit_quality import DATA, Answered, answers

SEED = 1
AT_ONCE = 32
DEADLINE_MS = 60_000
OTHERS_SHARE = 1 / 20
COST = 100.0
LIMIT = 0.70


class Pair(NamedTuple):
    """A question and an answer."""

    task: str
    cosine: float
    words: int
    own: bool
    right: bool


async def embedded(texts: list[str]) -> dict[str, Vector]:
    """The vector of each. Raises `RuntimeError` where there is no embedder."""
    config = Config(embedder=schema.Embedder(deadline_ms=DEADLINE_MS, max_waiting=4 * AT_ONCE))
    embedder = make_small_models(config, None).embedder
    found: dict[str, Vector] = {}
    try:
        for start in range(0, len(texts), AT_ONCE):
            some = texts[start : start + AT_ONCE]
            vectors = await embedder.embed(some)
            if isinstance(vectors, Unavailable):
                raise RuntimeError(vectors.message)
            found.update(zip(some, vectors, strict=True))
    finally:
        await embedder.close()
    return found


def pairs(all_of: list[Answered], vectors: dict[str, Vector]) -> list[Pair]:
    """Each question with an answer of its own, and with one of another."""
    random = Random(SEED)
    made = []
    for one in all_of:
        others = [other for other in all_of if other.task == one.task and other.group != one.group]
        for answer in (one, random.choice(others)):
            words = len(words_of(plain(answer.text)))
            if words >= ANSWER_WORDS_MIN:
                cosine = similarity(vectors[one.question], vectors[answer.text])
                made.append(Pair(one.task, cosine, words, answer is one, one.right))
    return made


def main() -> int:
    """Embed, fit, print."""
    if not DATA.is_dir():
        print(f"{DATA} is not there: nothing to fit on")
        return 1
    all_of = [one for one in answers() if one.text]
    texts = sorted({text for one in all_of for text in (one.question, one.text)})
    try:
        made = pairs(all_of, asyncio.run(embedded(texts)))
    except RuntimeError as error:
        print(error)
        return 1
    rows = [([0, 1, 2], [CONSTANT, pair.cosine, log1p(pair.words)]) for pair in made]
    weights = fit_logistic(rows, [pair.own for pair in made], [0.0] * 3, COST)
    at_zero, slope, per_word = weights[0] * CONSTANT + odds(1 - OTHERS_SHARE), *weights[1:]
    print(f"AT_ZERO = {at_zero:.2f}  SLOPE = {slope:.2f}  PER_LOG_WORD = {per_word:.2f}")
    bar = log(LIMIT / (1 - LIMIT))
    for task in sorted({pair.task for pair in made}):
        some = [pair for pair in made if pair.task == task]
        own = [pair for pair in some if pair.own]
        below = {
            mine: [at_zero + slope * p.cosine + per_word * log1p(p.words) < bar for p in kind]
            for mine, kind in ((True, own), (False, [pair for pair in some if not pair.own]))
        }
        print(
            f"{task:18} own lost {sum(below[True]) / len(below[True]):.3f}"
            f"   others found {sum(below[False]) / len(below[False]):.3f}"
            f"   AUROC for right {area([p.cosine for p in own], [p.right for p in own]):.3f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
