"""How the queries of batches are asked: as whoever made the batch, by the services that are in
force when it is a query's turn, through the same pipeline as any call."""

from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web
from msgspec.structs import replace
from multidict import CIMultiDict

from cascaded.api.dialects.base import Asking, Dialect
from cascaded.api.dialects.messages import Messages
from cascaded.api.dialects.native import Native
from cascaded.api.dialects.openai_chat import OpenAIChat
from cascaded.api.dialects.openai_texts import OpenAICompletions, OpenAIEmbeddings
from cascaded.api.server import Services, busy_refusal, plain
from cascaded.pipeline.run import FAULTED
from cascaded.types.batch import Answered, Batch, Line
from cascaded.types.decision import Decision, Refusal
from cascaded.types.request import Request
from cascaded.types.result import Outcome
from cascaded.types.times import NS_PER_S
from cascaded.wire.openai_chat import WireError

ENDPOINTS: Mapping[str, Dialect] = {
    "/infer": Native(),
    "/v1/chat/completions": OpenAIChat(),
    "/v1/completions": OpenAICompletions(),
    "/v1/embeddings": OpenAIEmbeddings(),
    "/v1/messages": Messages(),
}
"""What queries may be for, and who reads and answers them."""


class _Kept(msgspec.Struct, frozen=True):
    """What is left of the HTTP request that made a batch."""

    headers: CIMultiDict[str]


def check(services: Services, batch: Batch, line: Line) -> None:
    """Raises `WireError` for a query that its endpoint would not take."""
    ENDPOINTS[batch.endpoint].read(_asking(services, batch, line, batch.id))


async def ask(
    current: Callable[[], Services], batch: Batch, line: Line, request_id: str
) -> Answered:
    """Ask a query. It belongs to the services in force now, and its daemon drains it."""
    services = current()
    services.tally.in_flight += 1
    services.status.in_flight += 1
    began_ns = services.clock.monotonic_ns()
    dialect = ENDPOINTS[batch.endpoint]
    try:
        outcome, response = await _ask(services, dialect, batch, line, request_id)
    except Exception as fault:
        services.log_fault(request_id, fault)
        outcome, response = _refused(dialect, FAULTED, request_id)
    finally:
        services.status.in_flight -= 1
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
    )


async def _ask(
    services: Services, dialect: Dialect, batch: Batch, line: Line, request_id: str
) -> tuple[Outcome, web.Response]:
    """How it ended, and what its caller would be sent."""
    refusal = services.gate.still(batch.principal)
    if refusal is None:
        try:
            request = dialect.read(_asking(services, batch, line, request_id))
        except WireError as error:
            refusal = Refusal(code="invalid_request", message=str(error), param=error.param)
        else:
            refusal = await _place(services, request)
    if refusal is not None:
        services.count_refusal(refusal.code)
        return _refused(dialect, refusal, request_id)
    try:
        request = replace(request, judged=batch.config.validate_quality)
        return await plain(services, dialect, request, batch.config.timeout_per_query)
    finally:
        services.room.leave()


def one_line(body: bytes) -> bytes:
    """The JSON as it can stand in a line of a file. Providers may write it over many."""
    return msgspec.json.format(body, indent=-1) if b"\n" in body else body


def _refused(dialect: Dialect, refusal: Refusal, request_id: str) -> tuple[Outcome, web.Response]:
    """A query that reached no model."""
    return Outcome(decision=Decision(), end=refusal), dialect.refuse(refusal, request_id)


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
