"""Every error that a caller can see: its code, status and type, once."""

from collections.abc import Callable

import msgspec
from aiohttp import web

from cascaded.types.decision import Refusal


class Kind(msgspec.Struct, frozen=True):
    """How one code is told. `retry` is what SDKs are advised (`x-should-retry`)."""

    status: int
    type: str
    meaning: str
    remedy: str
    """What to do about it, and who."""
    retry: bool = False
    code: str | None = None
    """What callers see as the code, where clients already know another word for it."""


ERRORS: dict[str, Kind] = {
    "invalid_request": Kind(
        400,
        "invalid_request_error",
        "The body, a header or a parameter is not what the route takes.",
        "Correct what the message names (`param`); the same request will fail again.",
    ),
    "unsupported_protocol": Kind(
        400,
        "invalid_request_error",
        "Client and daemon have no version of the native API in common.",
        "Upgrade the one that the message names.",
    ),
    "idempotency_conflict": Kind(
        409,
        "invalid_request_error",
        "The `Idempotency-Key` was used for a call that asks for something else.",
        "Use a new key for a new call.",
    ),
    "conflict": Kind(
        409,
        "invalid_request_error",
        "The change does not go together with what there is: a tier of the configuration"
        " file, a tier in use, limits too many for one call.",
        "Do what the message says first.",
    ),
    "context_length_exceeded": Kind(
        400,
        "invalid_request_error",
        "The prompt, with room for an answer, is longer than any model of the ladder holds.",
        "Shorten it, lower `max_tokens`, or ask for a model that holds more.",
    ),
    "max_cost_exceeded": Kind(
        400,
        "invalid_request_error",
        "Even the cheapest way to answer can cost more than the cap of one request.",
        "Lower `max_tokens` or shorten the prompt; or raise `max_cost`, or `max_cost_usd` of"
        " the ladder.",
    ),
    "price_unknown": Kind(
        400,
        "invalid_request_error",
        "Nobody knows what the model costs, so nothing can be held for it.",
        "The operator gives its price in `[models]`, or says `free = true`.",
    ),
    "prompt_blocked": Kind(
        400,
        "invalid_request_error",
        "A guardrail found something in the prompt, or in what a tool or a document says in it,"
        " that may not be sent. `guardrails` tells what kind of thing, not what it said. Nothing"
        " was sent.",
        "Take it out. The operator's rules are in `[guardrails]` and in profiles.",
    ),
    "unauthenticated": Kind(
        401,
        "authentication_error",
        "There is no key, or none that the daemon knows.",
        "Send a valid key as `Authorization: Bearer KEY` or `x-api-key`.",
    ),
    "forbidden": Kind(
        403,
        "permission_error",
        "The caller may not do this: a browser, a user that is not known, or something for"
        " administrators.",
        "Let somebody do it who may; `access` in the configuration says who that is.",
    ),
    "model_forbidden": Kind(
        403,
        "permission_error",
        "The caller's tier or profile does not have the model.",
        "Ask for one that it has (`details` names the tier), or for another tier.",
    ),
    "feature_forbidden": Kind(
        403,
        "permission_error",
        "The caller's tier does not include this feature, such as streaming.",
        "Do without it, or ask for a tier that has it.",
    ),
    "model_not_found": Kind(
        404,
        "not_found_error",
        "No ladder, alias or model has this name.",
        "`GET /models` lists the names.",
    ),
    "not_found": Kind(
        404,
        "not_found_error",
        "No such route, or nothing is stored under this name.",
        "Check the path and the name.",
    ),
    "previous_response_not_found": Kind(
        400,
        "invalid_request_error",
        "The response that the call goes on from is not kept, or not for this caller.",
        "Keep responses (`store: true`), or send what came before as `input`.",
    ),
    "method_not_allowed": Kind(
        405,
        "invalid_request_error",
        "The path is right, the method is not.",
        "Use a method that the `allow` header names.",
    ),
    "request_timeout": Kind(
        408,
        "invalid_request_error",
        "The body did not come in time.",
        "Send it at once; look at what is between the caller and the daemon.",
    ),
    "too_large": Kind(
        413,
        "invalid_request_error",
        "The body is longer than `server.max_body_bytes`, or the prompt than"
        " `cascade.max_prompt_bytes`.",
        "Send less, or let the operator raise the bound.",
    ),
    "budget_exceeded": Kind(
        429,
        "budget_exceeded",
        "A budget has no room for the call. The answer names the budget, what is used of it,"
        " when it resets and what would help.",
        "Wait for `reset_time`, or raise the budget or the tier. Calling again at once"
        " changes nothing.",
        code="insufficient_quota",
    ),
    "rate_limited": Kind(
        429,
        "rate_limit_error",
        "Requests or tokens come faster than a limit allows.",
        "Wait for `retry-after`; the SDKs do so by themselves.",
        retry=True,
    ),
    "unsupported_encoding": Kind(
        415, "invalid_request_error", "The body is compressed.", "Send it plain."
    ),
    "quality_refused": Kind(
        422,
        "quality_error",
        "The ladder is `strict`, and no model gave an answer that passed its checks. What was"
        " asked is charged.",
        "Rephrase the question, lower the threshold, or do without `strict`.",
    ),
    "answer_blocked": Kind(
        422,
        "guardrail_error",
        "A guardrail stopped the model's answer, before it began or in the middle of a stream. What"
        " was asked is charged.",
        "Ask otherwise. The operator's rules are in `[guardrails]` and in profiles.",
    ),
    "guardrail_unavailable": Kind(
        503,
        "api_error",
        "A guardrail of the operator failed or came too late, and `on_failure` is `block`.",
        "Call again later. The operator looks at the log (`guardrail_failed`).",
        retry=True,
    ),
    "abandoned": Kind(
        499,
        "api_error",
        "The caller hung up before the answer. Nobody sees this answer; it stands in records"
        " and metrics.",
        "Nothing. What was under way is charged as unknown.",
    ),
    "internal_error": Kind(
        500,
        "api_error",
        "A bug of ours; the log has a line `fault` with the request's id.",
        "Report it with that line. Money that was held is not lost: see `GET /unknowns`.",
    ),
    "upstream_authentication": Kind(
        502,
        "upstream_error",
        "The provider does not take the daemon's key.",
        "The operator corrects `api_key` of that provider and reloads.",
    ),
    "upstream_connect": Kind(
        502,
        "upstream_error",
        "The provider cannot be reached.",
        "The operator looks at `base_url`, network and proxy: `cascaded doctor`.",
    ),
    "upstream_garbage": Kind(
        502,
        "upstream_error",
        "The provider's answer is none that its protocol knows.",
        "The operator looks at `base_url`, and at what is between. The call is charged as unknown.",
    ),
    "upstream_reset": Kind(
        502,
        "upstream_error",
        "The provider hung up in the middle of its answer.",
        "Call again, if it may count twice: this one is charged as unknown.",
    ),
    "upstream_server_error": Kind(
        502,
        "upstream_error",
        "The provider failed, also when it was tried again.",
        "Call again later.",
    ),
    "upstream_refused": Kind(
        400,
        "upstream_error",
        "The provider refuses the request itself; the status is its own.",
        "Correct the request as the message says.",
    ),
    "upstream_rate_limited": Kind(
        429,
        "rate_limit_error",
        "The provider's own rate limit is used up.",
        "Wait for `retry-after`; the SDKs do so by themselves.",
        retry=True,
    ),
    "upstream_overloaded": Kind(
        503,
        "overloaded_error",
        "The provider has no room at the moment.",
        "Wait for `retry-after`; the SDKs do so by themselves.",
        retry=True,
    ),
    "upstream_unavailable": Kind(
        503,
        "overloaded_error",
        "The provider failed again and again, so it is left alone for a while; or it is asked as"
        " often as `requests_per_second` allows. Nothing was sent.",
        "Wait for `retry-after`. The operator may give the model a `fallback`.",
        retry=True,
    ),
    "upstream_timeout": Kind(
        504,
        "upstream_error",
        "The provider did not answer in time (`first_token_timeout_s`, `idle_timeout_s`,"
        " `total_timeout_s`).",
        "Call again, if it may count twice: this one is charged as unknown.",
    ),
    "call_timeout": Kind(
        504,
        "api_error",
        "The call took longer than `server.request_timeout_s` over all its attempts.",
        "Ask for less, or let the operator raise it. What was under way is charged as unknown.",
    ),
    "state_unavailable": Kind(
        503,
        "api_error",
        "A change could not be written to the state folder. Nothing was changed.",
        "The operator looks at the disk: `cascaded doctor`.",
    ),
    "records_unavailable": Kind(
        503,
        "api_error",
        "Usage or audit records cannot be read.",
        "The operator looks at the state folder and the log. Calls are not affected.",
    ),
    "already_exists": Kind(
        409,
        "invalid_request_error",
        "There is one with this id.",
        "Change that one, or take another id.",
    ),
    "version_conflict": Kind(
        412,
        "invalid_request_error",
        "Somebody else changed it since it was read.",
        "Read it again, and change that.",
    ),
    "version_required": Kind(
        428,
        "invalid_request_error",
        "A `PUT` on what is stored needs the version that it replaces.",
        'Send `If-Match: "VERSION"`, or `*` to replace whatever there is.',
    ),
    "profiles_full": Kind(
        507,
        "api_error",
        "There is no room for further profiles.",
        "Delete some, or let the operator give the disk more room.",
    ),
    "batches_full": Kind(
        507,
        "api_error",
        "There is no room for another batch or file: of this user, or of all.",
        "Delete files and batches, wait for those under way, or let the operator raise what the"
        " message names.",
    ),
    "profiles_unavailable": Kind(
        503,
        "api_error",
        "Profiles cannot be read or written.",
        "The operator looks at the state folder and the log.",
    ),
    "limits_unusable": Kind(
        503,
        "api_error",
        "More budgets and rates apply to the call than one call is charged to (32 and 16).",
        "The operator takes away some of those that the message counts.",
    ),
    "hook_unavailable": Kind(
        503,
        "api_error",
        "A hook of the operator failed or came too late, and `on_failure` is `block`.",
        "Call again later. The operator looks at the log (`hook_failed`).",
        retry=True,
    ),
    "backup_failed": Kind(
        503,
        "api_error",
        "The copy of the state could not be made; what was written of it is no backup.",
        "Give a new folder on a disk of this host with room for it.",
    ),
    "config_invalid": Kind(
        422,
        "invalid_request_error",
        "The configuration that was to be put in force has mistakes, or changes what is fixed"
        " until a restart. The old one serves on.",
        "Correct every mistake that is named, and reload again.",
    ),
    "ledger_full": Kind(
        503,
        "overloaded_error",
        "The disk, the holds' table or a counter is full; what is under way can still be settled.",
        "The operator makes room; it goes on by itself then.",
        retry=True,
    ),
    "ledger_unavailable": Kind(
        503,
        "api_error",
        "The ledger cannot write, so nothing may be spent.",
        "The operator looks at the log (`ledger_lost`), the disk and the folder.",
    ),
    "overloaded": Kind(
        503,
        "overloaded_error",
        "Too many calls at once, and no seat left to wait on, or too long a wait.",
        "Wait for `retry-after`; the operator may raise `server.max_concurrency` or `max_waiting`.",
        retry=True,
    ),
    "draining": Kind(
        503,
        "overloaded_error",
        "The daemon is being stopped.",
        "Connect again: its successor takes the call.",
        retry=True,
    ),
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
        **({"guardrails": refusal.findings} if refusal.findings else {}),
        **details,
    }


Refuse = Callable[[Refusal, str], web.Response]
"""How a refusal is answered, with the request's id."""


def error_response(refusal: Refusal, request_id: str) -> web.Response:
    """The whole answer to a call that was refused."""
    kind = ERRORS[refusal.code]
    return web.Response(
        status=_status(refusal, kind.status),
        headers={"x-request-id": request_id, **_retrying(refusal, kind)},
        body=msgspec.json.encode({"error": error_object(refusal)}),
        content_type="application/json",
    )


def _retrying(refusal: Refusal, kind: Kind) -> dict[str, str]:
    """Whether and when to come back."""
    told = {"x-should-retry": "true" if kind.retry else "false"}
    if refusal.retry_after_s is not None:
        told["retry-after"] = str(max(1, round(refusal.retry_after_s)))
        told["retry-after-ms"] = str(round(refusal.retry_after_s * 1000))
    return told


ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Anthropic's names of the statuses that have one; below 500 any other is a mistake of the
caller's."""
OVERLOADED, SERVER_FAULT = 529, 500


def anthropic_status(kind: Kind) -> int:
    """The status by which Anthropic's clients know it."""
    if kind.type == "overloaded_error":
        return OVERLOADED
    faulty = kind.status >= SERVER_FAULT and kind.status not in ANTHROPIC_TYPES
    return SERVER_FAULT if faulty else kind.status


def anthropic_object(refusal: Refusal, request_id: str) -> dict[str, object]:
    """The error as Anthropic tells it: its own type, and the members of ours beside it."""
    status = _status(refusal, anthropic_status(ERRORS[refusal.code]))
    fallback = "api_error" if status >= SERVER_FAULT else "invalid_request_error"
    error = {**error_object(refusal), "type": ANTHROPIC_TYPES.get(status, fallback)}
    return {"type": "error", "error": error, "request_id": request_id}


def anthropic_response(refusal: Refusal, request_id: str) -> web.Response:
    """As `error_response`, for callers that speak Anthropic's Messages."""
    kind = ERRORS[refusal.code]
    ids = {"x-request-id": request_id, "request-id": request_id}
    return web.Response(
        status=_status(refusal, anthropic_status(kind)),
        headers={**ids, **_retrying(refusal, kind)},
        body=msgspec.json.encode(anthropic_object(refusal, request_id)),
        content_type="application/json",
    )


def _status(refusal: Refusal, usual: int) -> int:
    """The usual status; an upstream that refused the request keeps its own."""
    status = refusal.details.get("upstream_status")
    return status if refusal.code == "upstream_refused" and isinstance(status, int) else usual
