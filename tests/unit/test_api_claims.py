"""What a call says of whom it is for, in headers and bodies."""

import pytest
from msgspec.structs import replace
from multidict import CIMultiDict

from cascaded.api.claims import HEADERS, TAG_HEADERS, from_headers, with_body
from cascaded.types.request import Claims
from cascaded.wire.native import Context, Who
from cascaded.wire.openai_chat import WireError


def said(*headers: tuple[str, str], user: str | None = None) -> Claims:
    return from_headers(CIMultiDict(headers), user)


def test_nothing_said() -> None:
    assert said() == Claims()


@pytest.mark.parametrize(
    ("field", "name"), [(field, name) for field, names in HEADERS.items() for name in names]
)
def test_every_header_has_its_place(field: str, name: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert said((spelling, "Zoë 1")) == replace(Claims(), **{field: "Zoë 1"})


@pytest.mark.parametrize("names", HEADERS.values(), ids=HEADERS)
def test_our_own_header_stands_over_those_of_others(names: tuple[str, ...]) -> None:
    claims = said(*((name, f"by {name}") for name in reversed(names)))
    [value] = [getattr(claims, field) for field, others in HEADERS.items() if others == names]
    assert value == f"by {names[0]}"


def test_the_body_speaks_where_headers_do_not() -> None:
    assert said(user="bob").user_id == "bob"
    assert said(("X-User-ID", "alice"), user="bob").user_id == "alice"
    assert said(("X-User-ID", ""), user="bob").user_id == "bob"
    assert said(("X-User-Tier", "pro"), user="bob") == Claims(user_id="bob", user_tier="pro")


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ("", {}),
        (" , ,,", {}),
        ("feature=search", {"feature": "search"}),
        (" feature=search , team=blue ", {"feature": "search", "team": "blue"}),
        ("beta", {"beta": "beta"}),
        ("beta=", {"beta": "beta"}),
        ("formula=a=b", {"formula": "a=b"}),
        ("twice=1,twice=2", {"twice": "2"}),
        ("ünï=cödé", {"ünï": "cödé"}),
    ],
)
def test_tags(header: str, tags: dict[str, str]) -> None:
    for name in TAG_HEADERS:
        assert said((name, header)).tags == tags
    ours, theirs = TAG_HEADERS
    assert said((theirs, "x=1"), (ours, header)).tags == tags


@pytest.mark.parametrize("value", ["a\x00b", "a\x1b[31m", "a\u202eb", "\udcff", "\x7f", "a\tb"])
@pytest.mark.parametrize("name", [*(names[-1] for names in HEADERS.values()), *TAG_HEADERS])
def test_what_is_not_printable_is_refused(name: str, value: str) -> None:
    with pytest.raises(WireError, match=f"the header {name} is not printable"):
        said((name, value))


def test_a_native_body_stands_over_headers() -> None:
    headers = Claims(
        user_id="header", user_tier="free", organization_id="h", team_id="t", tags={"a": "1"}
    )
    context = Context(user_id="context", tier="pro", organization="c")
    assert with_body(headers, Who()) == headers
    told = with_body(headers, Who(context=context, metadata={"a": "2", "b": "3"}))
    assert told == Claims(
        user_id="context",
        user_tier="pro",
        organization_id="c",
        team_id="t",
        tags={"a": "2", "b": "3"},
    )
    told = with_body(headers, Who(user_id="body", user_tier="team", context=context))
    assert (told.user_id, told.user_tier) == ("body", "team")
    partly = with_body(headers, Who(context=Context(user_id="context")))
    assert (partly.user_id, partly.user_tier, partly.organization_id) == ("context", "free", "h")
