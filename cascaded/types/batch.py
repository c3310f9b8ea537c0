"""Batches: many queries that are answered one by one while nobody waits on the line."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cascaded.types.request import Principal

State = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
ENDED: frozenset[State] = frozenset({"failed", "completed", "expired", "cancelled"})
Strategy = Literal["auto", "native", "parallel"]
House = Literal["native", "openai", "anthropic"]
"""Whose API a batch came by."""
FAILED_STATUS = 400
"""Answers of this status and above are errors."""
DAY_S = 86_400
MAX_SECONDS = 30 * DAY_S
MAX_AT_A_TIME = 10_000
MAX_SIDE_BY_SIDE = 256
MAX_NOTES = 16
Seconds = Annotated[float, Meta(gt=0, le=MAX_SECONDS)]
Notes = Annotated[
    Mapping[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=MAX_NOTES),
]
"""The caller's own, given back; as many and as long as OpenAI has them."""


class BatchConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a batch is worked through. Times are seconds."""

    batch_size: Annotated[int, Meta(ge=1, le=MAX_AT_A_TIME)] = 10
    """How many queries are taken up from the disk at a time."""
    max_parallel: Annotated[int, Meta(ge=1, le=MAX_SIDE_BY_SIDE)] = 3
    """How many are under way at once."""
    timeout_per_query: Seconds = 30.0
    """What one query may take, once it is its turn."""
    total_timeout: Seconds | None = None
    """What all may take; what is finished by then is kept. `None`: `timeout_per_query` times
    `batch_size`."""
    strategy: Strategy = "auto"
    """`parallel`: calls of their own, side by side; `native`: the provider's own batches."""
    stop_on_error: bool = False
    """Whether the first error ends it: what is under way is still finished."""
    retry_failed: bool = True
    """Whether what fails for a passing reason is asked once more."""
    track_cost: bool = True
    """Whether it is told what all cost together. It is charged all the same."""
    validate_quality: bool = True
    """Whether answers are judged; else the first model's are taken as they are."""
    preserve_order: bool = True
    """Whether results stand in the order of the queries, or as they came."""
    metadata: Notes = {}

    @property
    def seconds(self) -> float:
        """What all of it may take."""
        if self.total_timeout is not None:
            return self.total_timeout
        return self.timeout_per_query * self.batch_size


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One query, as it waits on the disk."""

    index: int
    """From 0."""
    custom_id: str
    body: bytes
    """What the endpoint is to be sent, as JSON."""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """What was done about a query that has no result yet."""

    asked: int = 0
    """How often it was sent on its way."""
    under_way: bool = False
    """Whether that, the last time, may still go on: after a crash nobody knows."""
    failed: int = 0
    """How often it came back with an error that was worth another try."""
    cut: tuple[int, ...] = ()
    """Which times were cut off by a crash, from 1."""


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """How a query ended."""

    index: int
    custom_id: str
    request_id: str
    status: int
    body: bytes
    """The endpoint's own answer, or error; JSON."""
    code: str | None = None
    """Of the API's error table, where it failed."""
    cost_nano_usd: int = 0
    elapsed_ns: int = 0
    at_ns: int = 0
    """When, since the Unix epoch."""
    retry_after_s: float | None = None
    sent: bool = True
    """Whether anything may have been sent to a provider."""
    bulk: bool = False
    """Whether it was in one of the provider's own batches."""

    @property
    def failed(self) -> bool:
        """Whether it is an error."""
        return self.status >= FAILED_STATUS


class BulkAnswer(msgspec.Struct, frozen=True):
    """What a provider's own batch says to one call."""

    status: int
    """Of HTTP."""
    body: bytes


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that were handed to a provider as one of its own batches."""

    name: str
    """Ours, which the provider was told."""
    batch: str
    """Ours that they are of."""
    provider: str
    ids: tuple[str, ...]
    """Of the requests."""
    id: str | None = None
    """The provider's; `None`: it is not known whether there is one."""


class LineError(msgspec.Struct, frozen=True):
    """Why a batch was not begun."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None
    """From 1."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What became of its queries."""

    completed: int = 0
    failed: int = 0
    bulk: int = 0
    """In providers' own batches."""
    unasked: int = 0
    """Of those: not asked, or not to the end."""
    cost_nano_usd: int = 0
    answer_bytes: int = 0
    """Of the answers as they are stored."""
    error_bytes: int = 0
    repeated: tuple[str, ...] = ()
    """Requests that a crash cut off after they may have been sent, and that were made anew: the
    provider may have billed both."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch, but for its queries and results."""

    id: str
    house: House
    endpoint: str
    """Which of our routes its queries are for: `/v1/chat/completions`, `/infer` …"""
    owner: str
    """The user whom it is charged to. Only this user sees it, and the principal that made it."""
    principal: Principal
    """Who made it. Its queries are asked as this principal."""
    headers: Mapping[str, str] = {}
    """What the principal said of whom it is for. Never a key."""
    config: BatchConfig
    state: State = "validating"
    since_ns: Mapping[State, int] = {}
    """When it came into each state, since the Unix epoch."""
    created_ns: int
    deadline_ns: int
    window: str = ""
    """How long it may take, in the caller's words."""
    lines: int = 0
    input_bytes: int = 0
    input_file: str | None = None
    output_file: str | None = None
    error_file: str | None = None
    errors: tuple[LineError, ...] = ()
    key: str | None = None
    """Its `Idempotency-Key`."""
    digest: bytes = b""
    """Of the body that came with that key."""
    totals: Totals = Totals()
    """Once it has ended."""

    @property
    def delayed(self) -> bool:
        """Whether there is time for providers' own batches, and the caller allows them."""
        strategy, seconds = self.config.strategy, self.config.seconds
        return strategy == "native" or (strategy == "auto" and seconds >= DAY_S)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED

    @property
    def stored_bytes(self) -> int:
        """The room that it takes."""
        held = self.totals.answer_bytes + self.totals.error_bytes
        return held if self.ended else self.input_bytes + held


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file: one that was uploaded, or what a batch answered."""

    id: str
    owner: str
    maker: str
    """The principal that made it; as for batches, nobody else sees it."""
    name: str
    bytes: int
    created_ns: int
    expires_ns: int
    purpose: str = "batch"
    batch: str | None = None
    """The batch whose results it shows, where it is none of the caller's own."""
    errors: bool = False
    """Of those: whether it shows the errors."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much is taken on. Bytes are of what is stored."""

    max_parallel: int
    """Queries under way at once, of all batches."""
    max_lines: int
    max_open: int
    """Batches of one user that have not ended."""
    max_user_bytes: int
    max_bytes: int
    keep_ns: int
    """How long files, and batches that have ended, are kept."""
