"""OpenAI's files and batches by its own SDK, synchronous and asynchronous; and hostile input."""

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Fails, Garbage, Says, Upstream

CHAT: Any = "/v1/chat/completions"
SMALL = CASCADE.replace("[server]", "[server]\nmax_body_bytes = 1_048_576") + (
    "\n[batch]\nmax_lines = 40\nmax_user_bytes = 1_048_576\n"
)
ENDED = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(scope="module")
def _small(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(SMALL, url=_upstream.url) as daemon:
        yield daemon


@pytest.fixture
def small(_small: Daemon, upstream: Upstream) -> Daemon:
    upstream.on("cheap", Says())
    return _small


@pytest.fixture
def sdk(small: Daemon) -> openai.OpenAI:
    return small.sdk()


def line(number: int, url: str = CHAT, **body: Any) -> str:
    said = {"model": "cheap", "messages": [{"role": "user", "content": f"What is {number}?"}]}
    asked = {"custom_id": f"q{number}", "method": "POST", "url": url, "body": {**said, **body}}
    return json.dumps(asked)


def begin(sdk: openai.OpenAI, lines: list[str], endpoint: Any = CHAT, **more: Any) -> Any:
    data = "\n".join(lines).encode()
    file = sdk.files.create(file=("in.jsonl", data), purpose="batch")
    window: Any = "24h"
    return sdk.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window=window, **more
    )


def ended(sdk: openai.OpenAI, batch: Any) -> Any:
    for _ in range(500):
        batch = sdk.batches.retrieve(batch.id)
        if batch.status in ENDED:
            return batch
        time.sleep(0.02)
    raise AssertionError(batch)


def rows(sdk: openai.OpenAI, file: str | None) -> list[dict[str, Any]]:
    assert file is not None
    return [json.loads(row) for row in sdk.files.content(file).text.splitlines()]


def test_a_batch_from_file_to_file(sdk: openai.OpenAI, upstream: Upstream) -> None:
    begun = begin(sdk, [line(number) for number in range(30)], metadata={"run": "7"})
    assert begun.status in ("validating", "in_progress")
    done = ended(sdk, begun)
    assert (done.status, done.metadata, done.errors) == ("completed", {"run": "7"}, None)
    assert (done.request_counts.total, done.request_counts.completed) == (30, 30)
    assert done.error_file_id is None
    assert begun.created_at <= done.in_progress_at <= done.completed_at <= done.expires_at
    answers = rows(sdk, done.output_file_id)
    assert [one["custom_id"] for one in answers] == [f"q{number}" for number in range(30)]
    said = answers[0]["response"]
    assert (said["status_code"], answers[0]["error"]) == (200, None)
    assert said["body"]["choices"][0]["message"]["content"] == "Paris."
    assert said["body"]["system_fingerprint"] == "fp_unknown_to_us"
    sent = {call.headers["X-Request-ID"] for call in upstream.received}
    assert sent == {one["response"]["request_id"] for one in answers}
    output = sdk.files.retrieve(str(done.output_file_id))
    assert output.bytes == len(sdk.files.content(output.id).content)
    assert output.purpose == "batch_output"
    assert sdk.files.delete(output.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.content(output.id)


async def test_the_asynchronous_sdk(small: Daemon) -> None:
    async with small.async_sdk() as sdk:
        file = await sdk.files.create(file=("in.jsonl", line(1).encode()), purpose="batch")
        batch = await sdk.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h"
        )
        while batch.status not in ENDED:
            batch = await sdk.batches.retrieve(batch.id)
        content = await sdk.files.content(str(batch.output_file_id))
        assert json.loads(content.text)["custom_id"] == "q1"
        listed = [one.id async for one in await sdk.batches.list(limit=1)]
        assert listed[0] == batch.id
        assert (await sdk.files.delete(file.id)).deleted


@pytest.mark.parametrize(
    ("endpoint", "body", "answer"),
    [
        ("/v1/completions", {"model": "cheap", "prompt": "Hi"}, "text_completion"),
        ("/v1/embeddings", {"model": "cheap", "input": ["a", "b"]}, "list"),
        ("/v1/responses", {"model": "cheap", "input": "Hi"}, "response"),
        (
            "/v1/messages",
            {"model": "cheap", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
            "message",
        ),
    ],
)
def test_every_endpoint(
    sdk: openai.OpenAI, endpoint: str, body: dict[str, Any], answer: str
) -> None:
    asked = {"custom_id": "a", "method": "POST", "url": endpoint, "body": body}
    done = ended(sdk, begin(sdk, [json.dumps(asked)], endpoint))
    [row] = rows(sdk, done.output_file_id)
    said = row["response"]["body"]
    assert answer in (said.get("object"), said.get("type"))


@pytest.mark.parametrize("member", [{"store": True}, {"previous_response_id": "resp_1"}])
def test_responses_of_a_batch_stand_alone(sdk: openai.OpenAI, member: dict[str, Any]) -> None:
    body = {"model": "cheap", "input": "Hi", **member}
    asked = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}
    done = ended(sdk, begin(sdk, [json.dumps(asked)], "/v1/responses"))
    assert [one.param for one in done.errors.data] == [*member]


def test_errors_have_a_file_of_their_own(sdk: openai.OpenAI, upstream: Upstream) -> None:
    upstream.on("cheap", Says(), Fails(404))
    upstream.on("strong", Garbage(json.dumps({"a": 1}, indent=2).encode()))
    lines = [line(1), line(2, n=1), line(3, model="strong")]
    done = ended(sdk, begin(sdk, [lines[0]]))
    done = ended(sdk, begin(sdk, lines[1:]))
    assert (done.status, done.request_counts.failed, done.output_file_id) == ("completed", 2, None)
    found = {one["custom_id"]: one["response"] for one in rows(sdk, done.error_file_id)}
    assert found["q2"]["status_code"] == 404
    assert found["q3"]["body"]["error"]["code"] == "upstream_garbage"


def test_answers_over_many_lines_stand_on_one(sdk: openai.OpenAI, upstream: Upstream) -> None:
    answer = {
        "choices": [{"index": 0, "message": {"content": "a\nb"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        "price": 1.10,
    }
    upstream.on("cheap", Garbage(json.dumps(answer, indent=2).encode()))
    done = ended(sdk, begin(sdk, [line(1), line(2)]))
    assert [one["response"]["body"] for one in rows(sdk, done.output_file_id)] == [answer] * 2


def test_a_file_with_mistakes_is_not_begun(sdk: openai.OpenAI, upstream: Upstream) -> None:
    """Each is told, with its line; and nothing is asked."""
    lines = [
        line(1),
        "{",
        line(1),
        line(2, url="/v1/embeddings"),
        line(3).replace("POST", "GET"),
        line(4, stream=True),
        line(5, messages=[]),
        line(6).replace('"q6"', '""'),
        line(7).replace('"custom_id"', '"customid"'),
        "",
        "[1]",
        line(8, max_tokens="x"),
    ]
    done = ended(sdk, begin(sdk, lines))
    assert (done.status, done.request_counts.total) == ("failed", 0)
    assert done.failed_at is not None
    found = {one.line: (one.param, one.message) for one in done.errors.data}
    assert [*found] == [2, 3, 4, 5, 6, 7, 8, 9, 11, 12]
    params = [found[number][0] for number in (3, 4, 5, 6, 7, 8, 9, 12)]
    assert params == [
        "custom_id",
        "url",
        "method",
        "body.stream",
        "messages",
        "custom_id",
        "custom_id",
        "max_tokens",
    ]
    assert "not valid JSON" in found[2][1]
    assert not upstream.received


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("\n\n", "has no queries"),
        ("\n".join(line(number) for number in range(41)), "more than 40 queries"),
        ("\n".join("x" for _ in range(150)), "50 further lines"),
    ],
)
def test_a_file_that_is_no_batch(sdk: openai.OpenAI, data: str, message: str) -> None:
    done = ended(sdk, begin(sdk, [data]))
    assert done.status == "failed"
    assert message in done.errors.data[-1].message
    assert len(done.errors.data) <= 101


def test_a_cancelled_batch(sdk: openai.OpenAI, upstream: Upstream) -> None:
    upstream.on("cheap", Says(delay_s=0.3))
    begun = begin(sdk, [line(number) for number in range(40)])
    while sdk.batches.retrieve(begun.id).status != "in_progress":
        time.sleep(0.01)
    assert sdk.batches.cancel(begun.id).status == "cancelling"
    done = ended(sdk, begun)
    assert (done.status, done.request_counts.total) == ("cancelled", 40)
    assert done.cancelled_at >= done.cancelling_at
    asked = len(upstream.received)
    assert asked <= 16
    assert done.request_counts.completed == asked
    left = rows(sdk, done.error_file_id)
    assert len(left) == 40 - asked
    assert {one["error"]["code"] for one in left} == {"batch_cancelled"}
    assert left[0]["response"] is None


def test_files_are_their_owners(small: Daemon, sdk: openai.OpenAI) -> None:
    file = sdk.files.create(
        file=("a.jsonl", line(1).encode()),
        purpose="batch",
        extra_headers={"X-User-ID": "alice"},
    )
    bob, alice = {"X-User-ID": "bob"}, {"X-User-ID": "alice"}
    for ask in (sdk.files.retrieve, sdk.files.content, sdk.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(file.id, extra_headers=bob)
    with pytest.raises(openai.NotFoundError):
        sdk.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h", extra_headers=bob
        )
    assert sdk.files.list(extra_headers=bob).data == []
    [mine] = sdk.files.list(extra_headers=alice, purpose="batch").data
    assert mine.id == file.id
    assert sdk.files.list(extra_headers=alice, purpose="batch_output").data == []
    assert sdk.files.content(file.id, extra_headers=alice).text == line(1)


def test_pages_of_files_and_batches(small: Daemon, sdk: openai.OpenAI) -> None:
    carol = {"X-User-ID": "carol"}
    made = [
        sdk.files.create(
            file=(f"{name}.jsonl", line(1).encode()), purpose="batch", extra_headers=carol
        ).id
        for name in "abc"
    ]
    pages = sdk.files.list(limit=2, extra_headers=carol)
    assert sorted(one.id for one in pages) == sorted(made)
    assert pages.has_more
    upward = [one.id for one in sdk.files.list(order="asc", extra_headers=carol)]
    downward = [one.id for one in sdk.files.list(extra_headers=carol)]
    assert upward == downward[::-1]
    window: Any = "1h"
    begun = [
        sdk.batches.create(
            input_file_id=id, endpoint=CHAT, completion_window=window, extra_headers=carol
        ).id
        for id in made
    ]
    found = [one.id for one in sdk.batches.list(limit=1, extra_headers=carol)]
    assert found == begun[::-1]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "1y"}, "completion_window"),
        ({"completion_window": "8d"}, "completion_window"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"unheard": 1}, "unheard"),
        ({"input_file_id": 7}, "input_file_id"),
    ],
)
def test_what_cannot_be_made_a_batch(small: Daemon, members: dict[str, Any], param: str) -> None:
    body = {"input_file_id": "file-0", "endpoint": CHAT, "completion_window": "24h", **members}
    with small.http() as http:
        told = http.post("/v1/batches", json=body)
        assert told.status_code == 400
        assert param in told.json()["error"]["message"]
        del body["input_file_id"]
        assert http.post("/v1/batches", json=body).status_code == 400


FORM = "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"x"),
        (FORM, b""),
        (FORM, b"--b\r\n"),
        (FORM, b"--b--\r\n"),
        (FORM, b"no form at all"),
        (FORM, b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n'),
        (FORM, b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n{}\r\n--b--\r\n'),
        (
            FORM,
            b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n--b\r\n'
            b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n',
        ),
        (
            FORM,
            b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n'
            + b"x" * 2000
            + b"\r\n--b--\r\n",
        ),
        (
            FORM,
            b"".join(
                b'--b\r\nContent-Disposition: form-data; name="n%d"\r\n\r\nx\r\n' % number
                for number in range(20)
            )
            + b"--b--\r\n",
        ),
        (FORM, b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--\r\n--b--\r\n"),
        (
            FORM,
            b"--b\r\nContent-Disposition: form-data; name=purpose\r\n"
            b"Content-Encoding: gzip\r\n\r\nx\r\n--b--\r\n",
        ),
    ],
)
def test_a_form_that_is_none(small: Daemon, kind: str, body: bytes) -> None:
    with small.http() as http:
        told = http.post("/v1/files", content=body, headers={"Content-Type": kind})
    assert told.status_code == 400, told.text


def test_a_file_goes_when_its_owner_wants(sdk: openai.OpenAI, small: Daemon) -> None:
    kept: Any = {"anchor": "created_at", "seconds": 3600}
    short: Any = {**kept, "seconds": 1}
    file = sdk.files.create(file=("a.jsonl", b"x"), purpose="batch", expires_after=kept)
    assert file.expires_at is not None
    assert file.expires_at - file.created_at == 3600
    with pytest.raises(openai.BadRequestError):
        sdk.files.create(file=("a.jsonl", b"x"), purpose="batch", expires_after=short)


def test_there_is_so_much_room(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        sdk.files.create(file=("a.jsonl", b"x" * 1_100_000), purpose="batch")
    assert refused.value.status_code == 413
    dave = {"X-User-ID": "dave"}
    sdk.files.create(file=("a.jsonl", b"x" * 600_000), purpose="batch", extra_headers=dave)
    with pytest.raises(openai.APIStatusError) as refused:
        sdk.files.create(file=("b.jsonl", b"x" * 600_000), purpose="batch", extra_headers=dave)
    assert (refused.value.status_code, refused.value.code) == (507, "batches_full")
    for file in sdk.files.list(extra_headers=dave):
        sdk.files.delete(file.id, extra_headers=dave)
    sdk.files.create(file=("b.jsonl", b"x" * 600_000), purpose="batch", extra_headers=dave)
