"""Batches and files as OpenAI has them, and our own form of a batch. Pure.

Source: https://platform.openai.com/docs/api-reference/batch and /files
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from cascaded.types.batch import (
    Answered,
    Batch,
    BatchConfig,
    Line,
    LineError,
    Notes,
    StoredFile,
    Totals,
)
from cascaded.types.times import NS_PER_S
from cascaded.wire.money import moment
from cascaded.wire.native import Who, usd
from cascaded.wire.openai_chat import Fields, WireError, check_text, explain_mistake

MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_ID_CHARS = 256
MAX_TOLD_ERRORS = 100
MIN_WINDOW_S, MAX_WINDOW_S = 60, 7 * 86_400
MIN_KEPT_S = 3_600
"""How soon a file may expire, as OpenAI has it."""
EXPIRED, CANCELLED, STOPPED = "batch_expired", "batch_cancelled", "batch_stopped"
UNASKED = {
    EXPIRED: "The time of the batch was up before this query was answered.",
    CANCELLED: "The batch was cancelled before this query was asked.",
    STOPPED: "Another query failed, and the batch stops on the first error.",
}
"""Why a query was not asked, or not to its end."""
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_UNIT_S = {"m": 60, "h": 3_600, "d": 86_400}

T = TypeVar("T")


# --- our own ----------------------------------------------------------------------------------


class BatchRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /infer/batch`."""

    queries: list[msgspec.Raw]
    """Each a text, a list of messages, or a body of `/infer`."""
    config: BatchConfig = BatchConfig()
    defaults: Fields = {}
    """Members of `/infer` for every query that does not bring its own: `model`, `max_tokens` …"""
    background: bool = False
    """Answer at once, and not when all is done."""


class _Claimed(Who, kw_only=True, forbid_unknown_fields=False):
    """Whom `defaults` are for, beside all else."""


def read_batch(body: bytes, max_lines: int) -> tuple[BatchRequest, list[Line]]:
    """A batch, and each query as the body of `/infer` that it stands for. Raises `WireError`."""
    asked = read_body(BatchRequest, body)
    if not 0 < len(asked.queries) <= max_lines:
        raise WireError(f"queries must have 1 to {max_lines} of them", "queries")
    if "stream" in asked.defaults:
        raise WireError("the answers of a batch are not streamed", "defaults.stream")
    lines = []
    for index, query in enumerate(asked.queries):
        members = {**asked.defaults, **_members(query, f"queries[{index}]")}
        lines.append(Line(index, str(index), msgspec.json.encode(members)))
    return asked, lines


def claimed(defaults: Fields) -> Who:
    """Whom a batch is for, as its body says. Raises `WireError`."""
    return read_body(_Claimed, msgspec.json.encode(defaults))


def _members(query: msgspec.Raw, param: str) -> dict[str, object]:
    text = bytes(query).lstrip()
    if text.startswith(b'"'):
        return {"query": query}
    if text.startswith(b"["):
        return {"messages": query}
    try:
        members = msgspec.json.decode(text, type=Fields)
    except msgspec.DecodeError:
        wanted = "must be a text, a list of messages, or an object with query or messages"
        raise WireError(f"{param} {wanted}", param) from None
    if "stream" in members:
        raise WireError("the answers of a batch are not streamed", f"{param}.stream")
    return dict(members)


def batch_info(
    batch: Batch, totals: Totals, result: dict[str, object] | None = None
) -> dict[str, object]:
    """How a batch stands."""
    shown = batch.config.track_cost
    return {
        "id": batch.id,
        "state": batch.state,
        "endpoint": batch.endpoint,
        "total": batch.lines,
        "completed": totals.completed,
        "failed": totals.failed,
        "cost": usd(totals.cost_nano_usd) if shown else None,
        "created_at": moment(batch.created_ns),
        "expires_at": moment(batch.deadline_ns),
        "ended_at": moment(batch.since_ns[batch.state]) if batch.ended else None,
        "repeated": list(totals.repeated),
        "metadata": dict(batch.config.metadata),
        "result": result,
    }


def batch_result(
    batch: Batch, answers: Iterable[Answered], errors: Iterable[Answered]
) -> dict[str, object]:
    """What became of every query, in the names that users rely on."""
    config, totals = batch.config, batch.totals
    given = sorted(answers, key=lambda one: one.index if config.preserve_order else one.at_ns)
    results: list[object] = [msgspec.Raw(one.body) for one in given]
    if config.preserve_order:
        results = [None] * batch.lines
        for one in given:
            results[one.index] = msgspec.Raw(one.body)
    ended_ns = batch.since_ns.get(batch.state, batch.created_ns)
    return {
        "results": results,
        "errors": [_error(one) for one in sorted(errors, key=lambda one: one.index)],
        "success_count": totals.completed,
        "failure_count": totals.failed,
        "total_cost": usd(totals.cost_nano_usd) if config.track_cost else None,
        "total_time": round((ended_ns - batch.created_ns) / NS_PER_S, 3),
        "strategy_used": "native" if totals.bulk else "parallel",
        "metadata": dict(config.metadata),
    }


class _Said(msgspec.Struct, frozen=True):
    message: str = ""
    code: str | None = None


class _SaidBody(msgspec.Struct):
    error: _Said = _Said()


def _error(answered: Answered) -> dict[str, object]:
    said = msgspec.json.decode(answered.body, type=_SaidBody).error
    return {
        "index": answered.index,
        "code": said.code or answered.code,
        "message": said.message,
        "status": answered.status,
        "request_id": answered.request_id,
    }


# --- OpenAI's ---------------------------------------------------------------------------------


class ExpiresAfter(msgspec.Struct):
    """When a file is to go."""

    anchor: str
    seconds: int


class CreateBatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/batches`."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: Notes | None = None
    output_expires_after: ExpiresAfter | None = None


class _InputLine(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Body(msgspec.Struct):
    stream: bool | None = None


_read_input = msgspec.json.Decoder(_InputLine)
_read_streamed = msgspec.json.Decoder(_Body)


def read_create(body: bytes) -> CreateBatch:
    """What batch is to be made. Raises `WireError`."""
    return read_body(CreateBatch, body)


def window_s(text: str) -> int:
    """Seconds of a `completion_window` such as `24h`. Raises `WireError`."""
    found = _WINDOW.fullmatch(text)
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0
    if not MIN_WINDOW_S <= seconds <= MAX_WINDOW_S:
        raise WireError(
            "completion_window must be a time from 1m to 7d, such as 24h", "completion_window"
        )
    return seconds


class LineCutter:
    """Cuts a text that comes in pieces into its lines, with their numbers from 1. Blank ones are
    left out."""

    def __init__(self) -> None:
        self._number = 0
        self._rest = b""

    def feed(self, piece: bytes) -> list[tuple[int, bytes]]:
        """The lines that this piece completes. Raises `WireError` for one that is too long."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        first = self._number + 1
        self._number += len(whole)
        if len(self._rest) > MAX_LINE_BYTES:
            raise WireError(f"line {self._number + 1} is longer than {MAX_LINE_BYTES} bytes")
        return [(number, line) for number, line in enumerate(whole, first) if line.strip()]

    def end(self) -> list[tuple[int, bytes]]:
        """The last one, if no line's end follows it."""
        return self.feed(b"\n")


def read_line(line: bytes, endpoint: str, index: int) -> Line:
    """One line of an input file. Raises `WireError` naming what is wrong."""
    try:
        check_text(line)
        asked = _read_input.decode(line)
        streamed = _read_streamed.decode(asked.body).stream
    except msgspec.ValidationError as error:
        raise WireError(*explain_mistake(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"the line is not valid JSON: {error}") from None
    if not 0 < len(asked.custom_id) <= MAX_ID_CHARS:
        raise WireError(f"custom_id must have 1 to {MAX_ID_CHARS} characters", "custom_id")
    if asked.method != "POST":
        raise WireError("method must be POST", "method")
    if asked.url != endpoint:
        raise WireError(f"url must be the batch's endpoint, {endpoint}", "url")
    if streamed:
        raise WireError("the answers of a batch are not streamed", "body.stream")
    return Line(index, asked.custom_id, bytes(asked.body))


def result_line(answered: Answered) -> bytes:
    """A query's line in the output or the error file."""
    error = response = None
    if answered.code in UNASKED:
        error = {"code": answered.code, "message": UNASKED[answered.code]}
    else:
        response = {
            "status_code": answered.status,
            "request_id": answered.request_id,
            "body": msgspec.Raw(answered.body),
        }
    told = {
        "id": f"batch_req_{answered.request_id.removeprefix('batch_')}",
        "custom_id": answered.custom_id,
        "response": response,
        "error": error,
    }
    return msgspec.json.encode(told) + b"\n"


def unasked(line: Line, request_id: str, code: str, at_ns: int) -> Answered:
    """The result of a query that was not asked, or not to its end."""
    error = {"message": UNASKED[code], "type": "batch_error", "param": None, "code": code}
    return Answered(
        index=line.index,
        custom_id=line.custom_id,
        request_id=request_id,
        status=_UNASKED_STATUS[code],
        body=msgspec.json.encode({"error": error}),
        code=code,
        at_ns=at_ns,
        sent=False,
    )


_UNASKED_STATUS = {EXPIRED: 504, CANCELLED: 499, STOPPED: 424}


def batch_object(batch: Batch, totals: Totals) -> dict[str, object]:
    """A batch as OpenAI tells it."""
    times = {f"{state}_at": at_ns // NS_PER_S for state, at_ns in batch.since_ns.items()}
    times.pop("validating_at", None)
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": list(batch.errors)} if batch.errors else None,
        "input_file_id": batch.input_file or "",
        "completion_window": batch.window,
        "status": batch.state,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": batch.created_ns // NS_PER_S,
        "expires_at": batch.deadline_ns // NS_PER_S,
        **dict.fromkeys(_TIMES),
        **times,
        "request_counts": {
            "total": batch.lines,
            "completed": totals.completed,
            "failed": totals.failed,
        },
        "metadata": dict(batch.config.metadata) or None,
    }


_TIMES = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


def line_errors(errors: Sequence[LineError], more: int) -> tuple[LineError, ...]:
    """Errors to be told; where there are too many, how many more."""
    if not more:
        return tuple(errors)
    return (*errors, LineError("more_errors", f"{more} further lines have errors."))


def file_object(file: StoredFile) -> dict[str, object]:
    """A file as OpenAI tells it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_ns // NS_PER_S,
        "expires_at": file.expires_ns // NS_PER_S,
        "filename": file.name,
        "purpose": file.purpose if file.batch is None else "batch_output",
        "status": "processed",
        "status_details": None,
    }


def listed(rows: Sequence[Mapping[str, object]], *, more: bool) -> dict[str, object]:
    """A page of objects as OpenAI tells it."""
    return {
        "object": "list",
        "data": rows,
        "first_id": rows[0]["id"] if rows else None,
        "last_id": rows[-1]["id"] if rows else None,
        "has_more": more,
    }


def read_body(shape: type[T], body: bytes) -> T:
    """A body of this shape. Raises `WireError`."""
    check_text(body)
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise WireError(*explain_mistake(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"the body is not valid JSON: {error}") from None
