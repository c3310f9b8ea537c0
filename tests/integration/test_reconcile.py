"""`cascaded reconcile`: a daemon's calls beside an invoice, and unknowns settled by it."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cascaded.cli import cascaded as command
from cascaded.client import Client
from tests.integration.test_exports import call, charged, exported
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Resets, Says, Upstream


def run(daemon: Daemon, file: Path, *args: str) -> Result:
    argv = ["reconcile", str(file), *args, "--socket", daemon.socket]
    return CliRunner().invoke(command, argv, catch_exceptions=False)


def written(folder: Path, **costs: Decimal) -> Path:
    """An invoice of today."""
    today = datetime.now(UTC).date()
    rows = [f"{today},{model}-2024-08-06,{cost}\n" for model, cost in costs.items()]
    file = folder / "invoice.csv"
    file.write_text("date,model,cost\n" + "".join(rows))
    return file


def test_an_invoice_settles_what_was_unknown(upstream: Upstream, tmp_path: Path) -> None:
    with daemon_with(CASCADE, url=upstream.url) as daemon, Client(daemon.socket) as client:
        upstream.on("cheap", Says("The capital of France is Paris."))
        upstream.on("strong", Says("The capital of France is Paris."))
        for _ in range(3):
            call(daemon, "auto", "alice", "chat")
            call(daemon, "strong", "bob", "chat")
        upstream.on("strong", Resets())
        call(daemon, "strong", "bob", "chat")
        billed = {one.name: one.cost - one.unknown_cost for one in client.breakdown()}
        real = Decimal("0.000123")
        file = written(tmp_path, cheap=billed["cheap"], strong=billed["strong"] + real)

        result = run(daemon, file, "--amount", "0", "--percent", "0", "--json")
        assert result.exit_code == 3
        told: Any = json.loads(result.output, parse_float=Decimal)
        [row] = told["differences"]
        assert (row["model"], Decimal(row["off"])) == ("strong", real)
        assert "within what 1 unknown calls were charged" in row["explanation"]
        [one] = told["resolutions"]
        assert (Decimal(one["cost"]), one["how"], told["resolved"]) == (real, "alone", 0)
        assert daemon.spend["unknown"] > 0, "it was only looked at"

        result = run(daemon, file, "--amount", "0", "--resolve")
        assert "1 of 1 unknowns are settled" in result.output
        assert daemon.spend["unknown"] == 0
        assert exported(client) == charged(daemon)
        assert Decimal(charged(daemon)).scaleb(-9) == sum(billed.values()) + real

        result = run(daemon, file, "--amount", "0", "--percent", "0")
        assert result.exit_code == 0, result.output
        assert "every model on every day matches" in result.output
        assert "0.000123" not in run(daemon, file, "--provider", "other").output
        upside = run(daemon, file, "--alias", "strong-2024-08-06=unheard-of", "--amount", "0")
        assert "not in the ledger" in upside.output
        assert "not on the invoice" in upside.output


@pytest.mark.parametrize(
    ("content", "args", "words"),
    [
        ("nonsense", (), "no column tells a day"),
        ("date,model,cost\n2026-11-20,m,1\n", ("--alias", "x"), "an alias is THEIRS=OURS"),
        ("date,model,cost\n2026-11-20,m,1\n", ("--amount", "x"), "is not a decimal amount"),
    ],
)
def test_what_cannot_be_compared(
    tmp_path: Path, content: str, args: tuple[str, ...], words: str
) -> None:
    file = tmp_path / "invoice.csv"
    file.write_text(content)
    result = CliRunner().invoke(command, ["reconcile", str(file), *args, "--socket", "/none"])
    assert result.exit_code != 0
    assert words in result.output
