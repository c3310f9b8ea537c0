"""Fit `cascaded/policy/quality/confidence.py`: asks a model one-line questions, prints the curve.

Any OpenAI-compatible server that gives log-probabilities will do:

    python -m scripts.fit_certainty --base-url http://127.0.0.1:8081 --model smollm2-135m-instruct

The questions are made here (capitals, sums, products, chemical symbols), so that the answer can
be checked without a judge. What it prints: the area under the curve for each kind and for all,
and the two numbers of the logistic curve over all. With `--samples 3` every question is asked so
many times more, at a temperature, and the weights of all evidence (log-probabilities and how far
the samples agree) are fitted together, for `scripts/fit_quality.py`.
"""

import argparse
import json
import re
import urllib.request
from collections.abc import Iterator
from itertools import groupby
from math import exp
from random import Random
from typing import Any, NamedTuple

from cascaded._core import fit_logistic
from cascaded.policy.quality.agreement import agreement
from cascaded.policy.quality.judgement import CONSTANT, EVIDENCE, Evidence

SEED = 5
TOKENS_MAX = 60
TIMEOUT_S = 60
FIT_ROUNDS = 50
TOP = 5
SAMPLED_AT = 0.8
EVIDENCE_COST = 1.0

CAPITALS = """France Paris;Germany Berlin;Spain Madrid;Italy Rome;Japan Tokyo;China Beijing;
Russia Moscow;Egypt Cairo;Kenya Nairobi;Canada Ottawa;Australia Canberra;Chile Santiago;Peru Lima;
Cuba Havana;Portugal Lisbon;Norway Oslo;Sweden Stockholm;Finland Helsinki;Denmark Copenhagen;
Ireland Dublin;Poland Warsaw;Austria Vienna;Hungary Budapest;Greece Athens;Turkey Ankara;
Iran Tehran;Iraq Baghdad;Syria Damascus;Jordan Amman;Lebanon Beirut;Nepal Kathmandu;Bhutan Thimphu;
Thailand Bangkok;Vietnam Hanoi;Laos Vientiane;Cambodia Phnom Penh;Malaysia Kuala Lumpur;
Indonesia Jakarta;Philippines Manila;Kazakhstan Astana;Uzbekistan Tashkent;Georgia Tbilisi;
Armenia Yerevan;Romania Bucharest;Bulgaria Sofia;Serbia Belgrade;Croatia Zagreb;Slovenia Ljubljana;
Slovakia Bratislava;Latvia Riga;Estonia Tallinn;Lithuania Vilnius;Morocco Rabat;Algeria Algiers;
Tunisia Tunis;Libya Tripoli;Sudan Khartoum;Ethiopia Addis Ababa;Uganda Kampala;Rwanda Kigali;
Tanzania Dodoma;Zambia Lusaka;Zimbabwe Harare;Ghana Accra;Nigeria Abuja;Senegal Dakar;Mali Bamako;
Angola Luanda;Namibia Windhoek;Botswana Gaborone;Madagascar Antananarivo;Venezuela Caracas;
Ecuador Quito;Bolivia Sucre;Uruguay Montevideo;Honduras Tegucigalpa;Jamaica Kingston"""
SYMBOLS = """hydrogen H;oxygen O;carbon C;nitrogen N;gold Au;silver Ag;iron Fe;copper Cu;sodium Na;
potassium K;lead Pb;tin Sn;mercury Hg;helium He;neon Ne;calcium Ca;zinc Zn;tungsten W;uranium U;
chlorine Cl;sulfur S;phosphorus P;magnesium Mg;aluminium Al;silicon Si;nickel Ni;titanium Ti;
platinum Pt;iodine I;lithium Li"""


class Asked(NamedTuple):
    """One answered question."""

    kind: str
    mean_logprob: float
    right: bool
    evidence: Evidence


def questions() -> Iterator[tuple[str, str, str]]:
    """(kind, question, the right answer)."""
    random = Random(SEED)
    for row in CAPITALS.replace("\n", "").split(";"):
        country, capital = row.split(" ", 1)
        yield "capital", f"What is the capital of {country}?", capital
    for row in SYMBOLS.replace("\n", "").split(";"):
        element, symbol = row.split(" ")
        yield "symbol", f"What is the chemical symbol of {element}?", symbol
    for _ in range(80):
        one, other = random.randint(2, 60), random.randint(2, 60)
        yield "sum", f"What is {one} + {other}?", str(one + other)
    for _ in range(40):
        one, other = random.randint(2, 12), random.randint(2, 12)
        yield "product", f"What is {one} times {other}?", str(one * other)


def ask(
    base_url: str, model: str, key: str, question: str, temperature: float = 0
) -> dict[str, Any]:
    """The first choice, with log-probabilities."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": temperature,
        "max_tokens": TOKENS_MAX,
        "logprobs": True,
        "top_logprobs": TOP,
    }
    request = urllib.request.Request(
        f"{base_url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        choice: dict[str, Any] = json.load(response)["choices"][0]
    return choice


def evidence(question: str, choice: dict[str, Any], others: list[str]) -> Evidence:
    """What is known of an answer besides its text."""
    tokens = choice["logprobs"]["content"]
    each = [token["logprob"] for token in tokens]
    spreads = [
        -sum(exp(one["logprob"]) * one["logprob"] for one in token["top_logprobs"])
        for token in tokens
    ]
    return Evidence(
        mean_logprob=sum(each) / len(each),
        least_logprob=min(each),
        entropy=sum(spreads) / len(spreads),
        agreement=agreement(question, choice["message"]["content"], others),
    )


def weigh(answers: list[Asked]) -> dict[str, float]:
    """The weights of all evidence together."""
    rows = [
        ([0, *range(1, 1 + len(EVIDENCE))], [CONSTANT, *answer.evidence.centred])
        for answer in answers
    ]
    good = [answer.right for answer in answers]
    weights = fit_logistic(rows, good, [0.0] * (1 + len(EVIDENCE)), EVIDENCE_COST)
    return dict(zip(EVIDENCE, weights[1:], strict=True))


def area(answers: list[Asked]) -> float:
    """The chance that a right answer was given with more certainty than a wrong one."""
    right = [answer.mean_logprob for answer in answers if answer.right]
    wrong = [answer.mean_logprob for answer in answers if not answer.right]
    if not right or not wrong:
        return float("nan")
    wins = sum((one > other) + (one == other) / 2 for one in right for other in wrong)
    return wins / (len(right) * len(wrong))


def fit(answers: list[Asked]) -> tuple[float, float]:
    """(at zero, slope) of the logistic curve, by Newton's method."""
    start = slope = 0.0
    for _ in range(FIT_ROUNDS):
        g0 = g1 = h00 = h01 = h11 = 0.0
        for _, x, right, _ in answers:
            chance = 1 / (1 + exp(-(start + slope * x)))
            error, weight = right - chance, chance * (1 - chance)
            g0, g1 = g0 + error, g1 + error * x
            h00, h01, h11 = h00 + weight, h01 + weight * x, h11 + weight * x * x
        determinant = h00 * h11 - h01 * h01
        start += (h11 * g0 - h01 * g1) / determinant
        slope += (h00 * g1 - h01 * g0) / determinant
    return start, slope


def main() -> None:
    """Ask, measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", required=True, help="server, without /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--key", default="none", help="API key, if the server wants one")
    parser.add_argument("--samples", type=int, default=0, help="ask so many times more")
    options = parser.parse_args()
    where = options.base_url, options.model, options.key
    answers = []
    for kind, question, wanted in questions():
        choice = ask(*where, question)
        sampled = [ask(*where, question, SAMPLED_AT) for _ in range(options.samples)]
        known = evidence(question, choice, [one["message"]["content"] for one in sampled])
        text = choice["message"]["content"]
        right = re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text) is not None
        answers.append(Asked(kind, known.mean_logprob or 0.0, right, known))
    for kind, group in groupby(answers, key=lambda answer: answer.kind):
        rows = list(group)
        print(f"{kind:8} {sum(a.right for a in rows):3}/{len(rows):3} right, AUC {area(rows):.2f}")
    print(f"all      {sum(a.right for a in answers):3}/{len(answers):3}, AUC {area(answers):.2f}")
    start, slope = fit(answers)
    print(f"CERTAINTY_AT_ZERO = {start:.2f}  CERTAINTY_SLOPE = {slope:.2f}")
    if options.samples:
        agreed = [
            answer._replace(mean_logprob=answer.evidence.agreement or 0) for answer in answers
        ]
        print(f"agreement of {options.samples} samples: AUC {area(agreed):.2f}")
        print("weights", {name: round(weight, 2) for name, weight in weigh(answers).items()})


if __name__ == "__main__":
    main()
