"""The command line, as people and scripts use it."""

import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cascaded.cli import COMMANDS, LazyGroup, cascaded, main
from cascaded.cli.show import dollars, saving, verdict
from cascaded.client.results import Metadata
from tests.support.daemon import CASCADE, Daemon
from tests.support.process import cascaded as in_process
from tests.support.process import environ, wait_for
from tests.support.upstream import Resets, Says, Upstream

GOOD = "The capital of France is Paris."


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the person's own daemon, nor config, nor models."""
    for name in list(os.environ):
        if name.startswith(("CASCADED_", "XDG_")) or name.endswith("_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CASCADED_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def invoke(*words: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cascaded, words, input=stdin, prog_name="cascaded")


def test_help_lists_every_command_and_loads_none() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(f"  {name}" in result.output for name in COMMANDS)
    assert "cascaded, version" in invoke("--version").output
    assert invoke("-h").output == result.output
    for name in COMMANDS:
        shown = invoke(name, "--help")
        assert shown.exit_code == 0
        assert "Usage: cascaded" in shown.output
    unknown = invoke("serv")
    assert unknown.exit_code == 2
    assert "No such command 'serv'" in unknown.output
    assert isinstance(cascaded, LazyGroup)


def test_what_the_lists_of_commands_say_is_not_cut_off() -> None:
    lists = [("--help",), *((name, "--help") for name in COMMANDS)]
    lines = [line for words in lists for line in invoke(*words).output.splitlines()]
    assert [line for line in lines if line.startswith("  ") and line.endswith("...")] == []


def test_version_in_a_process_of_its_own() -> None:
    ended = in_process("--version")
    assert (ended.returncode, ended.stderr) == (0, b"")


# --- ask ---------------------------------------------------------------------------------------


def test_ask(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD))
    result = invoke("ask", "--socket", daemon.socket, "What is the capital of France?")
    assert result.exit_code == 0
    assert result.stdout == GOOD + "\n"
    assert "cheap, draft accepted, cost $0.0000045, saved $0.0000705 (94%)" in result.stderr


def test_ask_as_it_comes(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD))
    words = ["--model", "strong", "--max-tokens", "20", "--max-cost", "0.01", "--stream"]
    result = invoke("ask", *words, "--socket", daemon.socket, "Capital of France?")
    assert (result.exit_code, result.stdout) == (0, GOOD + "\n")
    assert "asked by name" in result.stderr
    assert upstream.received[0].body["max_tokens"] == 20


def test_ask_as_json(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD))
    for more in ([], ["--stream"]):
        result = invoke("ask", "--socket", daemon.socket, "--json", "Capital of France?", *more)
        answer = json.loads(result.stdout)
        assert answer["content"] == GOOD
        assert answer["metadata"]["total_cost"] == "0.0000045", "as text: no digit is lost"
        assert result.stderr == ""


def test_ask_from_standard_input(
    daemon: Daemon, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASCADED_SOCKET", daemon.socket)
    upstream.on("cheap", Says(GOOD))
    assert invoke("ask", stdin="Où est Paris ?\n").stdout == GOOD + "\n"
    assert upstream.received[0].body["messages"][0]["content"] == "Où est Paris ?\n"
    for nothing in ("", " \n"):
        result = invoke("ask", stdin=nothing)
        assert result.exit_code == 2
        assert "there is no question" in result.stderr


@pytest.mark.parametrize("how", ["argument", "stdin"])
def test_a_question_that_is_no_text(how: str) -> None:
    if how == "argument":
        command = [os.fsencode(sys.executable), b"-m", b"cascaded", b"ask", b"\xff\xfe"]
        ended = subprocess.run(command, capture_output=True, env=environ(), check=False)
    else:
        ended = in_process("ask", stdin=b"\xff\xfe")
    assert ended.returncode == 2
    assert b"Traceback" not in ended.stderr
    assert b"UTF-8" in ended.stderr


def one_line(ended: "subprocess.CompletedProcess[bytes]") -> str:
    said = ended.stderr.decode()
    assert "Traceback" not in said
    assert said.count("\n") == 1, said
    assert ended.stdout == b""
    return said


def test_no_daemon(tmp_path: Path) -> None:
    for words in (["ask", "hello"], ["ask", "--stream", "hello"], ["ask", "--json", "hello"]):
        ended = in_process(*words, env=environ(XDG_RUNTIME_DIR=str(tmp_path)))
        assert ended.returncode == 2
        said = one_line(ended)
        assert said.startswith("cascaded: no daemon answers on ")
        assert "cascaded serve" in said


def test_what_the_daemon_refuses(daemon: Daemon, upstream: Upstream) -> None:
    ended = in_process("ask", "--socket", daemon.socket, "--model", "cascade/x", "hello")
    assert ended.returncode == 2
    assert "cascade/x" in one_line(ended)
    ended = in_process("ask", "--socket", daemon.socket, "--max-cost", "much", "hello")
    assert "'much' is not a decimal amount" in one_line(ended)


def test_a_stream_that_breaks_off(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Resets(after_chunks=2))
    words = ["ask", "--socket", daemon.socket, "--stream", "--model", "strong", "hello"]
    ended = in_process(*words)
    assert ended.returncode == 2
    assert b"Traceback" not in ended.stderr
    assert b"cascaded: provider 'fake'" in ended.stderr


def test_ctrl_c(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, delay_s=5))
    words = ["ask", "--socket", daemon.socket, "--model", "strong", "hello"]
    with subprocess.Popen(
        [sys.executable, "-m", "cascaded", *words], stderr=subprocess.PIPE, env=environ()
    ) as process:
        while not upstream.received:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=5)
    assert process.returncode == 1
    assert b"Traceback" not in said
    wait_for(lambda: daemon.spend["held"] == 0)  # the call is heard out


def test_main_in_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["cascaded", "ask", "hello"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("cascaded: no daemon answers")


# --- models --------------------------------------------------------------------------------------


def test_models_of_an_empty_folder(tmp_path: Path) -> None:
    for command in ("list", "verify"):
        result = invoke("models", command, "--json")
        assert result.exit_code == 0
        rows = json.loads(result.stdout)
        assert {row["state"] for row in rows} == {"absent"}
        assert {row["role"] for row in rows} == {"draft", "embedder", "verifier"}
        assert all(row["path"].startswith(str(tmp_path / "models")) for row in rows)
        assert all(len(row["sha256"]) == 64 and row["size_bytes"] > 0 for row in rows)
        shown = invoke("models", command).stdout
        assert "absent" in shown


def test_a_model_that_is_not_what_it_says(tmp_path: Path) -> None:
    row = json.loads(invoke("models", "list", "--json").stdout)[0]
    Path(row["path"]).parent.mkdir()
    Path(row["path"]).write_bytes(b"nonsense")
    result = invoke("models", "verify", "--json")
    assert result.exit_code == 1
    bad = json.loads(result.stdout)[0]
    assert bad["state"] == "bad"
    assert "8 bytes instead of" in bad["detail"]
    assert "bad" in invoke("models", "verify").stdout


def test_pulls_that_cannot_be(tmp_path: Path) -> None:
    unknown = invoke("models", "pull", "smollm2-135-instruct")
    assert unknown.exit_code == 2
    assert "did you mean 'smollm2-135m-instruct'?" in unknown.stderr
    source = invoke("models", "pull", "--source", "ftp://x")
    assert source.exit_code == 2
    assert "is not a source of models" in source.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    nothing = invoke("models", "pull", "smollm2-135m-instruct", "--source", f"folder:{empty}")
    assert nothing.exit_code == 1
    assert "could not be pulled" in nothing.stderr
    assert "Traceback" not in nothing.stderr


# --- config --------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAKE_KEY", "sk-very-secret")
    path = tmp_path / "good.toml"
    text = CASCADE.replace("{folder}", str(tmp_path)).replace("{url}", "http://localhost:1")
    text = text.replace("{uid}", str(os.getuid()))
    path.write_text(text.replace("{socket}", str(tmp_path / "d.sock")))
    return path


def test_config_check(config: Path) -> None:
    assert invoke("config", "check", str(config)).output == "no mistakes\n"
    config.write_text(config.read_text().replace("threshold = 0.6", "treshold = 0.6"))
    result = invoke("config", "check", str(config))
    assert result.exit_code == 78
    assert "good.toml:" in result.stderr
    assert "threshold" in result.stderr
    assert "Traceback" not in result.stderr


def test_config_show_gives_it_back_without_secrets(config: Path, tmp_path: Path) -> None:
    shown = invoke("config", "show", str(config))
    assert shown.exit_code == 0
    assert "sk-very-secret" not in shown.output
    assert 'api_key = "env:FAKE_KEY"' in shown.output
    again = tmp_path / "again.toml"
    again.write_text(shown.stdout)
    assert invoke("config", "show", str(again)).stdout == shown.stdout


def test_config_check_as_json(config: Path) -> None:
    assert json.loads(invoke("config", "check", str(config), "--json").stdout) == []
    config.write_text("[server]\nsoket = 1\n[ladders.l]\nrungs = ['m']\n")
    result = invoke("config", "check", str(config), "--json")
    assert result.exit_code == 78
    first, second = json.loads(result.stdout)
    assert (first["line"], first["key"], first["suggestion"]) == (2, "server.soket", "socket")
    assert (second["key"], second["severity"]) == ("ladders.l.rungs[0]", "mistake")


def test_config_check_tells_all_that_the_catalogue_does_not_know(config: Path) -> None:
    text = config.read_text()
    config.write_text(
        text + '[models.own]\nprovider = "fake"\n[models.odd]\nprovider = "fake"\nfree = true\n'
        'reference_model = "nobody/nothing"\n[ladders.own]\nrungs = ["own"]\n'
    )
    result = invoke("config", "check", str(config))
    assert result.exit_code == 78
    line = text.count("\n")
    first, second = result.stderr.splitlines()
    assert f":{line + 6}: models.odd.reference_model: the price catalogue has no" in first
    assert f":{line + 7}: ladders.own: the price of 'own' at provider 'fake' is not" in second


def test_config_check_warns(config: Path) -> None:
    config.chmod(0o666)
    result = invoke("config", "check", str(config))
    assert (result.exit_code, result.stdout) == (0, "no mistakes\n")
    assert f"{config}:1: warning: everybody on this machine may write this file" in result.stderr


def test_config_show_with_origins_and_as_json(config: Path) -> None:
    shown = invoke("config", "show", str(config), "--origin").stdout
    assert f'api_key = "env:FAKE_KEY"  # {config}:' in shown
    assert 'level = "info"  # default' in shown
    whole = json.loads(invoke("config", "show", str(config), "--json").stdout)
    rows = json.loads(invoke("config", "show", str(config), "--json", "--origin").stdout)
    assert whole["log"]["level"] == "info"
    assert {"key": "log.level", "value": "info", "origin": "default"} in rows
    assert "sk-very-secret" not in shown + str(whole) + str(rows)
    config.write_text("oops = 1\n")
    assert invoke("config", "show", str(config)).exit_code == 78


def test_config_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = invoke("config", "init")
    usual = tmp_path / ".config" / "cascaded" / "cascaded.toml"
    assert begun.stdout == f"{usual}\n"
    assert usual.read_text() == invoke("config", "init", "-").stdout
    assert invoke("config", "check").stdout == "no mistakes\n"
    usual.write_text("# mine\n")
    again = invoke("config", "init")
    assert (again.exit_code, usual.read_text()) == (1, "# mine\n")
    assert "is there already" in again.stderr
    assert invoke("config", "init", "/proc/none/c.toml").exit_code == 1
    own = tmp_path / "own.toml"
    assert invoke("config", "init", str(own), "--preset", "production").exit_code == 0
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert invoke("config", "check", str(own)).stdout == "no mistakes\n"
    for name in ("HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name)
    assert "name a file" in invoke("config", "init").stderr


def test_which_config_is_meant(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "smollm2-135m-instruct" in invoke("config", "show").stdout, "nothing is configured"
    usual = config.parent / ".config" / "cascaded" / "cascaded.toml"
    usual.parent.mkdir(parents=True)
    usual.write_text("[log]\nlevel = 'error'\n")
    assert 'level = "error"' in invoke("config", "show").stdout
    monkeypatch.setenv("CASCADED_CONFIG", str(config))
    assert "[models.cheap]" in invoke("config", "show").stdout


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    for command in (["config", "check"], ["config", "show"], ["serve", "--config"]):
        for path in (tmp_path / "nothing.toml", tmp_path):
            result = invoke(*command, str(path))
            assert result.exit_code == 1
            assert f"cannot read {path}" in result.stderr


def test_serve_with_mistakes(tmp_path: Path, config: Path) -> None:
    config.write_text("[server]\nport = 80\nsocket = 5\n")
    result = invoke("serve", "--config", str(config))
    assert result.exit_code == 78
    assert result.stderr.count("good.toml:") == 2
    taken = tmp_path / "taken.sock"
    taken.write_text("")
    result = invoke("serve", "--zero-config", "--socket", str(taken))
    assert result.exit_code == 1
    assert "is not a socket" in result.stderr


# --- how things look -----------------------------------------------------------------------------


def told(**fields: Any) -> Metadata:
    zero = dict.fromkeys(("total_cost", "draft_cost", "verifier_cost", "cost_saved"), Decimal("0"))
    return Metadata(**{"request_id": "r", "savings_percent": 0.0, **zero, **fields})


def test_how_things_look() -> None:
    assert dollars(Decimal("0.0000045")) == "$0.0000045"
    assert dollars(Decimal("-1E-7")) == "-$0.0000001"
    assert verdict(told()) == "asked by name"
    assert verdict(told(draft_model="a", draft_accepted=True)) == "draft accepted"
    assert verdict(told(draft_model="a")) == "escalated"
    flagged = told(draft_model="a", flagged=True, quality_failed=("refusal", "echo"))
    assert verdict(flagged) == "escalated, and flagged: refusal, echo"
    assert verdict(told(draft_model="a", flagged=True)) == "escalated, and flagged: unsure"
    lost = told(cost_saved=Decimal("-0.01"), savings_percent=-5.0)
    assert saving(lost) == "lost $0.01 (-5%)"
    free = told(cost_saved=Decimal("0.01"), savings_percent=50.0, savings_reference="gpt")
    assert saving(free).endswith("at the prices of gpt; these models are free")
