"""Who finds out what a query is about: rules at once, small models where they are configured."""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from cascaded.policy.routing.difficulty import Difficulty
from cascaded.policy.routing.domains import Domains, hypothesis
from cascaded.ports import Classifier, Clock, CodeReader, Embedder
from cascaded.types.topics import GENERAL, Complexity, Topic
from cascaded.types.vectors import Unavailable, Vector

ENTAILMENT = "entailment"
"""The label of a zero-shot model that counts, in any case."""
MAX_HYPOTHESES = 24


class Found(NamedTuple):
    """What a query is, and how long it took to find out."""

    topic: Topic
    complexity: Complexity
    cyclomatic: int | None
    elapsed_ns: int


class Topics:
    """Detection as one configuration wants it. Asked by one event loop."""

    def __init__(
        self,
        domains: Domains,
        difficulty: Difficulty,
        clock: Clock,
        *,
        embedder: Embedder | None = None,
        zero_shot: Classifier | None = None,
        code: CodeReader | None = None,
    ) -> None:
        """Without an embedder rules alone decide."""
        self.domains = domains
        self._difficulty = difficulty
        self._clock = clock
        self._embedder = embedder
        self._zero_shot = zero_shot
        self._code = code
        self._examples: Mapping[str, tuple[Vector, ...]] = {}
        self._read = lru_cache(maxsize=1)(domains.read)

    async def find(self, question: str, asked: str | None) -> Found:
        """`asked`: the domain that the caller named; it is not second-guessed."""
        started_ns = self._clock.monotonic_ns()
        reading = self._read(question)
        vector, missing = None, ""
        if self._embedder is not None and not self.domains.settled(reading):
            vector, missing = await self._vector(self._embedder, question)
        if asked is not None:
            topic = Topic(domain=asked, confidence=1.0, layer="asked")
        elif vector is not None:
            topic = self.domains.by_vector(reading, vector, self._examples)
        else:
            topic = self.domains.by_rules(reading, missing)
        if topic.domain == GENERAL and self._zero_shot is not None and topic.layer != "asked":
            topic = await self._entailed(self._zero_shot, question, topic)
        cyclomatic = None if self._code is None else await self._code.cyclomatic(question)
        complexity = self._difficulty.of(reading.features, vector, cyclomatic)
        elapsed_ns = self._clock.monotonic_ns() - started_ns
        return Found(topic, complexity, cyclomatic, elapsed_ns)

    async def _vector(self, embedder: Embedder, question: str) -> tuple[Vector | None, str]:
        """The question's, once the operator's examples have theirs; or why there is none."""
        if not self._examples and self.domains.examples:
            missing = await self._learn(embedder)
            if missing:
                return None, missing
        found = await embedder.embed([question])
        if isinstance(found, Unavailable):
            return None, found.message
        return found[0], ""

    async def _learn(self, embedder: Embedder) -> str:
        examples = {}
        for name, texts in self.domains.examples.items():
            found = await embedder.embed(texts)
            if isinstance(found, Unavailable):
                return found.message
            examples[name] = found
        self._examples = examples
        return ""

    async def _entailed(self, zero_shot: Classifier, question: str, before: Topic) -> Topic:
        labels = [label.lower() for label in zero_shot.labels]
        names = [name for name in self.domains.names if name != GENERAL][:MAX_HYPOTHESES]
        found = await zero_shot.classify([(question, hypothesis(name)) for name in names])
        if isinstance(found, Unavailable):
            return before
        place = labels.index(ENTAILMENT)
        entailed = {name: row[place] for name, row in zip(names, found, strict=True)}
        return self.domains.by_entailment(before, entailed)
