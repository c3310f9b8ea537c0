"""The one route table, and the bracket around every call: limits, identity, errors in shape."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import msgspec
from aiohttp import web

from cascaded.api.auth import Gate
from cascaded.api.dialects.base import Dialect, Incoming
from cascaded.api.dialects.native import Native
from cascaded.api.dialects.openai_chat import OpenAIChat
from cascaded.api.errors import error_object, error_response
from cascaded.api.money import Desk
from cascaded.api.records import Records
from cascaded.api.replies import PlainReply
from cascaded.api.upkeep import Upkeep
from cascaded.pipeline.run import FAULTED, Pipeline, run
from cascaded.ports import Audit, Clock, Reply
from cascaded.types.decision import Decision, Refusal
from cascaded.types.errors import CallerLeftError, LedgerFaultError
from cascaded.types.request import Request
from cascaded.types.result import Outcome
from cascaded.wire.openai_chat import WireError

_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
BUSY_RETRY_S = 1.0
MAX_ARRIVING = 256
"""Bodies on their way at once; each may take up to the limit of memory."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Call = Callable[[Incoming], Awaitable[web.StreamResponse]]
LEDGER_DOWN = Refusal(
    code="ledger_unavailable",
    message="The ledger cannot write to its disk, so nothing is spent. The operator must look.",
)
ADMINS_ONLY = Refusal(
    code="forbidden",
    message="This route is for administrators: over the Unix socket, the daemon's own user, root,"
    " and the members of the group that access.admin_group names.",
)
View = Callable[["Services", web.Request], web.Response]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one daemon takes on. Times are seconds."""

    max_body_bytes: int
    max_concurrency: int
    request_timeout_s: float
    body_timeout_s: float


class Status(msgspec.Struct):
    """What changes while the daemon lives."""

    ready: bool = False
    draining: bool = False
    in_flight: int = 0
    arriving: int = 0
    """Bodies that are still on their way."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What the handlers need; made by the composition root."""

    version: str
    pipeline: Pipeline
    desk: Desk
    records: Records
    upkeep: Upkeep
    audit: Audit
    gate: Gate
    limits: Limits
    status: Status
    clock: Clock
    new_id: Callable[[], str]
    models: Callable[[], list[dict[str, object]]]
    """The rows of `/v1/models`."""
    metrics: Callable[[str], tuple[bytes, str]]
    """The scrape's body and content type, for an `Accept` header."""
    metrics_without_key: bool
    log_fault: Callable[[str, BaseException], None]


def application(services: Services) -> web.Application:
    """The daemon's HTTP application."""
    # One byte more than allowed, so that our own check refuses with our own words.
    app = web.Application(client_max_size=services.limits.max_body_bytes + 1)
    desk = services.desk
    calls: dict[tuple[str, str], Call] = {
        ("POST", "/chat/completions"): partial(_converse, services, OpenAIChat()),
        ("POST", "/infer"): partial(_converse, services, Native()),
        ("POST", "/check"): desk.check,
        ("POST", "/reserve"): desk.reserve,
        ("POST", "/settle"): desk.settle,
        ("POST", "/release"): desk.release,
        ("GET", "/budgets"): desk.budgets,
        ("GET", "/summary"): services.records.summary,
    }
    administration: dict[tuple[str, str], Call] = {
        ("GET", "/unknowns"): desk.unknowns,
        ("POST", "/unknowns/{hold}"): desk.resolve,
        ("GET", "/audit"): services.records.audit,
        ("POST", "/state/backup"): services.upkeep.backup,
    }
    views = {
        "/health": _viewing(services, _health, open_to_all=True),
        "/ready": _viewing(services, _ready),
        "/metrics": _viewing(services, _metrics, open_to_all=services.metrics_without_key),
        "/models": _viewing(services, _models),
    }
    for prefix in ("", "/v1"):
        for (method, path), call in calls.items():
            app.router.add_route(method, prefix + path, _admitting(services, call))
        for (method, path), call in administration.items():
            handler = _admitting(services, partial(_administering, services, path, call))
            app.router.add_route(method, prefix + path, handler)
        for path, view in views.items():
            app.router.add_get(prefix + path, view)
    known = {resource.canonical for resource in app.router.resources()}
    app.router.add_route("*", "/{path:.*}", partial(_nothing_here, services, frozenset(known)))
    return app


def _admitting(services: Services, call: Call) -> Handler:
    """The bracket around a call: identity, load, the body read within its limits."""
    limits, status = services.limits, services.status

    async def handle(http: web.Request) -> web.StreamResponse:
        received_ns = services.clock.monotonic_ns()
        request_id = _request_id(services, http)
        principal = services.gate.principal(http)
        if isinstance(principal, Refusal):
            return error_response(principal, request_id)
        if status.draining or status.in_flight >= limits.max_concurrency:
            return error_response(_busy(services), request_id)
        body = await _body(http, services)
        if isinstance(body, Refusal):
            return error_response(body, request_id)
        if status.draining or status.in_flight >= limits.max_concurrency:
            return error_response(_busy(services), request_id)
        status.in_flight += 1
        try:
            return await call(
                Incoming(
                    http=http,
                    body=body,
                    request_id=request_id,
                    principal=principal,
                    received_ns=received_ns,
                )
            )
        except WireError as error:
            wrong = Refusal(code="invalid_request", message=str(error), param=error.param)
            return error_response(wrong, request_id)
        except LedgerFaultError as fault:
            services.log_fault(request_id, fault)
            return error_response(LEDGER_DOWN, request_id)
        finally:
            status.in_flight -= 1

    return handle


async def _administering(
    services: Services, path: str, call: Call, incoming: Incoming
) -> web.StreamResponse:
    """A call that only administrators may make; the audit log is told of all who tried."""
    principal = incoming.principal
    services.audit.access(
        f"route:{path}",
        actor=principal.id,
        allowed=principal.admin,
        reason="administrator" if principal.admin else ADMINS_ONLY.message,
        request_id=incoming.request_id,
    )
    if not principal.admin:
        return error_response(ADMINS_ONLY, incoming.request_id)
    return await call(incoming)


async def _converse(services: Services, dialect: Dialect, incoming: Incoming) -> web.StreamResponse:
    """Read the call, run it, say the answer: whole, or as it comes."""
    request = dialect.read(incoming)
    if request.stream:
        return await _stream(services, dialect, incoming.http, request)
    reply = PlainReply()
    outcome = await _run(services, request, reply)
    if isinstance(outcome.end, Refusal):
        response = error_response(outcome.end, request.id)
    else:
        assert reply.event is not None
        response = dialect.answer(request, reply.event, outcome, outcome.end)
    response.headers.update(services.desk.headers(outcome.decision))
    return response


async def _stream(
    services: Services, dialect: Dialect, http: web.Request, request: Request
) -> web.StreamResponse:
    reply = dialect.stream(http, request)
    outcome = await _run(services, request, reply)
    if isinstance(outcome.end, Refusal) and not reply.committed:
        refused = error_response(outcome.end, request.id)
        refused.headers.update(services.desk.headers(outcome.decision))
        return refused
    with suppress(CallerLeftError):
        if isinstance(outcome.end, Refusal):
            await reply.fail(error_object(outcome.end))
        else:
            await reply.finish(outcome, outcome.end)
    return reply.response


async def _run(services: Services, request: Request, reply: Reply) -> Outcome:
    """The pipeline, with its time limited and its faults turned into words."""
    seconds = services.limits.request_timeout_s
    try:
        async with asyncio.timeout(seconds):
            return await run(services.pipeline, request, reply)
    except TimeoutError:
        late = Refusal(code="call_timeout", message=f"The call took longer than {seconds} s.")
        return Outcome(decision=Decision(), end=late)
    except LedgerFaultError as fault:
        services.log_fault(request.id, fault)
        return Outcome(decision=Decision(), end=LEDGER_DOWN)
    except Exception as fault:
        services.log_fault(request.id, fault)
        return Outcome(decision=Decision(), end=FAULTED)


async def _body(http: web.Request, services: Services) -> bytes | Refusal:
    """The body. As a rule it came with the head; one that is still on its way takes a place of
    its own, so that slow senders do not keep the others out."""
    most = services.limits.max_body_bytes
    if "Content-Encoding" in http.headers:
        return Refusal(
            code="unsupported_encoding", message="Compressed bodies are not taken: send it plain."
        )
    if (http.content_length or 0) > most:
        return _too_large(most)
    if http.content.is_eof():
        body = http.content.read_nowait()
        return _too_large(most) if len(body) > most else body
    if services.status.arriving >= MAX_ARRIVING:
        return _busy(services)
    services.status.arriving += 1
    try:
        async with asyncio.timeout(services.limits.body_timeout_s):
            body = await http.read()
    except web.HTTPRequestEntityTooLarge:
        return _too_large(most)
    except TimeoutError:
        return Refusal(code="request_timeout", message="The body took too long to arrive.")
    finally:
        services.status.arriving -= 1
    return _too_large(most) if len(body) > most else body


def _too_large(most: int) -> Refusal:
    return Refusal(code="too_large", message=f"The body is larger than {most} bytes.")


def _busy(services: Services) -> Refusal:
    if services.status.draining:
        return Refusal(
            code="draining", message="The daemon is shutting down.", retry_after_s=BUSY_RETRY_S
        )
    return Refusal(
        code="overloaded",
        message=f"{services.status.in_flight} calls are under way already.",
        retry_after_s=BUSY_RETRY_S,
    )


def _request_id(services: Services, http: web.Request) -> str:
    given = http.headers.get("X-Request-ID")
    return given if given and _GIVEN_ID.fullmatch(given) else services.new_id()


def _viewing(services: Services, view: View, *, open_to_all: bool = False) -> Handler:
    """The handler of something to look at."""

    async def handle(http: web.Request) -> web.Response:
        request_id = _request_id(services, http)
        principal = None if open_to_all else services.gate.principal(http)
        if isinstance(principal, Refusal):
            return error_response(principal, request_id)
        response = view(services, http)
        response.headers["x-request-id"] = request_id
        return response

    return handle


def _health(services: Services, http: web.Request) -> web.Response:  # noqa: ARG001
    """The process answers; nothing more is claimed."""
    return _json({"status": "ok", "version": services.version})


def _ready(services: Services, http: web.Request) -> web.Response:  # noqa: ARG001
    """Whether calls are taken now."""
    status = services.status
    ready = status.ready and not status.draining
    body = {"ready": ready, "draining": status.draining, "in_flight": status.in_flight}
    return _json(body, status=200 if ready else 503)


def _metrics(services: Services, http: web.Request) -> web.Response:
    """The Prometheus scrape."""
    body, content_type = services.metrics(http.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


def _models(services: Services, http: web.Request) -> web.Response:  # noqa: ARG001
    """`/v1/models`: ladders, aliases and models that may be asked for by name."""
    return _json({"object": "list", "data": services.models()})


async def _nothing_here(
    services: Services, known: frozenset[str], http: web.Request
) -> web.Response:
    if http.path in known:
        wrong = Refusal(
            code="method_not_allowed", message=f"{http.path} does not take {http.method}."
        )
    else:
        wrong = Refusal(code="not_found", message=f"There is nothing at {http.path}.")
    return error_response(wrong, _request_id(services, http))


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )
