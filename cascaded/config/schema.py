"""The configuration: every setting, its type, its bounds and its default.

This is the only list of settings there is: the checker, `config show` and the reference read it
from here. Names end in their unit. A setting that may be left out and has no default is `None`.
"""

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from cascaded.types.batch import MAX_SIDE_BY_SIDE
from cascaded.types.guarding import GuardrailsConfig
from cascaded.types.hooks import OnFailure
from cascaded.types.limits import Enforcement, Gate, Scope
from cascaded.types.model import Price, Rates, StreamMode
from cascaded.types.money import parse_usd, parse_usd_per_mtok
from cascaded.types.profile import AuditLevel
from cascaded.types.quality import (
    HIGH_STAKES,
    MAX_SAMPLES,
    QualityConfig,
    QualityMode,
    ValidationMode,
)
from cascaded.types.quotas import Quotas, ScopeQuotas
from cascaded.types.secret import Secret
from cascaded.types.tables import (
    MAX_PATTERNS,
    LimitTable,
    Name,
    Pattern,
    Score,
    Text,
    Tier,
    Tokens,
    Usd,
    ZoneName,
    nothing,
    says,
)
from cascaded.types.tiers import CHEAP, TierConfig

KIB = 1024
MIB = 1024 * KIB
LADDER_PREFIX = "cascade/"
"""How callers name a ladder: `cascade/<name>`."""
AUTO = "auto"
DEFAULT_LADDER = "default"
EMBEDDED = "embedded"

MAX_PROVIDERS = 64
MAX_MODELS = 4096
MAX_LADDERS = 64
MAX_RUNGS = 8
MAX_FALLBACKS = 4
MAX_DEPLOYMENTS = 16
MAX_KEYS = 16
MAX_REMEMBERED = 100
"""Calls that a breaker looks back at."""
MAX_ALIASES = 1024
MAX_LADDER_ALIASES = 64
MAX_HEADERS = 32
MAX_TCP_KEYS = 1024
MAX_TIERS = 64
MAX_NAMED_SCOPES = 10_000
"""Organisations, workspaces, teams, users or values of a tag with limits of their own."""
MAX_TAGS = 8
MAX_TRUSTED = 1024
MAX_PLUGINS = 8
MAX_CLASSIFIERS = 16
MAX_LABELS = 1024
MAX_DOMAINS = 64
MAX_SIGNALS = 256
MAX_EXAMPLES = 32
MAX_SCOPE_ID_BYTES = 256
"""What the ledger takes, in UTF-8; for a tag `name=value`."""
MAX_SOCKET_PATH_BYTES = 107
"""What the kernel leaves for a path in `sockaddr_un`."""
DAY_S = 86_400


_PATH = r"\A/[^\0]*\Z"
Path = Annotated[
    str, Meta(pattern=_PATH, max_length=4096, extra=says("an absolute path, beginning with /"))
]
SocketPath = Annotated[
    str,
    Meta(
        pattern=_PATH,
        max_length=MAX_SOCKET_PATH_BYTES,
        extra=says(f"an absolute path of at most {MAX_SOCKET_PATH_BYTES} bytes"),
    ),
]
_COLUMN = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
ColumnName = Annotated[
    str,
    Meta(
        pattern=rf"\A{_COLUMN}\Z",
        extra=says("1 to 63 letters, digits and _, not beginning with a digit"),
    ),
]
TableName = Annotated[
    str,
    Meta(
        pattern=rf"\A({_COLUMN}\.)?{_COLUMN}\Z",
        extra=says("the name of a table, such as users or schema.users"),
    ),
]
ModelName = Annotated[
    str,
    Meta(
        pattern=r"\A(?!cascade/|auto\Z)[A-Za-z0-9][A-Za-z0-9._:/@+-]*\Z",
        max_length=128,
        extra=says(
            "1 to 128 of letters, digits and . _ : / @ + -, not auto and not beginning cascade/"
        ),
    ),
]
AliasName = Annotated[
    str,
    Meta(
        pattern=r"\A(?!cascade/)[A-Za-z0-9][A-Za-z0-9._:/@+-]*\Z",
        max_length=128,
        extra=says("1 to 128 of letters, digits and . _ : / @ + -, not beginning cascade/"),
    ),
]
ProviderRef = Annotated[str, Meta(extra=says("a name of [providers]"))]
ModelRef = Annotated[str, Meta(extra=says("a name of [models]"))]
Target = Annotated[str, Meta(extra=says("cascade/NAME, a model or another alias"))]
Url = Annotated[str, Meta(extra=says("a URL such as https://api.openai.com/v1"))]
Address = Annotated[
    str, Meta(extra=says('a loopback address and a port, such as "127.0.0.1:8080"'))
]
HeaderText = Annotated[
    str,
    Meta(
        pattern=r"\A[\x21-\x7e]+\Z",
        max_length=256,
        extra=says("1 to 256 characters of printable ASCII without spaces"),
    ),
]
HeaderName = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z",
        max_length=128,
        extra=says("the name of an HTTP header, such as x-team"),
    ),
]
VariableName = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z_][A-Za-z0-9_]{0,127}\Z",
        extra=says("the name of an environment variable, such as AWS_REGION_NAME"),
    ),
]
OptionName = Annotated[
    str,
    Meta(
        pattern=r"\A(?!model\Z|messages\Z|stream|timeout\Z|num_retries\Z|max_retries\Z)[a-z][a-z0-9_]{0,63}\Z",
        extra=says("the name of an argument of LiteLLM's completion that is not the call's own"),
    ),
]
OctalMode = Annotated[
    str, Meta(pattern=r"\A0?[0-7]{3}\Z", extra=says('an octal mode in quotes, such as "0660"'))
]
GroupName = Annotated[
    str,
    Meta(
        pattern=r"\A[a-z_][a-z0-9_-]*\$?\Z",
        max_length=32,
        extra=says("the name of a group of this system"),
    ),
]
PrincipalName = Annotated[
    str,
    Meta(
        pattern=r"\A(uid:[0-9]{1,10}|key:[0-9a-f]{12}|[a-z0-9][a-z0-9_-]{0,63})\Z",
        extra=says(
            '"uid:NUMBER" for a process of that user, "key:ID" for an issued key, or a name of'
            " [server.tcp_keys]"
        ),
    ),
]
Seconds = Annotated[float, Meta(ge=0.001, le=DAY_S)]
DeadlineMs = Annotated[int, Meta(ge=1, le=60_000)]
HookUrl = Annotated[str, Meta(extra=says("a URL such as https://billing.internal/check"))]
MaybeNoSeconds = Annotated[float, Meta(ge=0, le=DAY_S)]
UsdPerMtok = Annotated[Decimal, Meta(extra={"money": "usd_per_mtok"})]
LiteralOrSecret = Annotated[Secret, Meta(extra={"literal": True})]
"""A text, or a reference to a secret. A literal's `source` is the text itself."""
Vocabulary = Literal["cl100k_base", "o200k_base"]
Api = Literal["chat", "responses"]
"""How OpenAI's models are asked: by chat completions, or by Responses."""
Preset = Literal[
    "openai",
    "azure",
    "groq",
    "together",
    "openrouter",
    "mistral",
    "deepseek",
    "gemini",
    "vllm",
    "ollama",
    "llama_cpp",
]
Capability = Literal["tools", "vision", "json_schema", "reasoning", "audio", "logprobs"]


PER_MTOK = "_usd_per_mtok"
PRICED_PARTS = tuple(name for name in Rates.__struct_fields__ if name not in ("input", "output"))
"""Token classes that may have a price of their own."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Where the daemon listens and how much it takes on."""

    socket: SocketPath = ""
    """The Unix socket. By default `cascaded.sock` in systemd's runtime directory, else in
    `$XDG_RUNTIME_DIR`, else in `/tmp/cascaded-<uid>`."""
    socket_mode: OctalMode = "0660"
    """Permissions of the socket: who may write to it may use the daemon."""
    socket_group: GroupName | None = None
    """The group that owns the socket. By default the daemon's own."""
    tcp: Address | None = None
    """A second door on loopback TCP, `host:port`, for tools that cannot dial a socket; needs
    `tcp_keys`. Port 0 takes a free one. By default there is none."""
    tcp_keys: Annotated[Mapping[Name, Secret], Meta(max_length=MAX_TCP_KEYS)] = msgspec.field(
        default_factory=nothing
    )
    """Name of each TCP caller, and the key that it must send."""
    metrics_without_key: bool = False
    """Whether `/metrics` answers over TCP without a key."""
    max_body_bytes: Annotated[int, Meta(ge=KIB, le=1024 * MIB)] = 16 * MIB
    """Longest request body; a longer one is refused with 413."""
    max_header_bytes: Annotated[int, Meta(ge=KIB, le=MIB)] = 16 * KIB
    """Longest request header; a longer one is refused with 400."""
    max_concurrency: Annotated[int, Meta(ge=1, le=65_536)] = 256
    """Calls at work at once; one more waits for a place."""
    max_waiting: Annotated[int, Meta(ge=0, le=65_536)] = 256
    """Calls that may wait for a place, the tier with the highest `queue_priority` first, each
    with its body in memory. One more is refused with 503 and `retry-after`, or takes the seat of
    the last whose tier has a lower priority. 0: nobody waits."""
    max_wait_s: MaybeNoSeconds = 10.0
    """Longest wait for a place; then 503."""
    request_timeout_s: Seconds = 600.0
    """Longest life of one request over all its attempts."""
    drain_timeout_s: MaybeNoSeconds = 30.0
    """How long a stopping daemon waits for requests at work."""
    keepalive_timeout_s: MaybeNoSeconds = 75.0
    """How long an idle connection is kept open."""
    heartbeat_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    """After so long a silence a stream that is asked for and has not begun, or pauses, is sent a
    sign of life that clients pass over. With the first of them its status is out, so that a later
    refusal is an event of the stream. A caller's `X-Cascaded-Heartbeat` goes before it. 0: none."""

    @property
    def socket_mode_bits(self) -> int:
        """`socket_mode` as a number."""
        return int(self.socket_mode, 8)

    @property
    def tcp_address(self) -> tuple[str, int] | None:
        """`tcp` as (host, port), an IPv6 host without its brackets."""
        if self.tcp is None:
            return None
        host, _, port = self.tcp.rpartition(":")
        return host.strip("[]"), int(port)


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What is written about the daemon's work: one JSON object a line."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are still written."""
    prompts: bool = False
    """Whether prompts and answers are written too. Never unless asked."""
    file: Path | None = None
    """Where the lines go. By default to standard error."""


class Remote(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Somebody who answers and may fail, and what that costs."""

    first_token_timeout_s: Seconds = 60.0
    """Longest wait for the first token of a stream."""
    idle_timeout_s: Seconds = 60.0
    """Longest silence between two pieces of a stream."""
    total_timeout_s: Seconds = 300.0
    """Longest life of one attempt. Shorter than a timeout above that is not set, it bounds it."""
    max_connections: Annotated[int, Meta(ge=1, le=10_000)] = 100
    """Connections to it at once, which is calls at once; more of them wait."""
    max_retries: Annotated[int, Meta(ge=0, le=10)] = 2
    """Further tries of one attempt after a fault that is worth repeating."""
    backoff_s: MaybeNoSeconds = 0.25
    """First wait between tries; it doubles, with jitter."""
    backoff_max_s: MaybeNoSeconds = 8.0
    """Longest wait between tries."""
    breaker_failures: Annotated[int, Meta(ge=0, le=MAX_REMEMBERED)] = 5
    """It is left alone after so many failures, if they are half of its calls of the last 30 s (or
    of its last 100). What it refuses with a 4xx is no failure. 0: it never is."""
    breaker_pause_s: Seconds = 10.0
    """Longest time that it is left alone before one call tries it again; doubles with every such
    call that fails, up to `breaker_max_pause_s`."""
    breaker_max_pause_s: Seconds = 120.0
    """Longest that this becomes."""
    max_response_bytes: Annotated[int, Meta(ge=KIB, le=1024 * MIB)] = 32 * MIB
    """Longest answer; a longer one is a fault of the provider."""
    bills_on_5xx: bool = False
    """Whether an answer of 5xx may have been billed."""
    cancel_stops_billing: bool = False
    """Whether hanging up stops the bill at what was streamed. It counts for streams of models that
    do not think unseen."""
    region: Name | None = None
    """Where it keeps data, such as `eu` or `eu-west-1`. Organisations whose data must stay
    somewhere use only providers that say so."""


class Upstream(Remote, frozen=True, kw_only=True):
    """An upstream over HTTP."""

    base_url: Url
    """Where its API begins, such as `https://api.openai.com/v1`."""
    uds: SocketPath | None = None
    """Dial this Unix socket instead of the URL's host."""
    api_key: Secret | None = None
    """The key of our own: `Authorization: Bearer` to most, `x-api-key` to Anthropic."""
    api_keys: Annotated[tuple[Secret, ...], Meta(max_length=MAX_KEYS)] = ()
    """Several keys instead of one, used in turn. One that is refused (401) or used up (429) rests,
    as long as `retry-after` says, and the next is tried."""
    requests_per_second: Annotated[float, Meta(ge=0.001, le=100_000)] | None = None
    """Calls to it in a second, at even distances; more of them wait, at most as long as an answer
    may take. By default there is no such limit."""
    headers: Annotated[Mapping[HeaderName, LiteralOrSecret], Meta(max_length=MAX_HEADERS)] = (
        msgspec.field(default_factory=nothing)
    )
    """Further headers of every call. Values are texts or references to secrets."""
    ca_file: Path | None = None
    """PEM file of the authorities to trust instead of the system's."""
    proxy: LiteralOrSecret | None = None
    """HTTP proxy, such as `http://proxy:3128`; with a password it must be a secret reference."""
    connect_timeout_s: Seconds = 5.0
    """Longest wait for a connection."""
    forward_caller_key: bool = False
    """Whether the key that came with a call is passed on to it."""

    @property
    def keys(self) -> tuple[Secret, ...]:
        """The keys of our own, one or several."""
        return (self.api_key,) if self.api_key else self.api_keys


class OpenAICompatible(Upstream, frozen=True, kw_only=True, tag="openai_compatible"):
    """An upstream that speaks OpenAI's chat completions: OpenAI, Azure, Groq, vLLM, Ollama …"""

    base_url: Url = ""
    """Where its API begins, such as `https://api.openai.com/v1`. Most presets know it."""
    preset: Preset | None = None
    """Who it is: fills in what is known of it, its address first. What stands in the file goes over
    it."""
    batch_percent: Annotated[int, Meta(ge=1, le=100)] | None = None
    """What a call costs in its own batches, in percent of its price (OpenAI: 50). Then batches that
    have a day's time are made there. Unset, they are not used. Several keys must be of one
    project."""
    api_version: HeaderText | None = None
    """For Azure OpenAI: calls go to `/openai/deployments/UPSTREAM_NAME` with this version, and the
    key as `api-key`; `base_url` is the resource, such as `https://NAME.openai.azure.com`."""
    api: Api = "chat"
    """How its models are asked: by its chat completions, or by its Responses."""
    reasoning_apart: bool = False
    """Whether its `completion_tokens` leave out hidden reasoning that its `total_tokens` has."""
    organization: HeaderText | None = None
    """Sent as `OpenAI-Organization`."""
    project: HeaderText | None = None
    """Sent as `OpenAI-Project`."""
    logprobs: bool = False
    """Whether its chat completions can be asked for log-probabilities, which tell how sure a model
    is."""


class Anthropic(Upstream, frozen=True, kw_only=True, tag="anthropic"):
    """An upstream that speaks Anthropic's Messages: Anthropic itself, or a gateway to it."""

    base_url: Url = "https://api.anthropic.com/v1"
    """Where its API begins; `/messages` is added to it."""
    version: HeaderText = "2023-06-01"
    """Sent as `anthropic-version` where the caller does not say one."""


class Embedded(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="embedded"):
    """Models that run on this machine, in a child process, without a key."""

    start: Literal["first_use", "boot"] = "first_use"
    """When the models are loaded."""
    models_dir: Path | None = None
    """Where model files are kept. By default where `cascaded models pull` puts them."""
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    """Threads of one model. By default one less than there are cores."""
    context_size: Annotated[int, Meta(ge=256, le=10_000_000)] | None = None
    """Tokens of context to make room for. By default 8,192."""


class LocalEmbeddings(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="embedder"):
    """Embeddings by the model of `[embedder]`, on this machine, without a key; needs the extra
    `onnx`. Its models are for `/v1/embeddings` alone, and free."""


class LiteLLM(Remote, frozen=True, kw_only=True, tag="litellm"):
    """Whatever LiteLLM reaches, through a process of its own; needs the extra `litellm`. Its
    models' `upstream_name` is LiteLLM's, such as `bedrock/anthropic.claude-sonnet-4`."""

    environment: Annotated[Mapping[VariableName, LiteralOrSecret], Meta(max_length=MAX_HEADERS)] = (
        msgspec.field(default_factory=nothing)
    )
    """Variables for that process alone, such as keys: texts or references to secrets. It has none
    of the daemon's that look like secrets."""
    options: Annotated[Mapping[OptionName, LiteralOrSecret], Meta(max_length=MAX_HEADERS)] = (
        msgspec.field(default_factory=nothing)
    )
    """Further arguments of each of its calls, such as `api_base`."""


Provider = OpenAICompatible | Anthropic | Embedded | LiteLLM | LocalEmbeddings


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model as callers may use it.

    Its price is looked up in the catalogue unless it stands here or the model is `free`. Prices
    are US dollars for a million tokens, exact: `"0.15"`, `0.15` and `2` are all read as decimals.
    """

    provider: ProviderRef
    """Who answers: a name of `[providers]`."""
    upstream_name: Text = ""
    """What the provider calls it. By default its name here."""
    api: Api | None = None
    """How it is asked, where its provider is OpenAI-compatible. By default as that one's models."""
    deployments: Annotated[tuple[ModelRef, ...], Meta(max_length=MAX_DEPLOYMENTS)] = ()
    """The same model elsewhere: in another region, with another key, from another seller. Its calls
    are spread over itself and these, each at its own price; who fails or is busy is passed over."""
    weight: Annotated[int, Meta(ge=1, le=1000)] = 1
    """Where calls are spread: how many come here, measured by the weights of the others."""
    fallback: Annotated[tuple[ModelRef, ...], Meta(max_length=MAX_FALLBACKS)] = ()
    """Models that answer in its place, the first that can, while its provider fails. Their own
    fallbacks are not asked."""
    free: bool = False
    """Whether it costs nothing. A model without a known price is refused unless it is."""
    input_usd_per_mtok: UsdPerMtok | None = None
    """Price of input tokens."""
    output_usd_per_mtok: UsdPerMtok | None = None
    """Price of output tokens."""
    cache_read_usd_per_mtok: UsdPerMtok | None = None
    """Price of input tokens read from the provider's cache. By default as input."""
    cache_write_usd_per_mtok: UsdPerMtok | None = None
    """Price of input tokens written to the provider's cache. By default as input."""
    cache_write_1h_usd_per_mtok: UsdPerMtok | None = None
    """Price of such tokens where they are kept for an hour. By default as any cache write."""
    input_audio_usd_per_mtok: UsdPerMtok | None = None
    """Price of audio tokens in. By default as input."""
    output_audio_usd_per_mtok: UsdPerMtok | None = None
    """Price of audio tokens out. By default as output."""
    output_image_usd_per_mtok: UsdPerMtok | None = None
    """Price of image tokens out. By default as output."""
    reasoning_usd_per_mtok: UsdPerMtok | None = None
    """Price of hidden reasoning tokens. By default as output."""
    request_usd: Usd | None = None
    """A fee for each call, whatever its tokens."""
    reference_model: Text | None = None
    """For a free model: the paid model whose catalogue price its saving is shown at."""
    reference_input_usd_per_mtok: UsdPerMtok | None = None
    """For a free model: the price of input tokens that its saving is shown at."""
    reference_output_usd_per_mtok: UsdPerMtok | None = None
    """For a free model: the price of output tokens that its saving is shown at."""
    vocabulary: Vocabulary | None = None
    """Its token vocabulary, where it is a public one. Without it tokens are bounded by bytes."""
    tokenizer_file: Path | None = None
    """A `tokenizer.json` with its vocabulary."""
    context_window: Tokens | None = None
    """Most tokens of input and output together. By default what the catalogue knows."""
    max_output_tokens: Tokens | None = None
    """Most tokens of output. By default what the catalogue knows."""
    capabilities: frozenset[Capability] | None = None
    """What it can do. By default what the catalogue knows."""

    @property
    def price(self) -> Price | None:
        """The price that stands here; of zero for a free model; `None` leaves it to the
        catalogue."""
        if self.free:
            return Price(rates=Rates(input=0, output=0))
        if self.input_usd_per_mtok is None or self.output_usd_per_mtok is None:
            return None
        rates = {part: _rate(getattr(self, part + PER_MTOK)) for part in PRICED_PARTS}
        return Price(
            rates=Rates(
                input=parse_usd_per_mtok(self.input_usd_per_mtok),
                output=parse_usd_per_mtok(self.output_usd_per_mtok),
                **rates,
            ),
            request_nano_usd=parse_usd(self.request_usd or 0),
        )

    @property
    def reference_price(self) -> Price | None:
        """The reference price that stands here; `None` also where `reference_model` names one."""
        if self.reference_input_usd_per_mtok is None or self.reference_output_usd_per_mtok is None:
            return None
        return Price(
            rates=Rates(
                input=parse_usd_per_mtok(self.reference_input_usd_per_mtok),
                output=parse_usd_per_mtok(self.reference_output_usd_per_mtok),
            )
        )


def _rate(usd_per_mtok: Decimal | None) -> int | None:
    return None if usd_per_mtok is None else parse_usd_per_mtok(usd_per_mtok)


class Ladder(msgspec.Struct, frozen=True, kw_only=True):
    """Models to try in turn, cheapest first. Callers name it `cascade/<name>`."""

    rungs: Annotated[tuple[ModelRef, ...], Meta(min_length=1, max_length=MAX_RUNGS)]
    """Names of `[models]`, cheapest first."""
    threshold: Score = 0.55
    """How good an answer must be to be kept, 0 to 1, on every rung."""
    thresholds: Annotated[tuple[Score, ...], Meta(max_length=MAX_RUNGS)] = ()
    """The same, one for each rung, instead of `threshold`."""
    max_cost_usd: Usd = Decimal("0.05")
    """Most that one request may cost over all its attempts."""
    strict: bool = False
    """Refuse an answer that fails at the top, rather than return it flagged."""
    top_retries: Annotated[int, Meta(ge=0, le=2)] = 2
    """How often the last rung is asked again when its answer fails."""
    stream_mode: StreamMode = "auto"
    """`buffer` holds a stream back until it is judged, `stream` does not; `auto` streams where the
    answer is final anyway."""
    cache: bool = True
    """Whether its answers may be kept and given again; `[cache]` says how."""
    aliases: Annotated[tuple[AliasName, ...], Meta(max_length=MAX_LADDER_ALIASES)] = ()
    """Other names of this ladder. One may shadow a real model, so that an unchanged application
    cascades."""

    @property
    def rung_thresholds(self) -> tuple[float, ...]:
        """One threshold for each rung."""
        return self.thresholds or (self.threshold,) * len(self.rungs)

    @property
    def max_cost_nano_usd(self) -> int:
        """`max_cost_usd` in nano-dollars."""
        return parse_usd(self.max_cost_usd)


class Cascade(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every request."""

    default_max_output_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] = 4096
    """Bound on the output of a call that brings none of its own."""
    max_prompt_bytes: Annotated[int, Meta(ge=1, le=1024 * MIB)] = 4 * MIB
    """Longest prompt; a longer one is refused. A shorter `server.max_body_bytes` bounds it."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How answers are judged."""

    mode: QualityMode = "fast"
    """`fast`: rules, in under 5 ms. `balanced`: also one probability out of everything that is
    known, how near an answer is to its question (needs an embedder) and how toxic it is (needs a
    classifier). `strict`: also whether samples agree, where the stakes are high. A call may say its
    own."""
    similarity_min: Score | None = None
    """How probably an answer must be to this question rather than to another one. By default the
    mode's: 0.70 in `balanced` and `strict`."""
    toxicity_max: Score | None = None
    """How toxic an answer may be. By default the mode's: 0.80 in `balanced` and `strict`."""
    toxicity_classifier: Name | None = None
    """A model of `[classifiers]` that tells how toxic a text is. By default there is none."""
    toxic_labels: Annotated[tuple[Text, ...], Meta(max_length=MAX_LABELS)] = ("toxic", "toxicity")
    """Which of its labels count; the highest of them."""
    selfcheck_samples: Annotated[int, Meta(ge=0, le=MAX_SAMPLES)] | None = None
    """How many more answers are asked for, to see whether they agree. Each is paid for. By default
    the mode's: 3 in `strict`."""
    selfcheck_domains: Annotated[tuple[Text, ...], Meta(max_length=MAX_PATTERNS)] = HIGH_STAKES
    """The domains of calls with samples. Empty: all calls."""
    judge: ModelRef | None = None
    """A model that is asked of each answer whether it is right, in `balanced` and `strict`. It is
    paid for."""
    validation: ValidationMode = "sync"
    """`async`: answers are kept or not by rules and go out at once; the rest is worked out later,
    without samples and judge, and marks them in metrics and log."""
    calibration: Path | None = None
    """A file that `cascaded quality calibrate` made of your own traffic. By default the one in the
    package, made of public exam questions."""
    good_share: Annotated[float, Meta(gt=0, lt=1)] = 0.85
    """The share of your answers that are good, as far as you know. The calibration in the package
    is moved to it; one of your own knows it."""

    @property
    def meant(self) -> QualityConfig:
        """The mode, with what is set beside it."""
        own = {
            name: value
            for name in ("similarity_min", "toxicity_max", "selfcheck_samples")
            if (value := getattr(self, name)) is not None
        }
        own |= {"selfcheck_domains": self.selfcheck_domains, "validation_mode": self.validation}
        return msgspec.structs.replace(QualityConfig.of(self.mode), **own)


class SmallModel(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX model that runs on this machine's processor; needs the extra `cascaded[onnx]`. It is
    loaded when it is first used, by whatever is configured to use it."""

    start: Literal["first_use", "boot"] = "first_use"
    """When it is loaded. On its first use the calls that cannot wait go by rules alone."""
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    """Threads that one text is worked on with."""
    max_waiting: Annotated[int, Meta(ge=1, le=65_536)] = 256
    """Texts that may wait for it. For one more it is overloaded, and rules alone decide."""
    deadline_ms: DeadlineMs = 250
    """Longest wait for it. Then rules alone decide."""


class Embedder(SmallModel, frozen=True, kw_only=True):
    """The model that turns texts into vectors, for domains, quality and guardrails."""

    folder: Path | None = None
    """Another model of sentence embeddings: a folder with `model.onnx` and `tokenizer.json`. The
    heads in the package are for the default, all-MiniLM-L6-v2 (`cascaded models pull minilm`), and
    are not used with another."""
    max_tokens: Annotated[int, Meta(ge=8, le=8192)] = 256
    """How much of a text it reads."""


class Classifier(SmallModel, frozen=True, kw_only=True):
    """A model that judges texts, in a folder with `model.onnx` and `tokenizer.json`."""

    folder: Path
    """Where it is."""
    labels: Annotated[tuple[Text, ...], Meta(max_length=MAX_LABELS)] = ()
    """What its numbers mean, in their order. By default what `id2label` in its `config.json`
    says."""
    independent: bool = False
    """Whether several labels may be right at once."""
    max_tokens: Annotated[int, Meta(ge=8, le=8192)] = 512
    """How much of a text it reads."""


class DomainThresholds(msgspec.Struct, frozen=True, kw_only=True):
    """How good an answer must be to be kept, by how hard the query is."""

    simple: Score
    """Of a simple query."""
    moderate: Score
    """Of a moderate one."""
    hard: Score
    """Of a hard one."""


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """What marks the queries of a domain, and what is done with them. A built-in domain is changed
    by its name, any other name is a domain of your own."""

    keywords: Annotated[tuple[Text, ...], Meta(max_length=MAX_SIGNALS)] = ()
    """Words or phrases that mark it; whole words, in any case. One makes .7 sure."""
    patterns: Annotated[tuple[Text, ...], Meta(max_length=MAX_SIGNALS)] = ()
    """Regular expressions (of Rust: they take linear time), in any case. One makes .9 sure."""
    semantic_examples: Annotated[tuple[Text, ...], Meta(max_length=MAX_EXAMPLES)] = ()
    """Queries that are typical of it; needs `detect = "embeddings"`."""
    preferred_models: Annotated[tuple[Pattern, ...], Meta(max_length=MAX_PATTERNS)] = ()
    """Models that are tried before the others of the ladder."""
    cost_model: ModelRef | None = None
    """The first model of the ladder for these queries."""
    quality_model: ModelRef | None = None
    """The last model of the ladder for these queries."""
    require_strict_quality: bool = False
    """Refuse an answer that fails at the top, rather than return it flagged."""
    fallback: ModelRef | None = None
    """Who answers while the provider of the last model fails."""
    thresholds: DomainThresholds | None = None
    """How good an answer must be. By default .55/.50/.45 for code, .80/.75/.70 for medical, and
    .60/.55/.50 for every other (simple/moderate/hard)."""


class Domains(msgspec.Struct, frozen=True, kw_only=True):
    """What queries are about, and routing by it. By default nobody looks."""

    detect: Literal["off", "rules", "embeddings"] = "off"
    """`rules`: by words and form, in under a millisecond; `embeddings`: also by `[embedder]`, in
    about ten. `off` costs nothing and leaves every ladder as it is."""
    zero_shot: Name | None = None
    """A name of `[classifiers]`, a model of entailment, that is asked where nobody was sure."""
    min_confidence_rules: Score = 0.7
    """How sure rules alone must be. Below, a query is `general`."""
    min_confidence: Score = 0.6
    """How sure all layers together must be."""
    routes: Annotated[Mapping[Name, Domain], Meta(max_length=MAX_DOMAINS)] = msgspec.field(
        default_factory=nothing
    )
    """What is done with single domains, by their names."""


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """Where money and rates are kept."""

    dir: Path | None = None
    """The folder of the journal and its checkpoint. By default systemd's state directory, else
    `$XDG_STATE_HOME/cascaded`, else `~/.local/state/cascaded`."""
    gate: Gate = "ceiling"
    """What a call waits for before it is sent. `ceiling`: for its hold to be on the disk, unless a
    ceiling that is there covers it; no record is lost, and after a crash the ceilings are charged
    as unknown. `strict`: for its hold under a hard limit, otherwise for nothing."""


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of calls and decisions, beside the ledger."""

    retention_days: Annotated[int, Meta(ge=1, le=36_500)] = 90
    """How long usage and audit records are kept."""
    audit_level: AuditLevel = "standard"
    """`minimal`: refusals and what administrators did; `standard`: also warnings, degraded calls,
    unknowns and overruns; `comprehensive`: every decision."""


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """Answers that are kept and given again: never to another organisation, or to another user of
    none. By default those of calls with temperature 0 and without tools."""

    enabled: bool = True
    """Whether there is a cache at all."""
    ttl_s: Annotated[int, Meta(ge=1, le=365 * DAY_S)] = 3600
    """For how long an answer is given again."""
    wait_s: Annotated[float, Meta(ge=0, le=3600)] = 30.0
    """How long a call waits for an equal one that is under way, before it is made itself."""
    disk: bool = True
    """Whether answers are kept over restarts, in the folder `cache` beside the ledger. Prompts are
    not written, only their hash."""
    max_entries: Annotated[int, Meta(ge=1, le=10_000_000)] = 50_000
    """Most answers; the one that was used longest ago goes."""
    max_entry_bytes: Annotated[int, Meta(ge=1024, le=64 * MIB)] = 256 * KIB
    """Longest answer that is kept."""
    max_bytes: Annotated[int, Meta(ge=MIB, le=1024 * 1024 * MIB)] = 512 * MIB
    """Room of all answers together, on the disk."""
    memory_bytes: Annotated[int, Meta(ge=MIB, le=64 * 1024 * MIB)] = 64 * MIB
    """Room of the answers that are in memory, too, and need no disk."""


class Responses(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's Responses that are kept, prompts and answers, to be read and gone on from by who
    asked: never by another organisation, or another user of none."""

    keep: Literal["asked", "always", "never"] = "asked"
    """Which are kept: those whose call says `store: true`; `always`: all but those whose call says
    `store: false`."""
    ttl_s: Annotated[int, Meta(ge=1, le=365 * DAY_S)] = 30 * DAY_S
    """For how long."""
    max_entry_bytes: Annotated[int, Meta(ge=1024, le=64 * MIB)] = 4 * MIB
    """Longest that is kept, with the items of its input."""
    max_per_owner: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    """Most of one owner; the oldest goes."""
    max_bytes: Annotated[int, Meta(ge=MIB, le=1024 * 1024 * MIB)] = 1024 * MIB
    """Room of all together, on the disk, in the folder `responses` beside the ledger; the oldest
    goes."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Batches, ours and OpenAI's, and the files that they are made of."""

    max_parallel: Annotated[int, Meta(ge=1, le=MAX_SIDE_BY_SIDE)] = 16
    """Queries under way at once, of all batches; also of one of OpenAI's."""
    max_lines: Annotated[int, Meta(ge=1, le=1_000_000)] = 50_000
    """Most queries of one batch."""
    max_open: Annotated[int, Meta(ge=1, le=10_000)] = 32
    """Most batches of one user that have not ended."""
    max_user_bytes: Annotated[int, Meta(ge=MIB, le=1024 * 1024 * MIB)] = 1024 * MIB
    """Room of one user's files, queries and results, on the disk."""
    max_bytes: Annotated[int, Meta(ge=MIB, le=1024 * 1024 * MIB)] = 4096 * MIB
    """Room of everybody's together. A file is also bound by `server.max_body_bytes`."""
    retention_days: Annotated[int, Meta(ge=1, le=3_650)] = 30
    """How long files, and batches that have ended, are kept."""
    poll_s: Annotated[float, Meta(ge=0.1, le=3600)] = 20.0
    """How often a provider is asked how its own batch does."""


class Otel(msgspec.Struct, frozen=True, kw_only=True):
    """OpenTelemetry: traces and metrics to a collector, by OTLP over HTTP. Needs
    `pip install 'cascaded[otel]'`."""

    endpoint: HookUrl | None = None
    """The collector's address, without `/v1/traces`, such as `http://127.0.0.1:4318`. By default
    nobody is told anything."""
    headers: Annotated[Mapping[HeaderName, LiteralOrSecret], Meta(max_length=MAX_HEADERS)] = (
        msgspec.field(default_factory=nothing)
    )
    """Headers for it, such as a key. Values are texts or references to secrets."""
    service_name: HeaderText = "cascaded"
    """What it is called there."""
    traces: bool = True
    """Whether spans are sent: one of each call, and one of each call to a provider. The trace that
    a caller sends (`traceparent`) goes on, and providers are sent it."""
    metrics: bool = True
    """Whether metrics are sent."""
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the calls that have spans. Callers who send a trace decide for themselves."""
    users: bool = False
    """Whether spans name users, organisations and workspaces."""
    prompts: bool = False
    """Whether spans have prompts and answers. Never unless asked."""
    max_queue: Annotated[int, Meta(ge=1, le=65_536)] = 2048
    """Calls that may wait until the collector takes them; of more it is told nothing."""
    spans_every_s: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    """How often spans are sent."""
    metrics_every_s: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0
    """How often metrics are sent."""
    timeout_s: Annotated[float, Meta(ge=0.1, le=600)] = 10.0
    """Longest that the collector may take to answer."""


class ScopeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one kind of owner."""

    default: LimitTable = LimitTable()
    """Of each one of them."""
    ids: Annotated[Mapping[Text, LimitTable], Meta(max_length=MAX_NAMED_SCOPES)] = msgspec.field(
        default_factory=nothing
    )
    """Of single ones, by their id; field by field over `default`."""

    @property
    def quotas(self) -> ScopeQuotas:
        """The tables in our units."""
        return _scope_quotas(self.default, self.ids)


class TagLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one tag that callers put on their calls."""

    default: LimitTable = LimitTable()
    """Of each value."""
    values: Annotated[Mapping[Text, LimitTable], Meta(max_length=MAX_NAMED_SCOPES)] = msgspec.field(
        default_factory=nothing
    )
    """Of single values; field by field over `default`."""

    @property
    def quotas(self) -> ScopeQuotas:
        """The tables in our units."""
        return _scope_quotas(self.default, self.values)


def _scope_quotas(default: LimitTable, ids: Mapping[str, LimitTable]) -> ScopeQuotas:
    return ScopeQuotas(default=default.quotas, ids={id: table.quotas for id, table in ids.items()})


class Limits(msgspec.Struct, frozen=True, kw_only=True, rename={"global_": "global"}):
    """Budgets and rates. Every call is charged to all that apply to it, all at once or not at
    all. By default there are none."""

    zone: ZoneName = "UTC"
    """The time zone of every table that names none."""
    enforcement: Enforcement = "degrade"
    """What happens at a budget's limit. `degrade`: from 90% only cheaper models, at 100% a
    refusal; `block`: a refusal; `warn`: the call passes with a warning; `shadow`: it passes, and
    what would have been refused is recorded."""
    global_: LimitTable = LimitTable()
    """Of everything together."""
    organizations: ScopeLimits = ScopeLimits()
    """Of organisations: shared by all of their users."""
    workspaces: ScopeLimits = ScopeLimits()
    """Of workspaces."""
    teams: ScopeLimits = ScopeLimits()
    """Of teams."""
    users: ScopeLimits = ScopeLimits()
    """Of users. `[tiers.NAME]` stands between a user's own table and the default."""
    tiers: ScopeLimits = ScopeLimits()
    """Of all users of a tier together. What each may use for himself stands in `[tiers.NAME]`."""
    tags: Annotated[Mapping[Name, TagLimits], Meta(max_length=MAX_TAGS)] = msgspec.field(
        default_factory=nothing
    )
    """Of tags, by their name. Other tags are not counted."""
    runs: LimitTable = LimitTable()
    """Of each run of an agent, or session."""

    @property
    def base(self) -> Quotas:
        """What holds where a table does not say it."""
        return Quotas(zone=self.zone, enforcement=self.enforcement)

    @property
    def scopes(self) -> dict[Scope, ScopeQuotas]:
        """Every table but those of tags, in our units."""
        return {
            "global": ScopeQuotas(default=self.global_.quotas),
            "organization": self.organizations.quotas,
            "workspace": self.workspaces.quotas,
            "team": self.teams.quotas,
            "user": self.users.quotas,
            "tier": self.tiers.quotas,
            "run": ScopeQuotas(default=self.runs.quotas),
        }

    @property
    def tag_quotas(self) -> dict[str, ScopeQuotas]:
        """The tables of tags, in our units."""
        return {name: tag.quotas for name, tag in self.tags.items()}


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Whose word counts, and who may administer."""

    trusted: Annotated[tuple[PrincipalName, ...], Meta(max_length=MAX_TRUSTED)] = ()
    """Callers whose word about user, tier and organisation is believed: `uid:1000` for processes
    of that user on the socket, a name of `[server.tcp_keys]`, or `key:ID` for a key that the daemon
    issued. The calls of all others are charged to themselves: `uid:1000`, the name of the key, or
    the owner of an issued one is their user."""
    default_tier: Name | None = None
    """The tier of callers for whom nobody names one. By default none, which allows everything."""
    unknown_user: Literal["default", "refuse"] = "default"
    """What becomes of users without a table of their own: `default` gives them the default
    limits, `refuse` turns them away."""
    admin_group: GroupName | None = None
    """The system's group whose members may administer over the socket. By default only the
    daemon's own user and root may."""
    cheap_models: Annotated[tuple[Pattern, ...], Meta(max_length=MAX_PATTERNS)] = ()
    """What `cheap` stands for in a tier's `allowed_models`. By default the free models and the
    first rung of every ladder."""


PRESETS: Mapping[str, Mapping[tuple[str, str], Any]] = MappingProxyType(
    {
        "production": MappingProxyType(
            {("quality", "mode"): "fast", ("records", "retention_days"): 365}
        )
    }
)
"""What a preset sets, by table and setting. With one there are no models but those of the file."""


class TiersFromDatabase(msgspec.Struct, frozen=True, kw_only=True):
    """A PostgreSQL table that tells who has which tier, and which budget. It is read in the
    background and never written; its users are known users."""

    connection: Secret
    """The connection string, such as `postgresql://reader@db.internal/shop`."""
    table: TableName
    """The table or view, as it is called in the database: `users`, or `schema.users`."""
    user_id_column: ColumnName = "user_id"
    """The column of the user's id."""
    tier_column: ColumnName = "tier"
    """The column of the tier's name. NULL leaves it to `access.default_tier`."""
    budget_column: ColumnName | None = None
    """The column of a budget in US dollars, numeric or whole. NULL leaves it to the tier. By
    default there is none."""
    budget_window: Literal["daily", "weekly", "monthly", "total"] = "monthly"
    """What that budget is for."""
    unknown_tier: Literal["default", "refuse"] = "refuse"
    """What becomes of users whose tier has no table here: `refuse` turns their calls away,
    `default` gives them `access.default_tier`."""
    refresh_s: Annotated[float, Meta(ge=1, le=DAY_S)] = 60.0
    """How often the table is read."""
    timeout_s: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    """How long one reading may take."""
    stale_after_s: Annotated[float, Meta(ge=1, le=7 * DAY_S)] = 3600.0
    """How old the last good reading may be before the log speaks of an error. It holds until there
    is a better one."""
    max_rows: Annotated[int, Meta(ge=1, le=1_000_000)] = 100_000
    """Most rows. A longer table is not read at all."""
    required_at_start: bool = True
    """Whether the daemon starts only when the table can be read. Without it, users have no tier
    and no budget of this table until the first reading."""

    @property
    def mapping(self) -> dict[str, str]:
        """Which column is what."""
        columns = {"user_id_column": self.user_id_column, "tier_column": self.tier_column}
        return columns | ({"budget_column": self.budget_column} if self.budget_column else {})


AskedPoint = Literal["budget_check", "model_filter"]


class AskedUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A URL that is asked about each call: a POST of JSON, answered with JSON."""

    url: HookUrl
    """Where it is asked."""
    deadline_ms: DeadlineMs = 250
    """Longest wait for its answer."""
    on_failure: OnFailure = "allow"
    """What holds when it does not answer in time, or not sensibly: `allow` leaves the call to the
    ledger, `block` refuses it with 503."""
    secret: Secret | None = None
    """Signs the call, in the header `X-Cascaded-Signature`."""
    cache_s: Annotated[float, Meta(ge=0, le=300)] = 0.0
    """How long its answer holds for further calls of the same user."""


class ToldUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A URL that is told something, off every call's way, once and without another try."""

    url: HookUrl
    """Where it is told."""
    deadline_ms: DeadlineMs = 5_000
    """Longest wait for its answer."""
    secret: Secret | None = None
    """Signs the call, in the header `X-Cascaded-Signature`."""


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's own say on calls, which may only tighten. By default there is none."""

    plugins: Annotated[tuple[Name, ...], Meta(max_length=MAX_PLUGINS)] = ()
    """Entry points of the group `cascaded.hooks` that installed packages offer, in the order in
    which they are asked."""
    deadline_ms: DeadlineMs = 250
    """Longest wait for the answer of one plug-in's hook."""
    on_failure: OnFailure = "allow"
    """What holds when a plug-in fails, takes too long or answers nonsense: `allow` leaves the call
    to the ledger, `block` refuses it with 503."""
    budget_check: AskedUrl | None = None
    """A URL asked as `on_budget_check`: allow, warn, degrade or block."""
    model_filter: AskedUrl | None = None
    """A URL asked as `on_model_filter`: which of the models to leave."""
    budget_warning: ToldUrl | None = None
    """A URL told as `on_budget_warning` when a budget reaches a threshold."""


class Guardrails(GuardrailsConfig, frozen=True, kw_only=True):
    """What is looked for in prompts and answers, and what happens then. By default nothing, unless
    a user's or a workspace's profile asks for it."""

    enabled: bool = False
    """Whether calls pass guardrails."""
    tiers: Annotated[Mapping[Name, GuardrailsConfig], Meta(max_length=MAX_TIERS)] = msgspec.field(
        default_factory=nothing
    )
    """What is added for the users of a tier. It only tightens."""
    meanings: bool = True
    """Whether the embedder is asked as well what a user's words mean, where it is there
    (`cascaded models pull minilm`): it takes some milliseconds and knows harm better."""
    deadline_ms: DeadlineMs = 250
    """Longest wait for one plug-in of `custom_guardrails`."""
    on_failure: OnFailure = "block"
    """What holds when one fails, takes too long or answers nonsense, or is asked for by a profile
    and not named here: `block` refuses the call with 503, `allow` goes on without it."""
    profiles_may_loosen: bool = False
    """Whether what is stored of a user, else of its workspace, holds in place of all this. Without
    it that only tightens, too."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration, checked. Mappings are read-only."""

    preset: Literal["production"] | None = None
    """What the settings begin with. `production`: no models but those that the file names, `fast`
    quality, records kept for a year. What stands in the file goes over it."""
    server: Server = Server()
    """Where the daemon listens and how much it takes on."""
    log: Log = Log()
    """What is written about its work."""
    providers: Annotated[Mapping[Name, Provider], Meta(max_length=MAX_PROVIDERS)] = msgspec.field(
        default_factory=nothing
    )
    """Who answers. By default the embedded models."""
    models: Annotated[Mapping[ModelName, Model], Meta(max_length=MAX_MODELS)] = msgspec.field(
        default_factory=nothing
    )
    """What callers may use. By default the two embedded models."""
    ladders: Annotated[Mapping[Name, Ladder], Meta(max_length=MAX_LADDERS)] = msgspec.field(
        default_factory=nothing
    )
    """Models to try in turn. By default `default`, over the two embedded models."""
    aliases: Annotated[Mapping[AliasName, Target], Meta(max_length=MAX_ALIASES)] = msgspec.field(
        default_factory=nothing
    )
    """Other names: of a ladder (`cascade/<name>`), a model or another alias. One may shadow a real
    model. By default `auto` is the ladder `default`, or the only one."""
    cascade: Cascade = Cascade()
    """What holds for every request."""
    quality: Quality = Quality()
    """How answers are judged."""
    embedder: Embedder = Embedder()
    """The model that turns texts into vectors. It is used only where something needs it."""
    domains: Domains = Domains()
    """What queries are about, and routing by it. By default nobody looks."""
    classifiers: Annotated[Mapping[Name, Classifier], Meta(max_length=MAX_CLASSIFIERS)] = (
        msgspec.field(default_factory=nothing)
    )
    """Models that judge texts, by the names that other tables use. By default none."""
    ledger: Ledger = Ledger()
    """Where money and rates are kept."""
    records: Records = Records()
    """What is remembered of calls and decisions."""
    cache: Cache = Cache()
    """Answers that are kept and given again."""
    responses: Responses = Responses()
    """OpenAI's Responses that are kept for who asked."""
    batch: Batch = Batch()
    """Batches, and the files that they are made of."""
    otel: Otel = Otel()
    """OpenTelemetry. By default none."""
    limits: Limits = Limits()
    """Budgets and rates. By default none."""
    tiers: Annotated[Mapping[Name, Tier], Meta(max_length=MAX_TIERS)] = msgspec.field(
        default_factory=nothing
    )
    """Customer plans, the least first. By default none."""
    access: Access = Access()
    """Whose word counts, and who may administer."""
    tiers_from_database: TiersFromDatabase | None = None
    """A PostgreSQL table that tells who has which tier, and which budget. By default none."""
    hooks: Hooks = Hooks()
    """The operator's own say on calls. By default none."""
    guardrails: Guardrails = Guardrails()
    """What is looked for in prompts and answers. By default nothing."""

    @classmethod
    def for_production(cls, **settings: Any) -> Self:
        """The preset `production`, with tables of one's own in place of its."""
        preset = "production"
        tables = {name: getattr(cls(), name) for name, _ in PRESETS[preset]}
        for (table, name), value in PRESETS[preset].items():
            tables[table] = msgspec.structs.replace(tables[table], **{name: value})
        return cls(**{"preset": preset, **tables, **settings})

    def tier_configs(self) -> dict[str, TierConfig]:
        """Every tier, whole, its cheap class put in place."""
        return {name: self.whole_tier(name, tier) for name, tier in self.tiers.items()}

    def whole_tier(self, name: str, table: Tier) -> TierConfig:
        """A tier with its preset, its cheap class put in place."""
        tier = table.tier(name)
        if CHEAP not in tier.allowed_models:
            return tier
        rest = tuple(pattern for pattern in tier.allowed_models if pattern != CHEAP)
        return msgspec.structs.replace(tier, allowed_models=(*self._cheap(), *rest))

    def _cheap(self) -> tuple[str, ...]:
        free = (name for name, model in self.models.items() if model.free)
        first = (ladder.rungs[0] for ladder in self.ladders.values())
        return self.access.cheap_models or tuple(dict.fromkeys((*free, *first)))

    def routes(self) -> dict[str, str]:
        """Every alias and what it ends at: `cascade/<ladder>` or a model's name."""
        direct = dict(self.aliases)
        for name, ladder in self.ladders.items():
            direct.update(dict.fromkeys(ladder.aliases, LADDER_PREFIX + name))
        return {alias: _end(direct, alias) for alias in direct}


def _end(direct: Mapping[str, str], name: str) -> str:
    while name in direct:
        name = direct[name]
    return name


BUILT_IN_MODELS: Mapping[str, Model] = {
    "smollm2-135m-instruct": Model(
        provider=EMBEDDED,
        upstream_name="smollm2-135m-instruct",
        free=True,
        reference_model="openai/gpt-4o-mini",
        context_window=8192,
        max_output_tokens=512,
        capabilities=frozenset({"logprobs"}),
    ),
    "qwen2.5-coder-1.5b-instruct": Model(
        provider=EMBEDDED,
        upstream_name="qwen2.5-coder-1.5b-instruct",
        free=True,
        reference_model="openai/gpt-4o",
        context_window=8192,
        max_output_tokens=1024,
        capabilities=frozenset({"logprobs"}),
    ),
}
"""What answers where nothing is configured."""
