"""Scrutiny: what is asked about an answer beyond rules, as far as the call's mode wants it.

Rules come first: an answer that falls at them is not worth a small model, a sample or a judge.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec
from msgspec.structs import replace

from cascaded.policy.heads import similarity as cosine
from cascaded.policy.quality.agreement import agreement
from cascaded.policy.quality.judgement import Judgement
from cascaded.policy.quality.similarity import ANSWER_WORDS_MIN, belongs
from cascaded.policy.quality.weighing import Known, Weighing
from cascaded.ports import Classifier, Embedder, Offload
from cascaded.types.decision import Decision
from cascaded.types.quality import QualityConfig
from cascaded.types.request import Request
from cascaded.types.result import Completion, Verdict
from cascaded.types.vectors import Unavailable

LONG_CHARS = 2_000
"""Longer texts are read on another thread: it takes a millisecond and more."""
Sampler = Callable[[], Awaitable[str | None]]
"""Asks for the same again; `None` where there was no answer."""
Judge = Callable[[Completion], Awaitable[float | None]]
"""Asks a judge; `None` where it said nothing that means anything."""


class Scrutiny(msgspec.Struct, frozen=True, kw_only=True):
    """Who can be asked about answers."""

    offload: Offload
    judgement: Callable[[], Judgement]
    """Read when it is first needed."""
    embedder: Embedder | None = None
    toxicity: Classifier | None = None
    toxic_labels: tuple[int, ...] = ()
    """Places of the labels that count as toxic."""

    async def weighing(
        self, request: Request, decision: Decision, answer: Completion, model: str
    ) -> Weighing:
        """The answer, read; a long one off the event loop."""
        read = partial(self._weighing, request, decision, answer, model)
        long = len(answer.text) + len(decision.question) > LONG_CHARS
        return await self.offload(read) if long else read()

    def _weighing(
        self, request: Request, decision: Decision, answer: Completion, model: str
    ) -> Weighing:
        return Weighing(
            decision.quality,
            self.judgement() if decision.quality.combined else None,
            decision.question,
            answer,
            request.asks,
            model=model,
            domain=decision.domain or "",
        )

    async def look(self, decision: Decision, weighing: Weighing) -> Known:
        """What the small models that run here say of it."""
        config, text = decision.quality, weighing.reading.text
        if not text:
            return Known()
        similarity, far = await self._similarity(config, decision.question, text, weighing)
        toxicity, unread = await self._toxicity(config, text)
        return Known(similarity=similarity, toxicity=toxicity, unseen=(*far, *unread))

    async def _similarity(
        self, config: QualityConfig, question: str, text: str, weighing: Weighing
    ) -> tuple[float | None, tuple[str, ...]]:
        words = len(weighing.reading.words)
        if config.similarity_min is None or words < ANSWER_WORDS_MIN or not question.strip():
            return None, ()
        if self.embedder is None:
            return None, ("similarity: there is no embedder",)
        vectors = await self.embedder.embed([question, text])
        if isinstance(vectors, Unavailable):
            return None, (f"similarity: {vectors.message}",)
        return round(belongs(cosine(*vectors), words), 4), ()

    async def _toxicity(
        self, config: QualityConfig, text: str
    ) -> tuple[float | None, tuple[str, ...]]:
        if config.toxicity_max is None or self.toxicity is None:
            return None, ()
        said = await self.toxicity.classify([text])
        if isinstance(said, Unavailable):
            return None, (f"toxicity: {said.message}",)
        return round(max(said[0][label] for label in self.toxic_labels), 4), ()

    async def agreement(
        self, question: str, answer: str, sampled: Sequence[str | None]
    ) -> tuple[float | None, tuple[str, ...]]:
        """How far the samples agree with the answer; the vectors only where there are any."""
        others = [text for text in sampled if text]
        if not others:
            return None, ("self-consistency: no sample was answered",)
        nearness: list[float | None] = [None] * len(others)
        if self.embedder is not None:
            vectors = await self.embedder.embed([answer, *others])
            if not isinstance(vectors, Unavailable):
                nearness = [cosine(vectors[0], other) for other in vectors[1:]]
        return agreement(question, answer, others, nearness), ()


async def scrutinise(
    scrutiny: Scrutiny,
    request: Request,
    decision: Decision,
    answer: Completion,
    *,
    model: str,
    threshold: float,
    samplers: Sequence[Sampler],
    judge: Judge | None,
) -> Verdict:
    """The verdict on one whole answer. Where rules reject it nobody is asked."""
    weighing = await scrutiny.weighing(request, decision, answer, model)
    if weighing.flawless < threshold:
        return weighing.verdict()
    known = await scrutiny.look(decision, weighing)
    if answer.tool_calls:
        return weighing.verdict(known)
    if samplers:
        texts = await _all(samplers)
        agreed, unseen = await scrutiny.agreement(decision.question, answer.text, texts)
        known = replace(known, agreement=agreed, unseen=(*known.unseen, *unseen))
    if judge is not None:
        said = await judge(answer)
        unseen = () if said is not None else ("judge: it gave no verdict",)
        known = replace(known, judge=said, unseen=(*known.unseen, *unseen))
    return weighing.verdict(known)


async def _all(samplers: Sequence[Sampler]) -> list[str | None]:
    """All at once; when one fails or the caller leaves, all have ended before this does."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_awaited(sample)) for sample in samplers]
    return [task.result() for task in tasks]


async def _awaited(sample: Sampler) -> str | None:
    return await sample()
