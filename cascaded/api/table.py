"""The one route table: every route, with its description.

To add one: a `Route` here, its answer's struct in `client/results.py` or `shapes.py`, its row in
`tests/integration/test_access.py`, then `make reference`.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import msgspec
from aiohttp import web

from cascaded.api.dialects.messages import Messages
from cascaded.api.dialects.native import Native
from cascaded.api.dialects.openai_chat import OpenAIChat
from cascaded.api.dialects.openai_texts import OpenAICompletions, OpenAIEmbeddings
from cascaded.api.errors import anthropic_response
from cascaded.api.insight import MEDIA
from cascaded.api.openapi import document
from cascaded.api.people import Ward
from cascaded.api.routes import (
    ANSWERED,
    ANTHROPIC_HEADERS,
    ASKED,
    BRACKET,
    CALL,
    CLAIMS,
    DECIDED,
    WISHES,
    Query,
    Route,
)
from cascaded.api.server import Services, converse, health, metrics, model, models, ready
from cascaded.api.shapes import (
    AllLimits,
    BatchList,
    BatchObject,
    Budgets,
    Changes,
    ChatBody,
    ChatCompletion,
    CheckRequest,
    Completion,
    CompletionBody,
    Deleted,
    DeletedFile,
    DeletedMessageBatch,
    EmbeddingBody,
    Embeddings,
    FileList,
    FileObject,
    Holds,
    InputItems,
    InputTokens,
    KeptOrganization,
    KeptUser,
    KeptWorkspace,
    LimitsOf,
    Message,
    MessageBatch,
    MessageBatchList,
    MessagesBody,
    Models,
    Organizations,
    ResponseAnswer,
    ResponseGone,
    ResponsesBody,
    TierInfo,
    Tiers,
    TokenCount,
    UserOrCreated,
    UserOrUsers,
    Users,
    Workspaces,
)
from cascaded.client.insight import Anomalies, Breakdown, Forecast, ImportedInfo, Recommendations
from cascaded.client.results import (
    AuditPage,
    Backup,
    BatchInfo,
    BatchPage,
    CacheChecked,
    CacheInfo,
    CascadeResult,
    Check,
    Cleared,
    Health,
    Held,
    KeyInfo,
    KeyPage,
    ModelInfo,
    NewKey,
    Readiness,
    Receipt,
    Routing,
    Summary,
)
from cascaded.types.insight import ExportFormat, Grain, GroupBy, Period, Sensitivity
from cascaded.types.limits import Scope
from cascaded.types.profile import OrganizationConfig, UserProfile, WorkspaceConfig
from cascaded.wire.batches import BatchRequest, CreateBatch
from cascaded.wire.insight import ImportRequest
from cascaded.wire.keys import IssueRequest
from cascaded.wire.message_batches import MessageBatchRequest
from cascaded.wire.money import ReleaseRequest, ReserveRequest, ResolveRequest, SettleRequest
from cascaded.wire.native import InferRequest
from cascaded.wire.people import TierRequest
from cascaded.wire.terms import LimitBody, TierBody
from cascaded.wire.upkeep import BackupRequest, Reloaded


def _openapi(services: Services, http: web.Request) -> web.Response:  # noqa: ARG001
    """The description of all of this."""
    return web.Response(body=_document(), content_type="application/json")


@cache
def _document() -> bytes:
    return msgspec.json.encode(document(ROUTES))


_IF_VERSION = (
    Query("If-Match", "The version that is changed, or * for whatever is there."),
    Query("If-None-Match", "* where nothing may be there yet."),
)
_FILTER = (
    Query("since", "From this day or time on, in ISO 8601."),
    Query("until", "Up to this one, without it."),
    Query("user_id", "Only this user's."),
    Query("organization_id", "Only this organisation's."),
    Query("workspace_id", "Only this workspace's."),
    Query("team_id", "Only this team's."),
    Query("tier", "Only this tier's."),
    Query("model", "Only calls that asked for this model, or tried it."),
    Query("provider", "Only calls that this provider was asked for."),
    Query("feature", "Only calls with this tag, as `name=value`."),
    Query("domain", "Only of this topic domain."),
    Query("status", "`ok`, or the code of a refusal."),
    Query("imported", "Only what was imported; or only what was not.", bool),
)
_SUBJECT = (
    Query("user_id", "Whose spend."),
    Query("organization_id", "Whose spend."),
    Query("workspace_id", "Whose spend."),
    Query("model", "Only with this model."),
    Query("feature", "Only with this tag, as `name=value`."),
)
_ZONE = Query("zone", "Whose days, as an IANA time zone.")
_KEEP = (*CALL, "version_conflict", "version_required", "profiles_full", "profiles_unavailable")


def _kept(
    name: str,
    words: str,
    ward: Callable[[Services], Ward[Any]],
    shapes: tuple[type, type, type],
    *,
    written: tuple[Route, ...] = (),
) -> tuple[Route, ...]:
    """The routes of one kind that is kept with versions, but those that are `written` for it.
    `shapes`: it, one with its version, and a page of them."""
    item, kept, page = shapes
    one, id = f"/{name}/{{id}}", (Query("id", "Which one."),)
    routes = (
        Route(
            method="GET",
            path=f"/{name}",
            who="administrators",
            does=f"{words.capitalize()}, by id.",
            serve=lambda now: ward(now).list,
            parameters=_PAGE,
            answer=page,
            errors=(*CALL, "profiles_unavailable"),
        ),
        Route(
            method="POST",
            path=f"/{name}",
            who="administrators",
            does=f"Store a new one of the {words}.",
            serve=lambda now: ward(now).create,
            body=item,
            answer=kept,
            errors=(*_KEEP, "already_exists"),
        ),
        Route(
            method="GET",
            path=one,
            who="administrators",
            does=f"One of the {words}, and its version as `ETag`.",
            serve=lambda now: ward(now).get,
            parameters=id,
            answer=kept,
            errors=(*CALL, "not_found", "profiles_unavailable"),
        ),
        Route(
            method="PUT",
            path=one,
            who="administrators",
            does=f"Store one of the {words}, all of it. What is stored is replaced only by who"
            " knows its version.",
            serve=lambda now: ward(now).put,
            parameters=id,
            headers=_IF_VERSION,
            body=item,
            answer=kept,
            errors=(*_KEEP, "not_found", "already_exists"),
        ),
        Route(
            method="PATCH",
            path=one,
            who="administrators",
            does=f"Change members of one of the {words}. `null` puts one back to its default.",
            serve=lambda now: ward(now).patch,
            parameters=id,
            headers=_IF_VERSION,
            body=Changes,
            answer=kept,
            errors=(*_KEEP, "not_found", "already_exists"),
        ),
        Route(
            method="DELETE",
            path=one,
            who="administrators",
            does=f"Forget one of the {words}. Answered with what it was.",
            serve=lambda now: ward(now).delete,
            parameters=id,
            headers=_IF_VERSION,
            answer=kept,
            errors=(*_KEEP, "not_found", "already_exists"),
        ),
    )
    own = {(route.method, route.path) for route in written}
    return (*written, *(one for one in routes if (one.method, one.path) not in own))


_PAGE = (
    Query("limit", "How many.", int),
    Query("after", "What the page before told under this name."),
)
_BATCH = (
    *CALL,
    "feature_forbidden",
    "profiles_unavailable",
    "limits_unusable",
    "state_unavailable",
)
"""What every route of batches may refuse with."""
_BATCH_ID = (Query("id", "Which one."),)
_OPENAI_PAGE = (
    Query("limit", "How many.", int),
    Query("after", "The last id of the page before."),
)


def _of_batches(
    method: Any, path: str, does: str, serve: Callable[..., object], **more: Any
) -> Route:
    """A route of somebody else's API of batches."""
    named = ("not_found",) if "{" in path else ()
    return Route(
        method=method,
        path=path,
        who="callers",
        foreign=True,
        does=does,
        serve=serve,
        parameters=_BATCH_ID if named else more.pop("parameters", ()),
        headers=CLAIMS,
        errors=(*_BATCH, *named, *more.pop("errors", ())),
        **more,
    )


def _message_batches() -> tuple[Route, ...]:
    """Anthropic's batches."""
    route = partial(_of_batches, refuse=anthropic_response)
    return (
        route(
            "POST",
            "/messages/batches",
            "Ask many queries of Messages, in the background.",
            lambda now: now.message_batches.create,
            body=MessageBatchRequest,
            answer=MessageBatch,
            errors=("batches_full",),
        ),
        route(
            "GET",
            "/messages/batches",
            "One's batches of Messages, the newest first.",
            lambda now: now.message_batches.list,
            parameters=(
                Query("limit", "How many.", int),
                Query("after_id", "The last id of the page before."),
            ),
            answer=MessageBatchList,
        ),
        route(
            "GET",
            "/messages/batches/{id}",
            "How a batch of Messages stands.",
            lambda now: now.message_batches.get,
            answer=MessageBatch,
        ),
        route(
            "GET",
            "/messages/batches/{id}/results",
            "How every query of a batch of Messages ended, a line of JSON each.",
            lambda now: now.message_batches.results,
            media=("application/x-jsonl",),
        ),
        route(
            "POST",
            "/messages/batches/{id}/cancel",
            "Have a batch of Messages end early: no further query is asked.",
            lambda now: now.message_batches.cancel,
            answer=MessageBatch,
        ),
        route(
            "DELETE",
            "/messages/batches/{id}",
            "Forget a batch of Messages that has ended, and its results.",
            lambda now: now.message_batches.delete,
            answer=DeletedMessageBatch,
            errors=("conflict",),
        ),
    )


def _openai_batches() -> tuple[Route, ...]:
    """OpenAI's files and batches."""
    route = _of_batches
    return (
        route(
            "POST",
            "/files",
            "Upload a file of queries for a batch, as a form with `purpose` and `file`.",
            lambda now: now.openai_batches.upload,
            answer=FileObject,
            errors=("batches_full",),
        ),
        route(
            "GET",
            "/files",
            "One's files, the newest first.",
            lambda now: now.openai_batches.files,
            parameters=(
                *_OPENAI_PAGE,
                Query("purpose", "Only files of this purpose: `batch` or `batch_output`."),
                Query("order", "`asc` for the oldest first."),
            ),
            answer=FileList,
        ),
        route(
            "GET",
            "/files/{id}",
            "What is known of a file.",
            lambda now: now.openai_batches.file,
            answer=FileObject,
        ),
        route(
            "GET",
            "/files/{id}/content",
            "What is in a file.",
            lambda now: now.openai_batches.content,
            media=("application/octet-stream",),
        ),
        route(
            "DELETE",
            "/files/{id}",
            "Forget a file; one that shows results of a batch with them.",
            lambda now: now.openai_batches.delete_file,
            answer=DeletedFile,
            errors=("conflict",),
        ),
        route(
            "POST",
            "/batches",
            "Make a batch of an uploaded file. Its lines are checked before anything is asked.",
            lambda now: now.openai_batches.create,
            body=CreateBatch,
            answer=BatchObject,
            errors=("not_found", "batches_full"),
        ),
        route(
            "GET",
            "/batches",
            "One's batches, the newest first.",
            lambda now: now.openai_batches.batches,
            parameters=_OPENAI_PAGE,
            answer=BatchList,
        ),
        route(
            "GET",
            "/batches/{id}",
            "How a batch stands.",
            lambda now: now.openai_batches.batch,
            answer=BatchObject,
        ),
        route(
            "POST",
            "/batches/{id}/cancel",
            "Have a batch end early: no further query is asked, those under way are finished.",
            lambda now: now.openai_batches.cancel,
            answer=BatchObject,
        ),
    )


_OF_SCOPE = (Query("scope", "What kind of owner.", Scope), Query("id", "Which one."))
_RESPONSE = (Query("id", "Which one."),)
_KEPT_RESPONSE = (
    *CALL,
    "not_found",
    "profiles_unavailable",
    "limits_unusable",
    "state_unavailable",
)
_CHANGE = (*CALL, "conflict", "ledger_full", "state_unavailable")

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/chat/completions",
        who="callers",
        foreign=True,
        does="OpenAI's chat completions. Members that are not named here are forwarded unseen.",
        serve=lambda now: partial(converse, now, OpenAIChat()),
        headers=(*CLAIMS, *WISHES),
        body=ChatBody,
        answer=ChatCompletion,
        streams=True,
        errors=(*CALL, *DECIDED, *ANSWERED),
    ),
    Route(
        method="POST",
        path="/completions",
        who="callers",
        foreign=True,
        does="OpenAI's legacy completions, by a model whose provider has them. Members that are not"
        " named here are forwarded unseen.",
        serve=lambda now: partial(converse, now, OpenAICompletions()),
        headers=(*CLAIMS, *WISHES),
        body=CompletionBody,
        answer=Completion,
        streams=True,
        errors=(*CALL, *DECIDED, *ASKED),
    ),
    Route(
        method="POST",
        path="/embeddings",
        who="callers",
        foreign=True,
        does="OpenAI's embeddings, by a model whose provider has them. Members that are not named"
        " here are forwarded unseen.",
        serve=lambda now: partial(converse, now, OpenAIEmbeddings()),
        headers=(*CLAIMS, *WISHES),
        body=EmbeddingBody,
        answer=Embeddings,
        errors=(*CALL, *DECIDED, *ASKED),
    ),
    Route(
        method="POST",
        path="/messages",
        who="callers",
        foreign=True,
        does="Anthropic's Messages. Members that are not named here are forwarded unseen to models"
        " that are asked so; to others the call is translated.",
        serve=lambda now: partial(converse, now, Messages()),
        refuse=anthropic_response,
        headers=(*CLAIMS, *WISHES, *ANTHROPIC_HEADERS),
        body=MessagesBody,
        answer=Message,
        streams=True,
        errors=(*CALL, *DECIDED, *ANSWERED),
    ),
    Route(
        method="POST",
        path="/messages/count_tokens",
        who="callers",
        foreign=True,
        does="How many tokens a prompt of Anthropic's Messages has. Asked of Anthropic where a"
        " model of the ladder is theirs; else counted here, or bounded.",
        serve=lambda now: now.counting.count,
        refuse=anthropic_response,
        headers=(*CLAIMS, *ANTHROPIC_HEADERS),
        body=MessagesBody,
        answer=TokenCount,
        errors=(*CALL, *DECIDED, *ANSWERED),
    ),
    Route(
        method="POST",
        path="/responses",
        who="callers",
        foreign=True,
        does="OpenAI's Responses. Members that are not named here are forwarded unseen to models"
        " that are asked so; to others the call is translated.",
        serve=lambda now: partial(now.threads.create, partial(converse, now)),
        headers=(*CLAIMS, *WISHES),
        body=ResponsesBody,
        answer=ResponseAnswer,
        streams=True,
        errors=(
            *(*CALL, *DECIDED, *ANSWERED),
            *("previous_response_not_found", "state_unavailable"),
        ),
    ),
    Route(
        method="POST",
        path="/responses/input_tokens",
        who="callers",
        foreign=True,
        does="How many tokens the prompt of a call of OpenAI's Responses has; counted here, or"
        " bounded.",
        serve=lambda now: now.threads.count,
        headers=CLAIMS,
        body=ResponsesBody,
        answer=InputTokens,
        errors=(
            *(*CALL, *DECIDED, *ANSWERED),
            *("previous_response_not_found", "state_unavailable"),
        ),
    ),
    Route(
        method="GET",
        path="/responses/{id}",
        who="callers",
        foreign=True,
        does="A response that was kept for who asks.",
        serve=lambda now: now.threads.get,
        parameters=_RESPONSE,
        headers=CLAIMS,
        answer=ResponseAnswer,
        errors=_KEPT_RESPONSE,
    ),
    Route(
        method="DELETE",
        path="/responses/{id}",
        who="callers",
        foreign=True,
        does="Forget a response that was kept for who asks.",
        serve=lambda now: now.threads.delete,
        parameters=_RESPONSE,
        headers=CLAIMS,
        answer=ResponseGone,
        errors=_KEPT_RESPONSE,
    ),
    Route(
        method="GET",
        path="/responses/{id}/input_items",
        who="callers",
        foreign=True,
        does="The items of a kept response's own call; the last one first.",
        serve=lambda now: now.threads.items,
        parameters=(
            *_RESPONSE,
            Query("limit", "How many.", int),
            Query("order", "`asc` or `desc`."),
            Query("after", "The item before the first."),
        ),
        headers=CLAIMS,
        answer=InputItems,
        errors=_KEPT_RESPONSE,
    ),
    Route(
        method="POST",
        path="/responses/{id}/cancel",
        who="callers",
        foreign=True,
        does="Refused: what is kept has ended, and nothing runs in the background.",
        serve=lambda now: now.threads.cancel,
        parameters=_RESPONSE,
        headers=CLAIMS,
        answer=ResponseAnswer,
        errors=_KEPT_RESPONSE,
    ),
    Route(
        method="POST",
        path="/infer",
        who="callers",
        does="Ask through a cascade, with rich metadata. Give `query` or `messages`.",
        serve=lambda now: partial(converse, now, Native()),
        headers=(*CLAIMS, *WISHES),
        body=InferRequest,
        answer=CascadeResult,
        streams=True,
        errors=(*CALL, *DECIDED, *ANSWERED),
    ),
    Route(
        method="POST",
        path="/infer/batch",
        who="callers",
        does="Ask many queries, and wait until each has an answer or an error. The batch is on the"
        " disk: it goes on after a restart, and when its caller hangs up.",
        serve=lambda now: now.batches.create,
        headers=(
            *CLAIMS,
            Query("Idempotency-Key", "The same key with the same body gives the same batch."),
        ),
        body=BatchRequest,
        answer=BatchInfo,
        errors=(*_BATCH, "idempotency_conflict", "batches_full"),
    ),
    Route(
        method="GET",
        path="/infer/batch",
        who="callers",
        does="One's batches, the newest first.",
        serve=lambda now: now.batches.list,
        parameters=_PAGE,
        headers=CLAIMS,
        answer=BatchPage,
        errors=_BATCH,
    ),
    Route(
        method="GET",
        path="/infer/batch/{id}",
        who="callers",
        does="How a batch of one's own stands; once it has ended, what became of it.",
        serve=lambda now: now.batches.get,
        parameters=_BATCH_ID,
        headers=CLAIMS,
        answer=BatchInfo,
        errors=(*_BATCH, "not_found"),
    ),
    Route(
        method="GET",
        path="/infer/batch/{id}/events",
        who="callers",
        does="How a batch stands, whenever that changes, as server-sent events.",
        serve=lambda now: now.batches.events,
        parameters=_BATCH_ID,
        headers=CLAIMS,
        media=("text/event-stream",),
        errors=(*_BATCH, "not_found"),
    ),
    Route(
        method="POST",
        path="/infer/batch/{id}/cancel",
        who="callers",
        does="Have a batch end early: no further query is asked, those under way are finished.",
        serve=lambda now: now.batches.cancel,
        parameters=_BATCH_ID,
        headers=CLAIMS,
        answer=BatchInfo,
        errors=(*_BATCH, "not_found"),
    ),
    Route(
        method="DELETE",
        path="/infer/batch/{id}",
        who="callers",
        does="Forget a batch that has ended, and its results.",
        serve=lambda now: now.batches.delete,
        parameters=_BATCH_ID,
        headers=CLAIMS,
        answer=Deleted,
        errors=(*_BATCH, "not_found", "conflict"),
    ),
    *_openai_batches(),
    *_message_batches(),
    Route(
        method="POST",
        path="/check",
        who="callers",
        does="What would happen to a call, and why, for every limit. Takes nothing. The body is"
        " that of `/infer`, or that of `/reserve` for an amount alone.",
        serve=lambda now: now.desk.check,
        headers=CLAIMS,
        body=CheckRequest,
        answer=Check,
        errors=(*CALL, "internal_error"),
    ),
    Route(
        method="POST",
        path="/route",
        who="callers",
        does="How a call would be routed, and why: what its question is about, how hard it is, the"
        " models with their thresholds, what would be held. Asks no model and takes nothing.",
        serve=lambda now: now.desk.route,
        headers=CLAIMS,
        body=InferRequest,
        answer=Routing,
        errors=(*CALL, "internal_error"),
    ),
    Route(
        method="POST",
        path="/reserve",
        who="callers",
        does="Hold an amount for a call that you make yourself. Answered once the hold survives"
        " a crash.",
        serve=lambda now: now.desk.reserve,
        headers=(
            *CLAIMS,
            Query("Idempotency-Key", "The same key with the same body gives the same hold."),
        ),
        body=ReserveRequest,
        answer=Held,
        errors=(*CALL, *DECIDED, "idempotency_conflict"),
    ),
    Route(
        method="POST",
        path="/settle",
        who="callers",
        does="What the call of a hold really cost. Answered once that survives a crash.",
        serve=lambda now: now.desk.settle,
        body=SettleRequest,
        answer=Receipt,
        errors=(*CALL, "not_found"),
    ),
    Route(
        method="POST",
        path="/release",
        who="callers",
        does="The call of a hold was not made: all of it is given back.",
        serve=lambda now: now.desk.release,
        body=ReleaseRequest,
        answer=Receipt,
        errors=(*CALL, "not_found"),
    ),
    Route(
        method="GET",
        path="/budgets",
        who="callers",
        does="How budgets stand: one's own, for administrators anybody's.",
        serve=lambda now: now.desk.budgets,
        parameters=(
            Query("scope", "Only budgets of this kind.", Scope),
            Query("id", "Only this one's."),
        ),
        answer=Budgets,
    ),
    Route(
        method="GET",
        path="/summary",
        who="callers",
        does="What a user spent today, this week and this month, beside their budgets: oneself, for"
        " administrators anybody, an organisation, a workspace, or everybody.",
        serve=lambda now: now.records.summary,
        parameters=(
            Query("user_id", "Whose; without any everybody's."),
            Query("organization_id", "Whose."),
            Query("workspace_id", "Whose."),
        ),
        answer=Summary,
        errors=(*CALL, "records_unavailable"),
    ),
    Route(
        method="GET",
        path="/forecast",
        who="callers",
        does="What will have been spent at the end of the present period, between which bounds, and"
        " the probability that it is more than the budget: of oneself, for administrators of"
        " anybody, or everybody.",
        serve=lambda now: now.insight.forecast,
        parameters=(
            *_SUBJECT,
            Query("period", "Which one.", Period),
            Query("limit", "US dollars: a budget in place of the one that there is."),
            _ZONE,
        ),
        answer=Forecast,
        errors=(*CALL, "records_unavailable"),
    ),
    Route(
        method="GET",
        path="/anomalies",
        who="callers",
        does="Days or hours on which far more was spent than before, in all or on a feature: the"
        " newest first. Of whom is as for `/forecast`.",
        serve=lambda now: now.insight.anomalies,
        parameters=(
            *_SUBJECT,
            Query("sensitivity", "How far out it must be.", Sensitivity),
            Query("grain", "Whether days or hours are looked at.", Grain),
            Query("days", "Of the last so many days.", int),
            _ZONE,
        ),
        answer=Anomalies,
        errors=(*CALL, "records_unavailable"),
    ),
    Route(
        method="GET",
        path="/recommendations",
        who="callers",
        does="What would cost less, with the money of a month that it is about, worked out from"
        " what calls cost. Of whom is as for `/forecast`.",
        serve=lambda now: now.insight.recommendations,
        parameters=(*_SUBJECT, Query("days", "From the last so many days.", int), _ZONE),
        answer=Recommendations,
        errors=(*CALL, "records_unavailable"),
    ),
    Route(
        method="GET",
        path="/breakdown",
        who="callers",
        does="What was spent by user, organisation, workspace, model, feature, domain, tier or day:"
        " of one's own calls, for administrators of all.",
        serve=lambda now: now.insight.breakdown,
        parameters=(
            Query("by", "By what.", GroupBy),
            Query("top", "So many, the dearest first; of days the last.", int),
            *_FILTER,
            _ZONE,
        ),
        answer=Breakdown,
        errors=(*CALL, "records_unavailable"),
    ),
    Route(
        method="GET",
        path="/tiers",
        who="callers",
        does="The tiers in use, the least first, then the presets that are not.",
        serve=lambda now: now.terms.tiers,
        answer=Tiers,
    ),
    Route(
        method="GET",
        path="/tiers/{name}",
        who="callers",
        does="One tier, or preset.",
        serve=lambda now: now.terms.tier,
        parameters=(Query("name", "Its name."),),
        answer=TierInfo,
        errors=(*CALL, "not_found"),
    ),
    Route(
        method="PUT",
        path="/tiers/{name}",
        who="administrators",
        does="Make a tier, or replace one that was made so. In force for the next call.",
        serve=lambda now: now.terms.set_tier,
        parameters=(Query("name", "Its name."),),
        body=TierBody,
        answer=TierInfo,
        errors=_CHANGE,
    ),
    Route(
        method="DELETE",
        path="/tiers/{name}",
        who="administrators",
        does="Delete a tier that was made at run time and that nobody uses.",
        serve=lambda now: now.terms.delete_tier,
        parameters=(Query("name", "Its name."),),
        answer=Deleted,
        errors=(*_CHANGE, "not_found"),
    ),
    Route(
        method="GET",
        path="/limits",
        who="administrators",
        does="Every limit that is set at run time.",
        serve=lambda now: now.terms.limits,
        answer=AllLimits,
    ),
    Route(
        method="GET",
        path="/limits/{scope}/{id}",
        who="administrators",
        does="What is set at run time of one scope.",
        serve=lambda now: now.terms.limits_of,
        parameters=_OF_SCOPE,
        answer=LimitsOf,
        errors=(*CALL, "not_found"),
    ),
    Route(
        method="PUT",
        path="/limits/{scope}/{id}",
        who="administrators",
        does="Set these limits, and no others, of one scope. In force for the next call.",
        serve=lambda now: now.terms.set_limits,
        parameters=_OF_SCOPE,
        body=LimitBody,
        answer=LimitsOf,
        errors=_CHANGE,
    ),
    Route(
        method="DELETE",
        path="/limits/{scope}/{id}",
        who="administrators",
        does="Take away what is set at run time of one scope. What the layers below say holds"
        " again; spend stays.",
        serve=lambda now: now.terms.unset_limits,
        parameters=_OF_SCOPE,
        answer=LimitsOf,
        errors=(*_CHANGE, "not_found"),
    ),
    Route(
        method="POST",
        path="/keys",
        who="administrators",
        does="Issue an API key. It is told this once; what is kept is its hash.",
        serve=lambda now: now.keys.issue,
        body=IssueRequest,
        answer=NewKey,
        errors=(*CALL, "state_unavailable"),
    ),
    Route(
        method="GET",
        path="/keys",
        who="administrators",
        does="The keys that were issued, without their secrets.",
        serve=lambda now: now.keys.list,
        parameters=(
            Query("user_id", "Only those of this user."),
            Query("after", "What the page before told under this name."),
        ),
        answer=KeyPage,
    ),
    Route(
        method="DELETE",
        path="/keys/{id}",
        who="administrators",
        does="Revoke a key: from now on it opens nothing.",
        serve=lambda now: now.keys.revoke,
        parameters=(Query("id", "Its public id."),),
        answer=KeyInfo,
        errors=(*CALL, "not_found", "state_unavailable"),
    ),
    *_kept(
        "users",
        "users",
        lambda now: now.people.users,
        (UserProfile, KeptUser, Users),
        written=(
            Route(
                method="POST",
                path="/users",
                who="administrators",
                does="Store a new user; or many, all or none, as `users`.",
                serve=lambda now: now.people.create_users,
                body=UserOrUsers,
                answer=UserOrCreated,
                errors=(*_KEEP, "already_exists"),
            ),
            Route(
                method="GET",
                path="/users/{id}",
                who="callers",
                does="A user's profile, and the limits that it makes with its tier: one's own, for"
                " administrators anybody's.",
                serve=lambda now: now.people.get_user,
                parameters=(Query("id", "Which one."),),
                answer=KeptUser,
                errors=(*CALL, "not_found", "profiles_unavailable"),
            ),
        ),
    ),
    Route(
        method="PUT",
        path="/users/{id}/tier",
        who="administrators",
        does="Move a user to another tier.",
        serve=lambda now: now.people.set_tier,
        parameters=(Query("id", "Which one."),),
        headers=_IF_VERSION,
        body=TierRequest,
        answer=KeptUser,
        errors=(*_KEEP, "not_found", "already_exists"),
    ),
    *_kept(
        "organizations",
        "organisations",
        lambda now: now.people.organizations,
        (OrganizationConfig, KeptOrganization, Organizations),
    ),
    *_kept(
        "workspaces",
        "workspaces",
        lambda now: now.people.workspaces,
        (WorkspaceConfig, KeptWorkspace, Workspaces),
    ),
    Route(
        method="GET",
        path="/unknowns",
        who="administrators",
        does="Open holds, and what is charged although nobody knows the bill.",
        serve=lambda now: now.desk.unknowns,
        answer=Holds,
    ),
    Route(
        method="POST",
        path="/unknowns/{hold}",
        who="administrators",
        does="What a provider's bill says of a hold.",
        serve=lambda now: now.desk.resolve,
        parameters=(Query("hold", "Its number.", int),),
        body=ResolveRequest,
        answer=Receipt,
        errors=(*CALL, "not_found"),
    ),
    Route(
        method="GET",
        path="/audit",
        who="administrators",
        does="Decisions about money and access, the newest first.",
        serve=lambda now: now.records.audit,
        parameters=_PAGE,
        answer=AuditPage,
        errors=(*CALL, "records_unavailable"),
    ),
    Route(
        method="GET",
        path="/export",
        who="administrators",
        does="Usage records, streamed, the oldest first. `focus` is FOCUS 1.2 as CSV.",
        serve=lambda now: now.insight.export,
        parameters=(Query("format", "In which form.", ExportFormat), *_FILTER),
        media=tuple(sorted(set(MEDIA.values()))),
        errors=(*CALL, "records_unavailable"),
    ),
    Route(
        method="POST",
        path="/import",
        who="administrators",
        does="Bring in usage records of an export, once: those that are here already, by their"
        " ids and times, are left alone. No budget is touched. Answered once they are on the disk.",
        serve=lambda now: now.records.bring_in,
        body=ImportRequest,
        answer=ImportedInfo,
        errors=(*CALL, "records_unavailable"),
    ),
    Route(
        method="POST",
        path="/state/backup",
        who="administrators",
        does="Copy the state into a new folder of this host. Answered once the copy is on the"
        " disk.",
        serve=lambda now: now.upkeep.backup,
        body=BackupRequest,
        answer=Backup,
        errors=(*CALL, "backup_failed"),
    ),
    Route(
        method="GET",
        path="/cache",
        who="administrators",
        does="What the cache holds, and what it did since the start.",
        serve=lambda now: now.caches.show,
        answer=CacheInfo,
    ),
    Route(
        method="DELETE",
        path="/cache",
        who="administrators",
        does="Forget kept answers: of an organisation, of a user who belongs to none, of a model;"
        " without any of them all. Answered once they are gone from the disk.",
        serve=lambda now: now.caches.clear,
        parameters=(
            Query("organization", "Whose answers."),
            Query("user_id", "Whose answers."),
            Query("model", "Who gave them."),
        ),
        answer=Cleared,
        errors=(*CALL, "state_unavailable"),
    ),
    Route(
        method="POST",
        path="/cache/verify",
        who="administrators",
        does="Read every kept answer, and forget what is damaged.",
        serve=lambda now: now.caches.verify,
        answer=CacheChecked,
        errors=(*CALL, "state_unavailable"),
    ),
    Route(
        method="POST",
        path="/reload",
        who="administrators",
        does="Read the configuration again. Answered once it is in force; with every mistake"
        " where the old one was kept.",
        serve=lambda now: now.upkeep.reload,
        answer=Reloaded,
        errors=(*CALL, "config_invalid"),
    ),
    Route(
        method="GET",
        path="/health",
        who="anyone",
        does="Whether the process answers, and its version.",
        view=True,
        serve=health,
        answer=Health,
        errors=(),
    ),
    Route(
        method="GET",
        path="/ready",
        who="callers",
        does="Whether calls are taken now.",
        view=True,
        serve=ready,
        answer=Readiness,
        errors=BRACKET,
        statuses=(200, 503),
    ),
    Route(
        method="GET",
        path="/metrics",
        who="scrapers",
        does="The scrape for Prometheus.",
        view=True,
        serve=metrics,
        media=("text/plain",),
        errors=BRACKET,
    ),
    Route(
        method="GET",
        path="/models",
        who="callers",
        does="Every name that may be asked for: ladders, aliases and models.",
        view=True,
        serve=models,
        answer=Models,
        errors=BRACKET,
    ),
    Route(
        method="GET",
        path="/models/{id}",
        deep=True,
        who="callers",
        does="One name that may be asked for.",
        view=True,
        serve=model,
        parameters=(Query("id", "Its name; slashes may stand in it as they are."),),
        answer=ModelInfo,
        errors=(*BRACKET, "model_not_found"),
    ),
    Route(
        method="GET",
        path="/openapi.json",
        who="callers",
        does="This document.",
        view=True,
        serve=_openapi,
        errors=BRACKET,
    ),
)
"""The one route table."""
