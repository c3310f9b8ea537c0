"""What the configuration says beside its mistakes: warnings, origins, presets, the reference."""

import ast
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from cascaded.config import Config, Loaded, examine, explain, reference, rows, schema
from cascaded.types.environment import Variable
from scripts import build_reference
from tests.unit.test_config import ENV, HERE, MODELS, STRUCTS, UPSTREAM, good, loaded, read_file


class TestWarnings:
    """What is valid and most likely not meant."""

    @staticmethod
    def warned(text: str, modes: Mapping[str, int] = MappingProxyType({})) -> list[str]:
        def mode_of(path: Path) -> int:
            if str(path) == "/run/keys/good" and not modes:
                raise FileNotFoundError
            return modes.get(str(path), 0o600)

        file = Path("cascaded.toml")
        found = examine(text, file=file, env=ENV, read_file=read_file, mode_of=mode_of, uid=1000)
        assert isinstance(found, Loaded), [str(mistake) for mistake in found]
        assert all(one.severity == "warning" for one in found.warnings)
        return [str(one).removeprefix("cascaded.toml:") for one in found.warnings]

    def test_a_usual_file_gives_none(self) -> None:
        assert self.warned("") == []
        assert self.warned(UPSTREAM + MODELS + "[limits.global]\ndaily_usd = 5\n") == []
        assert self.warned(UPSTREAM + 'api_key = "file:/run/keys/good"\n') == []

    def test_files_that_others_may_read_or_write(self) -> None:
        text = (
            UPSTREAM + 'api_key = "file:/run/keys/good"\nproxy = "http://proxy:1"\n'
            'headers = { x-own = "file:/run/keys/good" }\n'
            '[server.tcp_keys]\nci = "file:/etc/cascaded/ci.key"\n'
        )
        modes = {
            "/run/keys/good": 0o644,
            "/etc/cascaded/ci.key": 0o640,
            "cascaded.toml": 0o666,
        }
        assert self.warned(text, modes) == [
            "1: warning: everybody on this machine may write this file;"
            " expected chmod o-w cascaded.toml",
            "5: warning: providers.openai.api_key: everybody on this machine may read"
            ' "/run/keys/good"; expected chmod 0600',
            "7: warning: providers.openai.headers.x-own: everybody on this machine may read"
            ' "/run/keys/good"; expected chmod 0600',
        ]

    def test_a_key_in_the_clear(self) -> None:
        upstream = '[providers.p]\nkind = "openai_compatible"\nbase_url = "http://{}/v1"\n'
        keyed = upstream + 'api_key = "env:GOOD_KEY"\n'
        assert self.warned(keyed.format("llm.example")) == [
            "3: warning: providers.p.base_url: the key goes over the network in the clear;"
            " expected https://"
        ]
        assert self.warned(keyed.format("127.0.0.1:1")) == []
        assert self.warned(keyed.format("[::1]:1")) == []
        assert self.warned(keyed.format("x") + 'uds = "/run/x.sock"\n') == []
        assert self.warned(upstream.format("llm.example")) == []
        assert self.warned(upstream.format("llm.example") + "forward_caller_key = true\n")

    def test_a_socket_for_everybody(self) -> None:
        text = '[server]\nsocket_mode = "0666"\n'
        assert self.warned(text) == [
            "2: warning: server.socket_mode: everybody on this machine may spend, and there are"
            ' no limits; expected "0660" and socket_group, or [limits]'
        ]
        assert self.warned(text + "[limits.users.default]\ndaily_usd = 5\n") == []

    def test_limits_that_are_never_reached(self) -> None:
        text = (
            "[limits.users.default]\ndaily_usd = 50\nmonthly_usd = 20\n"
            "requests_per_minute = 100\nrequests_per_hour = 60\n"
            "[limits.global]\nweekly_usd = 30\nmonthly_usd = 20\n[tiers.pro]\ntotal_usd = 5\n"
            "daily_usd = 5\nmonthly_usd = 6\n"
        )
        assert self.warned(text) == [
            "2: warning: limits.users.default.daily_usd: it is never reached: monthly_usd is 20;"
            " expected at most 20",
            "4: warning: limits.users.default.requests_per_minute: it is never reached:"
            " requests_per_hour is 60; expected at most 60",
            "12: warning: tiers.pro.monthly_usd: it is never reached: total_usd is 5;"
            " expected at most 5",
        ]

    def test_mistakes_come_without_warnings(self) -> None:
        found = examine(
            "x = 1", file=None, env={}, read_file=read_file, mode_of=lambda _: 0o777, uid=1
        )
        assert isinstance(found, list)
        assert [str(one)[:13] for one in found] == ["(no file):1: "]


class TestPresets:
    def test_production(self) -> None:
        config = good('preset = "production"\n' + UPSTREAM + MODELS)
        assert config.records.retention_days == 365
        assert list(config.models) == ["small", "large"]
        assert good(explain(config)) == config
        own = good('preset = "production"\n[records]\nretention_days = 7\n' + UPSTREAM + MODELS)
        assert own.records.retention_days == 7

    def test_in_code(self) -> None:
        config = Config.for_production(cascade=schema.Cascade(max_prompt_bytes=5))
        assert config.preset == "production"
        assert config.records.retention_days == 365
        assert (config.quality.mode, config.cascade.max_prompt_bytes) == ("fast", 5)

    def test_every_preset_sets_what_there_is(self) -> None:
        for settings in schema.PRESETS.values():
            for table, name in settings:
                assert hasattr(getattr(Config(), table), name)


class TestOrigins:
    TEXT = (
        'preset = "production"\n[tiers.pro]\n'
        + UPSTREAM
        + "total_timeout_s = 2\n"
        + MODELS
        + "[ladders.default]\nrungs = ['small']\n"
    )

    @staticmethod
    def origins(text: str, env: Mapping[str, str]) -> dict[str, str]:
        found = examine(
            text,
            file=Path("c.toml"),
            env={**ENV, **env},
            read_file=read_file,
            mode_of=lambda _: 0o600,
            uid=1000,
        )
        assert isinstance(found, Loaded)
        shown_rows = list(rows(found.config, found.origins))
        assert {row["key"] for row in shown_rows} >= {"server.socket", "quality.mode"}
        with_comments = explain(found.config, found.origins)
        assert loaded(with_comments, {**ENV, **env}) == found.config
        return {row["key"]: row["origin"] for row in shown_rows}

    def test_each_value_tells(self) -> None:
        told = self.origins(self.TEXT, {"HOME": "/home/x", "XDG_STATE_HOME": "relative"})
        assert told["preset"] == "c.toml:1"
        assert told["quality.mode"] == "preset production"
        assert told["tiers.pro.preset"] == "the tier's name"
        assert told["providers.openai.base_url"] == "c.toml:6"
        assert told["providers.openai.first_token_timeout_s"] == "bounded by a longer one"
        assert told["providers.openai.backoff_s"] == "default"
        assert told["models.small.upstream_name"] == "the model's name"
        assert told["aliases.auto"] == "built in"
        assert told["server.socket"] == "default"
        assert told["ledger.dir"] == "environment HOME"

    def test_nothing_set(self) -> None:
        told = self.origins("", {"XDG_RUNTIME_DIR": "/run/user/1"})
        assert told["server.socket"] == "environment XDG_RUNTIME_DIR"
        assert told["providers.embedded.start"] == "built in"
        assert set(told.values()) <= {"default", "built in", "environment XDG_RUNTIME_DIR"}


class TestReference:
    def test_every_setting_is_in_it_with_words(self) -> None:
        headers = [table.header for table in reference.tables()]
        assert len(headers) == len({(one.header, one.kind) for one in reference.tables()})
        for table in reference.tables():
            assert table.meaning
            for setting in table.settings:
                assert setting.expected
                assert setting.meaning or setting.name == "NAME"
        known = {setting.name for table in reference.tables() for setting in table.settings}
        fields = {name for struct in STRUCTS for name in struct.__struct_encode_fields__}
        below = {table.header.rpartition(".")[2] for table in reference.tables()}
        assert fields - known - below <= {part for header in headers for part in header.split(".")}

    def test_the_file_to_begin_with_sets_nothing(self) -> None:
        assert good(reference.starter()) == good("")

    def test_its_example_works(self) -> None:
        config = good(reference.starter("production"))
        assert config.preset == "production"
        assert config.routes() == {"auto": "cascade/default"}


@pytest.mark.parametrize("name", build_reference.DOCUMENTS)
def test_the_reference_is_current(name: str) -> None:
    written = (HERE.parent.parent / name).read_text()
    assert written == build_reference.DOCUMENTS[name](), "run `make reference`"


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_the_manual_is_sound() -> None:
    """groff finds nothing to warn of."""
    page = HERE.parent.parent / "man" / "cascaded.1"
    checked = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-K", "utf8", page], capture_output=True, check=True
    )
    assert checked.stderr == b""


def test_every_environment_variable_is_declared() -> None:
    """Nothing reads a variable by a name that `types.environment` does not have."""
    undeclared = []
    for path in (HERE.parent.parent / "cascaded").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = _variable_read(node)
            if name is not None and name not in set(Variable):
                undeclared.append(f"{path.name}:{name}")
    assert not undeclared, "declare them in cascaded/types/environment.py"


def _variable_read(node: ast.AST) -> str | None:
    match node:
        case ast.Call(
            func=ast.Attribute(
                value=ast.Name(id="env" | "environ") | ast.Attribute(attr="environ" | "_env"),
                attr="get" | "pop" | "setdefault",
            ),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return name
        case ast.Call(func=ast.Attribute(attr="getenv"), args=[ast.Constant(value=str(name)), *_]):
            return name
        case ast.Subscript(
            value=ast.Name(id="env" | "environ") | ast.Attribute(attr="environ" | "_env"),
            slice=ast.Constant(value=str(name)),
        ):
            return name
        case ast.keyword(arg="envvar", value=ast.Constant(value=str(name))):
            return name
    return None
