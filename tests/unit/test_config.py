"""The configuration: its defaults, its mistakes, its secrets, and the way back to TOML."""

import ast
import copy
import inspect
import json
import pickle
import re
import textwrap
import traceback
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest

from cascaded.config import Config, Mistake, explain, load, schema
from cascaded.config.explain import effective
from cascaded.config.kinds import expectation
from cascaded.config.mistakes import MAX_MISTAKES, Report, listed, nearest, shown
from cascaded.config.schema import Embedded, OpenAICompatible
from cascaded.config.toml import MAX_TEXT_BYTES
from cascaded.policy.limits import LimitBook, limits_for
from cascaded.types import tables
from cascaded.types.limits import Caller
from cascaded.types.model import Price, Rates
from cascaded.types.places import socket_path, state_dir
from cascaded.types.quotas import Quotas, ScopeQuotas
from cascaded.types.secret import HIDDEN, Secret
from cascaded.types.tiers import TIER_PRESETS, TierConfig

HERE = Path(__file__).parent
BAD_CONFIGS = sorted((HERE.parent / "data" / "bad_configs").glob("*.toml"))
EXAMPLES = sorted((HERE.parent.parent / "examples" / "config").glob("*.toml"))
EXPECTED = "#! "
"""Each mistake of a bad config stands at its top, after this."""

ENV = {
    "GOOD_KEY": "a-key-of-good-length-1",
    "ANTHROPIC_API_KEY": "a-key-of-good-length-3",
    "OPENAI_API_KEY": "a-key-of-good-length-2",
    "NOTEBOOK_KEY": "a-key-of-good-length-3",
    "EMPTY": "",
    "TWO_LINES": "one\ntwo",
    "SHORT_KEY": "short",
}
FILES = {
    "/etc/cascaded/groq.key": b"a-key-from-a-file-1\n",
    "/etc/cascaded/ci.key": b"a-key-from-a-file-2\n",
    "/run/credentials/cascaded/openai": b"  a-key-from-systemd-1\r\n",
    "/run/keys/good": b"a-key-from-a-file-3\n",
    "/run/keys/binary": b"\xff\xfe\x00",
    "/run/keys/huge": b"x" * 9000,
    "/etc/ssl/none.pem": b"nothing here",
    "/etc/ssl/ours.pem": b"-----BEGIN CERTIFICATE-----\n",
}
UPSTREAM = """
[providers.openai]
kind = "openai_compatible"
base_url = "https://api.openai.com/v1"
"""
MODELS = """
[models.small]
provider = "openai"
[models.large]
provider = "openai"
"""


def read_file(path: Path) -> bytes:
    try:
        return FILES[str(path)]
    except KeyError:
        raise FileNotFoundError(2, "No such file or directory", str(path)) from None


def loaded(text: str | bytes, env: Mapping[str, str] = ENV) -> Config | list[Mistake]:
    return load(text, source_name="cascaded.toml", env=env, read_file=read_file, uid=1000)


def good(text: str | bytes, env: Mapping[str, str] = ENV) -> Config:
    found = loaded(text, env)
    assert isinstance(found, Config), [str(mistake) for mistake in found]
    return found


def bad(text: str | bytes, env: Mapping[str, str] = ENV) -> list[str]:
    found = loaded(text, env)
    assert isinstance(found, list)
    return [str(mistake).removeprefix("cascaded.toml:") for mistake in found]


class TestZeroConfig:
    def test_the_empty_text_gives_two_embedded_models_behind_auto(self) -> None:
        config = good("")
        assert config.providers == {"embedded": Embedded()}
        assert list(config.models) == ["smollm2-135m-instruct", "qwen2.5-coder-1.5b-instruct"]
        assert config.ladders["default"].rungs == tuple(config.models)
        assert config.routes() == {"auto": "cascade/default"}
        for model in config.models.values():
            assert model.price == Price(rates=Rates(input=0, output=0))
            assert model.reference_model
            assert model.reference_price is None

    def test_a_file_about_other_things_keeps_them(self) -> None:
        assert good('[log]\nlevel = "debug"').models == good("").models

    def test_an_upstream_without_models_keeps_them(self) -> None:
        config = good(UPSTREAM)
        assert list(config.providers) == ["openai", "embedded"]
        assert config.models == good("").models

    def test_settings_of_the_embedded_provider_keep_them(self) -> None:
        config = good('[providers.embedded]\nkind = "embedded"\nthreads = 2')
        assert config.providers["embedded"] == Embedded(threads=2)
        assert config.models == good("").models

    def test_ones_own_ladder_may_use_them(self) -> None:
        config = good('[ladders.one]\nrungs = ["smollm2-135m-instruct"]')
        assert list(config.ladders) == ["one"]
        assert config.routes() == {"auto": "cascade/one"}

    def test_ones_own_models_replace_them(self) -> None:
        config = good(UPSTREAM + MODELS)
        assert list(config.models) == ["small", "large"]
        assert config.ladders == {}
        assert config.routes() == {}
        assert list(config.providers) == ["openai"]

    def test_a_model_on_the_embedded_provider_brings_it(self) -> None:
        config = good('[models.tiny]\nprovider = "embedded"\nfree = true')
        assert config.providers == {"embedded": Embedded()}

    def test_with_several_ladders_and_no_default_there_is_no_auto(self) -> None:
        ladders = '[ladders.a]\nrungs = ["small"]\n[ladders.b]\nrungs = ["large"]'
        assert good(UPSTREAM + MODELS + ladders).routes() == {}

    @pytest.mark.parametrize(
        ("env", "path"),
        [
            ({"RUNTIME_DIRECTORY": "/run/cascaded:/run/x"}, "/run/cascaded/cascaded.sock"),
            ({"XDG_RUNTIME_DIR": "/run/user/1000/"}, "/run/user/1000/cascaded.sock"),
            ({"XDG_RUNTIME_DIR": "relative"}, "/tmp/cascaded-1000/cascaded.sock"),
            ({}, "/tmp/cascaded-1000/cascaded.sock"),
        ],
    )
    def test_the_socket_is_where_the_environment_says(self, env: dict[str, str], path: str) -> None:
        assert good("", env).server.socket == path == socket_path(env, 1000)

    def test_the_process_own_uid_is_the_default(self) -> None:
        config = load("", source_name="", env={}, read_file=read_file)
        assert isinstance(config, Config)
        assert config.server.socket.startswith("/tmp/cascaded-")


class TestValues:
    def test_prices_are_exact_however_they_are_written(self) -> None:
        config = good(
            UPSTREAM
            + """
            [models.text]
            provider = "openai"
            input_usd_per_mtok = "0.1"
            output_usd_per_mtok = "0.000001"
            [models.number]
            provider = "openai"
            input_usd_per_mtok = 0.1
            output_usd_per_mtok = 1e-6
            request_usd = 0.000000001
            cache_read_usd_per_mtok = 2
            reasoning_usd_per_mtok = 0
            """
        )
        text, number = config.models["text"].price, config.models["number"].price
        assert text == Price(rates=Rates(input=100_000, output=1))
        assert number == Price(
            rates=Rates(input=100_000, output=1, cache_read=2_000_000, reasoning=0),
            request_nano_usd=1,
        )

    def test_every_token_class_that_has_a_price_can_be_set(self) -> None:
        settings = set(schema.Model.__struct_fields__)
        assert {part + schema.PER_MTOK for part in Rates.__struct_fields__} <= settings

    def test_a_price_may_be_left_to_the_catalogue(self) -> None:
        assert good(UPSTREAM + MODELS).models["small"].price is None

    def test_a_reference_price_stands_beside_a_free_model(self) -> None:
        config = good(
            UPSTREAM + '[models.own]\nprovider = "openai"\nfree = true\n'
            'reference_input_usd_per_mtok = 1\nreference_output_usd_per_mtok = "2.5"'
        )
        reference = config.models["own"].reference_price
        assert reference == Price(rates=Rates(input=1_000_000, output=2_500_000))

    def test_a_ladder_has_a_threshold_for_each_rung(self) -> None:
        ladder = "[ladders.default]\nrungs = ['small', 'large']\nmax_cost_usd = 0.07\n"
        one = good(UPSTREAM + MODELS + ladder + "threshold = 0.7").ladders["default"]
        two = good(UPSTREAM + MODELS + ladder + "thresholds = [0.7, 0]").ladders["default"]
        assert one.rung_thresholds == (0.7, 0.7)
        assert two.rung_thresholds == (0.7, 0.0)
        assert one.max_cost_nano_usd == 70_000_000

    def test_a_model_goes_by_its_own_name_upstream_unless_told(self) -> None:
        config = good(
            UPSTREAM + '[models."a"]\nprovider = "openai"\nupstream_name = "org/A b"\n'
            '[models."gpt-4.1"]\nprovider = "openai"'
        )
        assert config.models["a"].upstream_name == "org/A b"
        assert config.models["gpt-4.1"].upstream_name == "gpt-4.1"

    @pytest.mark.parametrize(
        ("tcp", "address"),
        [
            ("127.0.0.1:0", ("127.0.0.1", 0)),
            ("127.8.8.8:1", ("127.8.8.8", 1)),
            ("[::1]:65535", ("::1", 65535)),
            ("localhost:8080", ("localhost", 8080)),
        ],
    )
    def test_tcp_is_taken_apart(self, tcp: str, address: tuple[str, int]) -> None:
        config = good(f'[server]\ntcp = "{tcp}"\ntcp_keys = {{ app = "env:GOOD_KEY" }}')
        assert config.server.tcp_address == address
        assert config.server.tcp_keys["app"].reveal() == ENV["GOOD_KEY"]

    @pytest.mark.parametrize(
        "tcp",
        ["0.0.0.0:1", "[::]:1", "example.com:1", "127.0.0.1:65536", "::1:80", "", ":", "127.0.0.1"],
    )
    def test_tcp_is_for_this_machine_alone(self, tcp: str) -> None:
        [mistake] = bad(f'[server]\ntcp = "{tcp}"\ntcp_keys = {{ app = "env:GOOD_KEY" }}')
        assert mistake.startswith("2: server.tcp: ")

    def test_the_socket_mode_is_octal(self) -> None:
        assert good("").server.socket_mode_bits == 0o660
        assert good('[server]\nsocket_mode = "600"').server.socket_mode_bits == 0o600
        assert good("").server.tcp_address is None

    def test_timeouts_that_are_not_set_follow_those_that_are(self) -> None:
        provider = good(UPSTREAM + "total_timeout_s = 2\nbackoff_max_s = 0").providers["openai"]
        assert isinstance(provider, OpenAICompatible)
        assert provider.first_token_timeout_s == provider.idle_timeout_s == 2
        assert provider.connect_timeout_s == 2
        assert provider.backoff_s == 0
        longest = good("[server]\nmax_body_bytes = 2000").cascade.max_prompt_bytes
        assert longest == 2000

    def test_a_trusted_authority_is_read(self) -> None:
        provider = good(UPSTREAM + 'ca_file = "/etc/ssl/ours.pem"').providers["openai"]
        assert isinstance(provider, OpenAICompatible)
        assert provider.ca_file == "/etc/ssl/ours.pem"

    def test_aliases_lead_on(self) -> None:
        config = good(
            UPSTREAM + MODELS + '[ladders.x]\nrungs = ["small"]\naliases = ["large"]\n'
            '[aliases]\na = "b"\nb = "large"\nc = "small"\nauto = "small"'
        )
        assert config.routes() == {
            "a": "cascade/x",
            "b": "cascade/x",
            "large": "cascade/x",
            "c": "small",
            "auto": "small",
        }

    def test_everything_is_frozen(self) -> None:
        config = good(UPSTREAM)
        with pytest.raises(AttributeError):
            config.server = schema.Server()  # type: ignore[misc]
        for mapping in (config.providers, config.models, config.ladders, config.aliases):
            assert isinstance(mapping, MappingProxyType)
        assert isinstance(config.server.tcp_keys, MappingProxyType)
        assert isinstance(config.providers["openai"].headers, MappingProxyType)  # type: ignore[union-attr]


class TestLimits:
    def test_by_default_nothing_is_limited(self) -> None:
        config = good("")
        assert config.limits == schema.Limits()
        assert not config.tiers
        assert config.tier_configs() == {}
        assert all(known == ScopeQuotas() for known in config.limits.scopes.values())

    def test_money_and_shares_are_taken_over_exactly(self) -> None:
        table = good(
            """
            [limits.users.default]
            daily_usd = 0.1
            total_usd = "2"
            warn_threshold = 0.333
            rolling = false
            zone = "UTC"
            enforcement = "shadow"
            tokens_per_day = 7
            rate_method = "token_bucket"
            burst_multiplier = 2.5
            burst_window_seconds = 5
            block_on_limit = false
            """
        ).limits.users.default
        assert table.quotas == Quotas(
            daily_nano_usd=100_000_000,
            total_nano_usd=2_000_000_000,
            warn_bp=3_330,
            rolling=False,
            zone="UTC",
            enforcement="shadow",
            tokens_per_day=7,
            rate_method="token_bucket",
            burst_bp=25_000,
            burst_window_ns=5_000_000_000,
            block_on_limit=False,
        )

    def test_every_field_of_a_table_reaches_the_limits(self) -> None:
        words = {"zone": "UTC", "enforcement": "warn", "rate_method": "fixed_window"}
        text = "[limits.runs]\n"
        for name in tables.LimitTable.__struct_fields__:
            value = f'"{words[name]}"' if name in words else "1"
            truth = name in ("rolling", "block_on_limit")
            text += f"{name} = {'true' if truth else value}\n"
        quotas = good(text).limits.runs.quotas
        assert None not in {getattr(quotas, name) for name in Quotas.__struct_fields__}

    def test_the_tables_of_every_scope(self) -> None:
        each = {
            "global": "global",
            "organization": "organizations.default",
            "workspace": "workspaces.default",
            "team": "teams.default",
            "user": "users.default",
            "tier": "tiers.default",
            "run": "runs",
        }
        headers = [*each.values(), "tags.feature.default", "tags.feature.values.x"]
        text = "".join(f"[limits.{table}]\ndaily_usd = {i}\n" for i, table in enumerate(headers))
        limits = good('[limits]\nzone = "Asia/Tokyo"\n' + text).limits
        assert limits.base == Quotas(zone="Asia/Tokyo", enforcement="degrade")
        assert {scope: known.default for scope, known in limits.scopes.items()} == {
            scope: Quotas(daily_nano_usd=i * 10**9) for i, scope in enumerate(each)
        }
        assert limits.tag_quotas == {
            "feature": ScopeQuotas(
                default=Quotas(daily_nano_usd=7 * 10**9),
                ids={"x": Quotas(daily_nano_usd=8 * 10**9)},
            )
        }

    def test_a_preset_comes_with_its_name(self) -> None:
        config = good("[tiers.free]\n[tiers.gold]\n[tiers.pro]\npreset = 'business'")
        tiers = config.tier_configs()
        assert list(tiers) == ["free", "gold", "pro"]
        cheap = ("smollm2-135m-instruct", "qwen2.5-coder-1.5b-instruct")
        free = msgspec.structs.replace(TIER_PRESETS["free"], allowed_models=cheap)
        assert tiers["free"] == free
        assert tiers["gold"] == TierConfig(name="gold")
        assert tiers["pro"] == msgspec.structs.replace(TIER_PRESETS["business"], name="pro")

    def test_what_stands_in_a_tier_goes_over_its_preset(self) -> None:
        tier = good(
            """
            [tiers.pro]
            daily_usd = 12
            zone = "Asia/Tokyo"
            streaming = false
            max_tokens = 9
            allowed_models = []
            custom = { note = "x" }
            """
        ).tier_configs()["pro"]
        pro = TIER_PRESETS["pro"]
        limits = msgspec.structs.replace(pro.limits, daily_nano_usd=12 * 10**9, zone="Asia/Tokyo")
        assert tier == msgspec.structs.replace(
            pro,
            limits=limits,
            streaming=False,
            max_tokens=9,
            allowed_models=(),
            custom=MappingProxyType({"note": "x"}),
        )

    def test_every_field_of_a_tier_can_be_set(self) -> None:
        settable = {*tables.Tier.__struct_fields__, "name", "limits"}
        assert set(TierConfig.__struct_fields__) <= settable

    def test_the_cheap_class(self) -> None:
        models = UPSTREAM + MODELS + '[models.own]\nprovider = "openai"\nfree = true\n'
        text = models + '[ladders.default]\nrungs = ["small", "large"]\n[tiers.free]\n'
        assert good(text).tier_configs()["free"].allowed_models == ("own", "small")
        named = good(text + '[access]\ncheap_models = ["sm*"]')
        assert named.tier_configs()["free"].allowed_models == ("sm*",)
        both = text + 'allowed_models = ["large", "cheap"]'
        assert good(both).tier_configs()["free"].allowed_models == ("own", "small", "large")

    @pytest.mark.parametrize(
        ("env", "path"),
        [
            ({"STATE_DIRECTORY": "/var/lib/cascaded:/x", "HOME": "/h"}, "/var/lib/cascaded"),
            ({"XDG_STATE_HOME": "/s/", "HOME": "/h"}, "/s/cascaded"),
            ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/cascaded"),
            ({}, None),
        ],
    )
    def test_the_ledger_is_where_the_environment_says(
        self, env: dict[str, str], path: str | None
    ) -> None:
        assert good("", env).ledger.dir == path == state_dir(env)
        assert good('[ledger]\ndir = "/mine"', env).ledger.dir == "/mine"

    def test_sixteen_rates_are_not_too_many(self) -> None:
        seven = "\n".join(
            f"{name} = 9"
            for name in tables.LimitTable.__struct_fields__
            if name.startswith(("requests", "tokens"))
        )
        text = f"[limits.global]\n{seven}\n[limits.runs]\n{seven}\n"
        assert good(text)
        assert len(bad(text + "[limits.teams.ids.a]\ntokens_per_day = 1")) == 1
        one_of = "[limits.teams.ids.{}]\ntotal_usd = 1\n"
        assert good(text + "".join(map(one_of.format, range(100))))

    def test_limits_of_tiers_count_once(self) -> None:
        seven = "\n".join(
            f"{name} = 9"
            for name in tables.LimitTable.__struct_fields__
            if name.startswith(("requests", "tokens"))
        )
        assert good("".join(f"[tiers.t{i}]\n{seven}\n" for i in range(9)))
        three = f"[limits.global]\n{seven}\n[limits.runs]\n{seven}\n"
        [told] = bad(three + "[tiers.pro]")
        assert "18 rates" in told

    def test_a_machine_without_time_zones_judges_their_form_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cascaded.config.limits.available_timezones", set)
        assert good('[limits]\nzone = "Mars/Olympus"').limits.zone == "Mars/Olympus"

    def test_users_known_by_an_empty_table_come_back(self) -> None:
        config = good('[limits.users.ids."a b.c"]\n[limits.tags.t]\n[tiers.own]')
        assert "a b.c" in config.limits.users.ids
        text = explain(config)
        assert good(text) == config
        assert '[limits.users.ids."a b.c"]' in text

    def test_the_example_is_charged_as_it_says(self) -> None:
        [path] = [path for path in EXAMPLES if path.stem == "budgets"]
        config = good(path.read_bytes())
        book = LimitBook(
            base=config.limits.base,
            scopes=config.limits.scopes,
            tags=config.limits.tag_quotas,
            tiers=config.tier_configs(),
        )
        caller = Caller(
            user_id="jane@example.com",
            tier="pro",
            organization_id="acme",
            run_id="r",
            tags=(("feature", "summaries"),),
        )
        limits = limits_for(caller, book)
        told = {
            (one.scope, one.window): (one.limit_nano_usd, one.zone, one.enforcement)
            for one in limits.budgets
        }
        dollars, berlin = 10**9, "Europe/Berlin"
        assert told == {
            ("global", "month"): (5_000 * dollars, berlin, "block"),
            ("organization", "month"): (2_000 * dollars, "America/New_York", "degrade"),
            ("user", "rolling_day"): (25 * dollars, berlin, "degrade"),
            ("user", "rolling_week"): (50 * dollars, berlin, "degrade"),
            ("user", "rolling_month"): (200 * dollars, berlin, "degrade"),
            ("tag", "day"): (10 * dollars, berlin, "shadow"),
            ("run", "total"): (2 * dollars, berlin, "degrade"),
        }
        rates = [(one.scope, one.unit, one.window_ns // 10**9, one.limit) for one in limits.rates]
        assert rates == [
            ("organization", "requests", 10, 150),
            ("organization", "requests", 60, 600),
            ("user", "requests", 3_600, 1_000),
            ("user", "requests", 86_400, 10_000),
            ("user", "tokens", 60, 200_000),
            ("run", "requests", 10, 10),
            ("run", "requests", 60, 30),
        ]
        assert config.tier_configs()["partner"].allowed_models[-1] == "gpt-4o*"


class TestMistakes:
    @pytest.mark.parametrize("path", BAD_CONFIGS, ids=lambda path: path.stem)
    def test_the_corpus(self, path: Path) -> None:
        text = path.read_text()
        lines = text.splitlines()
        expected = [line.removeprefix(EXPECTED) for line in lines if line.startswith(EXPECTED)]
        assert expected
        assert bad(text) == expected

    def test_the_corpus_is_large_and_without_repeats(self) -> None:
        bodies = {path.read_text().partition("\n\n")[2] for path in BAD_CONFIGS}
        assert len(bodies) == len(BAD_CONFIGS) >= 120

    def test_a_mistake_has_its_parts(self) -> None:
        found = loaded('[providers.p]\nkind = "openai_compatible"\nbase_ur = "http://h"')
        assert found == [
            Mistake(
                source="cascaded.toml",
                line=3,
                key="providers.p.base_ur",
                message="unknown key",
                expected="one of " + ", ".join((*OpenAICompatible.__struct_fields__, "kind")),
                suggestion="base_url",
            )
        ]
        assert str(found[0]) == (
            'cascaded.toml:3: providers.p.base_ur: unknown key; did you mean "base_url"?'
        )

    def test_only_so_many_are_told(self) -> None:
        for text in ("".join(f"k{i} = 1\n" for i in range(500)), "= 1\n" * 500):
            told = bad(text)
            assert len(told) == MAX_MISTAKES + 1
            assert told[-1].endswith("and 400 more mistakes")

    def test_a_text_that_is_not_utf_8(self) -> None:
        assert bad(b"# one\n# \xff\n") == ["2: the text is not UTF-8; expected UTF-8"]
        assert bad("# one\n# two\n# \udcff") == ["3: the text is not UTF-8; expected UTF-8"]

    def test_a_text_that_is_too_long(self) -> None:
        assert isinstance(loaded(b"#" * MAX_TEXT_BYTES), Config)
        [told] = bad(b"#" * (MAX_TEXT_BYTES + 1))
        assert told.startswith("1: the file has 1048577 bytes")

    @pytest.mark.parametrize(
        "text",
        ["a." * 200_000 + "a = 1", "a = " + "[" * 400_000, "[" + "a." * 200_000 + "a]"],
    )
    def test_deep_nesting_is_a_mistake_and_no_crash(self, text: str) -> None:
        assert bad(text)

    def test_a_byte_order_mark_and_foreign_line_ends_do_no_harm(self) -> None:
        assert good('\ufeff[log]\r\nlevel = "error"\r\n').log.level == "error"

    def test_too_many_entries(self) -> None:
        text = "".join(f'[providers.p{i}]\nkind = "embedded"\n' for i in range(65))
        assert bad(text) == ["1: providers: it has 65 entries; expected at most 64"]

    def test_a_mistake_in_a_table_does_not_hide_its_name(self) -> None:
        told = bad(
            '[providers.p]\nkind = "?"\n[models.m]\nprovider = "p"\nfree = 1\n'
            '[ladders.l]\nrungs = ["m"]\nstrict = 0\n[aliases]\na = "m"\nb = "cascade/l"'
        )
        assert [line.split(":")[1].strip() for line in told] == [
            "providers.p.kind",
            "models.m.free",
            "ladders.l.strict",
        ]

    def test_a_long_cycle_is_told_briefly(self) -> None:
        text = "[aliases]\n" + "".join(f'a{i} = "a{(i + 1) % 100}"\n' for i in range(100))
        [told] = bad(text)
        assert len(told) < 200

    def test_a_socket_is_not_reached_by_proxy(self) -> None:
        told = bad(UPSTREAM + 'uds = "/run/x.sock"\nproxy = "http://proxy:3128"')
        assert told == [
            "6: providers.openai.proxy: a Unix socket is not reached by proxy;"
            " expected proxy or uds"
        ]

    def test_the_first_mistake_at_a_key_is_the_one_told(self) -> None:
        told = bad('[models."a b"]\nprovider = 5\n[models."c d"]\n')
        assert [line.partition(":")[0] for line in told] == ["1", "2", "3", "3"]
        report = Report("c", lambda _: 1)
        report.add(("a",), "one")
        report.add(("a",), "two")
        assert [mistake.message for mistake in report.mistakes()] == ["one"]

    def test_words(self) -> None:
        assert nearest("Base-URL", ["base_url"]) == "base_url"
        assert nearest("x" * 1000, ["x"]) is None
        assert listed([]) == ""
        assert listed(["a", "b", "c"]) == '"a", "b" or "c"'
        assert shown("\x1b[31m") == '"\\u001b[31m"'
        assert shown("x" * 100) == '"' + "x" * 59 + '…"'
        assert shown("sk-0123456789") == "(hidden)"
        assert shown(5) == "5"
        assert shown(True) == "true"

    def test_every_setting_says_what_is_expected(self) -> None:
        config = msgspec.inspect.type_info(Config)
        assert isinstance(config, msgspec.inspect.StructType)
        assert {expectation(field.type) for field in config.fields} == {"a table", '"production"'}
        header = msgspec.inspect.type_info(schema.LiteralOrSecret)
        assert expectation(header).startswith("a text, or a reference")
        optional = msgspec.inspect.type_info(str | None)
        assert expectation(optional) == "a text in double quotes"


class TestSecrets:
    SECRET = "hunter2-and-then-some"

    @pytest.fixture
    def secret(self) -> Secret:
        return Secret(self.SECRET, source="env:NAME")

    def test_only_reveal_gives_it_away(self, secret: Secret) -> None:
        assert secret.reveal() == self.SECRET
        assert secret.matches(self.SECRET)
        assert not secret.matches("hunter2\udcff")
        assert secret == Secret(self.SECRET)
        assert secret != Secret("other")
        assert secret != self.SECRET
        assert hash(secret) == hash(Secret(self.SECRET))
        assert secret
        assert not Secret("")

    def test_it_never_prints_itself(self, secret: Secret) -> None:
        printed = [repr(secret), str(secret), f"{secret}", f"{secret:>9}", f"{secret!r}"]
        printed += ["%s" % secret, "{!s}".format(secret), repr({"key": [secret]})]  # noqa: UP031, UP032
        printed += [json.dumps({"key": secret}, default=str), repr(dir(secret))]
        assert self.SECRET not in "".join(printed)
        assert str(secret) == HIDDEN
        assert repr(secret) == "Secret(env:NAME)"

    def test_it_is_not_encoded(self, secret: Secret) -> None:
        for encode in (json.dumps, msgspec.json.encode, msgspec.to_builtins, pickle.dumps, vars):
            with pytest.raises(TypeError) as caught:
                encode(secret)
            assert self.SECRET not in str(caught.value)

    def test_it_does_not_change(self, secret: Secret) -> None:
        with pytest.raises(AttributeError):
            secret._value = "x"
        with pytest.raises(AttributeError):
            del secret._value
        assert copy.copy(secret) is secret
        assert copy.deepcopy([secret])[0] is secret

    def test_a_traceback_with_locals_does_not_show_it(self, secret: Secret) -> None:
        def fails(key: Secret) -> None:
            raise RuntimeError(f"no luck with {key}")

        try:
            fails(secret)
        except RuntimeError as error:
            lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
            text = "".join(lines)
        assert "Secret(env:NAME)" in text
        assert self.SECRET not in text

    @pytest.mark.parametrize(
        ("reference", "value"),
        [
            ("env:GOOD_KEY", ENV["GOOD_KEY"]),
            ("file:/run/keys/good", "a-key-from-a-file-3"),
            ("credential:openai", "a-key-from-systemd-1"),
        ],
    )
    def test_where_they_come_from(self, reference: str, value: str) -> None:
        env = {**ENV, "CREDENTIALS_DIRECTORY": "/run/credentials/cascaded"}
        text = UPSTREAM + f'api_key = "{reference}"\nproxy = "http://proxy:3128"\n'
        provider = good(text + 'headers = { x-team = "blue", x-key = "env:GOOD_KEY" }', env)
        upstream = provider.providers["openai"]
        assert isinstance(upstream, OpenAICompatible)
        assert upstream.api_key is not None
        assert upstream.proxy is not None
        assert upstream.api_key.reveal() == value
        assert upstream.api_key.source == reference
        assert upstream.proxy.reveal() == "http://proxy:3128"
        assert upstream.headers["x-team"].reveal() == "blue"
        assert upstream.headers["x-key"].source == "env:GOOD_KEY"

    def test_a_missing_credential_is_told_without_the_file(self) -> None:
        env = {"CREDENTIALS_DIRECTORY": "/run/credentials/cascaded"}
        [told] = bad(UPSTREAM + 'api_key = "credential:other"', env)
        assert '"/run/credentials/cascaded/other" cannot be read' in told

    def test_a_path_that_no_system_knows(self) -> None:
        def refuses(path: Path) -> bytes:
            raise ValueError("embedded null byte")

        text = UPSTREAM + 'api_key = "file:/a\\u0000b"'
        found = load(text, source_name="c", env={}, read_file=refuses)
        assert isinstance(found, list)
        assert "cannot be read (no such path)" in str(found[0])

    @pytest.mark.parametrize("line", [
        'api_key = "sk-{}"', 'api_key = "{}"', 'api_key = "env:sk-{}"', 'api_key = "file:{}"',
        'api_key = "credential:{}/x"', "api_key = {}", "api_key = '{}", 'api_key = ["{}"]',
        'headers = {{ Authorization = "Bearer {}" }}', 'headers = {{ x-auth = "sk-{}" }}',
        'headers = {{ x-a = "{}\\u0007" }}', 'proxy = "http://u:{}@proxy"', 'proxy = "{}"',
        'base_url = "http://u:{}@host"', 'api_kee = "{}"', 'organization = "sk-{}\\n"',
        'backoff_s = "{}"', 'kind = "sk-{}"', 'api_key = "${}x"',
    ])  # fmt: skip
    def test_no_mistake_repeats_one(self, line: str) -> None:
        text = "[providers.p]\n" + line.format(self.SECRET) + "\n"
        assert self.SECRET not in "\n".join(bad(text))

    def test_a_secret_with_a_fault_is_not_repeated(self) -> None:
        told = bad(UPSTREAM + 'api_key = "env:KEY"', {"KEY": self.SECRET + "\nmore"})
        assert len(told) == 1
        assert self.SECRET not in told[0]

    def test_the_whole_config_hides_them(self) -> None:
        config = good(UPSTREAM + 'api_key = "env:KEY"', {"KEY": self.SECRET})
        text = explain(config)
        assert 'api_key = "env:KEY"' in text
        assert self.SECRET not in text + repr(config) + json.dumps(effective(config))
        with pytest.raises(TypeError):
            msgspec.json.encode(config.providers["openai"])


class TestExplain:
    @pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
    def test_the_examples_load_and_come_back_as_they_were(self, path: Path) -> None:
        text = path.read_text()
        keys = dict.fromkeys(re.findall(r"env:(\w+)", text), "a-key-of-good-length-9")
        env = {**keys, **ENV, "CREDENTIALS_DIRECTORY": "/run/credentials/cascaded"}
        config = good(text, env)
        assert good(explain(config), env) == config

    def test_there_are_examples(self) -> None:
        assert len(EXAMPLES) >= 5

    def test_an_alias_shadows_a_model(self) -> None:
        env = {**ENV, "CREDENTIALS_DIRECTORY": "/run/credentials/cascaded"}
        [path] = [path for path in EXAMPLES if path.stem == "alias_shadows_a_model"]
        config = good(path.read_bytes(), env)
        assert "gpt-4o" in config.models
        assert config.routes()["gpt-4o"] == "cascade/default"

    def test_odd_texts_and_numbers_come_back(self) -> None:
        config = good(
            UPSTREAM
            + """
            headers = { "x-odd" = 'a "b" \\ c' }
            backoff_s = 0.1
            [models."a/b:c@1.5"]
            provider = "openai"
            upstream_name = "é “x” \\\\ y"
            capabilities = ["vision", "tools"]
            request_usd = 1e-9
            input_usd_per_mtok = "1E+1"
            output_usd_per_mtok = 0
            [ladders.default]
            rungs = ["a/b:c@1.5"]
            thresholds = [1e-5]
            """
        )
        text = explain(config)
        assert good(text) == config
        assert 'request_usd = "0.000000001"' in text
        assert 'capabilities = ["tools", "vision"]' in text
        assert effective(config)["models"]["a/b:c@1.5"]["input_usd_per_mtok"] == "10"

    def test_zero_config_is_told_whole(self) -> None:
        shown_config = effective(good(""))
        assert shown_config["providers"] == {"embedded": {"kind": "embedded", "start": "first_use"}}
        assert Decimal(shown_config["ladders"]["default"]["max_cost_usd"]) == Decimal("0.05")


STRUCTS = [
    kind
    for _, kind in inspect.getmembers(schema, inspect.isclass)
    if issubclass(kind, msgspec.Struct) and kind.__module__ in (schema.__name__, tables.__name__)
]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_setting_is_documented(struct: type[msgspec.Struct]) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(struct))).body[0]
    assert isinstance(tree, ast.ClassDef)
    followers = dict(zip(tree.body, tree.body[1:], strict=False))
    for node, after in followers.items():
        if isinstance(node, ast.AnnAssign):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            assert is_text, f"{struct.__name__}.{ast.unparse(node.target)} has no docstring"
    documented = [node for node in followers if isinstance(node, ast.AnnAssign)]
    inherited = set(getattr(struct.__base__, "__struct_fields__", ()))
    own = set(struct.__struct_fields__) - inherited | struct.__annotations__.keys()
    assert len(documented) == len(own)
