"""Prices: what calls cost, what they can cost at most, and where prices are looked up.

Everything is whole numbers: prices in pico-dollars a token, sums in nano-dollars.
"""

from cascaded.policy.pricing.catalogue import Catalogue, CatalogueEntry, CatalogueError
from cascaded.policy.pricing.discount import percent_of
from cascaded.policy.pricing.planner import (
    JUDGE_OUTPUT_TOKENS,
    choice_of,
    judge_tokens,
    output_bound,
    plan,
    thinned,
    unquestioned,
)
from cascaded.policy.pricing.rates import cost, is_free, worst_cost
from cascaded.policy.pricing.savings import Saving, saving
from cascaded.policy.pricing.table import price_table_hash

__all__ = [
    "JUDGE_OUTPUT_TOKENS",
    "Catalogue",
    "CatalogueEntry",
    "CatalogueError",
    "Saving",
    "choice_of",
    "cost",
    "is_free",
    "judge_tokens",
    "output_bound",
    "percent_of",
    "plan",
    "price_table_hash",
    "saving",
    "thinned",
    "unquestioned",
    "worst_cost",
]
