"""Records on their way to the disk: a bounded queue, and a thread that writes it in batches.

Whoever records never waits and never sees an error. What cannot be written waits for the disk;
what does not fit any more is counted. Only what may be lost with the process belongs here.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from cascaded.types.errors import StoreError

T = TypeVar("T")

QUEUE_RECORDS = 16_384
BATCH_RECORDS = 1_024
GATHER_S = 0.1
"""How long a first record waits for company: one flush serves them all."""
TIDY_EVERY_S = 60.0
RETRY_S = 1.0
CLOSE_TIMEOUT_S = 5.0

Report = Callable[[str], None]
"""Told once of each outage and once of its end, perhaps from the thread."""


class WriteBehind(Generic[T]):
    """`write` takes a batch, all or nothing; `tidy` does a little upkeep and says whether there
    is more to do. Both run on the thread and may raise `StoreError`."""

    def __init__(
        self,
        name: str,
        *,
        write: Callable[[Sequence[T]], None],
        tidy: Callable[[], bool],
        report: Report,
        capacity: int = QUEUE_RECORDS,
        retry_s: float = RETRY_S,
        tidy_every_s: float = TIDY_EVERY_S,
    ) -> None:
        self._name = name
        self._write = write
        self._tidy = tidy
        self._report = report
        self._capacity = capacity
        self._retry_s = retry_s
        self._tidy_every_s = tidy_every_s
        self._queue: deque[T | Future[None]] = deque()
        self._awake = threading.Event()
        self._hurry = threading.Event()
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self._dropped = 0
        self._outage = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Records that were lost since the start."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """Records that are not on disk yet, but for the batch at hand."""
        return len(self._queue)

    def put(self, item: T) -> None:
        """Hand one on. Neither blocks nor raises."""
        if self._stop.is_set():
            self._drop(1, "it is closed")
        elif len(self._queue) >= self._capacity:
            self._drop(1, "its queue is full")
        else:
            self._queue.append(item)
            if not self._awake.is_set():
                self._awake.set()

    def mark(self) -> "Future[None]":
        """Done when everything put before is on disk; fails with `StoreError` where it was lost.
        While the disk says no it waits: give it a timeout."""
        mark: Future[None] = Future()
        self._queue.append(mark)
        self._hurry.set()
        self._awake.set()
        if not self._thread.is_alive():
            self._abandon()
        return mark

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what waits, once; what the disk does not take then is dropped and counted."""
        self._stop.set()
        self._hurry.set()
        self._awake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        more = True
        while not self._stop.is_set():
            if not more and self._awake.wait(self._tidy_every_s):
                self._hurry.wait(GATHER_S)
            self._empty()
            more = self._tidied()
        self._empty()
        self._abandon()

    def _empty(self) -> None:
        """Write everything that waits by now, batch by batch."""
        self._awake.clear()
        if not self._stop.is_set():
            self._hurry.clear()
        waiting = len(self._queue)
        while waiting > 0:
            batch = [self._queue.popleft() for _ in range(min(waiting, BATCH_RECORDS))]
            waiting -= len(batch)
            records = [item for item in batch if not isinstance(item, Future)]
            lost = self._written(records) if records else None
            for mark in batch:
                if isinstance(mark, Future):
                    _resolve(mark, lost)

    def _written(self, records: list[T]) -> StoreError | None:
        """Write a batch, however long the disk says no; the error, where it had to be given up."""
        while True:
            try:
                self._write(records)
            except StoreError as error:
                self._trouble(f"{self._name}: {error}; records wait in memory meanwhile")
                if not self._stop.wait(self._retry_s):
                    self._tidied()
                    continue
                return self._lost(records, error)
            except Exception as fault:  # a bug must cost one batch, not the thread
                return self._lost(records, StoreError(f"of a fault: {fault!r}"))
            if len(self._queue) <= self._capacity // 2:
                self._recovered()
            return None

    def _lost(self, records: list[T], error: StoreError) -> StoreError:
        self._drop(len(records), str(error))
        return error

    def _tidied(self) -> bool:
        try:
            return self._tidy()
        except Exception as fault:
            self._trouble(f"{self._name}: old records cannot be removed: {fault}")
            return False

    def _drop(self, records: int, why: str) -> None:
        with self._counting:
            self._dropped += records
        self._trouble(f"{self._name}: records are lost, because {why}; the ledger is not affected")

    def _trouble(self, message: str) -> None:
        with self._counting:
            known, self._outage = self._outage, True
        if not known:
            self._report(message)

    def _recovered(self) -> None:
        with self._counting:
            over, self._outage = self._outage, False
        if over:
            self._report(f"{self._name}: records are written again; {self._dropped} are lost")

    def _abandon(self) -> None:
        """Nobody will write what was put while the thread ended."""
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, Future):
                _resolve(item, StoreError(f"{self._name} is closed"))
            else:
                self._drop(1, "it is closed")


def _resolve(mark: "Future[None]", lost: StoreError | None) -> None:
    if not mark.set_running_or_notify_cancel():
        return
    if lost is None:
        mark.set_result(None)
    else:
        mark.set_exception(lost)
