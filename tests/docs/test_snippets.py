"""Every command and every snippet of the documents is run.

- `toml` is a configuration, alone or after those above it in its document;
- `python` blocks of one document are one program, beside a daemon;
- `sh` blocks are run each for itself, in an empty home, beside a daemon whose socket is `$SOCKET`.

A comment right above a block says otherwise: `<!-- not run: why -->`, or
`<!-- run by: tests/… -->`, which must be a test that takes the block from the document.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascaded.config import Config, load
from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.process import environ
from tests.support.snippets import Snippet, snippets
from tests.support.upstream import Says, Upstream

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for folder in (ROOT, *(ROOT / "docs").rglob(""))
    for path in folder.glob("*.md")
    if path.name != "CHANGELOG.md"
)
KINDS = {"toml", "python", "sh", "json", "text", "yaml", "ini", "js"}
SOCKET, BACKUP = "/run/user/1000/cascaded.sock", "/safe/place"
"""How documents write where a person's daemon listens, and where a backup goes."""
WITHIN_S = 60
DATABASE = {"DATABASE_URL": "postgresql://reader@db.example/app"}
LIMITED = """
[limits]
zone = "UTC"

[limits.users.default]
daily_usd = 10
"""


def named(document: Path) -> str:
    return str(document.relative_to(ROOT))


def of_kind(document: Path, kind: str) -> list[Snippet]:
    return [one for one in snippets(document) if one.kind == kind and not one.said]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with (
        upstream_server(Upstream()) as upstream,
        daemon_with(CASCADE + LIMITED, url=upstream.url) as daemon,
    ):
        upstream.on("cheap", *[Says("The capital of France is Paris.")] * 99)
        yield daemon


def with_documents(kind: str) -> pytest.MarkDecorator:
    documents = [one for one in DOCUMENTS if of_kind(one, kind)]
    return pytest.mark.parametrize("document", documents, ids=named)


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_what_is_not_run_here_says_why(document: Path) -> None:
    for one in snippets(document):
        assert one.kind in KINDS, f"{named(document)}:{one.line}: what is {one.kind!r}?"
        test = one.about("run by")
        if test is not None:
            assert document.name in (ROOT / test).read_text(), f"{test} does not take it"
        elif one.said:
            assert one.about("not run"), f"{named(document)}:{one.line}: {one.said!r}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        if "://" not in path:
            target = document.parent / path if path else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@with_documents("toml")
def test_configurations_are_right(document: Path) -> None:
    above = ""
    for one in of_kind(document, "toml"):
        alone = read(one.text)
        if isinstance(alone, Config):
            above = one.text
            continue
        above += "\n" + one.text
        together = read(above)
        assert isinstance(together, Config), f"{named(document)}:{one.line}: {alone} {together}"


def read(text: str) -> object:
    env = dict.fromkeys(re.findall(r"env:(\w+)", text), "a-secret") | DATABASE
    return load(
        text.encode(), source_name="doc.toml", env=env, read_file=lambda _: b"a-secret-of-a-file"
    )


@with_documents("python")
def test_programs_run(document: Path, daemon: Daemon, tmp_path: Path) -> None:
    blocks = of_kind(document, "python")
    # An empty line for every line above a block: errors name the document's own lines.
    program = ""
    for one in blocks:
        program += "\n" * (one.line - program.count("\n")) + one.text
    script = tmp_path / document.with_suffix(".py").name
    script.write_text(placed(program, daemon, tmp_path))
    done(run([sys.executable, str(script)], daemon, tmp_path), document)


@with_documents("sh")
def test_commands_run(document: Path, daemon: Daemon, tmp_path: Path) -> None:
    for one in of_kind(document, "sh"):
        command = placed(one.text, daemon, tmp_path)
        ended = run(["bash", "-euo", "pipefail", "-c", command], daemon, tmp_path)
        done(ended, document, one.line)


def placed(text: str, daemon: Daemon, folder: Path) -> str:
    usual = folder / "cascaded.sock"
    if not usual.exists():
        usual.symlink_to(daemon.socket)
    return text.replace(SOCKET, str(daemon.socket)).replace(BACKUP, str(folder / "backup"))


def run(command: list[str], daemon: Daemon, folder: Path) -> "subprocess.CompletedProcess[str]":
    scripts = Path(sys.executable).parent
    return subprocess.run(
        command,
        cwd=folder,
        env=environ(
            CASCADED_SOCKET=str(daemon.socket),
            SOCKET=str(daemon.socket),
            HOME=str(folder),
            PATH=f"{scripts}:{os.environ['PATH']}",
            PYTHONPATH=str(ROOT),
            XDG_RUNTIME_DIR=str(folder),
        ),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


def done(ended: "subprocess.CompletedProcess[str]", document: Path, line: int = 0) -> None:
    assert ended.returncode == 0, f"{named(document)}:{line}\n{ended.stdout}{ended.stderr}"
