"""What names mean."""

import pytest

from cascaded.policy.routing.book import MAX_NAME_CHARACTERS, ModelBook
from cascaded.types.decision import Refusal
from cascaded.types.model import Ladder, Model
from tests.support.fakes import ladder, model

CHEAP, STRONG = model("cheap"), model("strong")
LADDER = ladder(CHEAP, STRONG)


def book(**more: object) -> ModelBook:
    asked: list[str] = []

    def undeclared(name: str) -> Model | None:
        asked.append(name)
        return model(name) if name.startswith("sold/") else None

    fields = {
        "models": {"cheap": CHEAP, "strong": STRONG},
        "ladders": {"default": LADDER},
        "aliases": {"auto": "cascade/default", "fast": "cheap", "strong": "cascade/default"},
        "undeclared": undeclared,
        **more,
    }
    return ModelBook(**fields)  # type: ignore[arg-type]


def rungs(chosen: Ladder | Refusal) -> list[str]:
    assert isinstance(chosen, Ladder), chosen
    return [rung.model.name for rung in chosen.rungs]


@pytest.mark.parametrize("name", ["auto", "cascade/default", "strong"])
def test_ladders_by_name_and_alias(name: str) -> None:
    """An alias may shadow a real model, so that an unchanged application cascades."""
    assert book().choose(name) is LADDER


@pytest.mark.parametrize(
    ("name", "used"), [("cheap", "cheap"), ("fast", "cheap"), ("sold/x", "sold/x")]
)
def test_a_model_is_a_ladder_of_one_that_is_not_judged(name: str, used: str) -> None:
    chosen = book().choose(name)
    assert rungs(chosen) == [used]
    assert isinstance(chosen, Ladder)
    assert not chosen.checked


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cascade/defualt", "cascade/default"),
        ("chaep", "cheap"),
        ("", None),
        ("cascade/", "cascade/default"),
        ("sold/" + "x" * MAX_NAME_CHARACTERS, None),
        ("x" * 1_000_000, None),
        ("Cheap\n\0", "cheap"),
    ],
)
def test_names_of_nothing(name: str, hint: str | None) -> None:
    refusal = book().choose(name)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.param) == ("model_not_found", "model")
    assert ("Did you mean" in refusal.message) is (hint is not None)
    assert hint is None or hint in refusal.message
    assert "/v1/models" in refusal.message
    assert len(refusal.message) < 400
    assert refusal.message.isprintable()


def test_every_name_once() -> None:
    assert book().names() == ["auto", "cascade/default", "cheap", "fast", "strong"]
