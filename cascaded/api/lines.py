"""How the queries of batches are asked: as whoever made the batch, by the services that are in
force when it is a query's turn, through the same pipeline as any call."""

from collections.abc import Callable, Mapping, MutableMapping

import msgspec
from aiohttp import web
from msgspec.structs import replace
from multidict import CIMultiDict

from cascaded.api.dialects.base import Asking, Dialect
from cascaded.api.dialects.messages import Messages
from cascaded.api.dialects.native import Native
from cascaded.api.dialects.openai_chat import OpenAIChat
from cascaded.api.dialects.openai_texts import OpenAICompletions, OpenAIEmbeddings
from cascaded.api.dialects.responses import Responses, Thread
from cascaded.api.errors import error_response
from cascaded.api.server import Services, busy_refusal, plain
from cascaded.pipeline.run import FAULTED
from cascaded.types.batch import Answered, Batch, Line
from cascaded.types.decision import Decision, Refusal
from cascaded.types.request import Request
from cascaded.types.result import Outcome
from cascaded.types.times import NS_PER_S
from cascaded.wire.openai_chat import WireError
from cascaded.wire.responses import parse_responses

AUTO = "auto"
"""What is asked where a query names nothing."""
NOT_NATIVE = Refusal(
    code="invalid_request",
    message="strategy is native, and the provider of this model has no batches that are used here"
    " (providers.*.batch_percent). Ask for another model, or give auto.",
    param="model",
)
SPOKEN: Mapping[str, Dialect] = {
    "/infer": Native(),
    "/v1/chat/completions": OpenAIChat(),
    "/v1/completions": OpenAICompletions(),
    "/v1/embeddings": OpenAIEmbeddings(),
    "/v1/messages": Messages(),
}
"""Who reads and answers queries for an endpoint; Responses has one for each call."""


def dialect_of(endpoint: str, body: bytes, request_id: str) -> Dialect:
    """Who reads and answers this query. Raises `WireError`."""
    if endpoint in SPOKEN:
        return SPOKEN[endpoint]
    asked, fields = parse_responses(body)
    if asked.previous_response_id is not None:
        raise WireError("queries of a batch go on from nothing", "previous_response_id")
    if asked.store:
        raise WireError("responses of a batch are not kept: give store as false", "store")
    return Responses(asked, fields, Thread(id=f"resp_{request_id}"))


class _Kept(msgspec.Struct, frozen=True):
    """What is left of the HTTP request that made a batch."""

    headers: CIMultiDict[str]


def check(services: Services, batch: Batch, line: Line) -> None:
    """Raises `WireError` for a query that its endpoint would not take."""
    dialect = dialect_of(batch.endpoint, line.body, batch.id)
    dialect.read(_asking(services, batch, line, batch.id))


class _Asked(msgspec.Struct):
    model: str = ""


def in_bulk(services: Services, line: Line) -> bool:
    """Whether a query's model is asked in its provider's own batches."""
    try:
        return services.in_batches(msgspec.json.decode(line.body, type=_Asked).model or AUTO)
    except msgspec.DecodeError:
        return False


async def ask(
    current: Callable[[], Services],
    charged: MutableMapping[str, int],
    batch: Batch,
    line: Line,
    request_id: str,
) -> Answered:
    """Ask a query. It belongs to the services in force now, and its daemon drains it, unless it
    goes into its provider's own batch.

    `charged`: holds, by request id, of calls that are with providers since before this daemon, and
    that were charged as unknown at its start. Once such a call is settled, that charge is undone.
    """
    services = current()
    bulk = batch.delayed and in_bulk(services, line)
    services.tally.in_flight += 1
    services.status.in_flight += not bulk
    began_ns = services.clock.monotonic_ns()
    try:
        outcome, response = await _ask(services, batch, line, request_id, bulk=bulk)
        _undo(services, charged, request_id, outcome)
    except Exception as fault:
        services.log_fault(request_id, fault)
        outcome, response = _refused(batch, FAULTED, request_id)
    finally:
        services.status.in_flight -= not bulk
        services.tally.in_flight -= 1
    refusal = outcome.end if isinstance(outcome.end, Refusal) else None
    assert isinstance(response.body, bytes)
    return Answered(
        index=line.index,
        custom_id=line.custom_id,
        request_id=request_id,
        status=response.status,
        body=one_line(response.body),
        code=refusal.code if refusal else None,
        cost_nano_usd=outcome.total_nano_usd,
        elapsed_ns=services.clock.monotonic_ns() - began_ns,
        at_ns=services.clock.wall_ns(),
        retry_after_s=refusal.retry_after_s if refusal else None,
        sent=outcome.decision.hold is not None,
        bulk=bulk and refusal is None,
    )


async def _ask(
    services: Services, batch: Batch, line: Line, request_id: str, *, bulk: bool
) -> tuple[Outcome, web.Response]:
    """How it ended, and what its caller would be sent."""
    refusal = services.gate.still(batch.principal)
    if not bulk and batch.config.strategy == "native":
        refusal = NOT_NATIVE
    if refusal is None:
        try:
            dialect = dialect_of(batch.endpoint, line.body, request_id)
            request = dialect.read(_asking(services, batch, line, request_id))
        except WireError as error:
            refusal = Refusal(code="invalid_request", message=str(error), param=error.param)
        else:
            refusal = None if bulk else await _place(services, request)
    if refusal is not None:
        services.count_refusal(refusal.code)
        return _refused(batch, refusal, request_id)
    request = replace(request, judged=batch.config.validate_quality, in_batches=bulk)
    if bulk:  # it takes none of this host's time, and a day of the provider's
        return await plain(services, dialect, request)
    try:
        return await plain(services, dialect, request, batch.config.timeout_per_query)
    finally:
        services.room.leave()


def one_line(body: bytes) -> bytes:
    """The JSON as it can stand in a line of a file. Providers may write it over many."""
    return msgspec.json.format(body, indent=-1) if b"\n" in body else body


def _undo(
    services: Services, charged: MutableMapping[str, int], request_id: str, outcome: Outcome
) -> None:
    """Take back what was charged for a call whose bill is known now, and in the books."""
    known = outcome.attempts and all(one.billing != "unknown" for one in outcome.attempts)
    hold = charged.pop(request_id, None) if known else None
    if hold is not None:
        receipt = services.pipeline.ledger.adjust(hold, 0)
        services.audit.adjusted(receipt, actor="cascaded", reason="settled with its batch")


def _refused(batch: Batch, refusal: Refusal, request_id: str) -> tuple[Outcome, web.Response]:
    """A query that reached no model."""
    dialect = SPOKEN.get(batch.endpoint)
    refuse = error_response if dialect is None else dialect.refuse
    return Outcome(decision=Decision(), end=refusal), refuse(refusal, request_id)


async def _place(services: Services, request: Request) -> Refusal | None:
    """Wait for a place as any call of this caller does; why there is none."""
    if services.room.take():
        return None
    ending = await services.room.wait(await services.priority(request))
    return None if ending == "entered" else busy_refusal(services, late=ending == "late")


def _asking(services: Services, batch: Batch, line: Line, request_id: str) -> Asking:
    return Asking(
        http=_Kept(CIMultiDict(batch.headers)),
        gate=services.gate,
        body=line.body,
        request_id=request_id,
        principal=batch.principal,
        received_ns=services.clock.monotonic_ns(),
        created_s=services.clock.wall_ns() // NS_PER_S,
    )
