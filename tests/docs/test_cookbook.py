"""Every application of the cookbook is started as its page says, and asked by two customers."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest

from cascaded.client import Client
from tests.docs.test_snippets import ROOT
from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.process import environ, wait_for
from tests.support.snippets import snippets
from tests.support.upstream import Says, Upstream

COOKBOOK = ROOT / "docs" / "cookbook.md"
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
USED_UP = "Your budget is used up."
PACKAGES = ("express@5.3.0", "openai@6.49.0", "undici@7.30.2")
INSTALL_WITHIN_S = 120
START_WITHIN_S = 30
LIMITED = """
[limits.users.ids.poor]
daily_usd = "0.000001"

[limits.tiers.ids.pro]
daily_usd = 100
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with (
        upstream_server(Upstream()) as upstream,
        daemon_with(CASCADE + LIMITED, url=upstream.url) as daemon,
    ):
        upstream.on("cheap", Says(ANSWER))
        yield daemon


def recipe(title: str) -> str:
    """The application under this heading."""
    section = COOKBOOK.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    [text] = [one.text for one in snippets(COOKBOOK) if one.said and one.text in section]
    return text


def needs(*packages: str) -> None:
    missing = [one for one in packages if find_spec(one) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install --group cookbook")


@contextmanager
def serving(command: list[str], daemon: Daemon, folder: Path, port: int) -> Iterator[str]:
    """The application as a process; its address."""
    log = folder / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, cwd=folder, env=around(daemon, port), stdout=said, stderr=said
        )
    try:
        wait_for(lambda: process.poll() is not None or answers(port), START_WITHIN_S)
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def around(daemon: Daemon, port: int) -> dict[str, str]:
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return environ(CASCADED_SOCKET=str(daemon.socket), PYTHONPATH=path, PORT=str(port))


def answers(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        port: int = line.getsockname()[1]
        return port


def asked_by_two(url: str, daemon: Daemon, customer: str) -> None:
    with httpx2.Client(base_url=url, timeout=30, trust_env=False) as http:
        body = {"text": QUESTION}
        good = http.post("/ask", json=body, headers={"Customer": customer})
        refused = http.post("/ask", json=body, headers={"Customer": "poor"})
    assert (good.status_code, refused.status_code) == (200, 402), good.text + refused.text
    assert good.json()["answer"] == ANSWER
    told = refused.json()
    assert told["error"] == USED_UP
    assert told["resets"].endswith("Z")
    assert spent(daemon, "user", customer) > 0
    assert spent(daemon, "tier", "pro") > 0


def spent(daemon: Daemon, scope: str, id: str) -> Decimal | int:
    with Client(daemon.socket) as client:
        return sum(one.posted for one in client.budgets(scope, id))


SERVERS = {
    "FastAPI": (("fastapi", "uvicorn"), ["-m", "uvicorn", "fastapi_app:app", "--port", "{port}"]),
    "Flask": (("flask",), ["-m", "flask", "--app", "flask_app", "run", "--port", "{port}"]),
    "Django": (("django",), ["django_app.py", "runserver", "--noreload", "{port}"]),
}


@pytest.mark.parametrize("title", SERVERS)
def test_servers_in_python(title: str, daemon: Daemon, tmp_path: Path) -> None:
    packages, words = SERVERS[title]
    needs(*packages)
    (tmp_path / f"{title.lower()}_app.py").write_text(recipe(title))
    port = free_port()
    command = [sys.executable, *(word.format(port=port) for word in words)]
    with serving(command, daemon, tmp_path, port) as url:
        asked_by_two(url, daemon, f"of-{title}")


def test_langchain(daemon: Daemon, tmp_path: Path) -> None:
    needs("langchain_openai")
    program = tmp_path / "langchain_app.py"
    program.write_text(recipe("LangChain") + f'print(ask("poor", {QUESTION!r}))\n')
    ended = subprocess.run(
        [sys.executable, str(program)],
        env=around(daemon, 0),
        capture_output=True,
        text=True,
        timeout=START_WITHIN_S,
        check=False,
    )
    assert ended.stdout.splitlines() == [ANSWER, USED_UP], ended.stderr
    assert spent(daemon, "user", "alice") > 0


def test_express(daemon: Daemon, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm")
    install = [npm, "install", "--no-audit", "--no-fund", "--silent", *PACKAGES]
    try:
        subprocess.run(install, cwd=tmp_path, timeout=INSTALL_WITHIN_S, check=True)
    except subprocess.SubprocessError as error:
        pytest.skip(f"npm cannot fetch {', '.join(PACKAGES)}: {error}")
    (tmp_path / "express_app.mjs").write_text(recipe("Express"))
    port = free_port()
    with serving([node, "express_app.mjs"], daemon, tmp_path, port) as url:
        asked_by_two(url, daemon, "of-express")
