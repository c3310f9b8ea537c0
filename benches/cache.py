"""What the exact cache costs a call that misses, and what a hit takes.

    python -m benches.cache [--calls 2000]

The parts in this process, best of twenty; whole calls through the real daemon, over its socket,
with an upstream that answers at once: medians. What a miss adds is the key, the look and the put.
"""

import argparse
import asyncio
import json
import tempfile
import timeit
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benches.overhead import CONFIG, PROMPT
from benches.rig import Connection, median_us, process, wait_for
from cascaded.adapters.clock import SystemClock
from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.adapters.offload import ThreadOffload
from cascaded.policy.caching import Upstream, is_wanted, key_of
from cascaded.state.caches.exact import ExactCache, Room
from cascaded.types.decision import Decision
from cascaded.types.limits import Caller
from cascaded.types.model import Ladder, Model, Rung
from cascaded.types.recalled import Recalled
from cascaded.types.request import Principal, Request
from cascaded.types.usage import Usage
from cascaded.wire.openai_chat import parse_request
from cascaded.wire.whole.chat import chunks_of

MIB = 1024 * 1024
ENTRIES = 50_000
AT_ONCE = 4_000
"""Fewer than what may wait to be written."""
PROMPTS = (100, 1_000, 10_000, 200_000)
ROOM = Room(entries=ENTRIES, entry_bytes=MIB, memory_bytes=64 * MIB, bytes=512 * MIB)
ANSWER = {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"content": "x" * 800}, "finish_reason": "stop"}],
}


def asked(characters: int, temperature: float = 0) -> Request:
    """A request whose prompt has so many characters."""
    messages = [{"role": "user", "content": "x" * characters}]
    body = {"model": "auto", "messages": messages, "temperature": temperature}
    chat, fields = parse_request(json.dumps(body).encode())
    return Request(
        id="r",
        principal=Principal(kind="peer", id="uid:0"),
        model="auto",
        fields=fields,
        messages=tuple(chat.messages),
        deterministic=temperature == 0,
    )


def micros(work: Callable[[], object], calls: int) -> float:
    """The best of twenty."""
    return min(timeit.repeat(work, number=calls, repeat=20)) / calls * 1e6


def parts() -> dict[str, float]:
    """Microseconds of what a call goes through, in this process."""
    models = [Model(name=name, provider="up", upstream_name=name) for name in ("a", "b")]
    ladder = Ladder(name="auto", rungs=tuple(Rung(model=model) for model in models))
    decision = Decision(caller=Caller(user_id="alice"), ladder=ladder)
    upstreams = {"up": Upstream("https://api.example/v1")}
    warm = asked(100, 0.7)
    told = {"a call that is not cacheable": micros(lambda: is_wanted(warm, decision), 1_000)}
    for characters in PROMPTS:
        request = asked(characters)

        def look(request: Request = request) -> None:
            assert is_wanted(request, decision)
            key_of("user:alice", request, decision, upstreams)

        calls = 5_000_000 // (characters + 10_000)
        told[f"the key of {characters:,} characters"] = micros(look, calls)
    raw = json.dumps(ANSWER).encode()
    told["an answer as a stream"] = micros(lambda: chunks_of(raw), 2_000)
    return told


async def store(folder: Path) -> dict[str, float]:
    """Microseconds of the store with a full index; of the start, all of them."""
    clock, offload = SystemClock(), ThreadOffload()
    disk = LmdbStore(folder, max_bytes=2048 * MIB)

    def opened() -> ExactCache:
        return ExactCache(disk, clock, offload, room=ROOM, ttl_s=3600, report=print)

    cache = opened()
    keys = [number.to_bytes(32, "big") for number in range(ENTRIES)]
    answer = Recalled(
        tenant="user:alice",
        raw=json.dumps(ANSWER).encode(),
        model="a",
        usage=Usage(),
        cost_nano_usd=1,
        full_nano_usd=1,
        at_ns=clock.wall_ns(),
    )
    loop = asyncio.get_running_loop()
    put_s = 0.0
    for start in range(0, ENTRIES, AT_ONCE):
        began = loop.time()
        for key in keys[start : start + AT_ONCE]:
            cache.put(key, answer)
        put_s += loop.time() - began
        await cache.clear(tenant="nobody")  # waits until they are written
    told = {"put; it is written behind": put_s / ENTRIES * 1e6}

    async def each(some: list[bytes]) -> float:
        began = loop.time()
        for key in some:
            await cache.get(key)
        return (loop.time() - began) / len(some) * 1e6

    told["get, absent"] = await each([bytes(32)[1:] + b"x"] * 20_000)
    told["get, in memory"] = await each(keys[-1_000:] * 20)
    cache.close()
    began = loop.time()
    cache = opened()
    told[f"the start with {len(cache):,} answers"] = (loop.time() - began) * 1e6
    told["get, on the disk alone"] = await each(keys[::50])
    cache.close()
    disk.close()
    offload.close()
    return told


def whole(calls: int) -> dict[str, float]:
    """Microseconds of a call through the daemon: not cacheable, missed and kept, and a hit."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "cascaded.toml").write_text(CONFIG.replace("{folder}", name))
        stack.enter_context(process("benches.peers", "upstream", str(folder / "upstream.sock")))
        wait_for(folder / "upstream.sock")
        config = str(folder / "cascaded.toml")
        stack.enter_context(process("cascaded", "serve", "--config", config))
        wait_for(folder / "daemon.sock")

        def asking(**members: object) -> Connection:
            body = {"model": "bench", "messages": [{"role": "user", "content": PROMPT}], **members}
            socket = str(folder / "daemon.sock")
            return Connection(socket, "/v1/chat/completions", body, b"Paris")

        warm = asking(temperature=1)
        median_us(warm, calls)
        found = {"not cacheable": median_us(warm, calls)}
        found["a hit in memory"] = median_us(asking(temperature=0), calls)
        return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2_000)
    calls = parser.parse_args().calls
    with tempfile.TemporaryDirectory() as name:
        told = {**parts(), **asyncio.run(store(Path(name) / "cache"))}
    for what, figure in {**told, **whole(calls)}.items():
        print(f"{what:42} {figure:12,.1f} µs")


if __name__ == "__main__":
    main()
