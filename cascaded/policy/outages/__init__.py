"""Providers that fail: when they are left alone, and when they are tried again."""

from cascaded.policy.outages.breaker import NEVER, Breaker, State, Thresholds

__all__ = ["NEVER", "Breaker", "State", "Thresholds"]
