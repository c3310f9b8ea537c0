"""What the records cost: `python -m benches.records`. On the loop's side, on disk, when asked."""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from statistics import median
from typing import Any

from cascaded.adapters.clock import SystemClock
from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.state.audit_log import AuditLog
from cascaded.state.usage_log import UsageLog
from cascaded.types.limits import Admitted, Caller, Denial
from tests.support.records import answered, asked, attempt

RECORDS = 100_000
BURST = 512
"""As many as the deferred sinks hand on at once."""
BURSTS_AT_ONCE = 8
"""Then the thread may catch up: this is not about a full queue."""
PAUSE_S = 0.01
USERS = 100
FEATURES = 7
DENIAL = Denial(reason="rate", scope="user", id="u1", unit="requests", limit=9, used=9, asked=1)
PLAIN = Admitted(hold=1, seq=1, choice=0, nano_usd=20)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _usage(Path(folder, "usage"))
        _audit(Path(folder, "audit"))


def _usage(folder: Path) -> None:
    store = LmdbStore(folder)
    log = UsageLog(store, SystemClock(), report=print)
    attempts = (attempt(100, rung=0), attempt(900, rung=1, accepted=True))
    users = [answered(*attempts, caller=Caller(user_id=f"u{number}")) for number in range(USERS)]
    requests = [
        asked(number, tags={"feature": f"f{number % FEATURES}"}) for number in range(RECORDS)
    ]
    start = time.perf_counter()
    each = _bursts(lambda number: log.record(requests[number], users[number % USERS]), log.flushed)
    log.flushed().result(60)
    taken = time.perf_counter() - start
    print(f"usage: {each:.2f} µs a record on the loop's side (median of bursts of {BURST})")
    print(f"usage: {RECORDS} on disk after {taken:.1f} s, {log.dropped} dropped,", end=" ")
    print(f"{store.size_bytes() / RECORDS:.0f} bytes a record")
    for name, work in {
        "page of 100": lambda: log.query(limit=100),
        "page of 100, newest first, of one user": lambda: log.query(
            limit=100, user_id="u5", newest_first=True
        ),
        "summary of one user": lambda: log.summary("u5", time.time_ns()),
        "summary of everybody": lambda: log.summary(None, time.time_ns()),
        f"all {RECORDS}, page by page": lambda: _all(log),
    }.items():
        print(f"usage: {name}: {_best_ms(work):.2f} ms")
    log.close()
    store.close()


def _audit(folder: Path) -> None:
    store = LmdbStore(folder)
    log = AuditLog(store, SystemClock(), report=print, level="standard")
    by: dict[str, Any] = {"actor": "uid:1000", "user_id": "u1", "request_id": "r1"}
    denied = _bursts(lambda _: log.reserved(DENIAL, **by), log.flushed)
    plain = _bursts(lambda _: log.reserved(PLAIN, **by), log.flushed)
    log.flushed().result(60)
    print(f"audit: {denied:.2f} µs a refusal, {plain:.2f} µs an admission that is not written")
    print(f"audit: page of 100: {_best_ms(lambda: log.query(limit=100)):.2f} ms")
    log.close()
    store.close()


def _bursts(record: Callable[[int], None], flushed: Callable[[], Future[None]]) -> float:
    """Microseconds each, while the thread writes."""
    each = []
    for first in range(0, RECORDS, BURST):
        some = range(first, min(first + BURST, RECORDS))
        start = time.perf_counter()
        for number in some:
            record(number)
        each.append((time.perf_counter() - start) / len(some) * 1e6)
        time.sleep(PAUSE_S)
        if len(each) % BURSTS_AT_ONCE == 0:
            flushed().result(60)
    return median(each)


def _all(log: UsageLog) -> None:
    page = log.query(limit=1_000)
    while page.cursor is not None:
        page = log.query(limit=1_000, after=page.cursor)


def _best_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


if __name__ == "__main__":
    main()
