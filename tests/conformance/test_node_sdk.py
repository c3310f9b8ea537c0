"""Node's official SDK, unchanged, over the socket. Skipped without Node or the package."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import CASCADE, daemon_with
from tests.support.upstream import Says, Upstream

PACKAGE = "openai@6.49.0"
SCRIPT = Path(__file__).parent / "node" / "over_socket.mjs"
INSTALL_WITHIN_S = 60
GOOD = "The capital of France is Paris."


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not here")
    folder = tmp_path_factory.mktemp("node")
    quiet = ("--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder))
    try:
        made = subprocess.run(
            [npm, "install", *quiet, PACKAGE],
            capture_output=True,
            timeout=INSTALL_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not fetch {PACKAGE} within {INSTALL_WITHIN_S} s")
    if made.returncode:
        pytest.skip(f"npm cannot fetch {PACKAGE}")
    return folder


def test_it_speaks_as_it_is(installed: Path, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD))
    upstream.on("strong", Says(GOOD, chunks=4))
    with daemon_with(CASCADE, url=upstream.url) as daemon:
        said = subprocess.run(
            ["node", str(SCRIPT), daemon.socket],
            cwd=installed,
            capture_output=True,
            timeout=INSTALL_WITHIN_S,
            check=False,
        )
    assert said.returncode == 0, said.stderr.decode()
    told: dict[str, Any] = json.loads(said.stdout)
    assert told["plain"] == told["streamed"] == told["continued"] == GOOD
    assert (told["usage"]["prompt_tokens"], told["usage"]["cost"]) == (10, 0.000075)
    assert told["vectors"] == [[0.25, -0.5, 1.0]] * 2
    assert told["response"] == told["words"] == told["helped"] == GOOD
    assert told["last"] == "response.completed"
    assert told["gone"] == {"name": "NotFoundError", "code": "not_found"}
    missing, absurd = told["failed"]["cascade/none"], told["failed"]["cheap"]
    assert (missing["name"], missing["code"]) == ("NotFoundError", "model_not_found")
    assert (absurd["name"], absurd["status"]) == ("BadRequestError", 400)
    assert missing["id"]
    assert told["models"] == ["auto", "cascade/default", "cheap", "strong"]
    assert told["one"] == "auto"
