"""Domains over the real socket: what is told, what it does to the ladder, and the dry run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascaded.client import APIError, Client
from tests.support.daemon import CASCADE, Daemon, daemon_with, read
from tests.support.onnx_models import write_classifier, write_embedder
from tests.support.upstream import Upstream

DOMAINS = """
[domains]
detect = "rules"

[domains.routes.billing]
keywords = ["purchase order"]
patterns = ['\\bPO-\\d+']
quality_model = "strong"
require_strict_quality = true
thresholds = { simple = 0.3, moderate = 0.2, hard = 0.1 }

[domains.routes.medical]
cost_model = "strong"
"""
QUESTION = "Where is my purchase order PO-7?"


@pytest.fixture
def daemon(upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(CASCADE + DOMAINS, url=upstream.url) as one:
        yield one


def test_a_dry_run_tells_all_of_it_and_asks_nobody(daemon: Daemon, upstream: Upstream) -> None:
    with Client(daemon.socket) as client:
        told = client.route(QUESTION)
        assert (told.domain, told.domain_layer, told.allowed) == ("billing", "keywords", True)
        assert told.domain_confidence == pytest.approx(0.97)
        assert told.complexity in ("simple", "moderate", "hard")
        assert told.strict
        assert [rung.model for rung in told.rungs] == ["cheap", "strong"]
        assert {rung.threshold for rung in told.rungs} <= {0.3, 0.2, 0.1}
        assert told.worst_cost is not None
        assert told.domain_detection_ms is not None
        medical = client.route("hello", domain="medical")
        assert (medical.domain, medical.domain_layer) == ("medical", "asked")
        assert [rung.model for rung in medical.rungs] == ["strong"]
        with pytest.raises(APIError):
            client.run("hello", domain="alchemy")
        refused = client.route("hello", domain="alchemy")
        assert not refused.allowed
        named = client.route(QUESTION, model="cheap")
        assert (named.domain, named.checked) == (None, False)
        assert client.summary().requests_today == 1, "the one that was refused"
    assert upstream.received == []


def test_answers_tell_their_domain(daemon: Daemon) -> None:
    with Client(daemon.socket) as client:
        metadata = client.run(QUESTION).metadata
    assert (metadata.domain, metadata.domain_layer) == ("billing", "keywords")
    assert metadata.complexity is not None
    assert metadata.domain_detection_ms is not None
    with daemon.http() as http:
        body = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}]}
        answer = http.post("/v1/chat/completions", json=body)
    assert answer.headers["x-cascaded-domain"] == "billing"


def test_nothing_is_looked_at_by_default(upstream: Upstream) -> None:
    with daemon_with(CASCADE, url=upstream.url) as daemon, Client(daemon.socket) as client:
        told = client.route(QUESTION)
        assert (told.domain, told.complexity) == (None, None)
        assert {rung.threshold for rung in told.rungs} == {0.6}


def test_without_the_embedder_rules_decide_and_the_answer_says_so(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CASCADED_MODELS", str(tmp_path))
    config = CASCADE + '[domains]\ndetect = "embeddings"\n'
    with daemon_with(config, url=upstream.url) as daemon, Client(daemon.socket) as client:
        told = client.route("tell me something")
        assert told.domain_layer == "rules"
        assert any("by rules alone" in notice for notice in told.notices)
        with daemon.http() as http:
            metrics = http.get("/metrics").text
    [line] = [
        line
        for line in metrics.splitlines()
        if line.startswith("cascaded_small_model_texts_total")
        and 'model="minilm"' in line
        and 'outcome="absent"' in line
    ]
    assert float(line.rsplit(" ", 1)[1]) >= 0


def test_models_of_the_operators_are_loaded_from_their_folders(
    upstream: Upstream, tmp_path: Path
) -> None:
    for name in ("own", "nli"):
        (tmp_path / name).mkdir()
    write_embedder(tmp_path / "own")
    write_classifier(tmp_path / "nli", ("contradiction", "entailment"))
    config = f"""{CASCADE}
[embedder]
folder = "{tmp_path}/own"
start = "boot"

[classifiers.nli]
folder = "{tmp_path}/nli"
deadline_ms = 20000

[domains]
detect = "embeddings"
zero_shot = "nli"
min_confidence_rules = 1.0
"""
    with daemon_with(config, url=upstream.url) as daemon, Client(daemon.socket) as client:
        told = client.route("good cat")
        assert told.domain is not None
        with daemon.http() as http:
            metrics = http.get("/metrics").text
        assert 'cascaded_small_model_texts_total{model="nli",outcome="answered"}' in metrics
        (daemon.folder / "test.toml").write_text(
            (daemon.folder / "test.toml").read_text().replace("20000", "20001")
        )
        with daemon.http() as http:
            assert http.post("/reload").status_code == 200
        assert client.route("good cat").allowed


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('[domains]\ndetect = "rules"\n[domains.routes.a]\nkeywords = ["..."]\n', "0 words"),
        ('[domains]\ndetect = "rules"\n[domains.routes.a]\npatterns = ["("]\n', "pattern"),
        ('[domains]\ndetect = "rules"\n[domains.routes.a]\ncost_model = "no"\n', "cost_model"),
        ('[domains.routes.a]\nkeywords = ["x"]\n', "nobody looks"),
        (
            '[domains]\ndetect = "rules"\n[domains.routes.a]\nsemantic_examples = ["x"]\n',
            "nothing compares",
        ),
        ('[domains]\ndetect = "rules"\nzero_shot = "no"\n', "zero_shot"),
    ],
)
def test_mistakes_are_told(text: str, mistake: str) -> None:
    found = read((CASCADE + text).replace("{socket}", "/tmp/x").replace("{url}", "http://h"))
    assert isinstance(found, list)
    assert any(mistake in line for line in found), found


def test_the_command_line_shows_it(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    from click.testing import CliRunner

    from cascaded.cli.route import route

    shown = CliRunner().invoke(route, [QUESTION, "--socket", daemon.socket])
    assert shown.exit_code == 0, shown.output
    assert "domain: billing (by keywords, 97% sure" in shown.output
    assert "complexity: " in shown.output
    words = ["hi", "--domain", "legal", "--max-tokens", "9", "--user", "bo", "--json"]
    told = CliRunner().invoke(route, [*words, "--socket", daemon.socket])
    assert json.loads(told.output)["domain"] == "legal"
    named = CliRunner().invoke(route, ["hi", "--model", "cheap", "--socket", daemon.socket])
    assert "nobody looks" in named.output
