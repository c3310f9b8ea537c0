"""Legacy completions, embeddings and the list of models, by the official SDK over the socket."""

import json
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any

import httpx2
import openai
import pytest

from cascaded.state.usage_log import UsageLog
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Fails, Hangs, Resets, Says, Upstream

VECTORS = """
[models.vectors]
provider = "fake"
input_usd_per_mtok = "0.02"
output_usd_per_mtok = "0"
vocabulary = "cl100k_base"

[models.local]
provider = "fake"
input_usd_per_mtok = "1"
output_usd_per_mtok = "0"

[models."org/with/slashes"]
provider = "fake"
free = true

[ladders.one]
rungs = ["cheap"]
threshold = 1.0

[tiers.plain]
embeddings = false

[tiers.narrow]
allowed_models = ["cheap"]
max_tokens = 5

[limits.users.ids.thrifty]
daily_usd = "0.01"
"""
PLAIN = {"X-User-Tier": "plain"}
NARROW = {"X-User-Tier": "narrow"}
TEXT = "a text of a few words"


@pytest.fixture(scope="module")
def _daemon(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(CASCADE + VECTORS, url=_upstream.url) as daemon:
        yield daemon


def soon(done: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = monotonic() + 10
    while not done():
        assert monotonic() < deadline
        sleep(0.01)


class TestModels:
    def test_one_by_name(self, daemon: Daemon) -> None:
        client = daemon.sdk()
        listed = list(client.models.list())
        assert [one.id for one in listed] == sorted(one.id for one in listed)
        assert {"auto", "cascade/default", "cascade/one", "cheap"} <= {one.id for one in listed}
        for one in listed:
            assert client.models.retrieve(one.id) == one
            assert (one.object, type(one.created)) == ("model", int)
        assert client.models.retrieve("cheap").owned_by == "fake"
        assert client.models.retrieve("auto").owned_by == "cascaded"

    @pytest.mark.parametrize("path", ["org/with/slashes", "org%2Fwith%2Fslashes"])
    def test_slashes(self, daemon: Daemon, path: str) -> None:
        with daemon.http() as http:
            for prefix in ("", "/v1"):
                assert http.get(f"{prefix}/models/{path}").json()["id"] == "org/with/slashes"

    @pytest.mark.parametrize("name", ["cheep", "cascade/defualt", "nobody/knows", "x" * 5000])
    def test_unknown_names(self, daemon: Daemon, name: str) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            daemon.sdk().models.retrieve(name)
        assert (caught.value.code, caught.value.type) == ("model_not_found", "not_found_error")
        assert caught.value.param == "model"
        assert caught.value.response.headers["x-request-id"]

    def test_a_known_price_makes_a_name(self, upstream: Upstream) -> None:
        """Models that are not declared but can be asked for."""
        toml = CASCADE.replace("[providers.fake]", "[providers.openai]")
        toml = toml.replace('provider = "fake"', 'provider = "openai"')
        with daemon_with(toml, url=upstream.url) as daemon:
            assert daemon.sdk().models.retrieve("gpt-4o-mini").owned_by == "openai"
            assert daemon.sdk().models.retrieve("text-embedding-3-small").id
            made = daemon.sdk().embeddings.with_raw_response.create(
                model="text-embedding-3-small", input=TEXT
            )
            assert made.headers["x-cascaded-cost"] == "0.0000002"  # 10 tokens at 0.02 USD/M


class TestEmbeddings:
    @pytest.mark.parametrize("encoding", ["float", "base64", None])
    def test_encodings(self, daemon: Daemon, upstream: Upstream, encoding: Any) -> None:
        """Without one the SDK asks for base64 and decodes it."""
        asked = {} if encoding is None else {"encoding_format": encoding}
        raw = daemon.sdk().embeddings.with_raw_response.create(
            model="vectors", input=[TEXT, "another"], **asked
        )
        answer = raw.parse()
        if encoding == "base64":
            assert isinstance(answer.data[1].embedding, str)
        else:
            assert answer.data[1].embedding == [0.25, -0.5, 1.0]
        assert answer.usage.prompt_tokens == 10
        assert raw.headers["x-cascaded-model"] == "vectors"
        assert raw.headers["x-cascaded-cost"] == "0.0000002"
        sent = upstream.calls("vectors")[0]
        assert sent.path == "/v1/embeddings"
        assert sent.body["encoding_format"] == (encoding or "base64")

    async def test_async_and_dimensions(self, daemon: Daemon, upstream: Upstream) -> None:
        async with daemon.async_sdk() as client:
            answer = await client.embeddings.create(
                model="vectors", input=TEXT, dimensions=2, extra_body={"future": [1, 2.50]}
            )
        assert answer.data[0].embedding == [0.25, -0.5]
        sent = upstream.calls("vectors")[0].body
        assert sent["future"] == [1, 2.5]
        assert not {"max_tokens", "stream", "stream_options"} & set(sent)

    @pytest.mark.parametrize(
        ("given", "tokens"),
        [
            (TEXT, 6),
            ([TEXT, TEXT], 12),
            ([1, 2, 3], 3),
            ([[1, 2, 3], [4]], 4),
        ],
    )
    def test_what_is_not_told_is_counted(
        self, daemon: Daemon, upstream: Upstream, given: Any, tokens: int
    ) -> None:
        upstream.on("vectors", Says(usage_on="none"))
        before = daemon.spend["posted"]
        daemon.sdk().embeddings.create(model="vectors", input=given)
        assert daemon.spend["posted"] - before == tokens * 20

    def test_unknown_vocabularies_are_bounded(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on("local", Says(usage_on="none"))
        before = daemon.spend["posted"]
        daemon.sdk().embeddings.create(model="local", input=["é", "b"])
        assert (daemon.spend["posted"] - before) // 1000 >= 3 + 2 * 2

    def test_many_texts_need_no_window(self, daemon: Daemon, upstream: Upstream) -> None:
        """Each has the window to itself."""
        toml = CASCADE + VECTORS.replace(
            'vocabulary = "cl100k_base"', 'vocabulary = "cl100k_base"\ncontext_window = 8'
        )
        with daemon_with(toml, url=upstream.url) as daemon:
            assert len(daemon.sdk().embeddings.create(model="vectors", input=[TEXT] * 5).data) == 5
            with pytest.raises(openai.BadRequestError, match="context"):
                daemon.sdk().embeddings.create(model="vectors", input=TEXT * 5)

    @pytest.mark.parametrize(
        ("given", "param"),
        [
            ([], "input"),
            ([TEXT, 1], "input"),
            ([[1], "a"], "input"),
            ([[1], []], "input"),
            (["a"] * 2049, "input"),
            (None, "input"),
            ({"text": "a"}, "input"),
            ([1.5], "input"),
            ([True], "input"),
        ],
    )
    def test_what_is_no_input(
        self, daemon: Daemon, upstream: Upstream, given: Any, param: str
    ) -> None:
        with daemon.http() as http:
            answer = http.post("/v1/embeddings", json={"model": "vectors", "input": given})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"].startswith(param)
        assert not upstream.received

    def test_ladders_are_for_answers(self, daemon: Daemon, upstream: Upstream) -> None:
        with pytest.raises(openai.BadRequestError, match="ladder of 2 models"):
            daemon.sdk().embeddings.create(model="auto", input=TEXT)
        assert daemon.sdk().embeddings.create(model="cascade/one", input=TEXT).data
        assert not upstream.calls("strong")

    def test_tiers(self, daemon: Daemon, upstream: Upstream) -> None:
        client = daemon.sdk()
        with pytest.raises(openai.PermissionDeniedError) as caught:
            client.embeddings.create(model="vectors", input=TEXT, extra_headers=PLAIN)
        assert caught.value.code == "feature_forbidden"
        with pytest.raises(openai.PermissionDeniedError) as caught:
            client.embeddings.create(model="vectors", input=TEXT, extra_headers=NARROW)
        assert caught.value.code == "model_forbidden"
        assert client.embeddings.create(model="cheap", input=TEXT, extra_headers=NARROW)
        assert client.completions.create(model="cheap", prompt=TEXT, extra_headers=PLAIN)
        assert len(upstream.received) == 2

    def test_budgets(self, daemon: Daemon, upstream: Upstream) -> None:
        """A cent is 500,000 tokens; a call is held at what all its inputs can cost."""
        client = daemon.sdk()
        whole = [[1] * 8_000] * 60
        with pytest.raises(openai.RateLimitError) as caught:
            client.embeddings.create(model="vectors", input=[*whole, *whole], user="thrifty")
        assert caught.value.code == "insufficient_quota"
        assert not upstream.received
        assert client.embeddings.create(model="vectors", input=whole, user="thrifty").data

    @pytest.mark.parametrize(
        ("behaviour", "cost"),
        [(Fails(400), 0), (Fails(500), 0), (Resets(), 120), (Hangs(), 120)],
    )
    def test_failures_are_settled(
        self, daemon: Daemon, upstream: Upstream, behaviour: Any, cost: int
    ) -> None:
        upstream.on("vectors", behaviour)
        before = daemon.spend
        with pytest.raises(openai.APIStatusError) as caught:
            daemon.sdk().embeddings.create(model="vectors", input=TEXT)
        assert caught.value.type == "upstream_error"
        after = daemon.spend
        assert after["unknown"] - before["unknown"] == cost
        assert (after["held"], after["posted"]) == (0, before["posted"])

    def test_retries(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on("vectors", Fails(503), Says())
        assert daemon.sdk().embeddings.create(model="vectors", input=TEXT).data
        assert len(upstream.calls("vectors")) == 2

    def test_callers_who_leave(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on("vectors", Hangs())
        before = daemon.spend["unknown"]
        with pytest.raises(openai.APITimeoutError):
            daemon.sdk(timeout=0.2).embeddings.create(model="vectors", input=TEXT)
        soon(lambda: daemon.spend["held"] == 0)
        assert daemon.spend["unknown"] - before == 120

    def test_no_other_models_vectors(self, upstream: Upstream) -> None:
        """A fallback answers where it is the same model elsewhere."""
        spare = """
[models.elsewhere]
provider = "fake"
upstream_name = "vectors"
free = true
"""
        declared = VECTORS.replace(
            'vocabulary = "cl100k_base"',
            'vocabulary = "cl100k_base"\nfallback = ["cheap", "elsewhere"]',
        )
        upstream.on("vectors", Fails(503), Fails(503), Says())
        with daemon_with(CASCADE + declared + spare, url=upstream.url) as daemon:
            raw = daemon.sdk().embeddings.with_raw_response.create(model="vectors", input=TEXT)
        assert raw.headers["x-cascaded-model"] == "elsewhere"
        assert not upstream.calls("cheap")

    def test_it_is_on_record(self, daemon: Daemon, upstream: Upstream) -> None:
        daemon.sdk().embeddings.create(model="vectors", input=TEXT, user="recorded")
        usage: UsageLog = vars(daemon.generations)["_ground"].usage
        soon(lambda: bool(usage.query(user_id="recorded").records))
        [record] = usage.query(user_id="recorded").records
        assert (record.kind, record.model_used) == ("embedding", "vectors")
        assert (record.input_tokens, record.output_tokens, record.cost_nano_usd) == (10, 0, 200)
        with daemon.http() as http:
            scrape = http.get("/metrics").text
        assert 'cascaded_requests_total{kind="embedding",status="ok"}' in scrape


class TestCompletions:
    def test_plain(self, daemon: Daemon, upstream: Upstream) -> None:
        raw = daemon.sdk().completions.with_raw_response.create(
            model="cheap",
            prompt="The capital of France is",
            echo=True,
            logprobs=2,
            seed=12345678901234567890123,
            extra_body={"future": 1},
        )
        answer = raw.parse()
        assert (answer.object, answer.choices[0].text) == ("text_completion", "Paris.")
        assert raw.headers["x-cascaded-cost"] == "0.0000045"
        sent = upstream.calls("cheap")[0]
        assert sent.path == "/v1/completions"
        assert sent.body == {
            "model": "cheap",
            "prompt": "The capital of France is",
            "echo": True,
            "logprobs": 2,
            "seed": 12345678901234567890123,
            "future": 1,
            "max_tokens": 16,
        }

    @pytest.mark.parametrize("usage", [True, False])
    async def test_streams(self, daemon: Daemon, upstream: Upstream, usage: bool) -> None:
        upstream.on("cheap", Says("The capital is Paris.", chunks=4))
        asked: Any = {"stream_options": {"include_usage": True}} if usage else {}
        async with daemon.async_sdk() as client:
            stream = await client.completions.create(
                model="cheap", prompt="Where?", stream=True, max_tokens=9, **asked
            )
            chunks = [chunk async for chunk in stream]
        words = [chunk for chunk in chunks if chunk.choices]
        assert "".join(chunk.choices[0].text for chunk in words) == "The capital is Paris."
        assert words[-1].choices[0].finish_reason == "stop"
        assert upstream.calls("cheap")[0].body["stream_options"] == {"include_usage": True}
        if usage:
            told: Any = chunks[-1].usage
            assert (told.prompt_tokens, told.completion_tokens) == (10, 5)
            assert told.cost == 0.0000045
        assert len(chunks) - len(words) == usage

    def test_streams_that_break(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on("cheap", Resets(after_chunks=1))
        before = daemon.spend
        with pytest.raises(openai.APIError, match="broke the connection"):
            list(daemon.sdk().completions.create(model="cheap", prompt="Where?", stream=True))
        assert daemon.spend["unknown"] > before["unknown"]

    @pytest.mark.parametrize(
        ("members", "answers"),
        [
            ({}, 1),
            ({"n": 3}, 3),
            ({"best_of": 5}, 5),
            ({"n": 2, "best_of": 5}, 5),
            ({"prompt": ["a", "b"], "best_of": 5}, 10),
            ({"prompt": [[1], [2], [3]]}, 3),
            ({"prompt": [1, 2, 3], "n": 2}, 2),
        ],
    )
    def test_all_that_is_written_is_held(
        self, daemon: Daemon, upstream: Upstream, members: Any, answers: int
    ) -> None:
        """`best_of` thrown away ones too: what a hang-up can have cost shows the bound."""
        upstream.on("cheap", Resets())
        before = daemon.spend["unknown"]
        with daemon.http() as http:
            body = {"model": "cheap", "prompt": "a", "max_tokens": 1000, **members}
            assert http.post("/v1/completions", json=body).status_code == 502
        assert (daemon.spend["unknown"] - before) // 600_000 == answers

    def test_a_suffix_is_part_of_the_prompt(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on("cheap", Says(usage_on="none", text=""))
        before = daemon.spend["posted"]
        daemon.sdk().completions.create(model="cheap", prompt="one", suffix=" two three")
        assert daemon.spend["posted"] - before == 450

    def test_tiers_bound_it(self, daemon: Daemon, upstream: Upstream) -> None:
        daemon.sdk().completions.create(
            model="cheap", prompt="a", max_tokens=50, extra_headers=NARROW
        )
        assert upstream.calls("cheap")[0].body["max_tokens"] == 5

    def test_nothing_to_be_written(self, daemon: Daemon, upstream: Upstream) -> None:
        """As evaluations ask for the log-probabilities of a prompt."""
        upstream.on("cheap", Says(output_tokens=0))
        daemon.sdk().completions.create(model="cheap", prompt="a", max_tokens=0, echo=True)
        assert upstream.calls("cheap")[0].body["max_tokens"] == 0

    @pytest.mark.parametrize(
        ("members", "param"),
        [
            ({"n": 0}, "n"),
            ({"n": 129}, "n"),
            ({"best_of": 10**9}, "best_of"),
            ({"best_of": -1}, "best_of"),
            ({"max_tokens": -1}, "max_tokens"),
            ({"max_tokens": 10**12}, "max_tokens"),
            ({"prompt": ["a"] * 100, "n": 100}, "prompt"),
            ({"prompt": None}, "prompt"),
            ({"suffix": 5}, "suffix"),
            ({"stream": "yes"}, "stream"),
        ],
    )
    def test_absurd_wishes(
        self, daemon: Daemon, upstream: Upstream, members: Any, param: str
    ) -> None:
        with daemon.http() as http:
            body = {"model": "cheap", "prompt": "a", **members}
            answer = http.post("/v1/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert not upstream.received

    def test_ladders_are_for_answers(self, daemon: Daemon) -> None:
        with pytest.raises(openai.BadRequestError, match="cannot be judged") as caught:
            daemon.sdk().completions.create(model="auto", prompt="a")
        assert caught.value.param == "model"

    @pytest.mark.parametrize("status", [400, 404])
    def test_upstreams_that_have_no_such_route(
        self, daemon: Daemon, upstream: Upstream, status: int
    ) -> None:
        before = daemon.spend
        upstream.on("cheap", Fails(status))
        with pytest.raises(openai.APIStatusError) as caught:
            daemon.sdk().completions.create(model="cheap", prompt="a")
        assert caught.value.status_code == status
        assert daemon.spend == before


def test_prompts_are_not_logged(daemon: Daemon, upstream: Upstream) -> None:
    daemon.sdk().embeddings.create(model="vectors", input="my-secret-text")
    lines = daemon.log_lines()
    assert "my-secret-text" not in lines
    assert '"kind":"embedding"' in lines


def test_half_a_surrogate_pair(daemon: Daemon, upstream: Upstream) -> None:
    with daemon.http() as http:
        for path, member in (("embeddings", "input"), ("completions", "prompt")):
            body = b'{"model": "vectors", "%s": "\\ud800"}' % member.encode()
            answer: httpx2.Response = http.post(f"/v1/{path}", content=body)
            assert answer.status_code == 400, answer.text
            assert json.loads(answer.content)["error"]["type"] == "invalid_request_error"
    assert not upstream.received
