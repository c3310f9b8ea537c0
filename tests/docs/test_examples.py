"""Every client in examples/clients, as it stands there, beside a daemon."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest

from cascaded.client import Client
from tests.docs.test_cookbook import (
    ANSWER,
    INSTALL_WITHIN_S,
    QUESTION,
    START_WITHIN_S,
    free_port,
    serving,
    spent,
)
from tests.docs.test_snippets import ROOT
from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.process import environ
from tests.support.upstream import Says, Upstream

CLIENTS = ROOT / "examples" / "clients"
KEY = "sk-of-the-application-itself"
PACKAGES = ("openai@6.49.0", "undici@7.30.2")
DAEMON = CASCADE.replace("[server]", '[server]\ntcp = "127.0.0.1:0"').replace(
    "[ledger]", '[server.tcp_keys]\nmy-app = "env:APP_KEY"\n\n[ledger]', 1
)
LIMITED = """
[limits.users.ids.poor]
daily_usd = "0.000001"
[limits.users.ids.alice]
daily_usd = 1
[limits.tiers.ids.pro]
daily_usd = 100
"""
PROGRAMS = {
    "openai_sdk.py": (("openai",), 2),
    "anthropic_sdk.py": (("anthropic",), 2),
    "langchain_both.py": (("langchain_openai", "langchain_anthropic"), 4),
    "litellm_sdk.py": (("litellm",), 1),
}
"""What each needs, and how often it is answered."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with (
        upstream_server(Upstream()) as upstream,
        daemon_with(DAEMON + LIMITED, url=upstream.url, APP_KEY=KEY) as daemon,
    ):
        upstream.on("cheap", Says(ANSWER))
        yield daemon


def run(command: list[str], daemon: Daemon, folder: Path) -> str:
    with closing(daemon.tcp()) as door:
        url = str(door.base_url).rstrip("/")
    ended = subprocess.run(
        command,
        cwd=folder,
        env=environ(CASCADED_SOCKET=daemon.socket, CASCADED_URL=url, CASCADED_KEY=KEY),
        capture_output=True,
        text=True,
        timeout=START_WITHIN_S * 2,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_client_is_run() -> None:
    here = {path.name for path in CLIENTS.iterdir() if path.is_file()}
    assert here == {*PROGRAMS, "fastapi_app.py", "ask.sh", "node_openai.mjs"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str, daemon: Daemon, tmp_path: Path) -> None:
    packages, times = PROGRAMS[name]
    missing = [one for one in packages if find_spec(one) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    said = run([sys.executable, str(CLIENTS / name)], daemon, tmp_path)
    assert said.count(ANSWER) == times, said
    if "cost:" in said:
        assert "0.0000045" in said or "4.5e-06" in said, said


def test_curl(daemon: Daemon, tmp_path: Path) -> None:
    said = run(["sh", str(CLIENTS / "ask.sh"), QUESTION], daemon, tmp_path)
    assert '"allowed":true' in said
    assert '"finish_reason": "stop"' in said or '"finish_reason":"stop"' in said
    assert "data: [DONE]" in said
    assert spent(daemon, "user", "alice") > 0


def test_fastapi(daemon: Daemon, tmp_path: Path) -> None:
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        pytest.skip("needs fastapi and uvicorn: pip install --group cookbook")
    shutil.copy(CLIENTS / "fastapi_app.py", tmp_path)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", str(port)]
    with (
        serving(command, daemon, tmp_path, port) as url,
        httpx2.Client(base_url=url, timeout=START_WITHIN_S, trust_env=False) as http,
    ):
        asked = {"question": QUESTION}
        good = http.get("/ask", params=asked, headers={"customer": "carol", "tier": "pro"})
        poor = http.get("/ask", params=asked, headers={"customer": "poor", "tier": "pro"})
    assert (good.status_code, good.text) == (200, ANSWER)
    assert poor.status_code == 402
    assert "budget" in poor.text
    with Client(daemon.socket) as client:
        assert client.summary("carol").requests_today == 1


def test_node(daemon: Daemon, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm")
    install = [npm, "install", "--no-audit", "--no-fund", "--silent", *PACKAGES]
    try:
        subprocess.run(install, cwd=tmp_path, timeout=INSTALL_WITHIN_S, check=True)
    except subprocess.SubprocessError as error:
        pytest.skip(f"npm cannot fetch {', '.join(PACKAGES)}: {error}")
    shutil.copy(CLIENTS / "node_openai.mjs", tmp_path)
    assert run([node, "node_openai.mjs"], daemon, tmp_path).splitlines() == [ANSWER, ANSWER]
