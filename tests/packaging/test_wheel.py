"""From the built wheel in an empty environment: install, run, ask, stop, uninstall."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import pytest

from cascaded.client import APIError
from tests.support.daemon import CASCADE, upstream_server
from tests.support.process import environ, serving
from tests.support.upstream import Says, Upstream

ROOT = Path(__file__).parents[2]
BUILD_WITHIN_S = 900
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
"""What was compiled already is not compiled again."""


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environ(**ALONE, **env),
        capture_output=True,
        text=True,
        timeout=BUILD_WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def maturin(*words: str | Path, cwd: Path = ROOT) -> None:
    command = Path(sys.executable).with_name("maturin")
    run(command, *words, cwd=cwd, CARGO_TARGET_DIR=str(TARGET))


class Alone(TypedDict):
    """Settings of Python under which nothing of this checkout is seen."""

    PYTHONPATH: str
    PYTHONSAFEPATH: str


ALONE = Alone(PYTHONPATH="", PYTHONSAFEPATH="1")


class Installed:
    """An environment with nothing in it but the wheel and what it needs."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.python = folder / "bin" / "python"
        self.cascaded = folder / "bin" / "cascaded"
        self._folder = folder

    def pip(self, *words: str | Path) -> str:
        return run(self.python, "-m", "pip", *words, PIP_CONSTRAINT=str(ROOT / "constraints.txt"))

    def files(self) -> set[Path]:
        """Everything of ours."""
        return {path for path in self._folder.rglob("*cascaded*") if "__pycache__" not in str(path)}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that was built from the source distribution alone."""
    folder = tmp_path_factory.mktemp("dist")
    maturin("sdist", "--out", folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    maturin("build", "--release", "--locked", "--out", folder, cwd=source)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    installed = Installed(tmp_path_factory.mktemp("empty"))
    installed.pip("install", "--quiet", wheel)
    return installed


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        yield upstream


def test_one_wheel_for_all_pythons_from_311(wheel: Path) -> None:
    assert "-cp311-abi3-" in wheel.name


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"cascaded"}
    for needed in ("_core.abi3.so", "_core.pyi", "py.typed", "data/prices.json.gz"):
        assert f"cascaded/{needed}" in names


def test_what_it_needs_fits_together_and_extras_are_left_out(installed: Installed) -> None:
    installed.pip("check")
    listed = installed.pip("list", "--format=freeze").lower()
    for extra in ("xllamacpp", "huggingface", "psycopg", "openai", "onnxruntime", "pytest"):
        assert extra not in listed


def test_install_run_ask_stop(installed: Installed, upstream: Upstream, tmp_path: Path) -> None:
    upstream.on("cheap", Says("The capital of France is Paris."))
    config = (
        CASCADE.replace("{url}", upstream.url)
        .replace("[log]", "")
        .replace('file = "{folder}/log.jsonl"', "")
    )
    with serving(tmp_path, config, python=str(installed.python), **ALONE) as served:
        said = run(
            installed.cascaded,
            "ask",
            "What is the capital of France?",
            cwd=tmp_path,
            CASCADED_SOCKET=str(served.socket),
        )
        assert "The capital of France is Paris." in said
        assert served.end() == 0


def test_without_its_extra_the_embedded_model_says_how_to_get_it(
    installed: Installed, tmp_path: Path
) -> None:
    weights = tmp_path / "models"
    weights.mkdir()
    config = '[server]\nsocket = "{socket}"\n'
    with serving(
        tmp_path, config, python=str(installed.python), CASCADED_MODELS=str(weights), **ALONE
    ) as served:
        with served.client() as client, pytest.raises(APIError, match=r"cascaded\[embedded\]"):
            client.run("What is the capital of France?")
        assert served.end() == 0


def test_uninstalled_it_leaves_nothing(wheel: Path, tmp_path: Path) -> None:
    empty = Installed(tmp_path / "empty")
    before = empty.files()
    empty.pip("install", "--quiet", "--no-deps", wheel)
    assert empty.files() > before
    empty.pip("uninstall", "--quiet", "--yes", "cascaded")
    assert empty.files() == before
