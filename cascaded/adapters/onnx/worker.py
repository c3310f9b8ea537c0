"""One model's thread: texts wait in a bounded queue, and what has gathered is done together."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from cascaded.adapters.onnx.folder import MAX_BATCH_TEXTS, FolderModel, OnnxError, Text, batches
from cascaded.types.times import NS_PER_S
from cascaded.types.vectors import ModelFigures, Reason, Unavailable

T = TypeVar("T")


class _Job(Generic[T]):
    """One text that waits."""

    __slots__ = ("deadline_ns", "future", "text")

    def __init__(self, text: Text, future: "asyncio.Future[T | Unavailable]", deadline_ns: int):
        self.text = text
        self.future = future
        self.deadline_ns = deadline_ns


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How much is asked of a model."""

    deadline_s: float
    """Longest wait for one answer."""
    max_waiting: int
    """Texts that may wait."""


class Worker(Generic[T]):
    """Asked from one event loop. The thread and the model come with the first text, or `boot`."""

    def __init__(
        self,
        name: str,
        load: Callable[[], FolderModel],
        read: Callable[[FolderModel, Sequence[Text]], Sequence[T]],
        terms: Terms,
    ) -> None:
        self.name = name
        self.terms = terms
        self.figures = ModelFigures()
        self._load = load
        self._read = read
        self._waiting: deque[_Job[T]] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._broken: Unavailable | None = None
        """Why it will never answer; set once."""

    def boot(self) -> None:
        """Start the thread, which loads the model. Does not wait."""
        if self._thread is None and not self._closed:
            name = f"onnx-{self.name}"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()

    def submit(self, text: Text) -> "asyncio.Future[T | Unavailable] | Unavailable":
        """Put a text into the queue; its future never fails and may be waited for by several."""
        self.boot()
        loop = asyncio.get_running_loop()
        deadline_ns = time.monotonic_ns() + int(self.terms.deadline_s * NS_PER_S)
        job: _Job[T] = _Job(text, loop.create_future(), deadline_ns)
        with self._wake:
            refused = self._broken or self._full()
            if refused is None:
                self._waiting.append(job)
                self._wake.notify()
                return job.future
        self.figures.refused(refused.reason)
        return refused

    async def wait(
        self, futures: "Sequence[asyncio.Future[T | Unavailable]]"
    ) -> tuple[T, ...] | Unavailable:
        """What they hold, or the first reason why not; no longer than the deadline."""
        _, pending = await asyncio.wait(futures, timeout=self.terms.deadline_s)
        if pending:
            self.figures.refused("late", len(pending))
            return self._silence("late", "raise its deadline_ms, or give it more threads")
        found = [future.result() for future in futures]
        for one in found:
            if isinstance(one, Unavailable):
                return one
        return tuple(one for one in found if not isinstance(one, Unavailable))

    async def close(self) -> None:
        """Let the thread end after its batch; who still waits is told that it is gone."""
        with self._wake:
            self._closed = True
            self._broken = self._broken or self._silence("absent", "it was closed")
            self._wake.notify()

    def _full(self) -> Unavailable | None:
        if len(self._waiting) < self.terms.max_waiting:
            return None
        return self._silence("overloaded", f"{len(self._waiting)} texts wait for it")

    def _silence(self, reason: Reason, message: str) -> Unavailable:
        return Unavailable(reason, self.name, f"'{self.name}': {message}")

    def _work(self) -> None:
        broken = self._silence("absent", "it was closed")
        try:
            model = self._load()
        except OnnxError as error:
            broken = self._silence("absent", str(error))
        else:
            while jobs := self._next():
                self._do(model, jobs)
        with self._wake:
            self._broken = broken
            left = list(self._waiting)
            self._waiting.clear()
        self._tell([(job, broken) for job in left])

    def _next(self) -> list[_Job[T]]:
        """The jobs that have waited longest and may still be in time; none: the end."""
        with self._wake:
            while not self._waiting and not self._closed:
                self._wake.wait()
            if self._closed:
                return []
            taken = min(len(self._waiting), MAX_BATCH_TEXTS)
            return [self._waiting.popleft() for _ in range(taken)]

    def _do(self, model: FolderModel, jobs: Sequence[_Job[T]]) -> None:
        started_ns = time.monotonic_ns()
        late = self._silence("late", "it waited too long for its turn")
        done: list[tuple[_Job[T], T | Unavailable]] = [
            (job, late) for job in jobs if job.deadline_ns <= started_ns
        ]
        timely = [job for job in jobs if job.deadline_ns > started_ns]
        if timely:
            done += zip(timely, self._answers(model, [job.text for job in timely]), strict=True)
        self.figures.batches += 1
        self.figures.busy_ns += time.monotonic_ns() - started_ns
        self._tell(done)

    def _answers(self, model: FolderModel, texts: Sequence[Text]) -> Sequence[T | Unavailable]:
        try:
            found = self._read(model, texts)
        except Exception as error:  # a model may fail in any way; the daemon must not
            if len(texts) > 1:  # one caller's text must not cost the others theirs
                return [answer for text in texts for answer in self._answers(model, [text])]
            self.figures.refused("fault")
            return [self._silence("fault", f"it failed on a text: {str(error)[:200]}")]
        self.figures.answered += len(texts)
        return found

    def _tell(self, done: "Sequence[tuple[_Job[T], T | Unavailable]]") -> None:
        """One hop to the loop for all of them."""
        if not done:
            return
        loop = done[0][0].future.get_loop()
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever asked
            loop.call_soon_threadsafe(_settle, done)


def _settle(done: "Sequence[tuple[_Job[T], T | Unavailable]]") -> None:
    for job, answer in done:
        if not job.future.done():
            job.future.set_result(answer)


def together(
    model: FolderModel, texts: Sequence[Text], read: Callable[..., Sequence[T]]
) -> list[T]:
    """What `read` makes of each text, in batches of about the same length."""
    encoded = [model.encode(text) for text in texts]
    found: dict[int, T] = {}
    for places in batches([len(ids) for ids, _ in encoded]):
        found.update(zip(places, read(*model.run([encoded[at] for at in places])), strict=True))
    return [found[at] for at in range(len(texts))]
