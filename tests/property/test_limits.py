"""Limits, whatever is set: merged field by field, within the caps, never loosened by a burst."""

import json
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cascaded.config import Config, load
from cascaded.policy.limits import LimitBook, explain, limits_for, named_limits, rate_headers
from cascaded.types.limits import Caller, Denial, Limits, LimitView
from cascaded.types.money import parse_usd
from cascaded.types.quotas import (
    BUDGET_FIELDS,
    FOUNDATION,
    MAX_BUDGETS,
    MAX_RATES,
    MINUTE_NS,
    RATE_FIELDS,
    OwnQuotas,
    Quotas,
    ScopeQuotas,
    amounts,
    merged,
    size,
)
from cascaded.types.tiers import TIER_PRESETS, TierConfig
from cascaded.types.times import NS_PER_S

nano_usd = st.integers(0, 2**40)
counts = st.integers(1, 2**32 - 1)
shares = st.integers(0, 10_000)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **{field.name: nano_usd for field in BUDGET_FIELDS},
    **{field.name: counts for field in RATE_FIELDS},
    "rolling": st.booleans(),
    "zone": st.sampled_from(["UTC", "Europe/Berlin", "Africa/Cairo"]),
    "enforcement": st.sampled_from(["warn", "block", "degrade", "shadow"]),
    "warn_bp": shares,
    "degrade_bp": shares,
    "block_bp": shares,
    "rate_method": st.sampled_from(["sliding_window", "fixed_window", "token_bucket"]),
    "burst_bp": st.integers(10_000, 100_000),
    "burst_window_ns": st.integers(0, 59).map(lambda seconds: seconds * NS_PER_S),
    "block_on_limit": st.booleans(),
}
quotas = st.fixed_dictionaries({}, optional=FIELDS).map(lambda fields: Quotas(**fields))
few = st.sampled_from(["a", "b", "c"])
scope_quotas = st.builds(ScopeQuotas, default=quotas, ids=st.dictionaries(few, quotas, max_size=2))
# Seven budgets and rates at most for each, so that two scopes are always within the caps.
small_books = st.builds(
    LimitBook,
    scopes=st.dictionaries(st.sampled_from(["organization", "user"]), scope_quotas, max_size=2),
    tiers=st.dictionaries(
        few, quotas.map(lambda limits: TierConfig(name="t", limits=limits)), max_size=2
    ),
)
callers = st.builds(Caller, user_id=few, tier=st.none() | few, organization_id=st.none() | few)


def test_the_strategy_knows_every_field() -> None:
    assert set(FIELDS) == set(Quotas.__struct_fields__)


@given(st.lists(quotas, max_size=5))
def test_merging_is_field_by_field(layers: list[Quotas]) -> None:
    found = merged(*layers)
    for name in Quotas.__struct_fields__:
        told = [value for one in layers if (value := getattr(one, name)) is not None]
        assert getattr(found, name) == (told[0] if told else None)
    for split in range(len(layers) + 1):
        assert merged(merged(*layers[:split]), merged(*layers[split:])) == found


@given(small_books, callers, quotas)
def test_a_users_limits_are_those_of_the_strongest_layer(
    book: LimitBook, caller: Caller, profile: Quotas
) -> None:
    stored = OwnQuotas(user=profile)
    found = limits_for(caller, book, stored)
    assert limits_for(msgspec.structs.replace(caller), book, stored) == found
    known = book.of("user")
    tier = book.tiers.get(caller.tier or "")
    own = known.ids.get(caller.user_id, Quotas())
    whole = merged(profile, own, tier.limits if tier else Quotas(), known.default, FOUNDATION)
    mine = [one for one in found.budgets if one.scope == "user"]
    expected = [
        (field.rolling if whole.rolling else field.window, limit)
        for field in BUDGET_FIELDS
        if (limit := getattr(whole, field.name)) is not None
    ]
    assert [(one.window, one.limit_nano_usd) for one in mine] == expected
    for one in mine:
        assert one.id == caller.user_id
        assert (one.zone, one.enforcement) == (whole.zone, whole.enforcement)
        assert (one.warn_bp, one.block_bp) == (whole.warn_bp, whole.block_bp)
    keys = [(one.scope, one.id, one.window) for one in found.budgets]
    assert len(set(keys)) == len(keys)


@given(quotas)
def test_a_burst_never_loosens_and_never_locks_out(table: Quotas) -> None:
    book = LimitBook(scopes={"user": ScopeQuotas(default=table)})
    found = limits_for(Caller(user_id="u"), book).rates
    windows = {(one.unit, one.window_ns): one.limit for one in found}
    assert len(windows) == len(found), "each window once"
    declared = {
        (field.unit, field.window_ns): limit
        for field in RATE_FIELDS
        if (limit := getattr(table, field.name)) is not None
    }
    for at, limit in declared.items():
        assert 1 <= windows.pop(at) <= limit
    assert len(windows) <= 1
    for (unit, window_ns), limit in windows.items():
        per_minute = table.requests_per_minute
        assert per_minute is not None
        assert unit == "requests"
        assert 1 <= limit < per_minute
        # Used without a pause it still reaches the even pace: the limit itself can be used up.
        assert (limit + 1) * MINUTE_NS > per_minute * window_ns
    assert len(found) <= size(amounts(table))[1]


SCOPES = [
    "global",
    "organizations.default",
    "organizations.ids.a",
    "workspaces.default",
    "teams.ids.a",
    "users.default",
    "users.ids.a",
    "tiers.ids.pro",
    "tags.feature.default",
    "tags.feature.values.a",
    "tags.other.values.b",
    "runs",
]
SETTINGS = [
    "daily_usd", "weekly_usd", "monthly_usd", "total_usd",
    *(field.name for field in RATE_FIELDS),
]  # fmt: skip
tables = st.dictionaries(st.sampled_from(SETTINGS), st.integers(1, 10**6), max_size=4)
tiers = st.dictionaries(st.sampled_from([*TIER_PRESETS, "own"]), tables, max_size=3)
ids = st.none() | st.sampled_from(["a", "b"])


@given(
    st.dictionaries(st.sampled_from(SCOPES), tables, max_size=8),
    tiers,
    st.builds(
        Caller,
        user_id=st.sampled_from(["a", "b"]),
        tier=st.none() | st.sampled_from([*TIER_PRESETS, "own"]),
        organization_id=ids,
        workspace_id=ids,
        team_id=ids,
        run_id=ids,
        tags=st.lists(
            st.tuples(st.sampled_from(["feature", "other"]), st.sampled_from(["a", "b"])),
            unique_by=lambda tag: tag[0],
        ).map(lambda tags: tuple(sorted(tags))),
    ),
)
def test_what_the_config_check_passes_no_call_exceeds(
    scopes: dict[str, dict[str, int]], plans: dict[str, dict[str, int]], caller: Caller
) -> None:
    headed = {f"limits.{name}": table for name, table in scopes.items()}
    headed |= {"tiers.pro": {}} | {f"tiers.{name}": table for name, table in plans.items()}
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in table.items())
        for name, table in headed.items()
    )
    config = load(text, source_name="c", env={}, read_file=lambda _: b"", uid=1)
    if not isinstance(config, Config):
        [mistake] = config
        assert mistake.key == "limits"
        return
    limits, tags = config.limits, config.limits.tag_quotas
    book = LimitBook(base=limits.base, scopes=limits.scopes, tags=tags, tiers=config.tier_configs())
    found = limits_for(caller, book)
    assert len(found.budgets) <= MAX_BUDGETS
    assert len(found.rates) <= MAX_RATES
    named = named_limits(book)
    by_key = {(one.scope, one.id, one.window): one for one in named.budgets}
    for one in found.budgets:
        assert by_key.get((one.scope, one.id, one.window), one) == one
        assert (one.origin == "file") == ((one.scope, one.id, one.window) in by_key)


WINDOWS = st.sampled_from(
    ["day", "week", "month", "total", "rolling_day", "rolling_week", "rolling_month"]
)
scopes = st.sampled_from(
    ["global", "organization", "workspace", "team", "user", "tier", "tag", "run"]
)
moments = st.none() | st.integers(0, 2**62)
budget_denials = st.builds(
    Denial,
    reason=st.sampled_from(["budget", "degraded"]),
    scope=scopes,
    id=st.text("abé'\n", max_size=20),
    window=WINDOWS,
    limit=nano_usd,
    used=nano_usd,
    asked=nano_usd,
    reset_at_ns=moments,
)
rate_denials = st.builds(
    Denial,
    reason=st.just("rate"),
    scope=scopes,
    id=st.text("abé'\n", max_size=20),
    unit=st.sampled_from(["requests", "tokens"]),
    window_ns=st.integers(10**8, 31 * 86_400 * NS_PER_S),
    limit=counts,
    used=counts,
    asked=counts,
    retry_after_ns=moments,
)


@given(budget_denials | rate_denials, callers, st.integers(0, 2**62))
def test_every_denial_has_words(denial: Denial, caller: Caller, now_ns: int) -> None:
    caller = msgspec.structs.replace(caller, tier="starter")
    refusal = explain(denial, caller, LimitBook(tiers=TIER_PRESETS), now_ns=now_ns)
    assert refusal.message.endswith(".")
    assert "None" not in refusal.message.replace(denial.id, "")
    assert not refusal.message.count("  ")
    told = json.loads(msgspec.json.encode(refusal.details), parse_float=Decimal)
    assert told["scope"] == denial.scope
    if denial.reason == "rate":
        assert refusal.code == "rate_limited"
        assert (refusal.retry_after_s is None) == (
            denial.asked > denial.limit or denial.retry_after_ns is None
        )
    else:
        assert refusal.code == "budget_exceeded"
        assert parse_usd(told["budget_limit"]) == denial.limit
        assert parse_usd(told["current_spend"]) == denial.used
        assert (told["reset_time"] is None) == (denial.reset_at_ns is None)
        assert (told["next_tier"] is None) >= (denial.scope != "user")


views = st.builds(
    LimitView,
    scope=scopes,
    id=few,
    unit=st.none() | st.sampled_from(["requests", "tokens"]),
    window=st.none(),
    limit=nano_usd,
    used=nano_usd,
    remaining=nano_usd,
    degraded=st.booleans(),
    fits=st.booleans(),
    enforced=st.booleans(),
    reset_at_ns=moments,
).map(lambda one: one if one.unit else msgspec.structs.replace(one, window="day"))


@given(st.lists(views, max_size=8), st.integers(0, 2**62))
def test_headers_tell_the_least_that_is_left(told: list[LimitView], now_ns: int) -> None:
    headers = rate_headers(told, now_ns)
    for unit in ("requests", "tokens"):
        left = [one.remaining or 0 for one in told if one.unit == unit and one.enforced]
        name = f"x-ratelimit-remaining-{unit}"
        assert headers.get(name) == (str(min(left)) if left else None)
    money = [one.remaining or 0 for one in told if one.window and one.enforced]
    remaining = headers.get("x-cascaded-budget-remaining")
    assert (None if remaining is None else parse_usd(remaining)) == min(money, default=None)
    assert all(value.isascii() and value.isprintable() for value in headers.values())


def test_nothing_is_set_by_default() -> None:
    assert limits_for(Caller(user_id="u"), LimitBook()) == Limits()
