"""Prices: what calls cost, what they can cost at most, and where prices are looked up.

Everything is whole numbers: prices in pico-dollars a token, sums in nano-dollars.
"""

from cascaded.policy.pricing.catalogue import Catalogue, CatalogueEntry, CatalogueError
from cascaded.policy.pricing.discount import percent_of
from cascaded.policy.pricing.planner import choice_of, output_bound, plan, thinned
from cascaded.policy.pricing.rates import cost, is_free, worst_cost
from cascaded.policy.pricing.savings import Saving, saving
from cascaded.policy.pricing.table import price_table_hash

__all__ = [
    "Catalogue",
    "CatalogueEntry",
    "CatalogueError",
    "Saving",
    "choice_of",
    "cost",
    "is_free",
    "output_bound",
    "percent_of",
    "plan",
    "price_table_hash",
    "saving",
    "thinned",
    "worst_cost",
]
