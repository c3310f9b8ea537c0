"""How good an answer looks, from the answer alone."""

from cascaded.policy.quality.verdict import QualityMode, assess

__all__ = ["QualityMode", "assess"]
