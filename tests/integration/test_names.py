"""Names that the config does not list, and models that run here, through the whole daemon."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cascaded.models.catalogue import find
from cascaded.providers.embedded.child import RUNTIME
from tests.support.daemon import Daemon, daemon_with
from tests.support.upstream import Says, Upstream

FAKE_RUNTIME = Path(__file__).parents[1] / "support" / "fake_runtime"
GOOD = "The capital of France is Paris."
SERVER = """
[server]
socket = "{socket}"
[ledger]
dir = "{folder}/state"
[log]
file = "{folder}/log.jsonl"
"""
ONE = SERVER + '[providers.openai]\nkind = "openai_compatible"\nbase_url = "{url}/v1"\n'
TWO = ONE + '[providers.groq]\nkind = "openai_compatible"\nbase_url = "{url}/v1"\n'
EMBEDDED = SERVER + '[providers.embedded]\nkind = "embedded"\nmodels_dir = "{folder}/models"\n'


def ask(daemon: Daemon, model: str) -> httpx2.Response:
    with daemon.http() as http:
        body: dict[str, Any] = {"query": "What is the capital of France?", "model": model}
        return http.post("/infer", json=body)


@pytest.fixture(scope="module")
def _two(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(TWO, url=_upstream.url) as daemon:
        yield daemon


@pytest.fixture
def two(_two: Daemon, upstream: Upstream) -> Daemon:
    """A daemon with two providers and no model of its own but the embedded ones."""
    assert not upstream.received
    return _two


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("openai/gpt-4o-mini", "gpt-4o-mini"),
        ("groq/llama-3.3-70b-versatile", "llama-3.3-70b-versatile"),
    ],
)
def test_a_model_that_a_provider_is_known_to_sell(
    two: Daemon, upstream: Upstream, asked: str, sent: str
) -> None:
    upstream.on(sent, Says(GOOD, input_tokens=1000, output_tokens=1000))
    answer = ask(two, asked)
    assert answer.status_code == 200, answer.text
    told = answer.json()["metadata"]
    assert (told["model_used"], told["draft_model"]) == (asked, None)
    assert float(told["total_cost"]) > 0, "the catalogue knows its price"
    assert [call.body["model"] for call in upstream.received] == [sent]


def test_a_model_that_nobody_is_known_to_sell(two: Daemon, upstream: Upstream) -> None:
    unknown = ask(two, "gpt-99").json()["error"]
    assert unknown["code"] == "model_not_found"
    unpriced = ask(two, "openai/gpt-99").json()["error"]
    assert unpriced["code"] == "price_unknown"
    assert "openai/gpt-99" in unpriced["message"]
    assert not upstream.received


def test_with_one_provider_every_name_is_its_own(upstream: Upstream) -> None:
    with daemon_with(ONE, url=upstream.url) as daemon:
        assert ask(daemon, "gpt-99").json()["error"]["code"] == "price_unknown"
        upstream.on("gpt-4o-mini", Says(GOOD))
        assert ask(daemon, "gpt-4o-mini").status_code == 200


def test_models_that_run_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a stand-in for the runtime: the child process, its socket and its key are real."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE_RUNTIME))
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: True if name == RUNTIME else real(name, *rest),
    )
    with daemon_with(EMBEDDED.replace("{folder}/models", str(tmp_path))) as daemon:
        missing = ask(daemon, "qwen2.5-coder-1.5b-instruct")
        assert missing.status_code == 502
        assert "cascaded models pull qwen2.5" in missing.json()["error"]["message"]
        (tmp_path / find("smollm2-135m-instruct").file_name).write_text("")
        answer = ask(daemon, "smollm2-135m-instruct")
        assert answer.status_code == 200, answer.text
        assert '"role":"user"' in answer.json()["content"].replace(" ", ""), "it echoes its call"
        assert answer.json()["metadata"]["total_cost"] == 0
        assert Path(daemon.socket + ".d", "embedded-1.sock").is_socket()
    assert not list(Path(daemon.socket + ".d").glob("*.sock"))
