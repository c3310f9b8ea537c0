"""Anthropic's batches of Messages. Pure.

Source: https://docs.anthropic.com/en/api/creating-message-batches
"""

import re

import msgspec

from cascaded.types.batch import Answered, Batch, Line
from cascaded.wire.batches import CANCELLED, EXPIRED, read_body
from cascaded.wire.money import moment
from cascaded.wire.openai_chat import WireError

_CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
WINDOW_S = 86_400
"""How long a batch may take, as Anthropic has it."""
_UNASKED = {EXPIRED: "expired", CANCELLED: "canceled"}


class MessageRequest(msgspec.Struct, forbid_unknown_fields=True):
    """One query of a batch."""

    custom_id: str
    params: msgspec.Raw
    """The body of `/v1/messages` that it stands for."""


class MessageBatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/messages/batches`."""

    requests: list[MessageRequest]


class _Params(msgspec.Struct):
    model: str
    stream: bool | None = None


def read_requests(body: bytes, max_lines: int) -> list[Line]:
    """The queries of a batch. Raises `WireError` naming what is wrong."""
    asked = read_body(MessageBatchRequest, body).requests
    if not 0 < len(asked) <= max_lines:
        raise WireError(f"requests must have 1 to {max_lines} of them", "requests")
    lines, known = [], set[str]()
    for index, one in enumerate(asked):
        place = f"requests[{index}]"
        if not _CUSTOM_ID.fullmatch(one.custom_id):
            wanted = "must have 1 to 64 letters, digits, - and _"
            raise WireError(f"{place}.custom_id {wanted}", f"{place}.custom_id")
        if one.custom_id in known:
            raise WireError(f"{place}.custom_id is there already", f"{place}.custom_id")
        known.add(one.custom_id)
        try:
            streamed = read_body(_Params, bytes(one.params)).stream
        except WireError as error:
            raise WireError(f"{place}.params: {error}", f"{place}.params") from None
        if streamed:
            raise WireError("the answers of a batch are not streamed", f"{place}.params.stream")
        lines.append(Line(index, one.custom_id, bytes(one.params)))
    return lines


def batch_object(batch: Batch) -> dict[str, object]:
    """A batch as Anthropic tells it: how its queries ended, once all have."""
    totals, since = batch.totals, batch.since_ns
    unasked = totals.unasked if batch.ended else 0
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": _status(batch),
        "request_counts": {
            "processing": 0 if batch.ended else batch.lines,
            "succeeded": totals.completed if batch.ended else 0,
            "errored": totals.failed - unasked if batch.ended else 0,
            "canceled": unasked if batch.state == "cancelled" else 0,
            "expired": unasked if batch.state == "expired" else 0,
        },
        "created_at": moment(batch.created_ns),
        "expires_at": moment(batch.deadline_ns),
        "ended_at": moment(since[batch.state]) if batch.ended else None,
        "cancel_initiated_at": moment(since.get("cancelling")),
        "archived_at": None,
        "results_url": f"/v1/messages/batches/{batch.id}/results" if batch.ended else None,
    }


def result_line(answered: Answered) -> bytes:
    """A query's line in the results."""
    body = msgspec.Raw(answered.body)
    result: dict[str, object] = {"type": "succeeded", "message": body}
    if answered.code in _UNASKED:
        result = {"type": _UNASKED[answered.code]}
    elif answered.failed:
        result = {"type": "errored", "error": body}
    return msgspec.json.encode({"custom_id": answered.custom_id, "result": result}) + b"\n"


def _status(batch: Batch) -> str:
    if batch.ended:
        return "ended"
    return "canceling" if batch.state == "cancelling" else "in_progress"
