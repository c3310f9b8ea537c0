"""The quickstart, step by step as it stands there: with the models, and without their weights."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from cascaded.models.catalogue import find
from cascaded.models.folder import look, models_folder
from tests.docs.test_snippets import ROOT
from tests.support.daemon import upstream_server
from tests.support.process import environ, wait_for
from tests.support.snippets import Snippet, snippets
from tests.support.upstream import Says, Upstream

QUICKSTART = ROOT / "docs" / "quickstart.md"
MODELS = ("smollm2-135m-instruct", "qwen2.5-coder-1.5b-instruct")
WITHIN_S = 300


def steps() -> list[Snippet]:
    return [one for one in snippets(QUICKSTART) if one.about("run by")]


def walked(folder: Path, config: Callable[[str], str]) -> list[str]:
    """Every step of the page; what each command and program said."""
    said = []
    with ExitStack() as stack:
        for one in steps():
            if one.kind == "toml":
                text = one.text.replace("uid:1000", f"uid:{os.getuid()}")
                (folder / "cascaded.toml").write_text(config(text))
            elif one.text.startswith("cascaded serve"):
                stack.enter_context(daemon(folder, one.text))
            else:
                command = ["bash", "-c"] if one.kind == "sh" else [sys.executable, "-c"]
                said.append(done([*command, one.text], folder))
    return said


@contextmanager
def daemon(folder: Path, command: str) -> Iterator[None]:
    process = subprocess.Popen(
        command.split(), cwd=folder, env=at_home(folder), stderr=subprocess.DEVNULL
    )
    try:
        wait_for((folder / "cascaded.sock").exists, WITHIN_S)
        yield
    finally:
        process.terminate()
        process.wait()


def done(command: list[str], folder: Path) -> str:
    ended = subprocess.run(
        command,
        cwd=folder,
        env=at_home(folder),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    return f"{ended.stdout}{ended.stderr}exit {ended.returncode}"


def at_home(folder: Path) -> dict[str, str]:
    """The environment of somebody whose home is this folder."""
    return environ(
        HOME=str(folder),
        XDG_RUNTIME_DIR=str(folder),
        XDG_STATE_HOME=str(folder / "state"),
        CASCADED_MODELS=str(models_folder(os.environ)),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        PYTHONPATH=str(ROOT),
    )


def as_promised(said: list[str]) -> None:
    checked, asked, refused, program, looked = said
    assert checked.endswith("exit 0"), checked
    assert "cost $0.0000" in asked, asked
    assert f"uid:{os.getuid()}" in asked
    assert "refused: User 'alice' would exceed their daily budget of $0.0001" in refused, refused
    assert refused.endswith("exit 3")
    assert program.startswith("refused: daily 0.0001 20"), program
    assert program.endswith("exit 0")
    assert "denied" in looked, looked
    assert "for 2 calls" in looked


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cascaded-quick-") as name:
        yield Path(name)


def test_without_weights(folder: Path) -> None:
    """A scripted provider stands in for the models."""
    with upstream_server(Upstream()) as upstream:
        for model in MODELS:
            upstream.on(model, Says("The capital of France is Paris.", input_tokens=40))
        ours = f'kind = "openai_compatible"\nbase_url = "{upstream.url}/v1"'
        as_promised(walked(folder, lambda text: text.replace('kind = "embedded"', ours)))


@pytest.mark.models
@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs the extra `embedded`")
def test_with_the_models(folder: Path) -> None:
    if not all(look(find(one), models_folder(os.environ)).usable for one in MODELS):
        pytest.skip("needs the weights: `cascaded models pull`")
    as_promised(walked(folder, str))
