"""Tiers out of a real PostgreSQL: what columns may hold, and everything that can go wrong."""

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from cascaded.adapters.clock import SystemClock
from cascaded.adapters.postgres import TierConfigGenerator
from cascaded.daemon.errors import StartError
from cascaded.state.plans import PlanRules, Plans
from cascaded.types.errors import PlansUnreadError
from cascaded.types.plans import Plan, PlanRow
from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.postgres import Postgres, postgres_server
from tests.support.process import wait_for
from tests.support.upstream import Upstream

MAPPING = {"user_id_column": "user_id", "tier_column": "tier", "budget_column": "budget"}
USERS = "CREATE TABLE users (user_id text, tier text, budget numeric)"
USD = 1_000_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def database(server: Postgres) -> Postgres:
    """An empty one."""
    server.execute("DROP SCHEMA IF EXISTS public CASCADE", "CREATE SCHEMA public")
    server.execute("GRANT USAGE ON SCHEMA public TO public")
    return server


def generator(
    database: Postgres, mapping: dict[str, str] = MAPPING, user: str = "postgres", **more: Any
) -> TierConfigGenerator:
    return TierConfigGenerator.from_database(database.url(user), mapping, **more)


async def rows(generator: TierConfigGenerator) -> list[PlanRow]:
    found: list[PlanRow] = []
    await generator.read(found.extend)
    return found


async def unread(generator: TierConfigGenerator) -> str:
    with pytest.raises(PlansUnreadError) as caught:
        await rows(generator)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "literal", "text"),
    [
        ("text", "'ann'", "ann"),
        ("varchar(9)", "'Änn 🐘'", "Änn 🐘"),
        ("char(9)", "'ann'", "ann"),
        ("bigint", "9007199254740993", "9007199254740993"),
        ("smallint", "-7", "-7"),
        ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("plan", "'pro'", "pro"),
        ("text", "NULL", None),
    ],
)
async def test_kinds_of_ids_and_tiers(
    database: Postgres, kind: str, literal: str, text: str | None
) -> None:
    database.execute(
        "CREATE TYPE plan AS ENUM ('free', 'pro')",
        f"CREATE TABLE users (user_id {kind}, tier {kind}, budget numeric)",
        f"INSERT INTO users VALUES ({literal}, {literal}, NULL)",
    )
    assert await rows(generator(database)) == [PlanRow(text, text, None)]


@pytest.mark.parametrize(
    ("kind", "literal", "amount"),
    [
        ("numeric", "0.123456789", "0.123456789"),
        ("numeric", "0.9999999999999", "0.999999999"),
        ("numeric(12,2)", "12.5", "12.50"),
        ("integer", "3", "3"),
        ("bigint", "-3", "-3"),
        ("smallint", "NULL", None),
        ("dollars", "2.5", "2.5"),
        ("numeric", "'Infinity'", "Infinity"),
        ("numeric", "1e100", "1e100"),
    ],
)
async def test_kinds_of_budgets(
    database: Postgres, kind: str, literal: str, amount: str | None
) -> None:
    database.execute(
        "CREATE DOMAIN dollars AS numeric CHECK (value >= 0)",
        f"CREATE TABLE users (user_id text, tier text, budget {kind})",
        f"INSERT INTO users VALUES ('ann', 'pro', {literal})",
    )
    [row] = await rows(generator(database))
    assert row.budget == (None if amount is None else Decimal(amount))


@pytest.mark.parametrize("kind", ["real", "double precision", "text", "money", "boolean", "jsonb"])
async def test_budgets_that_are_no_exact_amounts(database: Postgres, kind: str) -> None:
    database.execute(f"CREATE TABLE users (user_id text, tier text, budget {kind})")
    assert "neither numeric nor a whole number" in await unread(generator(database))


async def test_a_view_without_budgets_in_another_schema(database: Postgres) -> None:
    database.execute(
        USERS,
        "INSERT INTO users VALUES ('ann', 'pro', 1)",
        'CREATE VIEW public."Who has What" AS SELECT user_id AS "Id", tier AS "select" FROM users',
    )
    mapping = {"user_id_column": "Id", "tier_column": "select"}
    found = await rows(generator(database, mapping, table="public.Who has What"))
    assert found == [PlanRow("ann", "pro", None)]


@pytest.mark.parametrize("part", [*MAPPING, "table"])
@pytest.mark.parametrize(
    "odd",
    [
        'users"; DROP TABLE users; --',
        "users'; DROP TABLE users; --",
        "(SELECT pg_sleep(60))",
        "*",
        "users WHERE false",
        "%s {} %(x)s",
        "x" * 70,
        "ü\\",
        "",
    ],
)
async def test_names_are_names_whatever_they_hold(database: Postgres, part: str, odd: str) -> None:
    database.execute(USERS, "INSERT INTO users VALUES ('ann', 'pro', 1)")
    table = odd if part == "table" else "users"
    mapping = MAPPING if part == "table" else {**MAPPING, part: odd}
    said = await unread(generator(database, mapping, table=table))
    assert "does not exist" in said or "zero-length" in said
    assert database.rows("SELECT count(*) FROM users") == [(1,)]


@pytest.mark.parametrize(
    ("mapping", "table", "said"),
    [
        ({**MAPPING, "tier_column": "plan"}, "users", 'column "plan" does not exist'),
        (MAPPING, "customers", 'relation "customers" does not exist'),
        (MAPPING, "nowhere.users", 'relation "nowhere.users" does not exist'),
    ],
)
async def test_names_that_are_not_there(
    database: Postgres, mapping: dict[str, str], table: str, said: str
) -> None:
    database.execute(USERS)
    assert await unread(generator(database, mapping, table=table)) == said


async def test_permissions(database: Postgres) -> None:
    database.execute("DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN", USERS)
    as_reader = generator(database, user="reader")
    assert await unread(as_reader) == "permission denied for table users"
    database.execute("GRANT SELECT (user_id, tier, budget) ON users TO reader")
    assert await rows(as_reader) == []


async def test_nothing_is_written_even_where_a_view_would(database: Postgres) -> None:
    database.execute(
        USERS,
        "CREATE FUNCTION tell() RETURNS text LANGUAGE sql VOLATILE AS"
        " $$ INSERT INTO users VALUES ('eve', 'pro', 9) RETURNING tier $$",
        "CREATE VIEW spy AS SELECT 'eve' AS user_id, tell() AS tier, 1 AS budget",
    )
    assert "read-only transaction" in await unread(generator(database, table="spy"))
    assert database.rows("SELECT * FROM users") == []


async def test_a_slow_answer_is_given_up_on_both_sides(database: Postgres) -> None:
    database.execute(
        "CREATE VIEW slow AS SELECT 'ann' AS user_id, pg_sleep(60)::text AS tier, 1 AS budget"
    )
    began = time.monotonic()
    said = await unread(generator(database, table="slow", timeout_s=0.3))
    assert "no answer within 0.3 s" in said or "statement timeout" in said
    assert time.monotonic() - began < 20
    running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cascaded'"
    async with asyncio.timeout(20):
        while database.rows(running) != [(0,)]:
            await asyncio.sleep(0.02)


async def test_a_million_rows_are_not_read_for_a_thousand(database: Postgres) -> None:
    database.execute(
        USERS, "INSERT INTO users SELECT i, 'pro', 1 FROM generate_series(1, 1000000) i"
    )
    taken = await rows(generator(database, max_rows=1000))
    assert len(taken) == 1001
    kept = plans(generator(database, max_rows=1000), max_rows=1000)
    with pytest.raises(PlansUnreadError, match="more than 1000 rows"):
        await kept.refresh()
    assert len(kept) == 0


def plans(generator: TierConfigGenerator, *, max_rows: int = 100) -> Plans:
    return Plans(
        generator.read,
        PlanRules(tiers=("free", "pro"), max_rows=max_rows),
        SystemClock(),
        random=random.Random(7).random,
        report=lambda *words, **fields: None,
        refresh_s=0.05,
        stale_after_s=1,
    )


async def test_changes_and_a_server_that_dies_and_comes_back(database: Postgres) -> None:
    database.execute(USERS, "INSERT INTO users VALUES ('ann', 'free', 1), ('bob', 'pro', NULL)")
    kept = plans(generator(database))
    await kept.refresh()
    assert (kept.plan("ann"), kept.plan("bob")) == (Plan("free", USD), Plan("pro", None))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(kept.keep_fresh())
        database.execute("UPDATE users SET tier = 'pro', budget = 2 WHERE user_id = 'ann'")
        await _becomes(kept, Plan("pro", 2 * USD))
        await asyncio.to_thread(database.stop)
        failures = kept.failures
        async with asyncio.timeout(20):
            while kept.failures < failures + 3:
                await asyncio.sleep(0.01)
        assert kept.plan("ann") == Plan("pro", 2 * USD)  # the last that was known
        await asyncio.to_thread(database.start)
        database.execute("DELETE FROM users WHERE user_id = 'ann'")
        await _becomes(kept, None)
        assert kept.plan("bob") == Plan("pro", None)
        task.cancel()


async def _becomes(kept: Plans, plan: Plan | None) -> None:
    async with asyncio.timeout(20):
        while kept.plan("ann") != plan:
            await asyncio.sleep(0.01)


TABLE = """
[limits.users.default]
daily_usd = 5

[tiers_from_database]
connection = "env:DATABASE_URL"
table = "users"
budget_column = "budget"
budget_window = "total"
refresh_s = 1
"""


def ask(daemon: Daemon, user: str, **headers: str) -> tuple[int, str]:
    asked = {"model": "strong", "query": "What is the capital of France?", "max_tokens": 20}
    with daemon.http() as http:
        answer = http.post("/infer", json=asked, headers={"X-User-ID": user, **headers})
    told = answer.json()
    return answer.status_code, "" if answer.status_code == 200 else told["error"]["code"]


def gauges(daemon: Daemon) -> dict[str, float]:
    with daemon.http() as http:
        lines = http.get("/metrics").text.splitlines()
    pairs = (line.split() for line in lines if line.startswith("cascaded_tiers_"))
    return {name.removeprefix("cascaded_tiers_"): float(value) for name, value in pairs}


def test_a_daemon_charges_by_the_table(database: Postgres) -> None:
    database.execute(
        USERS,
        "INSERT INTO users VALUES ('ann', 'pro', 1), ('bob', 'gold', 1), ('cy', 'free', 0)",
    )
    text = CASCADE.replace("[access]", '[access]\nunknown_user = "refuse"') + TABLE
    with (
        upstream_server(Upstream()) as upstream,
        daemon_with(text, url=upstream.url, DATABASE_URL=database.url()) as daemon,
    ):
        # The table stands above what a caller says of itself.
        assert ask(daemon, "ann", **{"X-User-Tier": "free"}) == (200, "")
        assert ask(daemon, "bob") == (403, "forbidden")
        assert ask(daemon, "cy", **{"X-User-Tier": "pro"}) == (403, "model_forbidden")
        assert ask(daemon, "eve") == (403, "forbidden")
        with daemon.http() as http:
            rows = http.get("/budgets?scope=user&id=ann").json()["budgets"]
        assert {row["window"]: row["limit"] for row in rows} == {"day": 10, "total": 1, **PRO}
        assert gauges(daemon)["users"] == 3
        database.execute("UPDATE users SET tier = 'pro' WHERE user_id = 'cy'")
        pro_without_money = (429, "insufficient_quota")
        wait_for(lambda: ask(daemon, "cy") == pro_without_money)
        database.stop()
        wait_for(lambda: gauges(daemon)["failures"] > 0)
        assert ask(daemon, "ann") == (200, "")
        assert ask(daemon, "eve") == (403, "forbidden")
        assert "tiers_unread" in daemon.log_lines()
        database.start()
        database.execute("INSERT INTO users VALUES ('eve', 'pro', NULL)")
        wait_for(lambda: ask(daemon, "eve") == (200, ""), 20)
        # A reload with another table; one that cannot be read changes nothing.
        database.execute("CREATE TABLE others AS SELECT * FROM users WHERE user_id = 'ann'")
        assert reload(daemon, 'table = "users"', 'table = "nothing"') == 422
        assert ask(daemon, "eve") == (200, "")
        assert reload(daemon, 'table = "nothing"', 'table = "others"') == 200
        assert ask(daemon, "eve") == (403, "forbidden")
        assert gauges(daemon)["users"] == 1
        assert reload(daemon, "max_retries = 1", "max_retries = 0") == 200  # the table is kept
        assert reload(daemon, TABLE[TABLE.index("[tiers") :].replace("users", "others"), "") == 200
        assert ask(daemon, "ann") == (403, "forbidden")
        assert gauges(daemon) == {"users": 0, "age_seconds": 0, "failures": 0}


PRO = {"week": 50, "month": 200}


def reload(daemon: Daemon, old: str, new: str) -> int:
    file = daemon.folder / "test.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with daemon.http() as http:
        return http.post("/reload").status_code


def test_a_start_without_the_database() -> None:
    url = "postgresql://127.0.0.1:1/shop"
    refused = pytest.raises(StartError, match=r"tiers_from_database: .*refused")
    with refused, daemon_with(CASCADE + TABLE, url="http://127.0.0.1:1", DATABASE_URL=url):
        pass
    text = CASCADE + TABLE + "required_at_start = false\n"
    with daemon_with(text, url="http://127.0.0.1:1", DATABASE_URL=url) as daemon:
        assert gauges(daemon)["failures"] == 1
        assert "tiers_unread" in daemon.log_lines()


@pytest.mark.parametrize("text", ["nonsense", "postgresql://ann:hunter2@[::1", "host=a hunter2"])
def test_a_connection_string_that_is_none(text: str) -> None:
    with pytest.raises(PlansUnreadError, match="connection string") as caught:
        TierConfigGenerator.from_database(text, MAPPING)
    assert "hunter2" not in str(caught.value)


async def test_no_server_and_no_password_in_what_is_said() -> None:
    url = "postgresql://ann:hunter2@127.0.0.1:1/shop"
    said = await unread(TierConfigGenerator.from_database(url, MAPPING))
    assert "refused" in said
    assert "hunter2" not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "mapping", [{}, {"user_id_column": "id"}, {**MAPPING, "name_column": "name"}]
)
def test_a_mapping_that_is_none(mapping: dict[str, str]) -> None:
    with pytest.raises(PlansUnreadError, match="user_id_column, tier_column, budget_column"):
        TierConfigGenerator.from_database("postgresql://", mapping)


def test_without_the_driver_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(PlansUnreadError, match=r"pip install 'cascaded\[postgres\]'"):
        TierConfigGenerator.from_database("postgresql://", MAPPING)


async def test_texts_that_are_no_texts(database: Postgres) -> None:
    """A database in SQL_ASCII hands out whatever bytes somebody put there."""
    with psycopg.connect(database.url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS bytes")
        connection.execute("CREATE DATABASE bytes TEMPLATE template0 ENCODING SQL_ASCII")
    url = database.url().replace("/postgres?", "/bytes?")
    with psycopg.connect(url, autocommit=True, client_encoding="SQL_ASCII") as connection:
        connection.execute(USERS.encode())
        connection.execute(b"INSERT INTO users VALUES (E'\\xff\\xfe', 'pro', 1)")
    said = await unread(TierConfigGenerator.from_database(url, MAPPING))
    assert said == 'invalid byte sequence for encoding "UTF8": 0xff'
