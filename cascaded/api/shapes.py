"""Bodies and answers as the OpenAPI document tells them, where no other struct does."""

from typing import Any, Literal

import msgspec

from cascaded.client.results import Budget, ModelInfo, UnresolvedHold
from cascaded.types.batch import State
from cascaded.types.limits import Scope
from cascaded.types.profile import (
    BudgetConfig,
    OrganizationConfig,
    RateLimitConfig,
    UserProfile,
    WorkspaceConfig,
)
from cascaded.types.tables import LimitTable
from cascaded.wire.native import Amount, InferRequest
from cascaded.wire.openai_chat import ABSENT


class FileObject(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    status_details: str | None = None


class FileList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of OpenAI's files."""

    object: Literal["list"]
    data: tuple[FileObject, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is gone."""

    id: str
    object: Literal["file"]
    deleted: bool


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Of a batch's queries."""

    total: int
    completed: int
    failed: int


class BatchObject(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's batch. Times are seconds since 1970."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: dict[str, Any] | None
    input_file_id: str
    completion_window: str
    status: State
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class BatchList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of OpenAI's batches."""

    object: Literal["list"]
    data: tuple[BatchObject, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


class MessageCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Of a batch's queries, once it has ended."""

    processing: int
    succeeded: int
    errored: int
    canceled: int
    expired: int


class MessageBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Anthropic's batch. Times are ISO 8601, UTC."""

    id: str
    type: Literal["message_batch"]
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: MessageCounts
    created_at: str
    expires_at: str
    ended_at: str | None
    cancel_initiated_at: str | None
    archived_at: str | None
    results_url: str | None


class MessageBatchList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of Anthropic's batches."""

    data: tuple[MessageBatch, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedMessageBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that is gone."""

    id: str
    type: Literal["message_batch_deleted"]


class CheckRequest(InferRequest, kw_only=True, forbid_unknown_fields=True):
    """The body of `/check`: that of `/infer`; or `cost` and `tokens`, and whom they are for."""

    cost: Amount = ABSENT
    tokens: int = 0


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """How budgets stand."""

    budgets: tuple[Budget, ...]
    more: int
    """How many there are beyond these."""


class Holds(msgspec.Struct, frozen=True, kw_only=True):
    """Holds that are open or unknown."""

    holds: tuple[UnresolvedHold, ...]
    more: int
    """How many there are beyond these."""


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """Names that may be asked for, in OpenAI's shape."""

    data: tuple[ModelInfo, ...]
    object: Literal["list"]


class ChatBody(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's body; members that are not named here are forwarded unseen."""

    model: str
    """A ladder (`cascade/NAME`), an alias such as `auto`, or a model."""
    messages: list[dict[str, object]]
    stream: bool | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    n: int | None = None
    user: str | None = None


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's chat completion; members that are not named here come from the provider."""

    object: str
    model: str
    choices: tuple[dict[str, Any], ...]


class CompletionBody(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's body; members that are not named here are forwarded unseen."""

    model: str
    """A model, or an alias of one."""
    prompt: str | list[str | int | list[int]]
    """A text, many, or their token ids."""
    stream: bool | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    suffix: str | None = None
    user: str | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's completion; members that are not named here come from the provider."""

    object: str
    model: str
    choices: tuple[dict[str, Any], ...]


class EmbeddingBody(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's body; members that are not named here are forwarded unseen."""

    model: str
    """A model, or an alias of one."""
    input: str | list[str | int | list[int]]
    """A text, many, or their token ids."""
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's embeddings; members that are not named here come from the provider."""

    object: str
    data: tuple[dict[str, Any], ...]


class MessagesBody(msgspec.Struct, frozen=True, kw_only=True):
    """Anthropic's body; members that are not named here are forwarded unseen, or translated."""

    model: str
    """A ladder (`cascade/NAME`), an alias such as `auto`, or a model."""
    messages: list[dict[str, object]]
    max_tokens: int | None = None
    """Without it the daemon sets one."""
    system: str | list[dict[str, object]] | None = None
    tools: list[dict[str, object]] | None = None
    stream: bool | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Anthropic's answer; members that are not named here come from the provider."""

    type: str
    role: str
    model: str
    content: tuple[dict[str, Any], ...]
    stop_reason: str | None


class ResponsesBody(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's body; members that are not named here are forwarded unseen, or translated."""

    model: str
    """A ladder (`cascade/NAME`), an alias such as `auto`, or a model."""
    input: str | list[dict[str, object]]
    instructions: str | None = None
    previous_response_id: str | None = None
    """A response that was kept here."""
    store: bool | None = None
    """Whether to keep the response here. It is never kept upstream."""
    max_output_tokens: int | None = None
    tools: list[dict[str, object]] | None = None
    stream: bool | None = None


class ResponseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's response; members that are not named here come from the provider, or repeat the
    call."""

    id: str
    object: str
    status: str
    model: str
    output: tuple[dict[str, Any], ...]


class InputItems(msgspec.Struct, frozen=True, kw_only=True):
    """The items of one response's own call."""

    object: Literal["list"]
    data: tuple[dict[str, Any], ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokens(msgspec.Struct, frozen=True, kw_only=True):
    """How long a prompt is."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class ResponseGone(msgspec.Struct, frozen=True, kw_only=True):
    """A response that was forgotten."""

    id: str
    object: str
    deleted: bool


class TokenCount(msgspec.Struct, frozen=True, kw_only=True):
    """How long a prompt is."""

    input_tokens: int


class AnthropicErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """As `ErrorObject`, with Anthropic's types."""

    type: str
    message: str
    code: str
    param: str | None


class AnthropicError(msgspec.Struct, frozen=True, kw_only=True):
    """Every answer of 400 and above on the routes of Anthropic's API."""

    type: Literal["error"]
    error: AnthropicErrorObject
    request_id: str


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call was refused. A refused budget or rate tells more: `scope`, `budget_limit`,
    `current_spend`, `reset_time`, `recommendation` …"""

    message: str
    type: str
    code: str
    param: str | None


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """Every answer of 400 and above."""

    error: ErrorObject


class LimitsOf(msgspec.Struct, frozen=True, kw_only=True):
    """What is set at run time of one scope."""

    scope: Scope
    id: str
    limits: LimitTable


class AllLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is set at run time."""

    limits: tuple[LimitsOf, ...]
    more: int
    """How many there are beyond these."""


class TierInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A tier; administrators see all of it."""

    name: str
    origin: Literal["file", "api", "preset"]
    """`preset`: there to be used, and not in use."""
    limits: LimitTable


class Tiers(msgspec.Struct, frozen=True, kw_only=True):
    """The tiers in use, the least first, then presets that are not."""

    tiers: tuple[TierInfo, ...]


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """What is gone."""

    name: str
    deleted: bool


class Changes(msgspec.Struct, frozen=True):
    """The members that are to change (RFC 7396)."""


class KeptUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user as it is stored."""

    user: UserProfile
    version: int
    effective_budget: BudgetConfig | None = None
    """With the tier; where one is asked for alone."""
    effective_rate_limits: RateLimitConfig | None = None


class UserOrUsers(msgspec.Struct, frozen=True, kw_only=True):
    """A user's members; or `users` alone."""

    users: list[UserProfile] | None = None
    user_id: str | None = None


class UserOrCreated(msgspec.Struct, frozen=True, kw_only=True):
    """The user that was stored and its version; of many how many, and their versions."""

    user: UserProfile | None = None
    version: int | None = None
    created: int | None = None
    versions: tuple[int, ...] = ()


class KeptOrganization(msgspec.Struct, frozen=True, kw_only=True):
    """An organisation as it is stored."""

    organization: OrganizationConfig
    version: int


class KeptWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace as it is stored."""

    workspace: WorkspaceConfig
    version: int


class Users(msgspec.Struct, frozen=True, kw_only=True):
    """A page of users."""

    users: tuple[KeptUser, ...]
    after: str | None
    """What to ask for the next page; null at the end."""


class Organizations(msgspec.Struct, frozen=True, kw_only=True):
    """A page of organisations."""

    organizations: tuple[KeptOrganization, ...]
    after: str | None


class Workspaces(msgspec.Struct, frozen=True, kw_only=True):
    """A page of workspaces."""

    workspaces: tuple[KeptWorkspace, ...]
    after: str | None
