"""Fits the heads of domains and of difficulty, measures them, and writes them into the package.

    PYTHONPATH=. python scripts/fit_heads.py --cache FILE [--folds-only]

Reads the permissively licensed files of the development data beside the checkout
(`../shared/data`: see `SOURCES`) and our own examples (`scripts/heads/domains.txt`); needs
`cascaded models pull minilm` and scipy. Vectors are kept in `--cache` between runs. What is
measured is by cross-validation; docs/quality.md has the figures.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cascaded import _core
from cascaded.adapters.onnx.embedder import _vectors
from cascaded.adapters.onnx.folder import FolderModel
from cascaded.models.catalogue import MINILM
from cascaded.models.folder import models_folder, weights_path
from cascaded.policy.heads import HeadFile, Provenance

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
HEADS = ROOT / "cascaded" / "data"
SEEDS = ROOT / "scripts" / "heads" / "domains.txt"
SOURCES = (
    "domain/domain6.jsonl (MIT, Apache-2.0, CC-BY)",
    "domain/clinc150.jsonl (CC-BY-3.0)",
    "domain/banking77.jsonl (CC-BY-4.0)",
    "cascade/routellm_mmlu.jsonl (Apache-2.0)",
    "cascade/mmlu_pro.jsonl (Apache-2.0)",
    "scripts/heads/domains.txt (ours)",
)
FORMS_AND_WORDS = 18 + 23
"""The first numbers of the features; hashes follow."""
WORDS_SCALE = 0.3
"""These are larger than the parts of a unit vector."""
L2 = 4e-5
DIFFICULTY_L2 = 3e-4
FEATURES = len(_core.domain_features("")) // 4
STEPS = 150
BANKING_EVERY = 8
"""One row in so many of banking77: two and a half thousand questions to one bank teach little."""
_CHOICES = re.compile(r"\n\(?A[.)]\s.*", re.S)

Floats = NDArray[np.float32]

SUBJECTS: Mapping[str, str] = {
    subject: domain
    for domain, subjects in {
        "math": "abstract_algebra college_mathematics elementary_mathematics formal_logic"
        " high_school_mathematics high_school_statistics",
        "medical": "anatomy clinical_knowledge college_medicine medical_genetics nutrition"
        " professional_medicine virology human_aging",
        "legal": "international_law jurisprudence professional_law",
        "finance": "econometrics high_school_macroeconomics high_school_microeconomics"
        " professional_accounting",
        "code": "college_computer_science computer_security high_school_computer_science"
        " machine_learning",
        "science": "astronomy college_biology high_school_biology college_chemistry"
        " high_school_chemistry college_physics conceptual_physics high_school_physics"
        " electrical_engineering",
        "humanities": "high_school_psychology professional_psychology human_sexuality sociology"
        " prehistory philosophy high_school_us_history high_school_world_history"
        " high_school_european_history world_religions us_foreign_policy high_school_geography"
        " high_school_government_and_politics logical_fallacies moral_disputes moral_scenarios"
        " security_studies",
        "business": "marketing public_relations management business_ethics",
        "general": "global_facts miscellaneous",
    }.items()
    for subject in subjects.split()
}
"""MMLU's subjects, as our domains."""
CLINC: Mapping[str, str] = {
    "auto_and_commute": "transport",
    "banking": "finance",
    "credit_cards": "finance",
    "home": "home",
    "kitchen_and_dining": "food",
    "small_talk": "conversation",
    "meta": "assistant",
    "travel": "travel",
    "utility": "utility",
    "work": "work",
    "oos": "general",
}
"""clinc150's domains, as ours."""
CATEGORIES: Mapping[str, str] = {
    "math": "math",
    "physics": "science",
    "chemistry": "science",
    "biology": "science",
    "engineering": "science",
    "law": "legal",
    "health": "medical",
    "psychology": "humanities",
    "history": "humanities",
    "philosophy": "humanities",
    "economics": "finance",
    "business": "business",
    "computer science": "code",
    "other": "general",
}
"""MMLU-Pro's categories, as our domains."""
SIX: Mapping[str, str] = {
    "code": "code",
    "data": "code",
    "medical": "medical",
    "legal": "legal",
    "finance": "finance",
    "math": "math",
}
"""Our domains, as those of domain6; all others are its `general`."""


class Case(NamedTuple):
    """A text whose domain is known."""

    text: str
    domain: str
    """Ours."""
    source: str
    """The subject, or whatever it came from."""
    file: str
    theirs: str = ""
    """What its file calls its domain."""
    split: str = ""


def rows(name: str) -> Iterator[dict[str, Any]]:
    """Of a file of the development data."""
    with (DATA / name).open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def cases() -> list[Case]:
    """Every text that is learned from or measured on."""
    return [*_labelled(), *_answered(), *_ours()]


def _labelled() -> Iterator[Case]:
    for row in rows("domain/domain6.jsonl"):
        source, domain = row["source"], row["domain"]
        if source.startswith("mmlu:"):
            domain = SUBJECTS[source.removeprefix("mmlu:")]
        elif source.startswith("clinc:"):
            domain = CLINC[source.removeprefix("clinc:")]
        yield Case(row["text"], domain, source, "domain6", row["domain"])
    for row in rows("domain/clinc150.jsonl"):
        theirs = row["domain"]
        domain = "translation" if row["intent"] == "translate" else CLINC[theirs]
        yield Case(row["text"], domain, f"clinc:{theirs}", "clinc150", theirs, row["orig_split"])
    for number, row in enumerate(rows("domain/banking77.jsonl")):
        if number % BANKING_EVERY == 0:
            yield Case(row["text"], "finance", "banking77", "banking77")


def _answered() -> Iterator[Case]:
    for row in rows("cascade/routellm_mmlu.jsonl"):
        subject = row["subject"]
        yield Case(row["prompt"], SUBJECTS[subject], f"mmlu:{subject}", "mmlu")
    for row in rows("cascade/mmlu_pro.jsonl"):
        category = row["category"]
        yield Case(row["question"], CATEGORIES[category], f"pro:{category}", "mmlu_pro")


def _ours() -> Iterator[Case]:
    for line in SEEDS.read_text().splitlines():
        if not line.startswith("#"):
            domain, _, text = line.partition(": ")
            yield Case(text, domain, "ours", "ours")


RANKS = ("simple", "moderate", "hard")
EASY = frozenset({"conversation", "assistant", "utility", "home", "food", "general", "translation"})
"""Domains whose examples of ours any model can answer."""


def graded() -> list[Case]:
    """Questions by how many models had them right; `domain` is the rank."""
    return list(_graded())


def _graded() -> Iterator[Case]:
    for name in ("zeroeval", "mmlu_pro"):
        for row in rows(f"cascade/{name}.jsonl"):
            question = "\n".join([row["question"], *row.get("options", ())])
            right = [bool(said["correct"]) for said in row["responses"].values()]
            yield Case(question, _rank(sum(right) / len(right)), name, "graded")
    for row in rows("cascade/routellm_mmlu.jsonl"):
        right = [row["mixtral_8x7b_correct"], row["gpt4_1106_correct"]]
        yield Case(row["prompt"], _rank(sum(right) / 2), "routellm_mmlu", "graded")
    for row in rows("cascade/routellm_gsm8k.jsonl"):
        right = [row[model]["correct"] for model in ("mixtral_8x7b", "gpt4_1106")]
        yield Case(row["question"], _rank(sum(right) / 2), "routellm_gsm8k", "graded")
    for case in _ours():
        if case.domain in EASY:
            yield case._replace(domain="simple")


def _rank(share: float) -> str:
    return RANKS[0] if share > 0.8 else RANKS[1] if share > 0.3 else RANKS[2]


def without_choices(found: Sequence[Case]) -> list[Case]:
    """Questions once more without the answers to choose from: their form must not decide."""
    cut = ((case, _CHOICES.sub("", case.text).strip()) for case in found)
    return [case._replace(text=text) for case, text in cut if text and text != case.text]


class Texts:
    """Vectors and features of texts, by the code that the daemon uses."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[str, bytes] = {}
        if cache.exists():
            self._known = msgspec.msgpack.decode(cache.read_bytes(), type=dict[str, bytes])

    def vectors(self, texts: Sequence[str]) -> Floats:
        """A row for each."""
        missing = sorted({text for text in texts if text not in self._known})
        if missing:
            folder = weights_path(MINILM, models_folder(os.environ)).parent
            model = FolderModel(folder, max_tokens=256, threads=1)
            for start in range(0, len(missing), 256):
                part = missing[start : start + 256]
                self._known.update(zip(part, _vectors(model, part), strict=True))
            self._cache.write_bytes(msgspec.msgpack.encode(self._known))
        return np.stack([np.frombuffer(self._known[text], "<f4") for text in texts])

    def features(self, texts: Sequence[str]) -> Floats:
        """A row for each."""
        clean = (text.encode("utf-8", "replace").decode() for text in texts)
        found = np.stack([np.frombuffer(_core.domain_features(text), "<f4") for text in clean])
        return found * _scale(found.shape[1])


def _scale(width: int) -> Floats:
    scale = np.ones(width, np.float32)
    scale[:FORMS_AND_WORDS] = WORDS_SCALE
    return scale


def fit(
    inputs: Floats, labels: NDArray[np.int64], count: int, weights: Floats, l2: float = L2
) -> Floats:
    """Multinomial logistic regression: [inputs + 1, labels], the last row is added."""
    known = np.zeros((len(labels), count), np.float32)
    known[np.arange(len(labels)), labels] = 1
    share = (weights / weights.sum()).astype(np.float32)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        matrix = flat.reshape(-1, count).astype(np.float32)
        found = chances(inputs, matrix)
        right = found[np.arange(len(labels)), labels]
        value = -(share * np.log(right + 1e-12)).sum() + l2 / 2 * (matrix[:-1] ** 2).sum()
        error = (found - known) * share[:, None]
        slope = np.vstack([inputs.T @ error + l2 * matrix[:-1], error.sum(0)])
        return float(value), slope.ravel().astype(np.float64)

    start = np.zeros((inputs.shape[1] + 1) * count)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    result: Floats = found.x.reshape(-1, count).astype(np.float32)
    return result


def chances(inputs: Floats, matrix: Floats, temperature: float = 1.0) -> Floats:
    """The probability of each label."""
    sums = (inputs @ matrix[:-1] + matrix[-1]) / temperature
    raised = np.exp(sums - sums.max(axis=1, keepdims=True))
    result: Floats = raised / raised.sum(axis=1, keepdims=True)
    return result


FILE_WEIGHTS = {"domain6": 3.0, "clinc150": 0.3, "ours": 2.0}


def weights_of(found: Sequence[Case]) -> Floats:
    """How much each case counts: files of one style must not drown the others."""
    every = (
        FILE_WEIGHTS.get(case.file, 0.3) * (1.0 if case.domain in SIX else 0.7) for case in found
    )
    return np.array(list(every), np.float32)


class Learner:
    """Fits on some cases and judges others."""

    def __init__(
        self, texts: Texts, found: Sequence[Case], *, vectors: bool = True, l2: float = L2
    ) -> None:
        self.found = list(found)
        self.names = sorted({case.domain for case in found})
        self._texts = texts
        self._vectors = vectors
        self._l2 = l2

    def inputs(self, some: Sequence[Case]) -> Floats:
        """What a head is given of them."""
        words = [case.text for case in some]
        features = self._texts.features(words)
        if not self._vectors:
            return features
        return np.hstack([self._texts.vectors(words), features])

    def learn(self, some: Sequence[Case]) -> Floats:
        """A matrix, from these cases and their copies without choices."""
        every = [*some, *without_choices(some)]
        labels = np.array([self.names.index(case.domain) for case in every])
        return fit(self.inputs(every), labels, len(self.names), weights_of(every), self._l2)

    def judge(self, matrix: Floats, some: Sequence[Case], temperature: float = 1.0) -> Floats:
        """The probability of each of `names`."""
        return chances(self.inputs(some), matrix, temperature)

    def held_out(
        self, file: str, parts: int, part_of: Callable[[int, Case], int]
    ) -> tuple[list[Case], Floats]:
        """Cases of a file, each judged by a head that saw neither it nor others of its part, nor
        an equal text."""
        own = [case for case in self.found if case.file == file]
        judged: list[Case] = []
        said: list[Floats] = []
        for part in range(parts):
            inside = {at: case for at, case in enumerate(own) if part_of(at, case) == part}
            if not inside:
                continue
            texts = {case.text for case in inside.values()}
            sources = {case.source for case in inside.values()}
            whole_sources = all(
                case.source not in sources or at in inside for at, case in enumerate(own)
            )
            seen = [
                case
                for case in self.found
                if case.text not in texts and not (whole_sources and case.source in sources)
            ]
            judged += inside.values()
            said.append(self.judge(self.learn(seen), list(inside.values())))
        return judged, np.vstack(said)


def calibrated(found: Floats, right: NDArray[np.int64]) -> float:
    """The temperature with the least log loss on held-out cases."""
    logs = np.log(found + 1e-9)
    best = (float("inf"), 1.0)
    for temperature in np.linspace(0.5, 2.0, 31):
        sums = logs / temperature
        sums -= np.log(np.exp(sums).sum(axis=1, keepdims=True))
        best = min(best, (float(-sums[np.arange(len(right)), right].mean()), float(temperature)))
    return best[1]


def by_group(names: Sequence[str], found: Floats, groups: Mapping[str, str]) -> list[str]:
    """The likeliest of our domains, as the group that it stands for."""
    return [groups.get(names[at], "general") for at in found.argmax(axis=1)]


def write_head(
    name: str,
    model: str,
    names: Sequence[str],
    matrix: Floats,
    temperature: float,
    measured: Mapping[str, float],
    scale: Floats,
) -> None:
    """Put it into the package."""
    weights = (matrix[:-1] * scale[:, None]).T.astype("<f4")
    file = HeadFile(
        model=model,
        kind="one_of",
        labels=tuple(names),
        weights=weights.tobytes(),
        bias=tuple(float(each) for each in matrix[-1]),
        temperature=temperature,
        provenance=Provenance(script="scripts/fit_heads.py", data=SOURCES, measured=dict(measured)),
    )
    content = msgspec.msgpack.encode(file)
    (HEADS / f"{name}.head").write_bytes(content)
    print(f"{name}.head: {len(content):,} bytes, temperature {temperature:.2f}, {dict(measured)}")


def main() -> int:
    """Fit, measure, write."""
    parser = argparse.ArgumentParser(description="Fit the heads of the package.")
    parser.add_argument("--cache", type=Path, required=True)
    asked = parser.parse_args()
    texts = Texts(asked.cache)
    for name, model, vectors in (("domains", "minilm", True), ("domains-rules", "words", False)):
        learner = Learner(texts, cases(), vectors=vectors)
        judged, said = learner.held_out("domain6", 5, lambda at, _: at % 5)
        right = np.array([learner.names.index(case.domain) for case in judged])
        six = by_group(learner.names, said, SIX)
        accuracy = float(
            np.mean([one == case.theirs for one, case in zip(six, judged, strict=True)])
        )
        temperature = calibrated(said, right)
        measured = {"domain6 accuracy, 5 folds": round(accuracy, 4)}
        _write(name, model, learner, temperature, measured)
    for name, model, vectors in (
        ("difficulty", "minilm", True),
        ("difficulty-rules", "words", False),
    ):
        learner = Learner(texts, graded(), vectors=vectors, l2=DIFFICULTY_L2)
        judged, said = learner.held_out("graded", 3, lambda at, _: at % 3)
        right = np.array([learner.names.index(case.domain) for case in judged])
        accuracy = float((said.argmax(axis=1) == right).mean())
        measured = {"three ranks, accuracy, 3 folds": round(accuracy, 4)}
        _write(name, model, learner, calibrated(said, right), measured)
    return 0


def _write(
    name: str, model: str, learner: Learner, temperature: float, measured: Mapping[str, float]
) -> None:
    matrix = learner.learn(learner.found)
    scale = np.ones(matrix.shape[0] - 1, np.float32)
    own = _scale(FEATURES)
    scale[-len(own) :] = own
    write_head(name, model, learner.names, matrix, temperature, measured, scale)


if __name__ == "__main__":
    sys.exit(main())
