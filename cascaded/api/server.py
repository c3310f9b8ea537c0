"""The bracket around every call: limits, identity, errors in shape.

Every request reads once which `Services` are in force, and stays with them to its end.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any, cast

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.web_urldispatcher import AbstractResource
from msgspec.structs import replace

from cascaded.api.auth import Gate
from cascaded.api.batches import BatchDesk
from cascaded.api.caches import Caches
from cascaded.api.counting import Counting
from cascaded.api.dialects.base import Dialect, Incoming
from cascaded.api.errors import Refuse, error_response
from cascaded.api.insight import Insight
from cascaded.api.keys import Keys
from cascaded.api.message_batches import MessageBatches
from cascaded.api.money import Desk
from cascaded.api.openai_batches import OpenAIBatches
from cascaded.api.people import People
from cascaded.api.records import Records
from cascaded.api.replies import PlainReply, StreamReply, json_response
from cascaded.api.responses import Threads
from cascaded.api.routes import Route
from cascaded.api.terms import Terms
from cascaded.api.upkeep import Upkeep
from cascaded.api.waiting import WaitingRoom
from cascaded.pipeline.run import FAULTED, Pipeline, run
from cascaded.ports import Audit, Clock, Reply
from cascaded.types.decision import Decision, Refusal
from cascaded.types.errors import CallerLeftError, LedgerFaultError
from cascaded.types.request import Line, Request
from cascaded.types.result import Outcome
from cascaded.types.times import NS_PER_S
from cascaded.types.tracing import Trace
from cascaded.wire import protocol
from cascaded.wire.openai_chat import WireError

HEARTBEAT = "X-Cascaded-Heartbeat"
"""Seconds of silence after which a caller wants a sign of life."""
_HEARTBEAT_S = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
BUSY_RETRY_S = 1.0
FAULT_STATUS = 500
MAX_QUOTED_CHARS = 200
MAX_BESIDE = 1024
"""Requests at once that need no place: questions about budgets, reservations, administration."""
_STAYS: web.RequestKey[Callable[[], bool]] = web.RequestKey("stays")
MAX_LEFT_BEHIND = 64
"""Calls at once that are heard to their end although their callers have left."""
MAX_ARRIVING = 256
"""Bodies on their way at once; each may take up to the limit of memory."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Call = Callable[[Incoming], Awaitable[web.StreamResponse]]
Pick = Callable[["Services"], Call]
"""Who answers a route, of the services in force."""
LEDGER_DOWN = Refusal(
    code="ledger_unavailable",
    message="The ledger cannot write to its disk, so nothing is spent. The operator must look.",
)
ADMINS_ONLY = Refusal(
    code="forbidden",
    message="This route is for administrators: over the Unix socket, the daemon's own user, root,"
    " and the members of the group that access.admin_group names; anywhere, an admin key.",
)
View = Callable[["Services", web.Request], web.Response | Refusal]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one daemon takes on. Times are seconds."""

    max_body_bytes: int
    request_timeout_s: float
    body_timeout_s: float
    heartbeat_s: float = 0.0
    """After so long a silence a stream is sent a sign of life; 0: none."""


class Status(msgspec.Struct):
    """What changes while the daemon lives."""

    ready: bool = False
    draining: bool = False
    """The end has begun."""
    handing_over: bool = False
    """The door stays open for the next daemon: every answer tells its caller to connect anew."""
    refusing: bool = False
    """No new call is taken any more."""
    in_flight: int = 0
    """Requests under way, those of waiting calls included."""
    arriving: int = 0
    """Bodies that are still on their way."""
    left_behind: set[asyncio.Task[Any]] = msgspec.field(default_factory=set)
    """The tasks of calls whose callers have left and that are heard to their end."""
    since_ns: int = 0
    """When the daemon began, by the monotonic clock."""


class Tally(msgspec.Struct):
    """How many requests are with one configuration's services; those are closed after the last."""

    in_flight: int = 0


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What the handlers need under one configuration; made by the composition root."""

    version: str
    tally: Tally
    pipeline: Pipeline
    desk: Desk
    counting: Counting
    threads: Threads
    terms: Terms
    keys: Keys
    records: Records
    insight: Insight
    people: People
    upkeep: Upkeep
    caches: Caches
    batches: BatchDesk
    openai_batches: OpenAIBatches
    message_batches: MessageBatches
    audit: Audit
    gate: Gate
    limits: Limits
    status: Status
    breakers: Callable[[], Mapping[str, str]]
    """Whether each provider is asked (`closed`), left alone (`open`) or tried (`half_open`)."""
    deployments: Callable[[], list[dict[str, object]]]
    """How the places stand of models that are served in several."""
    room: WaitingRoom
    """Where calls take their places."""
    priority: Callable[[Request], Awaitable[int]]
    """Who goes first when there is no place: the highest."""
    clock: Clock
    new_id: Callable[[], str]
    models: Callable[[], list[dict[str, object]]]
    """The rows of `/v1/models`."""
    model: Callable[[str], dict[str, object] | Refusal]
    """One of them, by its name."""
    in_batches: Callable[[str], bool]
    """Whether what a name means is asked in its provider's own batches, where there is time."""
    metrics: Callable[[str], tuple[bytes, str]]
    """The scrape's body and content type, for an `Accept` header."""
    metrics_without_key: bool
    trace: Callable[[Mapping[str, str]], Trace] | None
    """Where a call with these headers stands in a trace, if anybody is told of traces."""
    log_fault: Callable[[str, BaseException], None]
    count_refusal: Callable[[str], None]
    """Told the code of every request that is refused before the pipeline, which counts its own."""


Current = Callable[[], Services]
"""The services in force."""


def application(current: Current, routes: Sequence[Route]) -> web.Application:
    """The daemon's HTTP application."""
    app = web.Application(client_max_size=0)  # bodies are measured here, in our own words
    for route in routes:
        for prefix in ("", "/v1"):
            handler = _handler(current, route)
            if not route.foreign:
                handler = _speaking(current, handler)
            path = prefix + (route.path.replace("}", ":.+}") if route.deep else route.path)
            if route.view:
                app.router.add_get(path, handler, expect_handler=_go_on)
            else:
                app.router.add_route(route.method, path, handler, expect_handler=_go_on)
    known = tuple(app.router.resources())
    nothing = partial(_nothing_here, current, known)
    # `(?s:…)`: a path may hold a line's end, and is answered in our words all the same.
    everything = "/{path:(?s:.*)}"
    app.router.add_route("*", everything, _speaking(current, nothing), expect_handler=_go_on)
    return app


async def _go_on(http: web.Request) -> None:
    """Tell a caller who waits for it to send the body. Whatever else is expected is not looked at,
    as RFC 9110 (10.1.1) allows."""
    if http.headers["Expect"].lower() == "100-continue" and http.version == HttpVersion11:
        await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        http.writer.output_size = 0  # of the answer, which is still to come


def _speaking(current: Current, handler: Handler) -> Handler:
    """Around the native routes: one version of the protocol, asked for and told."""

    async def handle(http: web.Request) -> web.StreamResponse:
        asked = http.headers.get(protocol.HEADER)
        if protocol.spoken(protocol.version(asked)):
            response = await handler(http)
        else:
            response = _strange(current(), http, asked)
        if not response.prepared:  # a stream said it as it began
            response.headers[protocol.HEADER] = str(protocol.CURRENT)
        return response

    return handle


def _strange(services: Services, http: web.Request, asked: str | None) -> web.Response:
    refusal = Refusal(
        code="unsupported_protocol",
        message=f"{protocol.HEADER} {asked!r} is not spoken here. This daemon"
        f" ({services.version}) speaks {protocol.OLDEST} to {protocol.CURRENT}: upgrade"
        " whichever of the two is older.",
        param=protocol.HEADER,
    )
    return _turn_away(services, refusal, _request_id(services, http))


def _handler(current: Current, route: Route) -> Handler:
    """What serves a route, for those who may call it."""
    if route.view:
        open_to_all = _OPEN.get(route.who, lambda _: False)
        return _viewing(current, cast("View", route.serve), open_to_all=open_to_all)
    pick = cast("Pick", route.serve)
    if route.who == "administrators":
        pick = partial(_for_administrators, route.path, pick)
    return _admitting(current, pick, route.refuse)


_OPEN: Mapping[str, Callable[[Services], bool]] = {
    "anyone": lambda _: True,
    "scrapers": lambda now: now.metrics_without_key,
}


def _admitting(current: Current, pick: Pick, refuse: Refuse) -> Handler:
    """The handler of a call: it belongs to the services in force when its head has arrived."""

    async def handle(http: web.Request) -> web.StreamResponse:
        services = current()
        services.tally.in_flight += 1
        try:
            response = await _admit(services, pick(services), http, refuse)
        finally:
            services.tally.in_flight -= 1
        if services.status.handing_over:
            response.force_close()
        return response

    return handle


async def _admit(
    services: Services, call: Call, http: web.Request, refuse: Refuse
) -> web.StreamResponse:
    """The bracket around a call: identity, load, the body read within its limits."""
    status = services.status
    received_ns = services.clock.monotonic_ns()
    request_id = _request_id(services, http)
    principal = services.gate.principal(http)
    if isinstance(principal, Refusal):
        return _turn_away(services, principal, request_id, refuse)
    if _is_busy(services):
        return _turn_away(services, busy_refusal(services), request_id, refuse)
    body = await _body(http, services)
    if isinstance(body, Refusal):
        return _turn_away(services, body, request_id, refuse)
    if _is_busy(services):
        return _turn_away(services, busy_refusal(services), request_id, refuse)
    status.in_flight += 1
    try:
        return await call(
            Incoming(
                http=http,
                gate=services.gate,
                body=body,
                request_id=request_id,
                principal=principal,
                received_ns=received_ns,
                created_s=services.clock.wall_ns() // NS_PER_S,
            )
        )
    except WireError as error:
        wrong = Refusal(code="invalid_request", message=str(error), param=error.param)
        return _turn_away(services, wrong, request_id, refuse)
    except LedgerFaultError as fault:
        services.log_fault(request_id, fault)
        return _turn_away(services, LEDGER_DOWN, request_id, refuse)
    finally:
        status.in_flight -= 1


def _turn_away(
    services: Services, refusal: Refusal, request_id: str, refuse: Refuse = error_response
) -> web.Response:
    """The answer to a request that reached no model."""
    services.count_refusal(refusal.code)
    return refuse(refusal, request_id)


def _for_administrators(path: str, pick: Pick, services: Services) -> Call:
    return partial(_administering, services, path, pick(services))


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
        return _turn_away(services, ADMINS_ONLY, incoming.request_id)
    return await call(incoming)


async def converse(services: Services, dialect: Dialect, incoming: Incoming) -> web.StreamResponse:
    """Read the call, and run it once there is a place. Until then it holds nothing."""
    request = dialect.read(incoming)
    if services.trace is not None:
        request = replace(request, trace=services.trace(incoming.http.headers))
    room = services.room
    if not room.take():
        ending = await room.wait(await services.priority(request))
        if ending != "entered":
            busy = busy_refusal(services, late=ending == "late")
            return _turn_away(services, busy, request.id, dialect.refuse)
    status = services.status
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    stays: Callable[[], bool] = partial(_stays, status, task, request.line)
    incoming.http[_STAYS] = stays
    try:
        if request.stream:
            return await _stream(services, dialect, incoming.http, request)
        return (await plain(services, dialect, request))[1]
    finally:
        status.left_behind.discard(task)
        room.leave()


def goes_on(http: web.BaseRequest) -> bool:
    """Whether a request's handler goes on when its connection is lost."""
    stays = http.get(_STAYS)
    return stays is not None and stays()


def _stays(status: Status, task: asyncio.Task[Any], line: Line) -> bool:
    """Whether a call goes on whose caller has left: its provider bills it to its end in any case,
    so that it is worth to hear what it costs."""
    if line.is_sent is None or not line.is_sent() or status.refusing:
        return False
    if len(status.left_behind) >= MAX_LEFT_BEHIND:
        return False
    line.left = True
    status.left_behind.add(task)
    return True


async def plain(
    services: Services, dialect: Dialect, request: Request, most_s: float | None = None
) -> tuple[Outcome, web.Response]:
    """Run the call, and say the answer whole. `most_s`: what it may take, below what any may."""
    reply = PlainReply()
    outcome = await _run(services, request, reply, most_s)
    if isinstance(outcome.end, Refusal):
        response = dialect.refuse(outcome.end, request.id)
    else:
        assert reply.event is not None
        response = dialect.answer(request, reply.event, outcome, outcome.end)
    response.headers.update(services.desk.headers(outcome, dialect.rates))
    return outcome, response


async def _stream(
    services: Services, dialect: Dialect, http: web.Request, request: Request
) -> web.StreamResponse:
    reply = dialect.stream(http, request)
    every_s = _heartbeat_s(services, http)
    async with _beating(reply, every_s, services.clock) if every_s else nullcontext():
        outcome = await _run(services, request, reply)
    if isinstance(outcome.end, Refusal) and not reply.begun:
        refused = dialect.refuse(outcome.end, request.id)
        refused.headers.update(services.desk.headers(outcome, dialect.rates))
        return refused
    with suppress(CallerLeftError):
        if isinstance(outcome.end, Refusal):
            await reply.fail(outcome.end)
        else:
            await reply.finish(outcome, outcome.end)
    return reply.response


def _heartbeat_s(services: Services, http: web.Request) -> float:
    """What the caller says, else what the configuration does. Raises `WireError`."""
    said = http.headers.get(HEARTBEAT)
    if said is None:
        return services.limits.heartbeat_s
    if not _HEARTBEAT_S.fullmatch(said):
        raise WireError(f"{HEARTBEAT} is a number of seconds up to 9999, and 0 for none", HEARTBEAT)
    return float(said)


@asynccontextmanager
async def _beating(reply: StreamReply, every_s: float, clock: Clock) -> AsyncIterator[None]:
    """Heartbeats, as long as the call is under way."""
    async with asyncio.TaskGroup() as tasks:
        heart = tasks.create_task(reply.beat(every_s, clock))
        try:
            yield
        finally:
            heart.cancel()


async def _run(
    services: Services, request: Request, reply: Reply, most_s: float | None = None
) -> Outcome:
    """The pipeline, with its time limited and its faults turned into words."""
    seconds: float | None = services.limits.request_timeout_s
    if request.in_batches:
        seconds = None  # whoever asks so has a clock of its own
    elif most_s is not None:
        seconds = min(services.limits.request_timeout_s, most_s)
    try:
        async with asyncio.timeout(seconds):
            outcome = await run(services.pipeline, request, reply)
        return replace(outcome, left=services.desk.left(outcome.decision))
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
        return Refusal(
            code="overloaded",
            message=f"{MAX_ARRIVING} bodies are on their way already.",
            retry_after_s=BUSY_RETRY_S,
        )
    services.status.arriving += 1
    arrived = bytearray()
    try:
        async with asyncio.timeout(services.limits.body_timeout_s):
            while piece := await http.content.readany():
                arrived += piece
                if len(arrived) > most:
                    return _too_large(most)
    except TimeoutError:
        return Refusal(code="request_timeout", message="The body took too long to arrive.")
    finally:
        services.status.arriving -= 1
    return bytes(arrived)


def _too_large(most: int) -> Refusal:
    return Refusal(code="too_large", message=f"The body is larger than {most} bytes.")


def _is_busy(services: Services) -> bool:
    status, size = services.status, services.room.size
    return status.refusing or status.in_flight >= size.places + size.seats + MAX_BESIDE


def busy_refusal(services: Services, *, late: bool = False) -> Refusal:
    """Why there is no place for a call."""
    if services.status.refusing:
        return Refusal(
            code="draining", message="The daemon is shutting down.", retry_after_s=BUSY_RETRY_S
        )
    room = services.room
    waiting = f" and {room.waiting} wait" if room.waiting else ""
    too_long = f" None of them ended within {room.size.wait_s:g} s." if late else ""
    return Refusal(
        code="overloaded",
        message=f"{room.taken} calls are under way already{waiting}.{too_long}",
        retry_after_s=BUSY_RETRY_S,
    )


def _request_id(services: Services, http: web.Request) -> str:
    given = http.headers.get("X-Request-ID")
    return given if given and _GIVEN_ID.fullmatch(given) else services.new_id()


def _viewing(
    current: Current, view: View, *, open_to_all: Callable[[Services], bool] = lambda _: False
) -> Handler:
    """The handler of something to look at."""

    async def handle(http: web.Request) -> web.Response:
        services = current()
        request_id = _request_id(services, http)
        principal = None if open_to_all(services) else services.gate.principal(http)
        if isinstance(principal, Refusal):
            return _turn_away(services, principal, request_id)
        response = view(services, http)
        if isinstance(response, Refusal):
            return _turn_away(services, response, request_id)
        response.headers["x-request-id"] = request_id
        return response

    return handle


def health(services: Services, http: web.Request) -> web.Response:  # noqa: ARG001
    """The process answers; nothing more is claimed."""
    return json_response({"status": "ok", "version": services.version})


def ready(services: Services, http: web.Request) -> web.Response:  # noqa: ARG001
    """Whether calls are taken now."""
    status = services.status
    ready = status.ready and not status.draining
    body = {
        "ready": ready,
        "draining": status.draining,
        "in_flight": status.in_flight,
        "waiting": services.room.waiting,
        "providers": services.breakers(),
        "deployments": services.deployments(),
        "uptime_s": (services.clock.monotonic_ns() - status.since_ns) / NS_PER_S,
    }
    return json_response(body, status=200 if ready else 503)


def metrics(services: Services, http: web.Request) -> web.Response:
    """The Prometheus scrape."""
    body, content_type = services.metrics(http.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


def models(services: Services, http: web.Request) -> web.Response:  # noqa: ARG001
    """`/v1/models`: ladders, aliases and models that may be asked for by name."""
    return json_response({"object": "list", "data": services.models()})


def model(services: Services, http: web.Request) -> web.Response | Refusal:
    """`/v1/models/{id}`: one of them."""
    row = services.model(http.match_info["id"])
    return row if isinstance(row, Refusal) else json_response(row)


async def _nothing_here(
    current: Current, known: Sequence[AbstractResource], http: web.Request
) -> web.Response:
    services, request_id = current(), _request_id(current(), http)
    methods = set[str]().union(*[(await resource.resolve(http))[1] for resource in known])
    if not methods:
        missing = Refusal(code="not_found", message=f"There is nothing at {http.path}.")
        return _turn_away(services, missing, request_id)
    allowed = ", ".join(sorted(methods))
    wrong = Refusal(
        code="method_not_allowed", message=f"{http.path} takes {allowed}, not {http.method}."
    )
    response = _turn_away(services, wrong, request_id)
    response.headers["Allow"] = allowed
    return response


def unreadable(current: Current, status: int, message: str) -> web.Response:
    """The answer to what is no HTTP (400), or to a fault in a handler (500)."""
    services = current()
    refusal = FAULTED
    if status < FAULT_STATUS:
        told = message.strip()[:MAX_QUOTED_CHARS]
        refusal = Refusal(code="invalid_request", message=f"This cannot be read as HTTP: {told}")
    return _turn_away(services, refusal, services.new_id())
