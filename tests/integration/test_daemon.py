"""The daemon as a process: its socket, its lock, how it starts, how it ends."""

import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cascaded.client import CascadeResult, DaemonUnreachableError
from tests.support.daemon import CASCADE
from tests.support.process import Served, cascaded, serving, wait_for
from tests.support.upstream import Hangs, Says, Upstream

GOOD = "The capital of France is Paris."
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root to give files to others")
BARE = """
[server]
socket = "{socket}"
drain_timeout_s = 2
"""
"""Nothing but the embedded models, which are not started until they are asked."""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a path short enough for sockets."""
    return tmp_path_factory.mktemp("d", numbered=True)


def cascade(upstream: Upstream, **server: str) -> str:
    """The cascade over the scripted upstream, its log on standard error."""
    settings = "".join(f"{name} = {value}\n" for name, value in server.items())
    text = CASCADE.replace("{url}", upstream.url).replace('[log]\nfile = "{folder}/log.jsonl"', "")
    text = text.replace("total_timeout_s = 4", "total_timeout_s = 30")
    return text.replace("drain_timeout_s = 2\n", settings)


def refused(process: "subprocess.CompletedProcess[bytes]", code: int = 1) -> str:
    """The one line that a start that failed ends with."""
    said = process.stderr.decode()
    assert process.returncode == code, said
    assert "Traceback" not in said
    plain = [line for line in said.splitlines() if not line.startswith("{")]
    assert len(plain) == 1, said
    return plain[0]


def serve(folder: Path, toml: str, path: Path | None = None, **env: str) -> Any:
    """A start that is meant to fail, run to its end."""
    config = folder / "bad.toml"
    text = toml.replace("{socket}", str(path or folder / "d.sock"))
    config.write_text(
        text.replace("{folder}", str(folder / "other")).replace("{uid}", str(os.getuid()))
    )
    return cascaded("serve", "--config", str(config))


# --- the socket ------------------------------------------------------------------------------


def test_start_and_stop_leave_the_place_clean(folder: Path) -> None:
    with serving(folder, BARE, socket=folder / "deep" / "er" / "d.sock") as daemon:
        facts = daemon.socket.stat()
        assert stat.S_ISSOCK(facts.st_mode)
        assert stat.S_IMODE(facts.st_mode) == 0o660
        assert stat.S_IMODE(daemon.socket.parent.stat().st_mode) == 0o700
        lock = daemon.socket.with_name("d.sock.lock")
        assert lock.read_text().strip() == str(daemon.process.pid)
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
        assert daemon.end() == 0
        assert not daemon.socket.exists()
        assert daemon.events() == ["ledger_open", "ready", "stopped"]
        assert daemon.lines[1]["socket"] == str(daemon.socket)


@needs_root
def test_mode_and_group_of_the_socket(folder: Path) -> None:
    toml = BARE + 'socket_mode = "0620"\nsocket_group = "daemon"\n'
    with serving(folder, toml) as daemon:
        facts = daemon.socket.stat()
        assert (stat.S_IMODE(facts.st_mode), facts.st_gid) == (0o620, 1)


def test_an_unknown_group(folder: Path) -> None:
    said = refused(serve(folder, BARE + 'socket_group = "no-such-group"\n'))
    assert "there is no group 'no-such-group'" in said
    assert not (folder / "d.sock").exists()


def test_after_kill_nine_the_next_one_takes_over(folder: Path) -> None:
    with serving(folder, BARE) as first:
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
        assert first.socket.exists(), "nobody tidied up"
    with serving(folder, BARE) as second, second.client() as client:
        assert client.health().status == "ok"
        assert (folder / "d.sock.lock").read_text().strip() == str(second.process.pid)


def test_a_second_daemon_is_refused_and_the_first_goes_on(folder: Path) -> None:
    with serving(folder, BARE) as first:
        said = refused(serve(folder, BARE))
        assert f"another daemon (pid {first.process.pid}) serves {first.socket}" in said
        with first.client() as client:
            assert client.health().status == "ok"


def test_a_socket_of_another_program_is_left_alone(folder: Path) -> None:
    path = folder / "d.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        assert "another program serves" in refused(serve(folder, BARE))
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(folder: Path, kind: str) -> None:
    path = folder / "d.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(folder / "elsewhere")
    assert "is not a socket; it was left alone" in refused(serve(folder, BARE))
    assert path.is_symlink() or path.exists()
    if kind == "file":
        assert path.read_text() == "precious"


def test_paths_that_no_socket_can_have(folder: Path) -> None:
    (folder / "file").write_text("")
    too_long = str(folder / ("x" * 120) / "d.sock")
    for path, words in [
        (too_long, "107 bytes"),
        (str(folder / "file" / "d.sock"), "cannot make the socket's folder"),
    ]:
        said = refused(cascaded("serve", "--zero-config", "--socket", path))
        assert words in said


def test_a_folder_that_others_may_write_to(folder: Path) -> None:
    open_to_all = folder / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    said = refused(serve(folder, BARE, open_to_all / "d.sock"))
    assert "may be written by anybody" in said
    if ROOT:
        open_to_all.chmod(0o755)
        os.chown(open_to_all, 1, -1)
        said = refused(serve(folder, BARE, open_to_all / "d.sock"))
        assert "belongs to another user (uid 1)" in said


def test_a_lock_that_cannot_be_taken(folder: Path) -> None:
    (folder / "d.sock.lock").symlink_to(folder / "elsewhere")
    assert "cannot open" in refused(serve(folder, BARE))
    assert not (folder / "elsewhere").exists()


# --- starts that fail --------------------------------------------------------------------------


def test_a_log_that_cannot_be_opened(folder: Path) -> None:
    toml = BARE + f'[log]\nfile = "{folder}/nowhere/log.jsonl"\n'
    assert "cannot open the log" in refused(serve(folder, toml))


def test_a_port_that_is_taken(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        toml = BARE + f'tcp = "{address}"\ntcp_keys = {{ app = "env:FAKE_KEY" }}\n'
        said = refused(serve(folder, toml))
    assert address in said
    assert not (folder / "d.sock").exists()


def test_every_mistake_of_the_config_is_told_at_once(folder: Path) -> None:
    config = folder / "bad.toml"
    config.write_text('[server]\nmax_concurency = 3\nsocket_mode = "rw"\n[log]\nlevel = 7\n')
    ended = cascaded("serve", "--config", str(config))
    said = ended.stderr.decode()
    assert ended.returncode == 78
    assert [f"bad.toml:{line}" in said for line in (2, 3, 5)] == [True] * 3
    assert "max_concurrency" in said
    assert "Traceback" not in said


def test_prices_and_tokenizers_that_are_not_there(folder: Path) -> None:
    known = (
        '[models.m]\nprovider = "embedded"\nupstream_name = "smollm2-135m-instruct"\nfree=true\n'
    )
    said = refused(serve(folder, BARE + known + 'reference_model = "nobody/nothing"\n'))
    assert "the price catalogue has no 'nobody/nothing'" in said
    unknown = '[models.m]\nprovider = "embedded"\nfree = true\n'
    assert "no embedded model 'm'" in refused(serve(folder, BARE + unknown))
    broken = folder / "tokenizer.json"
    broken.write_text("{}")
    said = refused(serve(folder, BARE + known + f'tokenizer_file = "{broken}"\n'))
    assert "tokenizer" in said


# --- how it ends -------------------------------------------------------------------------------


class Asking:
    """A call in a thread of its own."""

    def __init__(self, daemon: Served, model: str = "strong") -> None:
        self.result: CascadeResult | None = None
        self.error: Exception | None = None
        self._daemon = daemon
        self._model = model
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        try:
            with self._daemon.client() as client:
                self.result = client.run("What is the capital of France?", model=self._model)
        except Exception as error:
            self.error = error

    def join(self) -> "Asking":
        self._thread.join(10)
        assert not self._thread.is_alive(), "it hangs"
        return self


@pytest.fixture
def http(folder: Path) -> Iterator[httpx2.Client]:
    transport = httpx2.HTTPTransport(uds=str(folder / "d.sock"))
    with httpx2.Client(transport=transport, base_url="http://localhost", timeout=10) as client:
        yield client


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_call_under_way_is_finished(
    folder: Path, upstream: Upstream, http: httpx2.Client, number: signal.Signals
) -> None:
    upstream.on("strong", Says(GOOD, delay_s=0.6))
    with serving(folder, cascade(upstream, drain_timeout_s="10")) as daemon:
        http.get("/health")  # a connection that stays
        asking = Asking(daemon)
        wait_for(lambda: upstream.received)
        daemon.send(number)
        wait_for(lambda: not _dials(daemon))
        answer = http.post("/infer", json={"query": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
        assert int(answer.headers["retry-after"]) > 0
        assert http.get("/health").status_code == 200
        ready = http.get("/ready")
        assert (ready.status_code, ready.json()["draining"]) == (503, True)
        assert asking.join().result is not None, asking.error
        assert daemon.process.wait(10) == 0
        assert daemon.events() == ["ledger_open", "ready", "request", "stopped"]


def _dials(daemon: Served) -> bool:
    try:
        with daemon.client() as client:
            client.health()
    except DaemonUnreachableError:
        return False
    return True


@pytest.mark.parametrize("seconds", ["0", "0.3"])
def test_the_drain_limit_cuts_off_what_hangs_and_settles_it(
    folder: Path, upstream: Upstream, seconds: str
) -> None:
    upstream.on("strong", Hangs())
    toml = cascade(upstream, drain_timeout_s=seconds)
    toml = toml.replace("total_timeout_s = 30", "total_timeout_s = 60")
    with serving(folder, toml) as daemon:
        asking = Asking(daemon)
        wait_for(lambda: upstream.received)
        began = time.monotonic()
        daemon.send(signal.SIGTERM)
        assert daemon.process.wait(8) == 0
        assert time.monotonic() - began < float(seconds) + 3
        assert asking.join().error is not None
        requests = [line for line in daemon.lines if line["event"] == "request"]
        assert [line["status"] for line in requests] == ["abandoned"]
        assert float(requests[0]["cost_usd"]) > 0, "it may have been billed"
        assert "drain_cut_short" in daemon.events()
        assert daemon.events()[-1] == "stopped"
    wait_for(lambda: upstream.hung_up == 1)


def test_idle_connections_do_not_keep_it_alive(folder: Path, http: httpx2.Client) -> None:
    with serving(folder, BARE) as daemon, socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(daemon.socket))
        http.get("/health")
        began = time.monotonic()
        assert daemon.end() == 0
        assert time.monotonic() - began < 2


# --- what comes in over the line -----------------------------------------------------------


def _exchange(path: Path, sent: bytes) -> bytes:
    """What comes back; nothing where it was refused before all of it was sent."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(5)
        line.connect(str(path))
        try:
            line.sendall(sent)
            return line.recv(65536)
        except ConnectionError:
            return b""


def test_nonsense_on_the_line_gets_400_and_a_line_in_the_log(folder: Path) -> None:
    infer = b"POST /infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-caller\r\n"
    bombs = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 is this TLS?\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET " + b"/x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        infer + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n",
        infer + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
        infer + b"Content-Length: -1\r\n\r\n",
        infer + b"X-Api-Key: sk-\0caller\r\n\r\n",
        infer + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        infer + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ]
    with serving(folder, BARE) as daemon:
        for bomb in bombs:
            answer = _exchange(daemon.socket, bomb)
            whole = answer or len(bomb) < 10_000
            assert not whole or answer[9:12] == b"400", (bomb[:60], answer[:200])
        # Callers that leave in the middle of a body.
        for part in (b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"):
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(str(daemon.socket))
                line.sendall(infer + part)
                time.sleep(0.05)
        with daemon.client() as client:
            assert client.health().status == "ok"
        assert daemon.end() == 0
        assert set(daemon.events()) == {"ledger_open", "ready", "library", "stopped"}
        assert len(daemon.events()) <= len(bombs) + 2, "callers that leave are no news"
        assert "caller" not in daemon.said


def test_a_full_pipe_of_json(folder: Path, upstream: Upstream) -> None:
    """The log on standard error is whole, whatever the level."""
    upstream.on("cheap", Says(GOOD))
    with serving(folder, cascade(upstream) + '\n[log]\nlevel = "debug"\n') as daemon:
        with daemon.client() as client:
            for _ in range(5):
                client.run("What is the capital of France?", user_id="u-1")
        daemon.end()
        requests = [line for line in daemon.lines if line["event"] == "request"]
        assert [line["user_id"] for line in requests] == ["u-1"] * 5
        assert all(json.dumps(line) for line in requests)


def test_a_log_that_nobody_takes_any_more(folder: Path, upstream: Upstream) -> None:
    """A full disk, or a reader that has left, stops no call."""
    upstream.on("cheap", Says(GOOD))
    toml = cascade(upstream) + '\n[log]\nfile = "/dev/full"\n'
    with serving(folder, toml) as daemon, daemon.client() as client:
        for _ in range(3):
            assert client.run("What is the capital of France?").content == GOOD
            time.sleep(0.1)  # records are handed on a little later
        assert daemon.end() == 0
        assert daemon.said == ""
