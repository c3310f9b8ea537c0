"""How closely answers are looked at, over the socket."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cascaded.daemon.quality import shipped_judgement
from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.process import wait_for
from tests.support.upstream import Says, Upstream

QUESTION = "Tom has 17 boxes of 23 pens each. How many pens has he?"
RIGHT = Says("Each box has 23 pens, so 17 * 23 = 391. The answer is 391.", logprob=-0.01)
WRONG = Says("Each box has 23 pens, so 17 * 23 = 381. The answer is 381.")
CHAT = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 200}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as server:
        server.on("cheap", RIGHT)
        server.on("strong", RIGHT)
        yield server


def infer(daemon: Daemon, **members: object) -> dict[str, Any]:
    body = {"query": QUESTION, "max_tokens": 200, **members}
    with daemon.http() as http:
        answer = http.post("/infer", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["metadata"]
    return found


def test_a_call_says_how_closely_and_is_told_why(upstream: Upstream) -> None:
    with daemon_with(CASCADE, url=upstream.url) as daemon:
        fast = infer(daemon)
        assert fast["quality_mode"] == "fast"
        assert fast["quality_parts"] == {}
        assert fast["semantic_similarity"] is None
        balanced = infer(daemon, quality_mode="balanced")
        assert balanced["quality_mode"] == "balanced"
        assert balanced["quality_parts"]["sums"] > 0
        assert any("similarity" in told for told in balanced["quality_unseen"])
        upstream.on("cheap", WRONG)
        worse = infer(daemon, quality_mode="balanced")
        drafts = [one for one in worse["attempts"] if one["model"] == "cheap"]
        assert drafts[0]["quality_score"] < balanced["confidence"]


def test_every_dialect_has_a_header_for_it(upstream: Upstream) -> None:
    with daemon_with(CASCADE, url=upstream.url) as daemon, daemon.http() as http:
        strict = {"x-cascaded-quality": "strict"}
        answer = http.post("/v1/chat/completions", json=CHAT, headers=strict)
        assert answer.status_code == 200
        assert "logprobs" not in answer.json()["choices"][0]
        asked = upstream.calls("cheap")[0].body
        assert asked.get("top_logprobs") in (None, 5)
        wrong = http.post(
            "/v1/chat/completions", json=CHAT, headers={"x-cascaded-quality": "perfect"}
        )
        assert wrong.status_code == 400
        assert "fast, balanced, strict" in wrong.json()["error"]["message"]
        bad = http.post("/infer", json={"query": "?", "quality_mode": "perfect"})
        assert bad.status_code == 400


def test_samples_of_high_stakes_are_in_the_books(upstream: Upstream) -> None:
    with daemon_with(CASCADE + '\n[quality]\nmode = "strict"\n', url=upstream.url) as daemon:
        told = infer(daemon, domain="medical")
        roles = [one["role"] for one in told["attempts"]]
        assert roles.count("sample") >= 3
        assert told["agreement"] == 1.0
        spend = daemon.spend
        assert spend["held"] == spend["unknown"] == 0


def test_answers_are_looked_at_when_they_have_gone_out(upstream: Upstream) -> None:
    upstream.on("cheap", WRONG)
    quality = '\n[quality]\nmode = "balanced"\nvalidation = "async"\ngood_share = 0.5\n'
    with daemon_with(CASCADE + quality, url=upstream.url) as daemon:
        told = infer(daemon)
        assert told["draft_accepted"]
        assert told["quality_parts"] == {}

        def is_marked() -> bool:
            with daemon.http() as http:
                return "cascaded_afterwards_low_total 1.0" in http.get("/metrics").text

        wait_for(is_marked)
        assert '"event":"low_quality"' in daemon.log_lines()


def test_a_calibration_is_taken_by_a_reload_and_a_bad_one_is_not(
    upstream: Upstream, tmp_path: Path
) -> None:
    own = tmp_path / "own.json"
    balanced = '\n[quality]\nmode = "balanced"\n'
    with daemon_with(CASCADE + balanced, url=upstream.url) as daemon:
        before = infer(daemon)["confidence"]
        judgement = msgspec.structs.replace(shipped_judgement(), slope=0.0, offset=3.0)
        own.write_bytes(msgspec.json.encode(judgement))
        named = f"{balanced}calibration = {json.dumps(str(own))}\n"
        daemon.toml = daemon.toml.replace(balanced, named)
        assert daemon.reload().status_code == 200
        after = infer(daemon)["confidence"]
        assert after == pytest.approx(0.9526, abs=1e-3)
        assert before != after
        own.write_bytes(b"{}")
        refused = daemon.reload()
        assert refused.status_code >= 400
        assert "quality.calibration" in refused.text
        assert infer(daemon)["confidence"] == after
