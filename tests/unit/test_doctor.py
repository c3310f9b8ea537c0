"""`cascaded doctor`: each thing that can be wrong with a machine, made wrong."""

import ctypes
import fcntl
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from click.testing import CliRunner, Result

from cascaded.cli import cascaded
from cascaded.cli import doctor as command
from cascaded.cli.doctor import door, machine, state, upstreams
from cascaded.cli.doctor.finding import Finding
from cascaded.cli.show import MIB
from cascaded.config.schema import Config, LiteLLM, OpenAICompatible, Provider, Server
from cascaded.types.secret import Secret

KEY = "sk-this-is-never-shown"


def said(findings: "list[Finding] | Iterator[Finding]") -> list[tuple[str, str]]:
    return [(one.verdict, one.message) for one in findings]


def wrong(findings: "list[Finding] | Iterator[Finding]") -> list[tuple[str, str]]:
    bad = [one for one in findings if one.verdict != "ok"]
    assert all(one.advice for one in bad)
    return said(bad)


# --- the state folder ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder with nothing wrong."""
    folder = tmp_path / "state"
    (folder / "ledger").mkdir(parents=True)
    folder.chmod(0o700)
    monkeypatch.setattr(state, "FLUSHES", 3)
    monkeypatch.setattr(state, "SLOW_P99_MS", 1e6)
    monkeypatch.setattr(state, "LITTLE_BYTES", 1)
    monkeypatch.setattr(state, "TOO_LITTLE_BYTES", 1)
    monkeypatch.setattr(state, "filesystem", lambda *_: "ext4")
    return folder


def look(folder: Path, *, served: bool = False) -> list[Finding]:
    return list(state.look(folder, datetime.now(UTC), served=served))


def test_a_sound_state_folder(folder: Path) -> None:
    found = look(folder)
    assert wrong(found) == []
    assert [message.split(" ")[0] for _, message in said(found)][1].replace(",", "").isdecimal()
    assert any("a flush takes" in message for _, message in said(found))
    assert list(folder.iterdir()) == [folder / "ledger"], "nothing is left behind"


def test_a_state_folder_that_is_not_there(folder: Path) -> None:
    [first, *rest] = look(folder / "deep" / "down")
    assert "the first start makes it" in first.message
    assert wrong(rest) == []


def test_who_may_read_and_write_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.chmod(0o755)
    assert wrong(look(folder)) == [("warning", f"everybody may read {folder}")]
    folder.chmod(0o770)
    assert wrong(look(folder)) == [("problem", f"others may write {folder}")]
    folder.chmod(0o700)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert wrong(look(folder)) == [
        ("problem", f"{folder} may not be written by uid {uid + 1}"),
        ("warning", f"{folder} belongs to uid {uid}"),
    ]


@pytest.mark.parametrize(
    ("kind", "verdict"), [("tmpfs", "problem"), ("nfs4", "warning"), ("", "ok")]
)
def test_where_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, verdict: str
) -> None:
    monkeypatch.setattr(state, "filesystem", lambda *_: kind)
    assert verdict in {one.verdict for one in look(folder)}


def test_file_systems_are_told_apart(tmp_path: Path) -> None:
    lines = [
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw",
        f"22 21 0:5 / {tmp_path} rw shared:1 - tmpfs tmpfs rw",
        "nonsense",
    ]
    assert state.filesystem(tmp_path / "x", "\n".join(lines)) == "tmpfs"
    assert state.filesystem(Path("/usr"), "\n".join(lines)) == "ext4"
    assert state.filesystem(Path("/usr"), "") == ""
    assert state._read(tmp_path / "nothing") == ""


@pytest.mark.parametrize(
    ("free", "inodes", "verdict"),
    [(64 * MIB, 5, "problem"), (512 * MIB, 5, "warning"), (9000 * MIB, 0, "problem")],
)
def test_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch, free: int, inodes: int, verdict: str
) -> None:
    monkeypatch.setattr(state, "LITTLE_BYTES", 1024 * MIB)
    monkeypatch.setattr(state, "TOO_LITTLE_BYTES", 128 * MIB)
    told = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_files=9, f_favail=inodes)
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    assert [one for one, _ in wrong(look(folder))] == [verdict]


def test_a_slow_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "SLOW_P99_MS", 0.0)
    [(verdict, message)] = wrong(look(folder))
    assert verdict == "warning"
    assert "a flush takes" in message

    def fails(_: Path) -> state.Flushes:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(state, "flushes", fails)
    assert "could not be timed (Read-only" in wrong(look(folder))[0][1]


def test_flushes_take_a_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "FLUSHES_WITHIN_S", -1.0)
    found = state.flushes(tmp_path)
    assert 0 < found.p50_ms == found.p99_ms


def test_another_daemon_has_it(folder: Path) -> None:
    lock = folder / "ledger" / "lock"
    lock.write_text("4711\n")
    assert wrong(look(folder)) == []
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert wrong(look(folder, served=True)) == []
        told = [("problem", f"another daemon (pid 4711) has {folder} open")]
        assert wrong(look(folder)) == told


def test_a_clock_that_was_set_back(folder: Path) -> None:
    ahead = (datetime.now(UTC) + timedelta(hours=1)).timestamp()
    journal = folder / "ledger" / "journal"
    journal.write_text("")
    os.utime(journal, (ahead, ahead))
    [(verdict, message)] = wrong(look(folder))
    assert verdict == "problem"
    assert "s in the future of this clock" in message


# --- the socket ----------------------------------------------------------------------------------


def test_no_daemon(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "d.sock", tmp_path / "d.sock"):
        findings, served = door.look(path)
        assert [one.verdict for one in findings] == ["ok"]
        assert not served


def test_what_is_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    path.write_text("")
    assert wrong(door.look(path)[0]) == [("problem", f"{path} is there and is no socket")]


def test_a_stale_socket_and_a_silent_daemon(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as once:
        once.bind(str(path))
    assert wrong(door.look(path)[0]) == [("warning", f"{path} is stale: nobody serves it")]
    lock = tmp_path / "d.sock.lock"
    lock.write_text("")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        [(verdict, message)] = wrong(door.look(path)[0])
    assert verdict == "problem"
    assert "the daemon (pid unknown) does not answer" in message


def test_folders_that_others_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    assert wrong(door.look(tmp_path / "d.sock")[0])[0][1].endswith("may be written by anybody")
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 4242, -1) if os.getuid() == 0 else None
    monkeypatch.setattr(os, "getuid", lambda: 77)
    assert "belongs to another user" in wrong(door.look(tmp_path / "d.sock")[0])[0][1]


def test_a_daemon_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    body = b'{"status": "ok", "version": "0.0.9"}'
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            with server.accept()[0] as caller:
                caller.recv(65_536)
                caller.sendall(head + body)

        thread = threading.Thread(target=answer)
        thread.start()
        findings, served = door.look(path)
        thread.join()
    assert served
    assert [one.verdict for one in findings] == ["warning"]
    assert "is version 0.0.9" in findings[0].message


# --- the machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("synchronised", "verdicts"), [(True, ["ok"]), (False, ["warning"]), (None, ["ok"])]
)
def test_the_clock(
    monkeypatch: pytest.MonkeyPatch, synchronised: bool | None, verdicts: list[str]
) -> None:
    monkeypatch.setattr(machine, "_synchronised", lambda: synchronised)
    monkeypatch.setattr(machine, "SLEPT_S", 1e12)
    assert [one.verdict for one in machine.clock(datetime.now(UTC))] == verdicts


def test_a_clock_that_was_never_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SLEPT_S", -1.0)
    findings = list(machine.clock(datetime(1970, 1, 1, tzinfo=UTC)))
    assert (findings[0].verdict, findings[0].message) == ("problem", "it says 1970-01-01")
    assert "the machine slept" in findings[-1].message


def test_what_the_kernel_says_of_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine._synchronised() in (True, False, None)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(adjtimex=lambda _: -1))
    assert machine._synchronised() is None
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    assert machine._synchronised() is None


def test_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(server=Server(max_concurrency=1000))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    [(verdict, message)] = wrong(machine.limits(config))
    assert (verdict, message) == ("warning", "1,024 open files are allowed, 2,256 may be needed")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert wrong(machine.limits(config)) == []


def test_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(machine.software(Config())) == []
    needed = ["aiohttp>=3", "not-there>=1 ; python_version > '3'", "x ; extra == 'y'"]
    monkeypatch.setattr(machine, "requires", lambda _: needed)
    assert wrong(machine.software(Config())) == [("problem", "missing: not-there")]


def test_what_a_kind_of_provider_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Config(providers={"many": LiteLLM(), "again": LiteLLM()})
    monkeypatch.setattr(machine, "_version", lambda name: None if name == "litellm" else "1")
    [found] = [one for one in machine.software(one) if one.verdict != "ok"]
    assert found.message == "a provider needs LiteLLM, which is not installed"
    assert found.advice == "pip install 'cascaded[litellm]'"


# --- providers -----------------------------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    """Answers with the status that the path names; `0` keeps silent."""

    def do_GET(self) -> None:
        status = int(self.path.split("/")[1])
        if not status:
            time.sleep(1.0)
            return
        self.server.seen = dict(self.headers)  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def upstream(server: ThreadingHTTPServer, status: int, **settings: Any) -> OpenAICompatible:
    url = f"http://127.0.0.1:{server.server_port}/{status}"
    key = Secret(KEY, source="env:KEY")
    return OpenAICompatible(base_url=url, **{"api_key": key, **settings})


@pytest.mark.parametrize(
    ("status", "verdict", "words"),
    [
        (200, "ok", "p: answers 200 in"),
        (429, "ok", "answers 429"),
        (401, "problem", "the key is refused (env:KEY)"),
        (403, "problem", "the key is refused"),
        (404, "warning", "it has no list of models"),
        (400, "warning", "answers 400"),
        (503, "warning", "it is unwell"),
        (0, "problem", "no answer within 0.3 s"),
    ],
)
def test_how_providers_answer(
    server: ThreadingHTTPServer, status: int, verdict: str, words: str
) -> None:
    deadline_s = 30 if status else 0.3  # 0 stands for no answer at all
    [finding] = upstreams.look({"p": upstream(server, status)}, deadline_s)
    assert finding.verdict == verdict
    assert words in finding.message
    assert KEY not in finding.message + finding.advice


def test_the_key_and_headers_are_sent(server: ThreadingHTTPServer) -> None:
    headers = {"x-own": Secret("hidden-too", source="env:OWN")}
    upstreams.look({"p": upstream(server, 200, headers=headers)})
    seen = server.seen  # type: ignore[attr-defined]
    assert (seen["Authorization"], seen["x-own"]) == (f"Bearer {KEY}", "hidden-too")


def test_a_provider_that_waits_for_the_callers_keys(server: ThreadingHTTPServer) -> None:
    settings = upstream(server, 401, api_key=None, forward_caller_key=True)
    [finding] = upstreams.look({"p": settings})
    assert finding.verdict == "ok"
    [finding] = upstreams.look({"p": upstream(server, 401, api_key=None)})
    assert "no key is set" in finding.message


def test_providers_that_cannot_be_reached(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    proxy = Secret(f"http://u:passw0rd@127.0.0.1:{server.server_port}", source="env:P")
    found: dict[str, Provider] = {
        "nobody": OpenAICompatible(base_url="http://127.0.0.1:1/v1"),
        "no-name": OpenAICompatible(base_url="http://nothing.invalid/v1"),
        "no-socket": OpenAICompatible(base_url="http://x/v1", uds=str(tmp_path / "x.sock")),
        "no-file": OpenAICompatible(base_url="http://x/v1", ca_file=str(tmp_path / "x.pem")),
        "proxied": OpenAICompatible(base_url="https://x.invalid/v1", proxy=proxy),
    }
    findings = upstreams.look(found)
    assert {one.verdict for one in findings} == {"problem"}
    told = [one.message for one in findings]
    assert told[0] == "nobody: cannot be reached (Connection refused)"
    assert told[1].startswith("no-name: ")
    assert told[2] == "no-socket: cannot be reached (No such file or directory)"
    assert "passw0rd" not in str(findings)
    assert upstreams.look({}) == []


def test_words_for_faults() -> None:
    key = ConnectionKey("h", 443, True, True, None, None, None)
    untrusted = aiohttp.ClientConnectorCertificateError(key, Exception("no"))
    assert "not trusted" in upstreams._why(untrusted)
    assert "ValueError" in upstreams._why(ValueError(KEY))
    assert KEY not in upstreams._why(ValueError(KEY))


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("CASCADED_", "XDG_")) or name.endswith("_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(state, "FLUSHES", 3)


def doctor(*words: str) -> Result:
    return CliRunner().invoke(cascaded, ["doctor", *words])


def test_without_models_there_is_a_problem() -> None:
    result = doctor("--offline", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert {one["area"] for one in found} >= {"config", "clock", "socket", "state", "models"}
    bad = [one for one in found if one["verdict"] == "problem"]
    assert {one["area"] for one in bad} <= {"models", "state"}
    assert any("cascaded models pull" in one["advice"] for one in bad)


def test_for_people(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    file = tmp_path / "c.toml"
    url = f"http://127.0.0.1:{server.server_port}/200"
    file.write_text(
        f'preset = "production"\n[providers.p]\nkind = "openai_compatible"\nbase_url = "{url}"\n'
        '[models."gpt-4o"]\nprovider = "p"\nfree = true\n'
        "[limits.global]\ndaily_usd = 5\nmonthly_usd = 1\n"
    )
    result = doctor("--config", str(file))
    assert "ok       provider: p: answers 200" in result.output
    assert "warning  config: " in result.output
    assert "→ look whether it is meant" in result.output
    assert f"ok       config: {file} has no mistakes" in result.output


def test_a_config_with_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[server]\nsoket = 1\n[log]\nlevel = 2\n")
    result = doctor("--config", str(file))
    assert result.exit_code == 1
    assert result.output.count("problem  config: ") == 2
    assert "socket:" not in result.output, "where things would be is not known"


def test_models_of_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "SmolLM2-135M-Instruct.Q4_1.gguf").write_text("no model")
    file.write_text(
        f'[providers.here]\nkind = "embedded"\nmodels_dir = "{weights}"\n'
        '[models.small]\nprovider = "here"\nfree = true\nupstream_name = "smollm2-135m-instruct"\n'
        '[models.odd]\nprovider = "here"\nfree = true\n'
    )
    for words in (["--no-hash"], []):
        result = doctor("--config", str(file), "--offline", *words)
        assert "is not smollm2-135m-instruct: it has 8 bytes" in result.output
        assert "no embedded model 'odd'" in result.output


def test_models_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usable = SimpleNamespace(usable=True, state="good", detail="")
    monkeypatch.setattr(command, "verify", lambda *_: usable)
    assert "smollm2-135m-instruct: its hash is right" in doctor("--offline").output
