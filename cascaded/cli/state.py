"""`cascaded state`: the folder in which everything is remembered."""

import secrets
import shutil
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast, get_args

import click
import msgspec
from msgspec.structs import replace

from cascaded.cli.serve import read_config
from cascaded.cli.show import CONFIG, JSON, MIB, SOCKET, dollars, table
from cascaded.client import Client
from cascaded.config import Config
from cascaded.types.limits import Scope
from cascaded.types.money import MoneyError, parse_usd, to_usd

if TYPE_CHECKING:
    from cascaded.daemon import Decision, GapReport

P = ParamSpec("P")
T = TypeVar("T")
EXIT_GAP = 3
"""All is well but for forgotten spend that nobody has decided about: the daemon does not start."""
MAX_SHOWN = 20
STATE = click.option("--state", metavar="DIR", help="The state folder; by default the config's.")
YES = click.option("--yes", is_flag=True, help="Do it; without this it is only looked at.")


@click.group()
def state() -> None:
    """Check, copy, restore and repair the daemon's state.

    `backup` and `verify --live` ask the running daemon; all others are for a daemon that is
    stopped, by the user that it runs as. They end with 0; with 1 for what is damaged or cannot be
    done; with 3 where forgotten spend waits for a decision (`state gap`).
    """


@state.command()
@click.argument("folder", metavar="[DIR]", required=False)
@CONFIG
@click.option("--live", is_flag=True, help="Of the running daemon: verify a copy that it makes.")
@click.option("--scratch", metavar="DIR", help="Where the daemon may put that copy for a moment.")
@SOCKET
@JSON
def verify(
    folder: str | None,
    config: str | None,
    live: bool,
    scratch: str | None,
    socket: str | None,
    as_json: bool,
) -> None:
    """Read all of a backup DIR, or of the state of a stopped daemon.

    Without DIR it is the state folder of the configuration. Ends with 1 for what is damaged.
    """
    from cascaded.daemon import verify as read_all

    if not live:
        place = Path(folder) if folder else _folder(config, None)
        found = _run(read_all, place)
    else:
        copy = Path(scratch or tempfile.gettempdir(), f"cascaded-verify-{secrets.token_hex(8)}")
        with Client(socket) as client:
            place = Path(client.backup(str(copy.absolute())).dir)
        try:
            found = _run(read_all, place)
        finally:
            shutil.rmtree(place)
    if as_json:
        click.echo(msgspec.json.encode({"dir": str(place), **found}))
        return
    click.echo(f"{'the running daemon' if live else place}: nothing is damaged")
    table(("what", "how many"), ((name, f"{count:,}") for name, count in found.items()))


@state.command()
@click.argument("folder", metavar="DIR")
@JSON
@SOCKET
def backup(folder: str, as_json: bool, socket: str | None) -> None:
    """Copy the state of the running daemon into DIR, a new folder.

    For administrators. What is in it: the ledger, usage records, the audit log, profiles, hashes of
    issued keys, and what was set at run time; not the configuration, its secrets, or models.
    """
    with Client(socket) as client:
        made = client.backup(str(Path(folder).absolute()))
    if as_json:
        click.echo(msgspec.json.encode(made))
        return
    click.echo(made.dir)
    table(("part", "MiB"), ((one.name, f"{one.bytes / MIB:,.1f}") for one in made.contents))


@state.command()
@click.argument("backup", metavar="BACKUP")
@STATE
@CONFIG
@JSON
def restore(backup: str, state: str | None, config: str | None, as_json: bool) -> None:
    """Put BACKUP in the place of the state, after reading all of it.

    What was there is put aside, never deleted. What was spent after the backup is not in it, so
    it ends with 3, and the daemon starts after `cascaded state gap`.
    """
    from cascaded.daemon import restore as put_back

    done = _run(put_back, Path(backup), _folder(config, state))
    if as_json:
        click.echo(msgspec.json.encode(done))
    else:
        click.echo(f"{done.dir} is now as {backup} has it")
        click.echo("API keys that were revoked after it was made are valid again: revoke them")
        if done.replaced is not None:
            click.echo(f"what was there is in {done.replaced}")
            click.echo(
                "its usage log may know what was spent since: cascaded state gap"
                f" --state {done.dir} --from-usage {done.replaced}/usage"
            )
        _tell_of_gap(done.dir)
    raise click.exceptions.Exit(EXIT_GAP)


@state.command()
@YES
@STATE
@CONFIG
@JSON
def cut(yes: bool, state: str | None, config: str | None, as_json: bool) -> None:
    """Give up records that cannot be read, and all behind them.

    Says first what would be lost; `--yes` does it. The damaged files are kept, under other names.
    What was spent by the lost records is forgotten, so it ends with 3, and the daemon starts after
    `cascaded state gap`. A backup that is newer than the damage loses less.
    """
    from cascaded.daemon import cut as cut_off
    from cascaded.daemon import verify as read_all

    folder = _folder(config, state)
    if not yes:
        found = _run(read_all, folder)  # ends with 1 and the words of the damage
        click.echo(msgspec.json.encode(found) if as_json else f"{folder}: nothing is damaged")
        return
    done = _run(cut_off, folder)
    if as_json:
        click.echo(msgspec.json.encode(done))
    elif done is None:
        click.echo(f"{folder}: nothing is damaged, and nothing was cut")
    else:
        click.echo(
            f"{folder}: records up to {done.last_seq} are kept; {done.last_seq + 1} to at least"
            f" {done.lost_seq} are lost"
        )
        for name in done.set_aside:
            click.echo(f"kept for whoever can read it: {name}")
        _tell_of_gap(done.dir)
    if done is not None:
        raise click.exceptions.Exit(EXIT_GAP)


@state.command()
@click.option(
    "--charge", "charges", multiple=True, metavar="SCOPE:ID=USD", help="For one scope; repeatable."
)
@click.option("--charge-limits", is_flag=True, help="Fill every hard budget up to its limit.")
@click.option("--from-usage", metavar="DIR", help="What this usage log knows beyond the ledger.")
@click.option("--charge-nothing", is_flag=True, help="Nothing was spent; it is put on record.")
@STATE
@CONFIG
@JSON
def gap(
    charges: tuple[str, ...],
    charge_limits: bool,
    from_usage: str | None,
    charge_nothing: bool,
    state: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Decide what is charged for spend that is forgotten.

    A restored backup and a cut journal forget.
    Without a decision it says what is known, and ends with 3. Each charge is an unknown: it counts
    against its budgets until `cascaded unknowns resolve` says what the provider's bill does.

    \b
    --charge user:alice=1.25 --charge global=40    amounts that you know
    --from-usage DIR/usage     what was recorded of calls that the ledger forgot
    --charge-limits            safe: no call under a hard budget until its window ends, or
                               until unknowns are resolved
    """
    from cascaded.daemon import Decision, charge_gap

    decision = Decision(
        named=tuple(_charge(one) for one in charges),
        usage=None if from_usage is None else _usage_log(from_usage),
        limits=charge_limits,
        nothing=charge_nothing,
    )
    report = _run(charge_gap, _placed(config, state), _checked(decision))
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        _print_gap(report)
    if not report.closed:
        raise click.exceptions.Exit(EXIT_GAP)


@state.command()
@STATE
@CONFIG
@JSON
def migrate(state: str | None, config: str | None, as_json: bool) -> None:
    """Bring the state of an older release to this one's layout."""
    from cascaded.daemon import migrate as bring_forward

    folder = _folder(config, state)
    was, version = _run(bring_forward, folder)
    if as_json:
        click.echo(msgspec.json.encode({"dir": str(folder), "was": was, "version": version}))
    else:
        click.echo(f"{folder} is laid out in version {version}: nothing to do")


def _run(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The daemon's own work, its refusals as this command's."""
    from cascaded.daemon import StartError

    try:
        return work(*args, **kwargs)
    except StartError as error:
        raise click.ClickException(str(error)) from None


def _placed(config: str | None, state: str | None) -> Config:
    found = read_config(config, search=True)
    if state is None:
        return found
    return replace(found, ledger=replace(found.ledger, dir=str(Path(state).absolute())))


def _folder(config: str | None, state: str | None) -> Path:
    return Path(state or str(read_config(config, search=True).ledger.dir)).absolute()


def _charge(text: str) -> tuple[Scope, str, int]:
    """`user:alice=1.25` or `global=40`."""
    subject, _, amount = text.rpartition("=")
    scope, _, id = subject.partition(":")
    if scope not in get_args(Scope) or bool(id) == (scope == "global"):
        raise click.BadParameter(
            f"{text!r} is not SCOPE:ID=USD, such as user:alice=1.25 or global=40"
        )
    try:
        return cast("Scope", scope), id or "*", parse_usd(amount)
    except MoneyError as error:
        raise click.BadParameter(f"{text!r}: {error}") from None


def _usage_log(text: str) -> Path:
    path = Path(text).absolute()
    if not (path / "data.mdb").is_file():
        raise click.BadParameter(f"{path} is no usage log: it is the folder `usage` of a state")
    return path


def _checked(decision: "Decision") -> "Decision | None":
    """The decision, if it is one."""
    charges = bool(decision.named or decision.usage or decision.limits)
    if charges and decision.nothing:
        raise click.UsageError("--charge-nothing stands alone")
    return decision if charges or decision.nothing else None


def _tell_of_gap(folder: str) -> None:
    click.echo(
        "What was spent since is forgotten. Before the daemon starts, say what to charge for it:\n"
        f"  cascaded state gap --state {folder}"
    )


def _print_gap(report: "GapReport") -> None:
    if report.upto_seq is None:
        click.echo("nothing is forgotten: there is no gap to charge")
        return
    click.echo(f"forgotten: all spend after record {report.upto_seq} ({report.reason})")
    shown = report.charged or report.known
    rows = [
        (one.subject, dollars(to_usd(one.nano_usd)), " ".join(one.windows), str(one.hold or ""))
        for one in shown[:MAX_SHOWN]
    ]
    if report.closed:
        total = sum((to_usd(one.nano_usd) for one in shown), Decimal(0))
        click.echo(
            f"charged: {len(shown):,} unknowns of {dollars(total)} in all; the daemon may start"
        )
    elif shown:
        click.echo("the usage log of this state has calls that the ledger forgot (--from-usage):")
    else:
        click.echo("the usage log of this state knows of nothing that the ledger forgot")
    if rows:
        table(("whose", "amount", "windows", "hold"), rows)
    if len(shown) > MAX_SHOWN:
        click.echo(f"and {len(shown) - MAX_SHOWN:,} more")
    if not report.closed:
        click.echo("Decide with --charge, --from-usage, --charge-limits or --charge-nothing.")
