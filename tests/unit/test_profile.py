"""Profiles as values: fields, defaults, what they allow, and bad input."""

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from cascaded.types.money import MAX_NANO_USD, to_usd
from cascaded.types.profile import (
    BudgetConfig,
    ModelPreferences,
    OrganizationConfig,
    QualityPreferences,
    RateLimitConfig,
    UserProfile,
    WorkspaceConfig,
)
from cascaded.types.quotas import FOUNDATION, OwnQuotas, Quotas
from cascaded.types.tiers import TIER_PRESETS, TierConfig

WHOLE: dict[str, Any] = {
    "user_id": "alice",
    "organization": {
        "organization_id": "acme",
        "organization_name": "Acme",
        "shared_budget": {"monthly": "100", "enforcement_mode": "block"},
        "shared_rate_limits": {"requests_per_minute": 60, "burst_multiplier": 2.0},
        "data_region": "eu",
        "data_residency_requirements": ["eu", "ch"],
        "compliance_mode": "gdpr",
        "audit_logging": True,
        "data_retention_days": 30,
        "custom_models": ["acme/*"],
    },
    "workspace": {
        "workspace_id": "lab",
        "workspace_name": "Lab",
        "organization_id": "acme",
        "workspace_budget": {"total": "7"},
        "environment": "staging",
        "workspace_guardrails": {"pii": {"action": "block"}},
    },
    "roles": ["developer"],
    "permissions": ["batch:run"],
    "tier": "pro",
    "budget_overrides": {"daily": "12.50", "warn_threshold": 0.5},
    "rate_limit_overrides": {"tokens_per_hour": 1000, "enforcement_mode": "token_bucket"},
    "quality_preferences": {
        "minimum_quality": 0.5,
        "cost_sensitivity": "aggressive",
        "max_cost_per_query": "0.000000001",
    },
    "preferred_domains": ["code"],
    "preferred_models": ["gpt-4o*"],
    "blocked_models": ["o1*"],
    "guardrails": {"moderation": {"threshold": 0.5}},
    "enable_audit_logging": True,
    "audit_log_level": "comprehensive",
    "data_retention_days": 10,
    "metadata": {"crm": 17, "vip": True, "note": None},
    "tags": ["beta"],
}


class TestValues:
    def test_defaults(self) -> None:
        profile = UserProfile(user_id="u")
        assert (profile.data_retention_days, profile.enable_audit_logging) == (90, True)
        organization = OrganizationConfig(organization_id="o")
        assert (organization.data_retention_days, organization.audit_logging) == (90, True)
        assert WorkspaceConfig(workspace_id="w").environment == "production"
        wanted = QualityPreferences()
        assert (wanted.minimum_quality, wanted.target_quality, wanted.maximum_quality) == (
            0.70,
            0.85,
            0.95,
        )
        assert (wanted.semantic_weight, wanted.max_retries) == (0.5, 2)
        assert (wanted.cost_sensitivity, wanted.latency_sensitivity) == ("balanced", "balanced")
        with pytest.raises(AttributeError):
            profile.tier = "pro"  # type: ignore[misc]

    def test_from_and_to_plain_values(self) -> None:
        profile = UserProfile.from_dict(WHOLE)
        plain = json.loads(json.dumps(profile.to_dict()))
        assert UserProfile.from_dict(plain) == profile
        assert plain["budget_overrides"]["daily"] == "12.5"
        assert Decimal(plain["quality_preferences"]["max_cost_per_query"]) == Decimal("1e-9")
        for name, given in WHOLE.items():
            if name not in ("organization", "workspace", "budget_overrides", "rate_limit_overrides",
                            "quality_preferences", "guardrails"):  # fmt: skip
                assert plain[name] == given

    def test_money_is_exact_on_the_wire(self) -> None:
        most = to_usd(MAX_NANO_USD)
        encode = msgspec.json.Encoder(decimal_format="number").encode
        wire = encode(BudgetConfig(daily=most))
        assert str(most).encode() in wire
        assert msgspec.json.decode(wire, type=BudgetConfig).daily == most

    def test_from_a_tier(self) -> None:
        assert UserProfile.from_tier("pro", "u") == UserProfile(user_id="u", tier="pro")
        with pytest.raises(ValueError, match="no tier 'gold'; there are: free, starter"):
            UserProfile.from_tier("gold", "u")


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "user_id"),
    ({"user_id": ""}, "length >= 1"),
    ({"user_id": "é" * 200}, "1 to 256 bytes"),
    ({"user_id": "a\nb"}, "printable"),
    ({"user_id": "u", "teir": "pro"}, "unknown field `teir`"),
    ({"user_id": "u", "budget_overrides": {"daily": "-1"}}, "below zero"),
    ({"user_id": "u", "budget_overrides": {"daily": "NaN"}}, "not a finite amount"),
    ({"user_id": "u", "budget_overrides": {"daily": "Infinity"}}, "not a finite amount"),
    ({"user_id": "u", "budget_overrides": {"daily": "1e999999"}}, "more than this ledger"),
    ({"user_id": "u", "budget_overrides": {"daily": "1e-10"}}, "finer than a nano"),
    ({"user_id": "u", "budget_overrides": {"daily": 0.1}}, "not as a float"),
    ({"user_id": "u", "quality_preferences": {"max_cost_per_query": 0.1}}, "not as a float"),
    (
        {"user_id": "u", "workspace": {"workspace_id": "w", "workspace_budget": {"total": 0.1}}},
        "not as a float",
    ),
    ({"user_id": "u", "budget_overrides": {"warn_threshold": 0.9, "block_at": 0.5}}, "above block"),
    ({"user_id": "u", "budget_overrides": {"degrade_at": 0.9, "block_at": 0.5}}, "above block_at"),
    ({"user_id": "u", "rate_limit_overrides": {"requests_per_day": 0}}, ">= 1"),
    ({"user_id": "u", "quality_preferences": {"minimum_quality": 0.9}}, "must ascend"),
    ({"user_id": "u", "quality_preferences": {"max_retries": 3}}, "<= 2"),
    ({"user_id": "u", "audit_log_level": "loud"}, "Invalid enum value"),
    ({"user_id": "u", "roles": ["r"] * 101}, "length <= 100"),
    ({"user_id": "u", "metadata": {"a": {"b": 1}}}, "metadata"),
    ({"user_id": "u", "organization": {"organization_id": ""}}, "organization"),
    ({"user_id": "u", "workspace": {"workspace_id": "w", "organization_id": ""}}, "workspace"),
    ({"user_id": "u", "data_retention_days": 0}, ">= 1"),
]


@pytest.mark.parametrize(("data", "why"), BAD)
def test_bad_profiles_are_told_why(data: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        UserProfile.from_dict(data)


def test_public_names_are_loaded_when_they_are_named() -> None:
    names = ["UserProfile", "TierConfig", "ProfileManager", "Client"]
    code = (
        "import sys, cascaded; assert 'msgspec' not in sys.modules;"
        "cascaded.UserProfile.from_tier('pro', 'u').to_dict();"
        "assert not {'asyncio', 'aiohttp', 'lmdb', 'cascaded.ports'} & set(sys.modules);"
        f"print([getattr(cascaded, name).__name__ for name in {names}]);"
        "cascaded.nothing"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(names)
    assert "has no attribute 'nothing'" in done.stderr


class TestWhatItAllows:
    PROFILE = UserProfile.from_dict(WHOLE)

    def test_overrides_go_field_by_field_over_the_tier(self) -> None:
        budget = self.PROFILE.get_effective_budget()
        assert (budget.daily, budget.weekly, budget.monthly) == (
            Decimal("12.5"),
            Decimal(50),
            Decimal(200),
        )
        assert (budget.warn_threshold, budget.enforcement_mode) == (0.5, None)
        rates = self.PROFILE.get_effective_rate_limits()
        assert (rates.tokens_per_hour, rates.requests_per_hour) == (1000, 1000)
        assert rates.enforcement_mode == "token_bucket"
        alone = replace(self.PROFILE, tier=None).get_effective_budget()
        assert (alone.daily, alone.monthly) == (Decimal("12.5"), None)
        with pytest.raises(ValueError, match="no tier"):
            self.PROFILE.get_effective_budget({})

    def test_what_is_stored_in_our_units(self) -> None:
        assert self.PROFILE.quotas == OwnQuotas(
            user=Quotas(
                daily_nano_usd=12_500_000_000,
                warn_bp=5_000,
                tokens_per_hour=1_000,
                rate_method="token_bucket",
            ),
            organization=Quotas(
                monthly_nano_usd=100 * 10**9,
                enforcement="block",
                requests_per_minute=60,
                burst_bp=20_000,
            ),
            workspace=Quotas(total_nano_usd=7 * 10**9),
        )
        assert self.PROFILE.quotas is self.PROFILE.quotas
        assert self.PROFILE.max_cost_nano_usd == 1
        assert UserProfile(user_id="u").quotas == OwnQuotas()

    def test_quotas_come_back_as_they_went(self) -> None:
        assert BudgetConfig.of(FOUNDATION).quotas == Quotas(
            rolling=False,
            zone="UTC",
            enforcement="degrade",
            warn_bp=7_000,
            degrade_bp=9_000,
            block_bp=10_000,
        )
        assert RateLimitConfig.of(FOUNDATION).quotas == Quotas(
            rate_method="sliding_window",
            burst_bp=15_000,
            burst_window_ns=10 * 10**9,
            block_on_limit=True,
        )

    def test_features_are_the_tiers(self) -> None:
        assert self.PROFILE.can_use_feature("batch")
        assert not UserProfile.from_tier("free", "u").can_use_feature("streaming")
        assert UserProfile(user_id="u").can_use_feature("streaming")

    def test_models(self) -> None:
        tiers = {"pro": TierConfig(name="pro", allowed_models=("gpt-*",), preferred_models=("x",))}
        assert self.PROFILE.get_model_preferences(tiers) == ModelPreferences(
            allowed=("gpt-*", "acme/*"),
            preferred=("gpt-4o*",),
            blocked=("o1*",),
            domains=("code",),
        )
        allowed = {
            name: self.PROFILE.can_use_model(name, tiers)
            for name in ("gpt-4o", "acme/own", "o1-mini", "claude")
        }
        assert allowed == {"gpt-4o": True, "acme/own": True, "o1-mini": False, "claude": False}
        anybody = UserProfile(user_id="u", blocked_models=("o1*",))
        assert anybody.can_use_model("claude")
        assert not anybody.can_use_model("o1")
        by_tier = UserProfile(user_id="u", tier="pro").get_model_preferences(tiers)
        assert by_tier.preferred == ("x",)

    @pytest.mark.parametrize(
        ("sensitivity", "threshold"),
        [("aggressive", 0.7), ("balanced", 0.85), ("quality_first", 0.95)],
    )
    def test_when_a_draft_is_kept(self, sensitivity: Any, threshold: float) -> None:
        assert QualityPreferences(cost_sensitivity=sensitivity).draft_threshold == threshold

    def test_where_data_may_go(self) -> None:
        acme = OrganizationConfig(organization_id="a", data_region="us")
        assert acme.regions == ("us",)
        assert replace(acme, data_residency_requirements=("eu",)).regions == ("eu",)
        assert OrganizationConfig(organization_id="a").regions == ()

    def test_how_much_is_put_on_record(self) -> None:
        assert self.PROFILE.audit_level == "comprehensive"
        assert replace(self.PROFILE, enable_audit_logging=False).audit_level == "minimal"
        assert UserProfile(user_id="u").audit_level is None

    def test_every_tier_of_the_presets_will_do(self) -> None:
        for tier in TIER_PRESETS:
            profile = UserProfile.from_tier(tier, "u")
            assert profile.get_effective_budget().quotas.daily_nano_usd == (
                TIER_PRESETS[tier].limits.daily_nano_usd
            )
