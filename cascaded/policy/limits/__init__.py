"""Limits as policy: whom a call is charged to, what a tier allows, and the words of a no. Pure."""

from cascaded.policy.limits.access import clamp_output, feature_refusal, may_use, trim_ladder
from cascaded.policy.limits.headers import RateHeaders, anthropic_rate_headers, rate_headers
from cascaded.policy.limits.resolve import (
    LimitBook,
    changed_limits,
    excess,
    limits_for,
    named_limits,
    next_tier,
)
from cascaded.policy.limits.suit import bounded, prefer
from cascaded.policy.limits.words import budget_refusal, explain, rate_refusal

__all__ = [
    "LimitBook",
    "RateHeaders",
    "anthropic_rate_headers",
    "bounded",
    "budget_refusal",
    "changed_limits",
    "clamp_output",
    "excess",
    "explain",
    "feature_refusal",
    "limits_for",
    "may_use",
    "named_limits",
    "next_tier",
    "prefer",
    "rate_headers",
    "rate_refusal",
    "trim_ladder",
]
