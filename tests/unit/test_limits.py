"""Limits as policy: who is charged, what a tier allows, and the words of a refusal."""

import time
from typing import Any

import msgspec
import pytest

from cascaded.policy.limits import (
    LimitBook,
    budget_refusal,
    clamp_output,
    explain,
    feature_refusal,
    limits_for,
    may_use,
    named_limits,
    next_tier,
    rate_headers,
    rate_refusal,
    trim_ladder,
)
from cascaded.policy.limits.access import Trimmed
from cascaded.state.ledger import DurableLedger
from cascaded.types.decision import Refusal
from cascaded.types.errors import TooManyLimitsError
from cascaded.types.limits import Admitted, Caller, Choice, Demand, Denial, Limits, LimitView
from cascaded.types.model import Ladder, Model, Rung
from cascaded.types.money import NANO_PER_USD
from cascaded.types.quotas import (
    DAY_NS,
    FOUNDATION,
    HOUR_NS,
    MINUTE_NS,
    OwnQuotas,
    Quotas,
    ScopeQuotas,
    amounts,
    merged,
    size,
)
from cascaded.types.tiers import CHEAP, TIER_PRESETS, TierConfig
from cascaded.types.times import NS_PER_S

USER = Caller(user_id="u")
EVERYBODY = Caller(
    user_id="u",
    tier="pro",
    organization_id="acme",
    workspace_id="w",
    team_id="t",
    run_id="r",
    tags=(("feature", "chat"), ("undeclared", "x")),
)
NOW = 1_800_000_000 * NS_PER_S


def dollars(amount: float) -> int:
    return round(amount * NANO_PER_USD)


def budgets(limits: Limits) -> dict[tuple[str, str, str], int | None]:
    return {(one.scope, one.id, one.window): one.limit_nano_usd for one in limits.budgets}


def rates(limits: Limits) -> dict[tuple[str, str, int], int]:
    return {(one.scope, one.unit, one.window_ns): one.limit for one in limits.rates}


def users(**quotas: Any) -> LimitBook:
    return LimitBook(scopes={"user": ScopeQuotas(default=Quotas(**quotas))})


class TestPresets:
    def test_they_are_the_published_ones(self) -> None:
        rows = [
            # daily, weekly, monthly; requests an hour, a day; thresholds; longest answer
            ("free", 0.10, None, 2, 10, 100, 0.65, 0.80, 500),
            ("starter", 1, 5, None, 100, 1_000, 0.70, 0.85, 2_000),
            ("pro", 10, 50, 200, 1_000, 10_000, 0.75, 0.90, 4_000),
            ("business", 50, 250, 1_000, 5_000, 50_000, 0.80, 0.95, 16_000),
            ("enterprise", None, None, None, None, None, 0.85, 0.98, 32_000),
        ]
        assert list(TIER_PRESETS) == [row[0] for row in rows]
        for name, daily, weekly, monthly, hourly, per_day, default, most, max_tokens in rows:
            tier = TIER_PRESETS[name]
            assert tier.limits == Quotas(
                daily_nano_usd=None if daily is None else dollars(daily),
                weekly_nano_usd=None if weekly is None else dollars(weekly),
                monthly_nano_usd=None if monthly is None else dollars(monthly),
                requests_per_hour=hourly,
                requests_per_day=per_day,
            )
            assert (tier.default_quality_threshold, tier.max_quality_threshold) == (default, most)
            assert tier.max_tokens == max_tokens

    def test_their_features(self) -> None:
        def having(feature: str) -> set[str]:
            return {name for name, tier in TIER_PRESETS.items() if getattr(tier, feature)}

        everybody = set(TIER_PRESETS)
        assert having("streaming") == having("domain_routing") == everybody - {"free"}
        assert having("batch") == having("embeddings") == {"pro", "business", "enterprise"}
        assert having("quality_validation") == having("guardrails") == everybody
        assert having("escalates") == everybody - {"free"}
        assert having("queue_priority") == {"enterprise"}
        assert TIER_PRESETS["free"].allowed_models == (CHEAP,)
        assert all(tier.allowed_models == ("*",) for tier in list(TIER_PRESETS.values())[1:])
        support = [tier.support_priority for tier in TIER_PRESETS.values()]
        assert support == ["community", "standard", "priority", "dedicated", "dedicated"]


class TestLimitsFor:
    def test_without_limits_nothing_is_charged(self) -> None:
        assert limits_for(EVERYBODY, LimitBook()) == Limits()

    def test_every_scope_in_order(self) -> None:
        each = ScopeQuotas(default=Quotas(daily_nano_usd=1))
        book = LimitBook(
            scopes={
                "run": each,
                "tier": each,
                "user": each,
                "team": each,
                "workspace": each,
                "organization": each,
                "global": each,
            },
            tags={"feature": each},
        )
        found = limits_for(EVERYBODY, book)
        assert [(one.scope, one.id) for one in found.budgets] == [
            ("global", "*"),
            ("organization", "acme"),
            ("workspace", "w"),
            ("team", "t"),
            ("user", "u"),
            ("tier", "pro"),
            ("tag", "feature=chat"),
            ("run", "r"),
        ]
        assert [one.scope for one in limits_for(USER, book).budgets] == ["global", "user"]
        assert hash(EVERYBODY) == hash(msgspec.structs.replace(EVERYBODY))

    def test_profile_over_own_table_over_tier_over_default(self) -> None:
        book = LimitBook(
            scopes={
                "user": ScopeQuotas(
                    default=Quotas(
                        daily_nano_usd=1, weekly_nano_usd=1, monthly_nano_usd=1, total_nano_usd=1
                    ),
                    ids={"u": Quotas(daily_nano_usd=3, weekly_nano_usd=3, enforcement="block")},
                )
            },
            tiers={
                "pro": TierConfig(
                    name="pro",
                    limits=Quotas(daily_nano_usd=2, monthly_nano_usd=2, enforcement="warn"),
                )
            },
        )
        caller = Caller(user_id="u", tier="pro")
        found = limits_for(caller, book, OwnQuotas(user=Quotas(daily_nano_usd=4)))
        assert [one.limit_nano_usd for one in found.budgets] == [4, 3, 2, 1]
        assert {one.enforcement for one in found.budgets} == {"block"}
        other = limits_for(Caller(user_id="v", tier="pro"), book)
        assert [one.limit_nano_usd for one in other.budgets] == [2, 1, 2, 1]
        assert {one.enforcement for one in other.budgets} == {"warn"}
        gone = limits_for(Caller(user_id="v", tier="none such"), book)
        assert [one.limit_nano_usd for one in gone.budgets] == [1, 1, 1, 1]

    def test_a_limit_may_be_zero(self) -> None:
        book = LimitBook(
            scopes={
                "user": ScopeQuotas(
                    default=Quotas(daily_nano_usd=5), ids={"u": Quotas(daily_nano_usd=0)}
                )
            }
        )
        assert budgets(limits_for(USER, book)) == {("user", "u", "day"): 0}

    def test_how_a_budget_is_kept(self) -> None:
        book = LimitBook(
            base=Quotas(zone="Europe/Berlin", enforcement="block"),
            scopes={
                "global": ScopeQuotas(default=Quotas(total_nano_usd=1, monthly_nano_usd=2)),
                "user": ScopeQuotas(
                    default=Quotas(
                        daily_nano_usd=1,
                        total_nano_usd=9,
                        rolling=True,
                        zone="Asia/Tokyo",
                        warn_bp=5_000,
                        enforcement="shadow",
                    )
                ),
            },
        )
        month, total, day, all_ = limits_for(USER, book).budgets
        assert (month.zone, month.enforcement, month.window) == ("Europe/Berlin", "block", "month")
        assert (month.warn_bp, month.degrade_bp, month.block_bp) == (7_000, 9_000, 10_000)
        assert (day.zone, day.enforcement, day.window) == ("Asia/Tokyo", "shadow", "rolling_day")
        assert day.warn_bp == 5_000
        assert (total.window, all_.window) == ("total", "total")

    def test_only_declared_tags_count(self) -> None:
        book = LimitBook(
            tags={"feature": ScopeQuotas(ids={"chat": Quotas(daily_nano_usd=1)})},
        )
        assert budgets(limits_for(EVERYBODY, book)) == {("tag", "feature=chat", "day"): 1}
        other = msgspec.structs.replace(EVERYBODY, tags=(("feature", "search"),))
        assert limits_for(other, book) == Limits()

    def test_what_the_file_names_is_told_to_the_ledger_at_start(self) -> None:
        book = LimitBook(
            scopes={
                "global": ScopeQuotas(default=Quotas(monthly_nano_usd=9)),
                "organization": ScopeQuotas(
                    default=Quotas(daily_nano_usd=1, zone="Asia/Tokyo", requests_per_day=5),
                    ids={"acme": Quotas(weekly_nano_usd=2, requests_per_hour=7)},
                ),
                "user": ScopeQuotas(ids={"u": Quotas(daily_nano_usd=1)}),
            },
            tags={"feature": ScopeQuotas(ids={"chat": Quotas(daily_nano_usd=1)})},
        )
        named = named_limits(book)
        assert budgets(named) == {
            ("global", "*", "month"): 9,
            ("organization", "acme", "week"): 2,
            ("tag", "feature=chat", "day"): 1,
        }
        assert rates(named) == {("organization", "requests", HOUR_NS): 7}
        assert {one.origin for one in named.budgets} == {"file"}
        charged = limits_for(EVERYBODY, book)
        assert set(named.budgets) <= set(charged.budgets), "they are the same counters"
        rest = set(charged.budgets) - set(named.budgets)
        assert {(one.scope, one.window) for one in rest} == {
            ("organization", "day"),
            ("user", "day"),
        }
        assert {one.origin for one in rest} == {"profile"}
        assert book.known_users == {"u"}

    def test_more_than_the_ledger_takes_is_a_fault(self) -> None:
        each = Quotas(daily_nano_usd=1, weekly_nano_usd=1, monthly_nano_usd=1, total_nano_usd=1)
        many = {f"t{i}": ScopeQuotas(default=each) for i in range(9)}
        tags = tuple((name, "x") for name in many)
        caller = Caller(user_id="u", tags=tags)
        with pytest.raises(TooManyLimitsError, match="36 budgets"):
            limits_for(caller, LimitBook(tags=many))
        rate = ScopeQuotas(default=Quotas(requests_per_hour=1, tokens_per_day=1))
        with pytest.raises(TooManyLimitsError, match="18 rates"):
            limits_for(caller, LimitBook(tags=dict.fromkeys(many, rate)))


class TestRates:
    def test_each_field_is_a_window(self) -> None:
        found = limits_for(
            USER,
            users(
                requests_per_second=1,
                requests_per_hour=3,
                requests_per_day=4,
                tokens_per_minute=5,
                tokens_per_hour=6,
                tokens_per_day=7,
                rate_method="token_bucket",
                block_on_limit=False,
            ),
        )
        assert rates(found) == {
            ("user", "requests", NS_PER_S): 1,
            ("user", "requests", HOUR_NS): 3,
            ("user", "requests", DAY_NS): 4,
            ("user", "tokens", MINUTE_NS): 5,
            ("user", "tokens", HOUR_NS): 6,
            ("user", "tokens", DAY_NS): 7,
        }
        assert {one.method for one in found.rates} == {"token_bucket"}
        assert not any(one.block for one in found.rates)

    @pytest.mark.parametrize(
        ("limit", "quotas", "burst"),
        [
            (60, {}, 15),  # 60 · 1.5 · 10 s / 60 s
            (61, {}, 15),
            (6, {}, 1),
            (5, {}, None),  # less than one request in ten seconds
            (60, {"burst_bp": 60_000}, None),  # no tighter than the limit
            (60, {"burst_window_ns": 0}, None),
            (60, {"burst_window_ns": MINUTE_NS}, None),
            (60, {"burst_bp": 1}, 1),
            (600, {"burst_bp": 20_000, "burst_window_ns": 30 * NS_PER_S}, None),
            (600, {"burst_bp": 10_000, "burst_window_ns": 30 * NS_PER_S}, 300),
        ],
    )
    def test_a_burst_is_one_more_window(
        self, limit: int, quotas: dict[str, int], burst: int | None
    ) -> None:
        found = rates(limits_for(USER, users(requests_per_minute=limit, **quotas)))
        assert found.pop(("user", "requests", MINUTE_NS)) == limit
        assert list(found.values()) == ([] if burst is None else [burst])

    def test_a_burst_in_the_window_of_another_rate_is_the_tighter_of_the_two(self) -> None:
        for per_second, both in ((1, 1), (50, 15)):
            book = users(
                requests_per_second=per_second, requests_per_minute=600, burst_window_ns=NS_PER_S
            )
            assert rates(limits_for(USER, book)) == {
                ("user", "requests", NS_PER_S): both,
                ("user", "requests", MINUTE_NS): 600,
            }

    def test_sizes(self) -> None:
        assert size(amounts(Quotas())) == size(amounts(FOUNDATION)) == (0, 0)
        assert size(amounts(Quotas(daily_nano_usd=1, total_nano_usd=0, tokens_per_day=1))) == (2, 1)
        assert size(amounts(Quotas(requests_per_minute=1))) == (0, 2)
        assert merged() == Quotas()


def model(name: str) -> Model:
    return Model(name=name, provider="p", upstream_name=name)


def ladder(*names: str) -> Ladder:
    return Ladder(name="l", rungs=tuple(Rung(model=model(name)) for name in names))


FREE = TierConfig(name="free", allowed_models=("small", "local/*"), escalates=False, max_tokens=500)


class TestAccess:
    def test_models(self) -> None:
        assert may_use(None, model("any")) is None
        assert may_use(TIER_PRESETS["pro"], model("any")) is None
        assert may_use(FREE, model("small")) is None
        assert may_use(FREE, model("local/llama")) is None
        refusal = may_use(FREE, model("Small"))
        assert refusal is not None
        assert refusal.code == "model_forbidden"
        assert refusal.message == (
            "Tier 'free' may not use 'Small'. It may use small, local/*."
            " Ask the operator of this service for another tier."
        )
        assert may_use(TIER_PRESETS["free"], model("small")), "no cheap class: nothing is cheap"

    def test_a_long_list_is_told_in_part(self) -> None:
        names = tuple(f"m{i}" for i in range(20))
        refusal = may_use(TierConfig(name="t", allowed_models=names), model("x"))
        assert refusal is not None
        assert "m9, …. Ask" in refusal.message
        nothing = may_use(TierConfig(name="t", allowed_models=()), model("x"))
        assert nothing is not None
        assert "It may use no model." in nothing.message

    def test_length(self) -> None:
        assert clamp_output(None, None) == (None, None)
        assert clamp_output(None, 9_999) == (9_999, None)
        assert clamp_output(TierConfig(name="t"), 9_999) == (9_999, None)
        assert clamp_output(FREE, None) == (500, None)
        assert clamp_output(FREE, 500) == (500, None)
        bound, notice = clamp_output(FREE, 501)
        assert bound == 500
        assert notice == "max_tokens lowered from 501 to 500, the most of tier 'free'."

    def test_ladders(self) -> None:
        whole = ladder("small", "large")
        assert trim_ladder(whole, None) == Trimmed(ladder=whole)
        assert trim_ladder(whole, TIER_PRESETS["pro"]) == Trimmed(ladder=whole)
        short = trim_ladder(ladder("large", "small", "local/x"), FREE)
        assert isinstance(short, Trimmed)
        assert [rung.model.name for rung in short.ladder.rungs] == ["small"]
        assert short.notices == (
            "Model 'large' left out: tier 'free' may not use it.",
            "Tier 'free' does not escalate: only the first model is asked.",
        )
        assert trim_ladder(ladder("small"), FREE) == Trimmed(ladder=ladder("small"))
        refusal = trim_ladder(ladder("a", "b"), FREE)
        assert isinstance(refusal, Refusal)
        assert refusal.code == "model_forbidden"
        assert "'a' or 'b'" in refusal.message

    def test_features(self) -> None:
        assert feature_refusal(None, "batch") is None
        assert feature_refusal(TIER_PRESETS["pro"], "batch") is None
        refusal = feature_refusal(TIER_PRESETS["free"], "domain_routing")
        assert refusal is not None
        assert refusal.code == "feature_forbidden"
        assert refusal.message.startswith("Tier 'free' does not include domain routing.")
        assert refusal.details == {"tier": "free", "feature": "domain_routing"}


def denied(**changes: Any) -> Denial:
    base = Denial(
        reason="budget",
        scope="user",
        id="u",
        window="day",
        limit=dollars(1),
        used=dollars(1.05),
        asked=dollars(0.02),
        reset_at_ns=NOW + 4 * HOUR_NS,
    )
    return msgspec.structs.replace(base, **changes)


class TestBudgetWords:
    BOOK = LimitBook(tiers=TIER_PRESETS)
    STARTER = Caller(user_id="u", tier="starter")

    def test_the_published_example(self) -> None:
        refusal = explain(denied(), self.STARTER, self.BOOK, now_ns=NOW)
        assert refusal.code == "budget_exceeded"
        assert refusal.retry_after_s is None
        assert refusal.message == (
            "User 'u' has exceeded their daily budget of $1.00. Current spend: $1.05."
            " Resets in 4 hours. Pro allows $10.00 a day."
        )
        assert msgspec.json.encode(refusal.details) == (
            b'{"user_id":"u","budget_type":"daily","scope":"user","scope_id":"u",'
            b'"budget_limit":1,"current_spend":1.05,"call_cost_max":0.02,'
            b'"reset_time":"2027-01-15T12:00:00Z","recommendation":"upgrade_tier",'
            b'"next_tier":"pro","next_tier_budget":10}'
        )

    def test_amounts_are_exact(self) -> None:
        refusal = explain(denied(limit=125_000, used=125_001), USER, LimitBook(), now_ns=NOW)
        assert "budget of $0.000125. Current spend: $0.000125001." in refusal.message
        large = explain(denied(limit=dollars(12_000)), USER, LimitBook(), now_ns=NOW)
        assert "$12,000.00" in large.message
        assert refusal.details["budget_limit"] == msgspec.Raw(b"0.000125")

    def test_a_call_that_would_exceed(self) -> None:
        refusal = explain(denied(used=dollars(0.99)), USER, LimitBook(), now_ns=NOW)
        assert refusal.message == (
            "User 'u' would exceed their daily budget of $1.00 with this call, which may cost up"
            " to $0.02. Current spend: $0.99. Resets in 4 hours."
        )
        assert refusal.details["recommendation"] == "wait_for_reset"
        assert refusal.details["next_tier"] is None

    def test_nothing_cheap_enough(self) -> None:
        denial = denied(reason="degraded", used=dollars(0.95))
        refusal = explain(denial, USER, LimitBook(), now_ns=NOW)
        assert refusal.message.startswith(
            "User 'u' has nearly used up their daily budget of $1.00, so only cheaper models"
        )
        assert refusal.details["recommendation"] == "use_cheaper_model"

    @pytest.mark.parametrize(
        ("scope", "id", "words"),
        [
            ("global", "*", "This service has exceeded its"),
            ("organization", "acme", "Organization 'acme' has exceeded its"),
            ("workspace", "w", "Workspace 'w' has exceeded its"),
            ("team", "t", "Team 't' has exceeded its"),
            ("tier", "pro", "Tier 'pro' has exceeded its"),
            ("tag", "feature=chat", "Tag 'feature=chat' has exceeded its"),
            ("run", "r", "Run 'r' has exceeded its"),
        ],
    )
    def test_each_scope(self, scope: str, id: str, words: str) -> None:
        refusal = explain(denied(scope=scope, id=id), self.STARTER, self.BOOK, now_ns=NOW)
        assert refusal.message.startswith(words)
        assert refusal.details["next_tier"] is None, "another tier would not help"
        assert refusal.details["user_id"] == "u"

    @pytest.mark.parametrize(
        ("window", "kind", "end"),
        [
            ("week", "weekly", "Resets in 4 hours. Pro allows $50.00 a week."),
            ("month", "monthly", "Resets in 4 hours. Pro allows $200.00 a month."),
            ("rolling_day", "daily", "There is room again in 4 hours. Pro allows $10.00 a day."),
            ("rolling_week", "weekly", "room again in 4 hours. Pro allows $50.00 a week."),
            ("rolling_month", "monthly", "room again in 4 hours. Pro allows $200.00 a month."),
            ("total", "total", "Resets in 4 hours. Pro has no total budget."),
        ],
    )
    def test_each_window(self, window: str, kind: str, end: str) -> None:
        refusal = explain(denied(window=window), self.STARTER, self.BOOK, now_ns=NOW)
        assert refusal.message.endswith(end)
        assert f"their {kind} budget" in refusal.message
        assert refusal.details["budget_type"] == kind

    def test_a_budget_that_never_resets(self) -> None:
        refusal = explain(denied(window="total", reset_at_ns=None), USER, LimitBook(), now_ns=NOW)
        assert refusal.message.endswith("It does not reset.")
        assert refusal.details["reset_time"] is None
        assert refusal.details["recommendation"] == "raise_budget"

    @pytest.mark.parametrize(
        ("wait_ns", "words"),
        [
            (-5, "1 second"),
            (1, "1 second"),
            (NS_PER_S + 1, "2 seconds"),
            (119 * NS_PER_S, "119 seconds"),
            (2 * MINUTE_NS, "2 minutes"),
            (90 * MINUTE_NS, "90 minutes"),
            (3 * HOUR_NS + 1, "4 hours"),
            (2 * DAY_NS, "2 days"),
            (30 * DAY_NS, "30 days"),
        ],
    )
    def test_waits_are_rounded_up(self, wait_ns: int, words: str) -> None:
        denial = denied(reset_at_ns=NOW + wait_ns)
        refusal = budget_refusal(denial, USER, None, now_ns=NOW)
        assert refusal.message.endswith(f"Resets in {words}.")

    def test_the_next_tier_is_the_first_that_allows_more(self) -> None:
        def after(tier: str | None, field: str, limit: float) -> str | None:
            caller = Caller(user_id="u", tier=tier)
            found = next_tier(caller, self.BOOK, field, dollars(limit))
            return None if found is None else found.name

        assert after("free", "daily_nano_usd", 0.10) == "starter"
        assert after("free", "monthly_nano_usd", 2) == "starter", "it has no monthly budget"
        assert after("starter", "daily_nano_usd", 20) == "business"
        assert after("business", "daily_nano_usd", 50) == "enterprise"
        assert after("enterprise", "daily_nano_usd", 50) is None
        assert after(None, "daily_nano_usd", 0.5) == "starter"
        assert next_tier(USER, LimitBook(), "daily_nano_usd", 1) is None


class TestRateWords:
    def test_requests(self) -> None:
        denial = denied(
            reason="rate",
            window=None,
            unit="requests",
            window_ns=HOUR_NS,
            limit=10,
            used=10,
            asked=1,
            retry_after_ns=6 * MINUTE_NS,
        )
        refusal = explain(denial, USER, LimitBook(), now_ns=NOW)
        assert refusal.code == "rate_limited"
        assert refusal.retry_after_s == 360
        assert refusal.message == (
            "User 'u' has reached their rate limit of 10 requests an hour. Try again in 6 minutes."
        )
        assert refusal.details["window_s"] == 3_600

    @pytest.mark.parametrize(
        ("window_ns", "limit", "words"),
        [
            (NS_PER_S, 1, "1 request a second"),
            (MINUTE_NS, 60, "60 requests a minute"),
            (DAY_NS, 50_000, "50,000 requests a day"),
            (10 * NS_PER_S, 15, "15 requests in 10 seconds"),
        ],
    )
    def test_windows(self, window_ns: int, limit: int, words: str) -> None:
        denial = denied(
            reason="rate", scope="organization", id="acme", unit="requests", window_ns=window_ns,
            limit=limit, used=limit, asked=1, retry_after_ns=1,
        )  # fmt: skip
        refusal = rate_refusal(denial)
        assert refusal.message == (
            f"Organization 'acme' has reached its rate limit of {words}. Try again in 1 second."
        )

    def test_more_than_the_limit_itself(self) -> None:
        denial = denied(
            reason="rate", scope="global", id="*", unit="tokens", window_ns=MINUTE_NS,
            limit=5_000, used=0, asked=9_000, retry_after_ns=5,
        )  # fmt: skip
        refusal = rate_refusal(denial)
        assert refusal.retry_after_s is None
        assert refusal.message == (
            "This call counts for up to 9,000 tokens, which the limit of this service of 5,000"
            " tokens a minute can never admit. Ask for less (`max_tokens`, a shorter prompt), or"
            " ask the operator for a higher limit."
        )

    def test_a_wait_that_is_not_known(self) -> None:
        denial = denied(reason="rate", unit="requests", window_ns=NS_PER_S, limit=1, asked=1)
        refusal = rate_refusal(denial)
        assert refusal.retry_after_s is None
        assert refusal.message.endswith("Try again later.")


def view(**changes: Any) -> LimitView:
    base = LimitView(
        scope="user",
        id="u",
        limit=10,
        used=4,
        remaining=6,
        degraded=False,
        fits=True,
        enforced=True,
        reset_at_ns=NOW + 6 * NS_PER_S,
    )
    return msgspec.structs.replace(base, **changes)


class TestHeaders:
    def test_the_tightest_of_each_unit(self) -> None:
        views = [
            view(unit="requests", window_ns=MINUTE_NS),
            view(unit="requests", window_ns=HOUR_NS, limit=100, remaining=3),
            view(unit="requests", window_ns=DAY_NS, remaining=0, enforced=False),
            view(unit="tokens", window_ns=MINUTE_NS, limit=9, remaining=9, reset_at_ns=NOW),
            view(window="day", limit=dollars(1), remaining=dollars(0.25)),
            view(window="month", limit=None, remaining=None),
            view(window="total", remaining=1, enforced=False),
        ]
        assert rate_headers(views, NOW) == {
            "x-ratelimit-limit-requests": "100",
            "x-ratelimit-remaining-requests": "3",
            "x-ratelimit-reset-requests": "6s",
            "x-ratelimit-limit-tokens": "9",
            "x-ratelimit-remaining-tokens": "9",
            "x-ratelimit-reset-tokens": "0s",
            "x-cascaded-budget-remaining": "0.25",
        }

    def test_of_equals_the_one_that_stays_so_longest(self) -> None:
        views = [
            view(unit="requests", reset_at_ns=NOW + NS_PER_S),
            view(unit="requests", reset_at_ns=NOW + 90 * NS_PER_S, limit=7),
        ]
        told = rate_headers(views, NOW)
        assert told["x-ratelimit-limit-requests"] == "7"
        assert told["x-ratelimit-reset-requests"] == "1m30s"

    @pytest.mark.parametrize(
        ("wait_ns", "words"),
        [(-9, "0s"), (1, "1s"), (MINUTE_NS, "1m0s"), (HOUR_NS + 5 * NS_PER_S, "1h0m5s")],
    )
    def test_resets(self, wait_ns: int, words: str) -> None:
        told = rate_headers([view(unit="tokens", reset_at_ns=NOW + wait_ns)], NOW)
        assert told["x-ratelimit-reset-tokens"] == words

    def test_nothing_to_tell(self) -> None:
        assert rate_headers([], NOW) == {}
        told = rate_headers([view(unit="requests", reset_at_ns=None)], NOW)
        assert told["x-ratelimit-reset-requests"] == "0s"


async def test_the_ledger_takes_them_and_its_denials_have_words() -> None:
    book = LimitBook(
        scopes={
            "global": ScopeQuotas(default=Quotas(monthly_nano_usd=dollars(9))),
            "organization": ScopeQuotas(ids={"acme": Quotas(requests_per_minute=60)}),
        },
        tiers={name: TIER_PRESETS[name] for name in ("free", "pro")},
    )
    caller = Caller(user_id="u", tier="free", organization_id="acme", run_id="r")
    limits = limits_for(caller, book)
    ledger = DurableLedger.in_memory()
    try:
        assert ledger.set_limits(named_limits(book), reload=True) > 0
        dear = Demand(menu=(Choice(nano_usd=dollars(0.04), tokens=9),), limits=limits)
        assert isinstance(ledger.admit(dear), Admitted)
        assert isinstance(ledger.admit(dear), Admitted)
        told = rate_headers(ledger.peek(dear).limits, time.time_ns())
        assert told["x-ratelimit-remaining-requests"] == "8"
        assert told["x-cascaded-budget-remaining"] == "0.02"
        denial = ledger.admit(dear)
        assert isinstance(denial, Denial)
        refusal = explain(denial, caller, book, now_ns=time.time_ns())
        assert refusal.code == "budget_exceeded"
        assert refusal.message.startswith("User 'u' would exceed their daily budget of $0.10")
        assert refusal.message.endswith("Pro allows $10.00 a day.")
        free = Demand(menu=(Choice(nano_usd=0, tokens=0, cheap=True),), limits=limits)
        answers = [ledger.admit(free) for _ in range(9)]
        assert isinstance(answers[7], Admitted)
        assert isinstance(answers[8], Denial)
        rate = explain(answers[8], caller, book, now_ns=time.time_ns())
        assert rate.code == "rate_limited"
        assert rate.message.startswith("User 'u' has reached their rate limit of 10 requests an")
        assert rate.retry_after_s is not None
    finally:
        ledger.close()
