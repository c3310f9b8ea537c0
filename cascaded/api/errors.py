"""Every error that a caller can see: its code, status and type, once."""

import msgspec
from aiohttp import web

from cascaded.types.decision import Refusal


class Kind(msgspec.Struct, frozen=True):
    """How one code is told. `retry` is what SDKs are advised (`x-should-retry`)."""

    status: int
    type: str
    retry: bool = False
    code: str | None = None
    """What callers see as the code, where clients already know another word for it."""


ERRORS: dict[str, Kind] = {
    "invalid_request": Kind(400, "invalid_request_error"),
    "unsupported_protocol": Kind(400, "invalid_request_error"),
    "idempotency_conflict": Kind(409, "invalid_request_error"),
    "conflict": Kind(409, "invalid_request_error"),
    "context_length_exceeded": Kind(400, "invalid_request_error"),
    "max_cost_exceeded": Kind(400, "invalid_request_error"),
    "price_unknown": Kind(400, "invalid_request_error"),
    "unauthenticated": Kind(401, "authentication_error"),
    "forbidden": Kind(403, "permission_error"),
    "model_forbidden": Kind(403, "permission_error"),
    "feature_forbidden": Kind(403, "permission_error"),
    "model_not_found": Kind(404, "not_found_error"),
    "not_found": Kind(404, "not_found_error"),
    "method_not_allowed": Kind(405, "invalid_request_error"),
    "request_timeout": Kind(408, "invalid_request_error"),
    "too_large": Kind(413, "invalid_request_error"),
    "budget_exceeded": Kind(429, "budget_exceeded", code="insufficient_quota"),
    "rate_limited": Kind(429, "rate_limit_error", retry=True),
    "unsupported_encoding": Kind(415, "invalid_request_error"),
    "quality_refused": Kind(422, "quality_error"),
    "abandoned": Kind(499, "api_error"),
    "internal_error": Kind(500, "api_error"),
    "upstream_authentication": Kind(502, "upstream_error"),
    "upstream_connect": Kind(502, "upstream_error"),
    "upstream_garbage": Kind(502, "upstream_error"),
    "upstream_reset": Kind(502, "upstream_error"),
    "upstream_server_error": Kind(502, "upstream_error"),
    "upstream_refused": Kind(400, "upstream_error"),
    "upstream_rate_limited": Kind(429, "rate_limit_error", retry=True),
    "upstream_overloaded": Kind(503, "overloaded_error", retry=True),
    "upstream_timeout": Kind(504, "upstream_error"),
    "call_timeout": Kind(504, "api_error"),
    "state_unavailable": Kind(503, "api_error"),
    "records_unavailable": Kind(503, "api_error"),
    "already_exists": Kind(409, "invalid_request_error"),
    "version_conflict": Kind(412, "invalid_request_error"),
    "version_required": Kind(428, "invalid_request_error"),
    "profiles_full": Kind(507, "api_error"),
    "profiles_unavailable": Kind(503, "api_error"),
    "limits_unusable": Kind(503, "api_error"),
    "backup_failed": Kind(503, "api_error"),
    "config_invalid": Kind(422, "invalid_request_error"),
    "ledger_full": Kind(503, "overloaded_error", retry=True),
    "ledger_unavailable": Kind(503, "api_error"),
    "overloaded": Kind(503, "overloaded_error", retry=True),
    "draining": Kind(503, "overloaded_error", retry=True),
}


def error_object(refusal: Refusal) -> dict[str, object]:
    """The OpenAI error object, also used by the native API."""
    kind = ERRORS[refusal.code]
    # What an upstream said is for its operator; everything else is for the caller to act on.
    details = {} if refusal.code.startswith("upstream_") else refusal.details
    return {
        "message": refusal.message,
        "type": kind.type,
        "param": refusal.param,
        "code": kind.code or refusal.code,
        **details,
    }


def error_response(refusal: Refusal, request_id: str) -> web.Response:
    """The whole answer to a call that was refused."""
    kind = ERRORS[refusal.code]
    told = {
        "x-request-id": request_id,
        "x-should-retry": "true" if kind.retry else "false",
    }
    if refusal.retry_after_s is not None:
        told["retry-after"] = str(max(1, round(refusal.retry_after_s)))
        told["retry-after-ms"] = str(round(refusal.retry_after_s * 1000))
    return web.Response(
        status=_status(refusal, kind),
        headers=told,
        body=msgspec.json.encode({"error": error_object(refusal)}),
        content_type="application/json",
    )


def _status(refusal: Refusal, kind: Kind) -> int:
    """The table's status; an upstream that refused the request keeps its own."""
    status = refusal.details.get("upstream_status")
    return status if refusal.code == "upstream_refused" and isinstance(status, int) else kind.status
