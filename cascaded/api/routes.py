"""What a route is: where it is, who may call it, what it takes and gives. Without a description
there is no route."""

from collections.abc import Callable
from typing import Literal

import msgspec

from cascaded.api.errors import Refuse, error_response
from cascaded.types.quality import QualityMode
from cascaded.wire.caching import CacheWord

Who = Literal["anyone", "scrapers", "callers", "administrators"]
WHO: dict[Who, str] = {
    "anyone": "Anyone who can connect.",
    "scrapers": "Callers; anyone, where `server.metrics_without_key` says so.",
    "callers": "Processes that may write to the socket; over TCP, who sends a key.",
    "administrators": "Over the socket the daemon's own user, root, and members of the group that"
    " `access.admin_group` names.",
}

BRACKET = ("unauthenticated", "forbidden")
"""What any route may refuse with that is not open to anyone."""
CALL = (
    *BRACKET,
    "invalid_request",
    "request_timeout",
    "too_large",
    "unsupported_encoding",
    "ledger_unavailable",
    "overloaded",
    "draining",
)
"""What every route with a body may refuse with."""
DECIDED = (
    "context_length_exceeded",
    "max_cost_exceeded",
    "price_unknown",
    "model_forbidden",
    "feature_forbidden",
    "model_not_found",
    "budget_exceeded",
    "rate_limited",
    "limits_unusable",
    "hook_unavailable",
    "profiles_unavailable",
    "ledger_full",
    "prompt_blocked",
    "guardrail_unavailable",
)
"""Why a call may be refused before anything is sent."""
ASKED = (
    "abandoned",
    "internal_error",
    "upstream_authentication",
    "upstream_connect",
    "upstream_garbage",
    "upstream_reset",
    "upstream_server_error",
    "upstream_refused",
    "upstream_rate_limited",
    "upstream_overloaded",
    "upstream_unavailable",
    "upstream_timeout",
    "call_timeout",
)
"""How a call may fail once a model is asked."""
ANSWERED = ("quality_refused", "answer_blocked", *ASKED)
"""The same where answers are judged."""


class Query(msgspec.Struct, frozen=True):
    """A parameter after the question mark, or of the path."""

    name: str
    meaning: str
    kind: object = str
    """Its type."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route, under its path and under `/v1`."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    """Its `{names}` stand in `parameters`."""
    deep: bool = False
    """Whether what stands at its end may have slashes."""
    who: Who
    does: str
    """What it does: the first sentence is its title."""
    serve: Callable[..., object]
    """Takes the services in force: a `View`, or gives the `Call`."""
    foreign: bool = False
    """Of somebody else's API: it knows nothing of our protocol's version."""
    view: bool = False
    """Something to look at: takes no body, and is answered even when the daemon is busy."""
    parameters: tuple[Query, ...] = ()
    headers: tuple[Query, ...] = ()
    body: type | None = None
    answer: type | None = None
    """Of status 200, as our own client reads it; `None`: of another format."""
    media: tuple[str, ...] = ("application/json",)
    refuse: Refuse = error_response
    """How it says no before its dialect has a say."""
    streams: bool = False
    """Whether the answer may be server-sent events."""
    errors: tuple[str, ...] = CALL
    """Codes of `api.errors`."""
    statuses: tuple[int, ...] = (200,)
    """Statuses of its answer."""


CLAIMS = (
    Query("X-User-ID", "On whose behalf. Believed from callers whom the operator trusts."),
    Query("X-User-Tier", "Its tier. Believed likewise."),
    Query("X-Organization-ID", "Its organisation. Believed likewise."),
    Query("X-Workspace-ID", "Its workspace. Believed likewise."),
    Query("X-Team-ID", "Its team. Believed likewise."),
)
WISHES = (
    Query(
        "X-Cascaded-Cache",
        "Earlier answers: `on`, also where answers may differ; `refresh`: ask anew; `off`.",
        CacheWord,
    ),
    Query("X-Cascaded-Quality", "How closely answers are looked at.", QualityMode),
    Query("Cache-Control", "`no-store`, `no-cache` or `max-age=SECONDS`, for earlier answers."),
)

ANTHROPIC_HEADERS = (
    Query("anthropic-version", "The version of Anthropic's API; goes upstream as it is."),
    Query("anthropic-beta", "Betas of it; goes upstream as it is."),
)
