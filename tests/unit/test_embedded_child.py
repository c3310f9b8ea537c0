"""What the child process does, in this process and with a stand-in for llama.cpp."""

import ctypes
import importlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cascaded.providers.children import life
from cascaded.providers.embedded import child

PARENT_PID = 4711


@pytest.fixture
def settings(tmp_path: Path) -> child.Settings:
    return child.Settings(
        parent_pid=PARENT_PID,
        name="m",
        weights="/w.gguf",
        socket=str(tmp_path / "s.sock"),
        api_key="secret",
        context_tokens=100,
        slots=3,
        threads=2,
    )


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A runtime that notes its parameters; `address` is what it says it listens on."""
    noted: dict[str, Any] = {"address": None}

    def server(params: Any) -> object:
        noted["params"] = params
        return SimpleNamespace(
            listening_address=noted["address"] or f"unix://{params.hostnames[0]}"
        )

    def params() -> object:
        parts = ("model", "cpuparams", "cpuparams_batch")
        return SimpleNamespace(**{part: SimpleNamespace() for part in parts})

    runtime = SimpleNamespace(CommonParams=params, Server=server)
    monkeypatch.setattr(importlib, "import_module", lambda name: runtime)
    return noted


def test_it_listens_on_the_socket_alone_and_wants_the_key(
    settings: child.Settings, seen: dict[str, Any]
) -> None:
    assert child.serve(settings)
    params = seen["params"]
    assert params.hostnames == [settings.socket]
    assert params.api_keys == ["secret"]
    assert params.n_ctx == 300
    assert params.cache_ram_mib == 0
    assert params.no_extra_bufts is True
    assert (params.cpuparams.n_threads, params.cpuparams_batch.n_threads) == (2, 2)


def test_a_runtime_that_listens_elsewhere_is_refused(
    settings: child.Settings, seen: dict[str, Any]
) -> None:
    seen["address"] = "http://127.0.0.1:8080"
    with pytest.raises(RuntimeError, match="listens on http"):
        child.serve(settings)


def test_the_log_starts_over_when_it_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "LOG_BYTES_MAX", 10)
    with (tmp_path / "log").open("ab", buffering=0) as log:
        log.write(b"0123456789")
        life.bound_log(log.fileno())
        assert (tmp_path / "log").read_bytes() == b"0123456789"
        log.write(b"x")
        life.bound_log(log.fileno())
        log.write(b"new")
    assert (tmp_path / "log").read_bytes() == b"new"


@pytest.fixture
def prctl(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []
    library = SimpleNamespace(prctl=lambda *words: calls.append(words))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(life, "_OOM_FIRST", Path("/proc/self/oom_score_adj").read_text().strip())
    return calls


def test_it_asks_the_kernel_to_die_with_its_parent(prctl: list[tuple[int, int]]) -> None:
    life.die_with_parent(os.getppid())
    assert prctl == [(1, signal.SIGKILL)]


def test_a_parent_that_died_first_is_noticed(
    prctl: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(sys, "platform", "other")
    life.die_with_parent(PARENT_PID)
    assert left == [0]
    assert prctl == []


class _Left(BaseException):
    pass


def test_it_leaves_when_its_stdin_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[list[int]] = iter([[], [0], [0]])
    words = iter([b"x", b""])
    bounded: list[int] = []

    def leave(code: int) -> None:
        raise _Left(code)

    monkeypatch.setattr(select, "select", lambda *_: (next(answers), [], []))
    monkeypatch.setattr(life, "bound_log", bounded.append)
    monkeypatch.setattr(os, "read", lambda *_: next(words))
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(_Left):
        life.watch_parent()
    assert bounded == [2, 2]
