"""Budgets over the real socket: what is refused, in which words, and that the sums are right."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest

import cascaded
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Behaviour, Fails, Hangs, Resets, Says, Upstream

ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
GOOD = "The capital of France is Paris."
COST = Decimal("0.000075")
"""10 input and 5 output tokens of `strong`."""

LIMITS = """
[limits.users.ids.tiny]
total_usd = "0.000001"

[limits.users.ids.rated]
requests_per_minute = 3
burst_window_seconds = 0

[limits.users.ids.shadowed]
total_usd = "0.000001"
enforcement = "shadow"

[limits.users.ids.warned]
total_usd = "0.000001"
enforcement = "warn"

[limits.users.ids.degrading]
total_usd = "0.01"

[limits.users.ids.outside]
total_usd = "1"
enforcement = "block"
"""


@pytest.fixture(scope="module")
def _limited(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(CASCADE + LIMITS, url=_upstream.url) as daemon:
        yield daemon


@pytest.fixture
def limited(_limited: Daemon, upstream: Upstream) -> Iterator[Daemon]:
    """A daemon with the limits above; `upstream` is fresh, and no hold may be left."""
    upstream.on("strong", Says(GOOD))
    upstream.on("cheap", Says(GOOD))
    yield _limited
    assert _limited.spend["held"] == 0


def call(daemon: Daemon, user: str, model: str = "strong", **more: Any) -> Any:
    with daemon.http() as http:
        body = {"model": model, "messages": ASK, "max_tokens": 50, **more}
        return http.post("/v1/chat/completions", json=body, headers={"X-User-ID": user})


def budget(daemon: Daemon, user: str) -> Any:
    with cascaded.Client(daemon.socket) as client:
        [one] = [one for one in client.budgets("user", user) if one.window == "total"]
    return one


def test_a_refusal_tells_what_to_do_and_is_not_retried(limited: Daemon, upstream: Upstream) -> None:
    client = limited.sdk(max_retries=5, default_headers={"X-User-ID": "tiny"})
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="strong", messages=ASK)
    assert caught.value.code == "insufficient_quota"
    assert caught.value.response.headers["x-should-retry"] == "false"
    error: Any = caught.value.body
    assert error["type"] == "budget_exceeded"
    assert (error["scope"], error["user_id"], error["budget_type"]) == ("user", "tiny", "total")
    assert error["budget_limit"] == 0.000001
    assert "tiny" in error["message"]
    assert not upstream.received


def test_our_client_raises_the_fields(limited: Daemon) -> None:
    with (
        cascaded.Client(limited.socket) as client,
        pytest.raises(cascaded.client.BudgetExceededError) as caught,
    ):
        client.run("What is the capital of France?", user_id="tiny")
    assert caught.value.budget_limit == Decimal("0.000001")
    assert caught.value.scope == "user"
    assert caught.value.user_id == "tiny"


@pytest.mark.parametrize("user", ["shadowed", "warned"])
def test_soft_limits_never_refuse(limited: Daemon, user: str) -> None:
    assert call(limited, user).status_code == 200
    assert budget(limited, user).posted >= COST


def test_claims_count_only_where_trusted(limited: Daemon, upstream: Upstream) -> None:
    """The same call under the name of a user with room, and of one without."""
    assert call(limited, "tiny").status_code == 429
    assert call(limited, "somebody").status_code == 200
    with daemon_with((CASCADE + LIMITS).replace("{uid}", "4294967"), url=upstream.url) as strict:
        answer = call(strict, "tiny")
        assert answer.status_code == 200, "nobody's word counts, so the call is the socket peer's"


def test_rates_refuse_with_a_time_and_say_what_is_left(limited: Daemon) -> None:
    answers = [call(limited, "rated") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3"
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "2"
    refusal = answers[3]
    assert refusal.json()["error"]["code"] == "rate_limited"
    assert 0 < int(refusal.headers["retry-after"]) <= 61


def test_a_nearly_used_budget_degrades_to_the_cheap_model(
    limited: Daemon, upstream: Upstream
) -> None:
    with (
        cascaded.Client(limited.socket) as client,
        client.reserve("0.0092", user_id="degrading") as hold,
    ):
        answer = call(limited, "degrading", "auto")
        assert answer.status_code == 200
        assert answer.headers["x-cascaded-model"] == "cheap"
        assert "only cheaper models" in answer.headers["x-cascaded-notice"]
        assert call(limited, "degrading", "strong").status_code == 429
        hold.release()
    assert not upstream.calls("strong")
    assert call(limited, "degrading", "strong").status_code == 200


def test_the_free_tier_never_escalates(limited: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says("I'm sorry, but I can't help with that."))
    with limited.http() as http:
        headers = {"X-User-ID": "newcomer", "X-User-Tier": "free"}
        body = {"model": "auto", "messages": ASK, "max_tokens": 2_000}
        answer = http.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert not upstream.calls("strong")
        assert upstream.calls("cheap")[0].body["max_tokens"] == 500
        assert "500" in answer.headers["x-cascaded-notice"]
        named = http.post("/v1/chat/completions", json={**body, "model": "strong"}, headers=headers)
        assert (named.status_code, named.json()["error"]["code"]) == (403, "model_forbidden")
        stream = http.post("/v1/chat/completions", json={**body, "stream": True}, headers=headers)
        assert (stream.status_code, stream.json()["error"]["code"]) == (403, "feature_forbidden")


class TestOutsideCalls:
    """`/check`, `/reserve`, `/settle`, `/release`: applications that call models themselves."""

    def test_check_takes_nothing_and_explains(self, limited: Daemon, upstream: Upstream) -> None:
        with cascaded.Client(limited.socket) as client:
            told = client.check("What is the capital of France?", user_id="outside")
            assert told.allowed
            assert told.models == ("cheap", "strong")
            assert told.worst_cost is not None
            assert any(limit.id == "outside" and limit.limit == 1 for limit in told.limits)
            refused = client.check(cost="2", user_id="outside")
            assert not refused.allowed
            assert refused.reason is not None
            assert refused.reason["code"] == "insufficient_quota"
        assert not upstream.received
        assert limited.spend["held"] == 0

    def test_a_prompt_that_speaks_of_cost_is_a_prompt(self, limited: Daemon) -> None:
        tool = {"type": "function", "function": {"name": "buy", "parameters": {"cost": {}}}}
        with limited.http() as http:
            body = {"query": "How much?", "options": {"tools": [tool]}, "user_id": "outside"}
            told = http.post("/check", json=body).json()
            assert (told["allowed"], told["models"]) == (True, ["cheap", "strong"])
            bad = http.post("/reserve", content=b'{"cost": "\xff"}')
            assert (bad.status_code, bad.json()["error"]["param"]) == (400, "cost")

    def test_a_hold_is_settled_at_its_real_cost(self, limited: Daemon) -> None:
        before = budget(limited, "outside").posted if spent(limited, "outside") else Decimal(0)
        with cascaded.Client(limited.socket) as client:
            with client.reserve("0.25", user_id="outside") as hold:
                assert budget(limited, "outside").held == Decimal("0.25")
                hold.settle("0.10")
            assert hold.receipt is not None
            assert (hold.receipt.posted, hold.receipt.returned) == (Decimal("0.1"), Decimal("0.15"))
        assert budget(limited, "outside").posted == before + Decimal("0.1")

    def test_a_block_that_raises_is_charged_in_full_until_it_is_resolved(
        self, limited: Daemon
    ) -> None:
        with cascaded.Client(limited.socket) as client:
            with (
                pytest.raises(RuntimeError),
                client.reserve("0.2", user_id="outside") as hold,
            ):
                raise RuntimeError("the provider timed out")
            assert budget(limited, "outside").unknown == Decimal("0.2")
            assert [one.hold for one in client.unknowns()] == [hold.id]
            client.resolve(hold.id, "0.05")
            assert client.unknowns() == []
        assert budget(limited, "outside").unknown == 0

    def test_the_same_key_gives_the_same_hold(self, limited: Daemon) -> None:
        headers = {"Idempotency-Key": "order-17"}
        body = {"cost": "0.01", "user_id": "outside"}
        with limited.http() as http:
            first = http.post("/reserve", json=body, headers=headers)
            again = http.post("/reserve", json=body, headers=headers)
            assert first.json() == again.json()
            other = http.post("/reserve", json={**body, "cost": "0.02"}, headers=headers)
            assert (other.status_code, other.json()["error"]["code"]) == (
                409,
                "idempotency_conflict",
            )
            for key in ("", "x" * 256):
                bad = http.post("/reserve", json=body, headers={"Idempotency-Key": key})
                assert bad.status_code == 400
            hold = first.json()["hold"]
            assert http.post("/release", json={"hold": hold}).status_code == 200
            twice = http.post("/release", json={"hold": hold})
            assert (twice.status_code, twice.json()["error"]["code"]) == (404, "not_found")

    def test_the_same_key_is_of_no_use_to_another_user(self, limited: Daemon) -> None:
        """Whose call it is may stand in a header: the same body is another request then."""
        with limited.http() as http:

            def reserve(user: str) -> Any:
                headers = {"Idempotency-Key": "order-18", "X-User-ID": user}
                return http.post("/reserve", json={"cost": "0.01"}, headers=headers)

            held = reserve("outside").json()
            assert reserve("outside").json() == held
            other = reserve("shadowed")
            assert (other.status_code, other.json()["error"]["code"]) == (
                409,
                "idempotency_conflict",
            )
            assert http.post("/release", json={"hold": held["hold"]}).status_code == 200

    def test_no_settlement_can_fill_the_counters_of_others(self, limited: Daemon) -> None:
        """All callers share some counters, and those hold 2**63 nano-dollars."""
        with limited.http() as http:
            body = {"cost": "0.01", "user_id": "outside"}
            hold = http.post("/reserve", json=body).json()["hold"]
            huge = http.post("/settle", json={"hold": hold, "cost": "10000.01"})
            assert (huge.status_code, huge.json()["error"]["param"]) == (400, "cost")
            assert "10000" in huge.json()["error"]["message"]
            assert http.post("/release", json={"hold": hold}).status_code == 200, "it is still open"

    @pytest.mark.parametrize(
        "cost",
        [
            "-1",
            "NaN",
            "1e400",
            "10000.000000001",
            "9223372036.854775807",
            '"0.0000000001"',
            "true",
            "[]",
            '"x"',
            '""',
            "null",
        ],
    )
    def test_bad_money_changes_nothing(self, limited: Daemon, cost: str) -> None:
        before = limited.spend
        with limited.http() as http:
            body = f'{{"cost": {cost}, "user_id": "outside"}}'
            answer = http.post("/reserve", content=body.encode())
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == "invalid_request"
        assert limited.spend == before


def spent(daemon: Daemon, user: str) -> bool:
    with cascaded.Client(daemon.socket) as client:
        return bool(client.budgets("user", user))


RACE = """
[limits.users.default]
total_usd = "0.0075"
enforcement = "block"
"""


async def test_a_thousand_callers_race_for_a_budget_of_a_hundred(upstream: Upstream) -> None:
    """The provider's own bill stays within the budget, and the rest get one clean refusal."""
    config = CASCADE.replace("[server]", "[server]\nmax_concurrency = 2000").replace(
        "total_timeout_s = 4", "total_timeout_s = 60"
    )
    config = config.replace("_timeout_s = 0.6", "_timeout_s = 30")
    upstream.on("strong", Says(GOOD, delay_s=0.02, input_tokens=10, output_tokens=5))
    with daemon_with(config + RACE, url=upstream.url) as daemon:
        refusals: set[str] = set()

        async def one(client: openai.AsyncOpenAI) -> bool:
            try:
                await client.chat.completions.create(
                    model="strong", messages=ASK, max_tokens=5, user="racer"
                )
            except openai.RateLimitError as refusal:
                refusals.add(str(refusal.code))
                return False
            return True

        async with daemon.async_sdk(max_retries=3, timeout=60) as client:
            answered = sum(await asyncio.gather(*(one(client) for _ in range(1_000))))
        bill = COST * len(upstream.calls("strong"))
        standing = budget(daemon, "racer")
        assert bill <= standing.limit
        assert standing.posted == COST * answered == bill
        assert standing.held == standing.unknown == 0
        assert refusals == {"insufficient_quota"}
        assert answered >= 50, "the budget was used, not merely guarded"


@pytest.mark.parametrize("stream", [False, True])
def test_storms_leave_the_books_right(upstream: Upstream, stream: bool) -> None:
    """Answers, errors, resets and hangs in turn: posted + unknown is never below the bill."""
    storm: list[Behaviour] = [
        Says(GOOD),
        Fails(500),
        Resets(),
        Hangs(),
        Resets(after_chunks=1),
        Says(GOOD),
    ]
    with daemon_with(CASCADE + RACE, url=upstream.url) as daemon:
        statuses = []
        for behaviour in storm:
            upstream.on("strong", behaviour)
            statuses.append(call(daemon, "stormy", max_tokens=5, stream=stream).status_code)
        standing = budget(daemon, "stormy")
        assert standing.held == 0
        assert standing.posted == 2 * COST
        assert standing.unknown > 0
        assert standing.posted + standing.unknown <= standing.limit
        with cascaded.Client(daemon.socket) as client:
            for hold in client.unknowns():
                client.resolve(hold.hold, 0)
        standing = budget(daemon, "stormy")
        assert (standing.posted, standing.unknown) == (2 * COST, 0)
