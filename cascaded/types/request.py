"""`Request`: what was asked."""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from cascaded.types.model import Form, Kind, StreamMode
from cascaded.types.quality import QualityMode
from cascaded.types.tracing import Trace


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an issued key acts for, as an administrator said."""

    user_id: str | None = None
    tier: str | None = None
    organization_id: str | None = None
    workspace_id: str | None = None


NOBODY = Owner()


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is calling, as far as it is proven: by the transport, or by a key."""

    kind: Literal["peer", "key"]
    """A process on our socket (peer credentials), or the holder of an API key."""
    id: str
    """`uid:1000`, the key's name in the config, or `key:ID` of an issued one. Never the key."""
    admin: bool = False
    owner: Owner = NOBODY
    """Of an issued key."""

    @property
    def user_id(self) -> str:
        """The user whose calls these are, whatever they claim."""
        return self.owner.user_id or self.id


class Asks(msgspec.Struct, frozen=True, kw_only=True):
    """The form of answer that the caller asked for, so that quality can check it."""

    json_object: bool = False
    json_schema: msgspec.Raw | None = None
    """The JSON schema itself, as sent."""
    tools: tuple[str, ...] = ()
    """Names of the tools that the model may call."""
    tool_required: bool = False
    bounded: bool = False
    """The caller set a bound on the answer itself, so another model would be cut there, too."""


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a caller says the call is for. Believed only where the operator trusts the caller."""

    user_id: str | None = None
    user_tier: str | None = None
    organization_id: str | None = None
    workspace_id: str | None = None
    team_id: str | None = None
    run_id: str | None = None
    tags: Mapping[str, str] = {}


class CacheWish(msgspec.Struct, frozen=True):
    """What a caller says of earlier answers."""

    asked: bool = False
    """Also where answers may differ; else where asking again would buy the same one."""
    off: bool = False
    """Neither take one nor keep this one."""
    max_age_s: int | None = None
    """How old it may be at most; 0: ask anew, and keep that in place of it."""


class Line(msgspec.Struct):
    """How it stands with the line to the caller. Who hears that it is cut and who calls a provider
    tell each other here."""

    left: bool = False
    """The caller has left, and the call goes on without him."""
    is_sent: Callable[[], bool] | None = None
    """Present while a provider is asked that bills a call to its end whoever hangs up: whether it
    has the call already."""


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """A call that came in another form than chat completions, as it came."""

    form: Form
    fields: Mapping[str, msgspec.Raw]
    """The body, every member as the caller sent it, byte for byte."""
    headers: Mapping[str, str] = {}
    """Those that go upstream."""
    unsayable: tuple[str, ...] = ()
    """What of it chat completions cannot say: models that are asked so cannot be asked."""
    unpriced: tuple[str, ...] = ()
    """Members that make the call dearer than the price list says."""
    unseen_tokens: int = 0
    """A bound on the prompt's tokens that its chat-completions form leaves out."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One call, whatever dialect it came in."""

    id: str
    principal: Principal
    model: str
    """As asked: a ladder (`auto`, `cascade/<name>`), an alias or a model's name."""
    kind: Kind = "chat"
    fields: Mapping[str, msgspec.Raw]
    """The body in the form of its kind: every member as the caller sent it, byte for byte, or as
    it was translated from the `original`."""
    original: Original | None = None
    messages: tuple[msgspec.Raw, ...] = ()
    """The conversation, each message as sent."""
    texts: tuple[str | int, ...] = ()
    """What is to be continued or embedded; a text that came as token ids is their number."""
    stream: bool = False
    include_usage: bool = False
    wants_logprobs: bool = False
    max_output_tokens: int | None = None
    """The caller's own bound; `None` when there is none."""
    choices: int = 1
    deterministic: bool = False
    """Temperature 0: asking again would only buy the same answer."""
    asks: Asks = Asks()
    max_cost_nano_usd: int | None = None
    judged: bool = True
    """Whether a ladder's answers are judged; else the first model's is taken as it is."""
    in_batches: bool = False
    """Whether models may be asked in their providers' own batches."""
    stream_mode: StreamMode | None = None
    buffer_size: int = 1
    """How many pieces of a stream go to the caller as one."""
    include_metadata: bool = True
    """Whether the end of a stream tells how the answer came about."""
    track_cost: bool = True
    """Whether it tells what the answer cost."""
    validate_quality_on_complete: bool = True
    """Whether an answer that has gone out as it came is judged at its end."""
    quality_mode: QualityMode | None = None
    """How closely its answers are looked at; `None` as configured."""
    cache: CacheWish = CacheWish()
    domain: str | None = None
    claims: Claims = Claims()
    caller_key: str | None = msgspec.field(default=None)
    """The key that came with the call; only for providers that are configured to forward it."""
    trace: Trace | None = None
    """The trace that it is a part of; `None`: nobody is told of any."""
    received_ns: int = 0
    """Monotonic clock."""
    created_s: int = 0
    """Seconds since 1970, for answers that must tell when they were made."""
    line: Line = msgspec.field(default_factory=Line)
