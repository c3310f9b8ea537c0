"""What administrators set at run time, over everything that the configuration says."""

from collections.abc import Mapping

import msgspec

from cascaded.types.limits import Scope
from cascaded.types.quotas import Quotas
from cascaded.types.tables import Tier

GLOBAL_ID = "*"
"""The id of the one global scope."""


class Overrides(msgspec.Struct, frozen=True, kw_only=True):
    """All of it at one moment. A change makes another value."""

    limits: Mapping[tuple[Scope, str], Quotas] = {}
    """By scope and id (`*` for global, `name=value` for a tag): the strongest layer, field by
    field."""
    tiers: Mapping[str, Tier] = {}
    """Customer plans beside those of the configuration, whose names they cannot take."""
