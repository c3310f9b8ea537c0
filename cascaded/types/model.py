"""Models, their prices, and the ladders made of them."""

from typing import Literal

import msgspec

Kind = Literal["chat", "completion", "embedding"]
"""What is asked of a model: to answer a conversation, to continue texts, to embed texts."""
KINDS: frozenset[Kind] = frozenset({"chat", "completion", "embedding"})


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Pico-dollars a token (1 USD per million tokens = 1,000,000). `None`: priced as its parent
    class (cached and audio input as input; reasoning, audio and image output as output; the
    hour-long cache write as any cache write)."""

    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None
    input_audio: int | None = None
    output_audio: int | None = None
    reasoning: int | None = None
    cache_write_1h: int | None = None
    """Writes that live for an hour rather than for minutes."""
    output_image: int | None = None


class RatesAbove(msgspec.Struct, frozen=True, kw_only=True):
    """Rates for the *whole* call once its input is longer than `input_tokens`."""

    input_tokens: int
    rates: Rates


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What one model costs. Free models have rates of zero; an unknown price is no `Price`."""

    rates: Rates
    above: tuple[RatesAbove, ...] = ()
    """Ascending by `input_tokens`; the last one passed applies."""
    request_nano_usd: int = 0
    """A fee for each call, whatever its tokens."""


LOCAL_REGION = "local"
"""Where models of this host are: nothing leaves it."""


Form = Literal["chat", "messages", "responses"]
"""How calls are put: as OpenAI's chat completions, as Anthropic's Messages, or as OpenAI's
Responses."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model as the operator may use it."""

    name: str
    """What callers type and what metadata reports."""
    provider: str
    upstream_name: str
    """What the provider calls it."""
    price: Price | None = None
    """`None`: unknown, so refused unless the operator declares a price or `free = true`."""
    reference_price: Price | None = None
    """What a comparable paid model costs; only for showing a saving on free models."""
    reference_name: str = ""
    vocabulary: str = ""
    """Token vocabulary (`cl100k_base`, `o200k_base`, a tokenizer file); empty: bounded by bytes."""
    context_window: int | None = None
    max_output_tokens: int | None = None
    form: Form = "chat"
    """What it is asked in. (Texts are continued and embedded in OpenAI's own form in any case.)"""
    region: str | None = None
    """Where its provider keeps data, in lower case; `None` is not known."""
    capabilities: frozenset[str] = frozenset()
    """Of `tools`, `vision`, `json_schema`, `reasoning`, `audio`, `logprobs`."""
    kinds: frozenset[Kind] = KINDS
    """What its provider has a route for."""
    batched: "Model | None" = None
    """The same in its provider's own batches, which are cheaper and answer within a day."""
    weight: int = 1
    """How many of its calls come here, measured by the weights of the others."""
    others: tuple["Model", ...] = ()
    """The same model elsewhere, under the same name: calls are spread over it and these."""

    @property
    def places(self) -> tuple["Model", ...]:
        """Everywhere it is served, itself first."""
        return (self, *self.others)


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a ladder. An answer is kept when its score reaches `threshold`."""

    model: Model
    threshold: float = 0.0
    fallbacks: tuple[Model, ...] = ()
    """Who answers in the model's place, the first that can, while its provider fails."""

    @property
    def models(self) -> tuple[Model, ...]:
        """The model, then its fallbacks."""
        return (self.model, *self.fallbacks)


StreamMode = Literal["auto", "stream", "buffer"]


class Ladder(msgspec.Struct, frozen=True, kw_only=True):
    """The models to try, cheapest first."""

    name: str
    rungs: tuple[Rung, ...]
    checked: bool = True
    """Whether answers are judged. A model that was asked for by name is not second-guessed."""
    max_cost_nano_usd: int | None = None
    """Most that one request may cost over all its attempts."""
    strict: bool = False
    """Refuse an answer that fails at the top, rather than return it flagged."""
    top_retries: int = 2
    """How often the last rung is asked again when its answer fails (0 to 2)."""
    stream_mode: StreamMode = "auto"
    doubt_covered: bool = True
    """Whether the hold covers every model of a rung. Else it covers the dearest of each, and a
    fallback is not asked after a call that may have been billed."""
    cache: bool = True
    """Whether its answers may be kept and given again."""
    samples: int = 0
    """How many more answers are asked for with each, to see whether they agree."""
    judge: Model | None = None
    """Who is asked of each answer whether it is right."""
