"""How closely answers are looked at."""

from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

QualityMode = Literal["fast", "balanced", "strict"]
ValidationMode = Literal["sync", "async"]
Score = Annotated[float, Meta(ge=0, le=1)]

HIGH_STAKES = ("medical", "legal", "finance")
MAX_SAMPLES = 8


class QualityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done to tell good answers from bad ones. Every step more costs time, some money."""

    mode: QualityMode | Literal["custom"] = "fast"
    combined: bool = False
    """Whether everything that is known is joined into one probability that the answer is good."""
    similarity_min: Score | None = None
    """How probably the answer must be to this question rather than to another one of its kind, by
    embeddings. `None`: it is not asked."""
    toxicity_max: Score | None = None
    """How toxic an answer may be. `None`: it is not asked."""
    selfcheck_samples: Annotated[int, Meta(ge=0, le=MAX_SAMPLES)] = 0
    """How many more answers are asked for, to see whether they agree."""
    selfcheck_domains: tuple[str, ...] = HIGH_STAKES
    """Of which calls. Empty: of all."""
    validation_mode: ValidationMode = "sync"
    """`async`: an answer is kept or not by rules; the rest is worked out when it has gone out, and
    marks it. Samples and judges are then not asked."""

    @classmethod
    def fast(cls) -> Self:
        """Rules, and log-probabilities where they come for nothing."""
        return cls()

    @classmethod
    def balanced(cls) -> Self:
        """Also one probability out of everything, how near the answer is to its question, and how
        toxic it is."""
        return cls(mode="balanced", combined=True, similarity_min=0.70, toxicity_max=0.80)

    @classmethod
    def strict(cls) -> Self:
        """Also whether samples agree, where the stakes are high."""
        return msgspec.structs.replace(cls.balanced(), mode="strict", selfcheck_samples=3)

    @classmethod
    def custom(cls, **settings: Any) -> Self:
        """What you set; the rest as in `balanced`. Raises `ValueError`."""
        return msgspec.convert(
            {**msgspec.structs.asdict(cls.balanced()), "mode": "custom", **settings}, cls
        )

    @classmethod
    def of(cls, mode: QualityMode) -> Self:
        """The one of this name."""
        match mode:
            case "fast":
                return cls.fast()
            case "balanced":
                return cls.balanced()
            case "strict":
                return cls.strict()

    @property
    def rules_only(self) -> bool:
        """Whether nothing is looked at but rules."""
        return not self.combined and self.similarity_min is None and self.toxicity_max is None
