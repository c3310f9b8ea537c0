"""Anthropic's batches by its own SDK."""

import time
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from cascaded.client import Client
from tests.support.daemon import Daemon
from tests.support.upstream import Fails, Says, Upstream


@pytest.fixture
def sdk(daemon: Daemon) -> Iterator[anthropic.Anthropic]:
    with Client(daemon.socket).anthropic(max_retries=0) as sdk:
        yield sdk


def asked(name: str, **params: Any) -> Any:
    said = {"model": "cheap", "max_tokens": 9, "messages": [{"role": "user", "content": name}]}
    return {"custom_id": name, "params": {**said, **params}}


def ended(sdk: anthropic.Anthropic, id: str) -> Any:
    for _ in range(500):
        batch = sdk.messages.batches.retrieve(id)
        if batch.processing_status == "ended":
            return batch
        time.sleep(0.02)
    raise AssertionError(batch)


def test_a_batch_of_messages(sdk: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.on("cheap", Says())
    upstream.on("strong", Fails(404))
    begun = sdk.messages.batches.create(
        requests=[*(asked(f"q{number}") for number in range(5)), asked("bad", model="strong")]
    )
    assert begun.id.startswith("msgbatch_")
    assert begun.request_counts.processing == 6
    done = ended(sdk, begun.id)
    counts = done.request_counts
    assert (counts.processing, counts.succeeded, counts.errored) == (0, 5, 1)
    assert done.ended_at is not None
    found: Any = {one.custom_id: one.result for one in sdk.messages.batches.results(begun.id)}
    assert found["q3"].message.content[0].text == "Paris."
    assert found["bad"].error.error.type == "not_found_error"
    assert len(upstream.calls("cheap")) == 5
    assert next(iter(sdk.messages.batches.list(limit=1))).id == begun.id
    assert sdk.messages.batches.delete(begun.id).id == begun.id
    with pytest.raises(anthropic.NotFoundError):
        sdk.messages.batches.retrieve(begun.id)


def test_one_that_is_cancelled(sdk: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.on("cheap", Says(delay_s=0.3))
    begun = sdk.messages.batches.create(requests=[asked(f"q{number}") for number in range(40)])
    with pytest.raises(anthropic.AnthropicError, match="results_url"):
        sdk.messages.batches.results(begun.id)
    while not upstream.received:
        time.sleep(0.01)
    with pytest.raises(anthropic.ConflictError):
        sdk.messages.batches.delete(begun.id)
    stopped = sdk.messages.batches.cancel(begun.id)
    assert stopped.processing_status == "canceling"
    done = ended(sdk, begun.id)
    counts, made = done.request_counts, len(upstream.received)
    assert (counts.succeeded, counts.canceled) == (made, 40 - made)
    kinds = [one.result.type for one in sdk.messages.batches.results(begun.id)]
    assert kinds == ["succeeded"] * made + ["canceled"] * (40 - made)


@pytest.mark.parametrize(
    ("requests", "param"),
    [
        ([], "requests"),
        ([asked("a"), asked("a")], "requests[1].custom_id"),
        ([asked("not an id")], "requests[0].custom_id"),
        ([asked("a", stream=True)], "requests[0].params.stream"),
        ([{"custom_id": "a", "params": {"model": 7}}], "requests[0].params"),
        ([{"custom_id": "a"}], "requests[0].params"),
    ],
)
def test_what_is_no_batch_is_refused(daemon: Daemon, requests: list[Any], param: str) -> None:
    with daemon.http() as http:
        told = http.post("/v1/messages/batches", json={"requests": requests})
        assert told.status_code == 400
        said = told.json()
        assert (said["type"], said["error"]["type"]) == ("error", "invalid_request_error")
        assert said["error"]["param"] == param


def test_nobody_sees_anothers(daemon: Daemon, sdk: anthropic.Anthropic) -> None:
    bob = {"X-User-ID": "bob"}
    begun = sdk.messages.batches.create(requests=[asked("a")])
    assert ended(sdk, begun.id).request_counts.succeeded == 1
    assert sdk.messages.batches.list(extra_headers=bob).data == []
    with daemon.http() as http:
        for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("DELETE", "")):
            place = f"/v1/messages/batches/{begun.id}{path}"
            assert http.request(method, place, headers=bob).status_code == 404
        free = {"X-User-ID": "carol", "X-User-Tier": "free"}
        assert http.get("/v1/messages/batches", headers=free).status_code == 403
        told = http.post("/v1/messages/batches", json={"requests": [asked("a")]}, headers=free)
        assert told.json()["error"]["type"] == "permission_error"
        assert http.get(f"/v1/batches/{begun.id}").status_code == 404
