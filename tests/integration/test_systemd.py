"""The daemon as a service of systemd: what it is handed, what it tells, restarts under load."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from cascaded.models.catalogue import find
from cascaded.models.folder import look, models_folder
from tests.support import sandboxed
from tests.support.daemon import CASCADE, upstream_server
from tests.support.process import environ, wait_for
from tests.support.systemd import Unit, unit
from tests.support.upstream import Says, Upstream

GOOD = "The capital of France is Paris."
LOG = '[log]\nfile = "{folder}/log.jsonl"'
MODEL = "smollm2-135m-instruct"
CALLERS, CALLS_BETWEEN = 8, 50


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as running:
        running.on("strong", Says(GOOD, delay_s=0.05))
        yield running


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("u")


@pytest.fixture
def toml(upstream: Upstream) -> str:
    text = CASCADE.replace("{url}", upstream.url).replace(LOG, "")
    return text.replace("drain_timeout_s = 2", "drain_timeout_s = 10")


def start(service: Unit) -> None:
    service.start(env={})


@pytest.mark.parametrize("abstract", [False, True])
def test_it_tells_of_start_reload_life_and_end(folder: Path, toml: str, abstract: bool) -> None:
    with unit(folder, toml, abstract=abstract, watchdog_s=0.2) as service:
        start(service)
        with service.client() as client:
            assert client.run("x", model="strong").content == GOOD
        ticks = sum("WATCHDOG" in note for note in service.told)
        wait_for(lambda: sum("WATCHDOG" in note for note in service.told) > ticks + 3)

        before_us = time.monotonic_ns() // 1000
        service.send(signal.SIGHUP)
        wait_for(lambda: service.states() == ["READY", "RELOADING", "READY"])
        [reloading] = [note for note in service.told if "RELOADING" in note]
        assert before_us <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000

        (folder / "d.toml").write_text("[sever]\n")
        service.send(signal.SIGHUP)
        wait_for(lambda: service.states().count("READY") == 3)
        told = [note["STATUS"] for note in service.told if "READY" in note]
        assert told[:2] == ["serving", "serving"]
        assert 'did you mean "server"' in told[2]

        assert service.stop() == 0
        [stopping] = [note for note in service.told if "STOPPING" in note]
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 10_000_000
        assert (folder / "d.sock").exists(), "the socket is systemd's"
        assert sorted(path.name for path in folder.glob("d.sock*")) == ["d.sock"]


def test_reloads_and_restarts_under_load_fail_no_call(folder: Path, toml: str) -> None:
    """Callers that keep their connections, while the daemon reloads and is restarted."""
    done, answered, failed = threading.Event(), [], []

    def call() -> None:
        transport = httpx2.HTTPTransport(uds=str(folder / "d.sock"))
        with httpx2.Client(transport=transport, base_url="http://localhost", timeout=30) as client:
            while not done.is_set():
                try:
                    answer = client.post("/infer", json={"query": "x", "model": "strong"})
                    answered.append(answer.status_code)
                except httpx2.HTTPError as error:
                    failed.append(repr(error))

    def hear_more() -> None:
        seen = len(answered)
        wait_for(lambda: len(answered) > seen + CALLS_BETWEEN, 20)

    with unit(folder, toml) as service:
        start(service)
        callers = [threading.Thread(target=call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for _ in range(2):
            hear_more()
            service.send(signal.SIGHUP)
            hear_more()
            assert service.stop() == 0
            start(service)
        hear_more()
        done.set()
        for caller in callers:
            caller.join(30)
        assert service.stop() == 0
        assert not failed, failed
        assert set(answered) == {200}
        assert "drain_cut_short" not in service.log
        assert '"charged":0' in service.log
        assert service.log.count('"ready"') == 3


def test_a_start_that_fails_tells_nothing(folder: Path) -> None:
    with unit(folder, "[sever]\n") as service:
        service.start(env={}, ready=False)
        assert service.process is not None
        assert service.process.wait(20) == 78
        assert service.told == []


@pytest.mark.parametrize("kind", ["tcp", "two", "not listening"])
def test_other_sockets_are_refused_in_plain_words(folder: Path, kind: str) -> None:
    family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
    (folder / "d.toml").write_text(f'[server]\nsocket = "{folder}/e.sock"\n')
    with socket.socket(family) as passed:
        passed.bind(("127.0.0.1", 0) if kind == "tcp" else str(folder / "d.sock"))
        if kind != "not listening":
            passed.listen()
        count, fd = ("2" if kind == "two" else "1"), passed.fileno()
        ran = subprocess.run(
            [
                *("bash", "-c", f'export LISTEN_PID=$$; exec "$@" 3<&{fd} 4<&{fd}', "bash"),
                *(sys.executable, "-m", "cascaded", "serve", "--config", str(folder / "d.toml")),
            ],
            pass_fds=(fd,),
            env=environ(LISTEN_FDS=count, STATE_DIRECTORY=str(folder / "state")),
            capture_output=True,
            timeout=20,
            check=False,
        )
    assert ran.returncode == 1
    assert b"one ListenStream=/path" in ran.stderr
    assert b"Traceback" not in ran.stderr


def test_peers_are_known_over_a_passed_socket(folder: Path, toml: str) -> None:
    with unit(folder, toml) as service:
        start(service)
        with service.client() as client:
            assert client.unknowns() == [], "that is for the daemon's own user"


# The units themselves.

UNITS = Path(__file__).parents[2] / "systemd"
EXPOSURE_MAX = 2.0
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="needs systemd-analyze: on Debian and Ubuntu, apt-get install systemd",
)


def run(*words: str, **env: str) -> str:
    """Everything that a command says; it must succeed."""
    ran = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, **env}, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@needs_systemd
@pytest.mark.parametrize("scope", ["system", "user"])
def test_the_units_are_sound(scope: str, tmp_path: Path) -> None:
    folder = UNITS if scope == "system" else UNITS / scope
    units = [str(folder / f"cascaded.{kind}") for kind in ("service", "socket")]
    said = run("systemd-analyze", "verify", f"--{scope}", *units, XDG_RUNTIME_DIR=str(tmp_path))
    assert said == ""


@needs_systemd
def test_the_service_is_shut_in() -> None:
    words = ("security", "--offline=true", "--json=short", str(UNITS / "cascaded.service"))
    rows = json.loads(run("systemd-analyze", *words))
    assert not {"PrivateUsers", "PrivateUsers="} & {row["name"] for row in rows if row["set"]}
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", words[-1])
    exposure = re.search(r"Overall exposure level for cascaded.service: ([0-9.]+)", said)
    assert exposure is not None
    assert float(exposure[1]) <= EXPOSURE_MAX


@pytest.mark.skipif(
    shutil.which("systemd-sysusers") is None or os.geteuid() != 0,
    reason="needs root and systemd-sysusers: on Debian and Ubuntu, apt-get install systemd",
)
def test_the_user_and_the_folders_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    run("systemd-sysusers", f"--root={tmp_path}", str(UNITS / "sysusers.conf"))
    passwd = (tmp_path / "etc/passwd").read_text()
    user = next(line.split(":") for line in passwd.splitlines() if line.startswith("cascaded:"))
    run("systemd-tmpfiles", "--create", f"--root={tmp_path}", str(UNITS / "tmpfiles.conf"))
    facts = {
        name: (tmp_path / name).stat() for name in ("run/cascaded", "etc/cascaded/credentials")
    }
    assert str(facts["run/cascaded"].st_uid) == user[2]
    assert stat.S_IMODE(facts["etc/cascaded/credentials"].st_mode) == 0o700


@needs_systemd
@pytest.mark.models
@pytest.mark.skipif(not sandboxed.there(), reason="needs libseccomp2 and a Linux of 6.3 or newer")
def test_the_daemon_and_a_model_work_in_the_sandbox(folder: Path) -> None:
    """No memory both writable and executable, and the unit's filter of system calls: as far as a
    sandbox can be closed without systemd."""
    pytest.importorskip("xllamacpp", reason="needs `pip install 'cascaded[embedded]'`")
    if not look(find(MODEL), models_folder(os.environ)).usable:
        pytest.skip(f"needs the weights: `cascaded models pull {MODEL}`")
    with unit(
        folder, '[server]\nsocket = "{socket}"\n[ledger]\ndir = "{folder}/state"\n'
    ) as service:
        service.start(env={}, launcher=(sys.executable, sandboxed.__file__))
        with service.client() as client:
            assert client.run("Say yes.", model=MODEL, max_tokens=5).content
        assert service.stop() == 0


@needs_systemd
@pytest.mark.skipif(not sandboxed.there(), reason="needs libseccomp2 and a Linux of 6.3 or newer")
def test_long_questions_are_answered_in_the_sandbox(folder: Path) -> None:
    """By processes that may not change their priority there."""
    with unit(
        folder, '[server]\nsocket = "{socket}"\n[ledger]\ndir = "{folder}/state"\n'
    ) as service:
        service.start(env={}, launcher=(sys.executable, sandboxed.__file__))
        with service.client() as client:
            assert not client.forecast().firm
            with client.export() as export:
                assert not list(export.rows())
        assert service.stop() == 0
