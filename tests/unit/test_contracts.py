"""The import contracts hold, and each is seen to fail on a planted violation."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cascaded"

VIOLATIONS = [
    pytest.param(
        "policy/planted.py", "import cascaded.state", "A floor imports", id="wing-to-wing"
    ),
    pytest.param("types/planted.py", "import cascaded.wire", "A floor imports", id="ground-up"),
    pytest.param("pipeline/planted.py", "import cascaded.api", "A floor imports", id="floor-up"),
    pytest.param("utils.py", "", "A floor imports", id="a-module-without-a-floor"),
    pytest.param(
        "api/planted.py", "import cascaded.adapters.clock", "composition root names", id="adapters"
    ),
    pytest.param(
        "cli/planted.py",
        "import cascaded.providers.openai_compatible",
        "composition root names",
        id="providers",
    ),
    pytest.param(
        "pipeline/planted.py", "import cascaded.config", "read the configuration", id="config"
    ),
    pytest.param("policy/planted.py", "import asyncio", "touch neither time", id="pure-asyncio"),
    pytest.param("wire/planted.py", "import random", "touch neither time", id="pure-random"),
    pytest.param("types/planted.py", "import time", "touch neither time", id="pure-time"),
    pytest.param("client/planted.py", "import aiohttp", "imports nothing heavy", id="client"),
    pytest.param(
        "pipeline/stages/planted.py",
        "import cascaded.pipeline.stages.guard",
        "Stages do not see",
        id="stages",
    ),
    pytest.param(
        "providers/planted.py",
        "import cascaded.providers.openai_compatible",
        "Providers do not see",
        id="siblings-providers",
    ),
    pytest.param(
        "adapters/planted.py", "import cascaded.adapters.clock", "Adapters do not", id="siblings"
    ),
    pytest.param(
        "policy/routing/planted.py",
        "import cascaded.policy.pricing",
        "rooms of policy",
        id="policy-rooms",
    ),
]


def lint(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Check the contracts against the package in this folder."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package to plant something in."""
    without = shutil.ignore_patterns("__pycache__", "*.so", "data")
    shutil.copytree(PACKAGE, tmp_path / "cascaded", ignore=without)
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def test_the_contracts_hold(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("file", "line", "contract"), VIOLATIONS)
def test_a_planted_violation_is_caught(copy: Path, file: str, line: str, contract: str) -> None:
    (copy / "cascaded" / file).write_text(f'"""Planted."""\n{line}\n')
    result = lint(copy)
    assert result.returncode != 0, f"{line!r} in {file} was not seen"
    broken = [row for row in result.stdout.splitlines() if "BROKEN" in row]
    assert any(contract in row for row in broken), result.stdout


CORE_USERS = {
    "policy",
    "policy/guardrails",
    "policy/quality",
    "policy/routing",
    "policy/tokens",
    "adapters/onnx",
    "config",
    "state",
}
"""Who may call the compiled core: import-linter cannot see into it."""


def core_importers(package: Path) -> set[str]:
    """The folders of the modules that import `cascaded._core`."""
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            if any(name.startswith("cascaded._core") for name in names):
                found.add(str(path.parent.relative_to(package)))
    return found


def test_the_compiled_core_has_few_users(copy: Path) -> None:
    assert core_importers(PACKAGE) == CORE_USERS
    (copy / "cascaded" / "api" / "planted.py").write_text("from cascaded import _core\n")
    assert core_importers(copy / "cascaded") == CORE_USERS | {"api"}
