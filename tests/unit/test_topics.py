"""What queries are about, and what that does to their ladder."""

import struct
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cascaded.adapters import package_data
from cascaded.pipeline.stages.direct import direct
from cascaded.pipeline.stages.permit import permit
from cascaded.pipeline.topics import Topics
from cascaded.policy.heads import MAX_HEAD_BYTES, Head, HeadFile, Provenance
from cascaded.policy.routing.difficulty import Difficulty, of_code
from cascaded.policy.routing.direct import directed, thresholds
from cascaded.policy.routing.domains import Bounds, DomainError, Domains
from cascaded.ports import Classifier, CodeReader, Embedder
from cascaded.types.decision import Decision, Refusal
from cascaded.types.model import Ladder, Rung
from cascaded.types.profile import UserProfile
from cascaded.types.tiers import TierConfig
from cascaded.types.topics import GENERAL, DomainRoute, Signals, Thresholds
from cascaded.types.vectors import Unavailable, Vector
from tests.support.fakes import FakeClock, ladder, model, request

CHEAP, STRONG, OWN = model("cheap"), model("strong"), model("own")
LADDER = ladder(CHEAP, STRONG)
MODELS = {one.name: one for one in (CHEAP, STRONG, OWN)}
WIDTH = 384
PROVENANCE = Provenance(script="a test", data=())


def head(name: str) -> Head:
    return Head.read(package_data.read(f"{name}.head"))


RULES, FULL = head("domains-rules"), head("domains")
DIFFICULTY = Difficulty(head("difficulty-rules"), head("difficulty"))


def rung(name: str) -> Rung:
    return Rung(model=MODELS[name])


def domains(bounds: Bounds = Bounds(), **own: Signals) -> Domains:  # noqa: B008
    return Domains(RULES, FULL, own, bounds)


def vector(*values: float) -> Vector:
    whole = [*values, *([0.0] * (WIDTH - len(values)))]
    return struct.pack(f"<{WIDTH}f", *whole)


class Vectors:
    """An embedder that knows what it is told."""

    name = "minilm"

    def __init__(self, known: Mapping[str, Vector | str]) -> None:
        self._known = known
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str]) -> tuple[Vector, ...] | Unavailable:
        self.asked += texts
        found = [self._known.get(text, vector(0, 0, 1)) for text in texts]
        for one in found:
            if isinstance(one, str):
                return Unavailable("late", self.name, one)
        return tuple(one for one in found if isinstance(one, bytes))


class ZeroShot:
    """A classifier of entailment."""

    name = "nli"
    labels: tuple[str, ...] = ("CONTRADICTION", "ENTAILMENT")

    def __init__(self, about: str | None) -> None:
        self._about = about

    async def classify(
        self, texts: Sequence[str | tuple[str, str]]
    ) -> tuple[tuple[float, ...], ...] | Unavailable:
        if self._about is None:
            return Unavailable("absent", self.name, "it is not there")
        sure = [0.98 if self._about in text[1] else 0.001 for text in texts]
        return tuple((1 - one, one) for one in sure)


class Reader:
    """A reader of code that counts what it is told."""

    async def cyclomatic(self, text: str) -> int | None:
        return 25 if "def" in text else None


def topics(
    own: Domains | None = None,
    *,
    embedder: Embedder | None = None,
    zero_shot: Classifier | None = None,
    code: CodeReader | None = None,
) -> Topics:
    clock = FakeClock()
    return Topics(
        own or domains(), DIFFICULTY, clock, embedder=embedder, zero_shot=zero_shot, code=code
    )


# --- heads of the package ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["domains", "domains-rules", "difficulty", "difficulty-rules"])
def test_the_heads_of_the_package_are_small_and_tell_where_they_come_from(name: str) -> None:
    content = package_data.read(f"{name}.head")
    assert len(content) <= MAX_HEAD_BYTES
    found = Head.read(content)
    assert found.provenance.script == "scripts/fit_heads.py"
    assert found.provenance.data
    assert found.provenance.measured


def test_there_are_more_than_fifteen_domains() -> None:
    wanted = (
        "code data math medical legal finance science education travel shopping support creative"
        " translation summarisation conversation general"
    )
    assert set(wanted.split()) <= set(domains().names)


# --- rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("def add(a, b):\n    return a + b\n\nWhy does this python function raise?", "code"),
        ("What are the symptoms and the treatment of diabetes in a patient?", "medical"),
        (
            "The plaintiff sued the defendant for negligence; is the contract void in court?",
            "legal",
        ),
        ("Translate this sentence into Spanish: good morning", "translation"),
    ],
)
def test_rules_know_clear_cases(text: str, domain: str) -> None:
    own = domains(Bounds(rules=0.3))
    assert own.by_rules(own.read(text)).domain == domain


def test_who_is_not_sure_says_general_and_what_it_may_be() -> None:
    own = domains(Bounds(rules=0.999))
    topic = own.by_rules(own.read("can the court order a blood test?"))
    assert topic.domain == GENERAL
    assert set(topic.secondary) <= set(own.names) - {GENERAL}


@given(st.text(max_size=300))
def test_any_text_has_a_topic(text: str) -> None:
    own = domains(billing=Signals(keywords=("invoice",)))
    topic = own.by_rules(own.read(text))
    assert topic.domain in own.names
    assert 0.0 <= topic.confidence <= 1.0
    assert topic.domain not in topic.secondary


# --- the operator's own --------------------------------------------------------------------------


def test_a_keyword_of_the_operators_decides() -> None:
    own = domains(billing=Signals(keywords=("purchase order",), patterns=(r"PO-\d+",)))
    one = own.by_rules(own.read("Where is my Purchase Order?"))
    assert (one.domain, one.layer) == ("billing", "keywords")
    assert one.confidence == pytest.approx(0.7)
    both = own.by_rules(own.read("Where is my purchase order PO-17?"))
    assert both.confidence == pytest.approx(0.97)
    assert own.by_rules(own.read("purchases in orderly form")).domain != "billing"


def test_a_keyword_for_a_built_in_domain_adds_to_it() -> None:
    own = domains(medical=Signals(keywords=("zorbitol",)))
    topic = own.by_rules(own.read("is zorbitol fine?"))
    assert topic.domain == "medical"
    assert own.names.count("medical") == 1


def test_what_cannot_be_used_names_its_domain() -> None:
    with pytest.raises(DomainError, match="billing: the pattern"):
        domains(shop=Signals(), billing=Signals(patterns=("(",)))


# --- layers --------------------------------------------------------------------------------------


async def test_the_callers_word_is_not_second_guessed() -> None:
    found = await topics().find("what is 2 + 2?", "legal")
    assert (found.topic.domain, found.topic.confidence, found.topic.layer) == (
        "legal",
        1.0,
        "asked",
    )


async def test_an_example_of_the_operators_is_near() -> None:
    own = domains(billing=Signals(semantic_examples=("where is my bill?", "pay later")))
    embedder = Vectors({"where is my bill?": vector(1), "the account of june": vector(0.9, 0.1)})
    asked = topics(own, embedder=embedder)
    found = await asked.find("the account of june", None)
    assert (found.topic.domain, found.topic.layer) == ("billing", "embeddings")
    await asked.find("something else", None)
    assert embedder.asked.count("where is my bill?") == 1


@pytest.mark.parametrize("late", ["where is my bill?", "the account of june"])
async def test_without_an_embedder_rules_decide_and_say_so(late: str) -> None:
    own = domains(billing=Signals(semantic_examples=("where is my bill?",)))
    found = await topics(own, embedder=Vectors({late: "it is late"})).find(
        "the account of june", None
    )
    assert found.topic.layer == "rules"
    assert found.topic.missing == "it is late"


async def test_a_keyword_needs_no_embedder() -> None:
    own = domains(billing=Signals(keywords=("invoice",)))
    embedder = Vectors({})
    found = await topics(own, embedder=embedder).find("my invoice", None)
    assert found.topic.domain == "billing"
    assert embedder.asked == []


async def test_zero_shot_is_asked_where_nobody_is_sure() -> None:
    own = domains(Bounds(rules=1.0))
    found = await topics(own, zero_shot=ZeroShot("travel")).find("hm, the thing", None)
    assert (found.topic.domain, found.topic.layer) == ("travel", "zero_shot")
    for silent in (ZeroShot(None), ZeroShot("nothing of it")):
        found = await topics(own, zero_shot=silent).find("hm, the thing", None)
        assert (found.topic.domain, found.topic.layer) == (GENERAL, "rules")


# --- complexity ----------------------------------------------------------------------------------


async def test_winding_code_makes_a_query_hard() -> None:
    found = await topics(code=Reader()).find("def f(): pass", None)
    assert (found.complexity, found.cyclomatic) == ("hard", 25)
    found = await topics(code=Reader()).find("hello there", None)
    assert found.cyclomatic is None


def test_code_is_ranked_by_its_branches() -> None:
    assert [of_code(ways) for ways in (1, 10, 11, 20, 21)] == [
        "simple",
        "simple",
        "moderate",
        "moderate",
        "hard",
    ]


# --- ladders -------------------------------------------------------------------------------------


def names(made: Ladder) -> list[str]:
    return [each.model.name for each in made.rungs]


def test_thresholds_are_those_of_the_domain_and_the_complexity() -> None:
    for domain, complexity, expected in (
        ("code", "simple", 0.55),
        ("code", "hard", 0.45),
        ("medical", "moderate", 0.75),
        ("travel", "simple", 0.60),
    ):
        made = directed(LADDER, domain, (), complexity, {}, rung)  # type: ignore[arg-type]
        assert {each.threshold for each in made.rungs} == {expected}
    own = DomainRoute(thresholds=Thresholds(simple=0.9, moderate=0.8, hard=0.7))
    assert thresholds("code", own).of("hard") == 0.7


def test_a_domain_brings_its_models() -> None:
    def made(**fields: object) -> Ladder:
        route = DomainRoute(**fields)  # type: ignore[arg-type]
        return directed(LADDER, "code", (), "simple", {"code": route}, rung)

    assert names(made(cost_model="own")) == ["own", "strong"]
    assert names(made(quality_model="own")) == ["cheap", "own"]
    assert names(made(cost_model="strong")) == ["strong"]
    spare = made(fallback="own").rungs
    assert ([one.name for one in spare[1].fallbacks], spare[0].fallbacks) == (["own"], ())
    assert made(fallback="strong").rungs[1].fallbacks == ()
    single = ladder(CHEAP)
    route = {"code": DomainRoute(quality_model="own")}
    assert names(directed(single, "code", (), "simple", route, rung)) == ["own"]


def test_a_strict_domain_that_is_likely_has_its_say() -> None:
    routes = {"medical": DomainRoute(require_strict_quality=True)}
    made = directed(LADDER, "code", ("medical", "legal"), "simple", routes, rung)
    assert made.strict
    assert made.rungs[0].threshold == 0.80
    loose = directed(LADDER, "code", ("legal",), "simple", routes, rung)
    assert (loose.strict, loose.rungs[0].threshold) == (False, 0.55)


def test_a_model_that_was_asked_for_by_name_is_left_alone() -> None:
    named = replace(LADDER, checked=False)
    assert directed(named, "code", (), "hard", {}, rung) is named


# --- the stage -----------------------------------------------------------------------------------


async def step(decision: Decision, routes: Mapping[str, DomainRoute], **asked: str) -> Decision:
    own = domains(medical=Signals(keywords=("zorbitol",)))
    done = await direct(topics(own), routes, rung)(replace(request(), **asked), decision)
    assert isinstance(done, Decision), done
    return done


QUESTION = Decision(ladder=LADDER, question="is zorbitol fine?")


async def test_the_stage_tells_all_of_it() -> None:
    route = DomainRoute(preferred_models=("own",), require_strict_quality=True)
    found = await step(QUESTION, {"medical": route})
    assert (found.domain, found.preferred) == ("medical", ("own",))
    assert found.ladder is not None
    assert found.ladder.strict
    assert found.complexity in ("simple", "moderate", "hard")
    assert found.topic is not None
    assert found.domain_detection_ns is not None
    permitted = await permit()(request(), replace(found, tier=TierConfig(name="pro")))
    assert isinstance(permitted, Decision)
    assert permitted.preferred == ("own",)


async def test_equal_queries_have_the_same_ladder() -> None:
    """What is worked out of a ladder is remembered by the ladder itself."""
    stage = direct(topics(), {}, rung)
    asked = Decision(ladder=LADDER, question="hello")
    first, second = await stage(request(), asked), await stage(request(), asked)
    assert isinstance(first, Decision)
    assert isinstance(second, Decision)
    assert first.ladder is second.ladder


@pytest.mark.parametrize(
    "decision",
    [
        replace(QUESTION, tier=TierConfig(name="free", domain_routing=False)),
        replace(QUESTION, question=""),
        replace(QUESTION, ladder=replace(LADDER, checked=False)),
    ],
    ids=["tier", "no-question", "by-name"],
)
async def test_where_nobody_looks(decision: Decision) -> None:
    assert await step(decision, {}) == decision


async def test_an_unknown_domain_is_refused() -> None:
    stage = direct(topics(), {}, rung)
    done = await stage(replace(request(), domain="alchemy"), QUESTION)
    assert isinstance(done, Refusal)
    assert done.param == "domain"
    assert "medical" in done.message


async def test_a_profile_leans_to_its_domains() -> None:
    class Unsure:
        name = "minilm"

        async def embed(self, texts: Sequence[str]) -> tuple[Vector, ...] | Unavailable:
            return Unavailable("late", "minilm", "late")

    unsure = domains(Bounds(rules=1.0))
    own = unsure.by_rules(unsure.read("can the court order a blood test for the patient?"))
    assert own.secondary
    liked = own.secondary[-1]
    profile = UserProfile(user_id="u", preferred_domains=(liked,))
    decision = Decision(
        ladder=LADDER,
        question="can the court order a blood test for the patient?",
        profile=profile,
    )
    done = await direct(topics(unsure), {}, rung)(request(), decision)
    assert isinstance(done, Decision)
    assert done.domain == liked
    other = replace(decision, profile=UserProfile(user_id="u", preferred_domains=("travel",)))
    done = await direct(topics(unsure, embedder=Unsure()), {}, rung)(request(), other)
    assert isinstance(done, Decision)
    assert done.domain == GENERAL
    assert done.notices


def test_heads_for_other_vectors_are_told_apart() -> None:
    file = HeadFile(
        model="other",
        kind="one_of",
        labels=("a", "b"),
        weights=struct.pack("<4f", 1, 0, 0, 1),
        bias=(0.0, 0.0),
        provenance=PROVENANCE,
    )
    assert Domains(RULES, Head(file), {}, Bounds()).model == "other"
