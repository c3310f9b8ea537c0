"""`cascaded budget set`, `budget unset` and `tiers`: limits and tiers at run time."""

from collections.abc import Mapping

import click
import msgspec

from cascaded.cli.show import JSON, SOCKET, table
from cascaded.client import APIError, Client
from cascaded.client.results import SetLimits, TierInfo

NOT_FOUND = 404


@click.command("set")
@click.argument("scope")
@click.argument("id")
@click.argument("limits", nargs=-1, required=True, metavar="NAME=VALUE…")
@JSON
@SOCKET
def set_limits(
    scope: str, id: str, limits: tuple[str, ...], as_json: bool, socket: str | None
) -> None:
    """Set limits of SCOPE ID, such as user alice, from the next call on.

    Other scopes: global '*' (quoted, for the shell), tag feature=search … Limits are given in the
    words of the configuration file, such as daily_usd=2.50 requests_per_minute=30; what was set
    before and is not named stays.
    """
    with Client(socket) as client:
        known = _set(client, scope, id)
        told = client.set_limits(scope, id, **{**known, **dict(map(_parted, limits))})
    _show(told, as_json)


@click.command("unset")
@click.argument("scope")
@click.argument("id")
@click.argument("names", nargs=-1, metavar="[NAME…]")
@JSON
@SOCKET
def unset_limits(
    scope: str, id: str, names: tuple[str, ...], as_json: bool, socket: str | None
) -> None:
    """Take away what was set of SCOPE ID, or only these limits."""
    with Client(socket) as client:
        known = _set(client, scope, id) if names else {}
        rest = {name: value for name, value in known.items() if name not in names}
        told = client.set_limits(scope, id, **rest) if rest else client.unset_limits(scope, id)
    _show(told, as_json)


@click.group()
def tiers() -> None:
    """Customer plans."""


@tiers.command("list")
@JSON
@SOCKET
def list_tiers(as_json: bool, socket: str | None) -> None:
    """Show the tiers, the least first, and presets not in use."""
    with Client(socket) as client:
        found = client.tiers()
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    table(("tier", "from", "limits of each user"), [_tier_row(one) for one in found])


@tiers.command("show")
@click.argument("name")
@JSON
@SOCKET
def show_tier(name: str, as_json: bool, socket: str | None) -> None:
    """Show all that is known of the tier NAME."""
    with Client(socket) as client:
        tier = client.tier(name)
    if as_json:
        click.echo(msgspec.json.encode(tier))
        return
    fields = {**msgspec.structs.asdict(tier), **tier.limits}
    told = [(key, _text(value)) for key, value in fields.items() if key != "limits"]
    table(("field", "value"), [row for row in told if row[1]])


def _set(client: Client, scope: str, id: str) -> dict[str, object]:
    """What is set already."""
    try:
        return client.limits_of(scope, id).limits
    except APIError as error:
        if error.status != NOT_FOUND:
            raise
        return {}


def _parted(limit: str) -> tuple[str, object]:
    """A limit as it travels: amounts as they are written, numbers and truths as JSON."""
    name, equals, value = limit.partition("=")
    if not equals:
        raise click.UsageError(f"{limit!r} is not NAME=VALUE")
    if name.endswith("_usd"):
        return name, value
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value


def _show(told: SetLimits, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(told))
    else:
        click.echo(f"{told.scope} {told.id}: {_words(told.limits) or 'nothing is set'}")


def _tier_row(tier: TierInfo) -> tuple[str, str, str]:
    return tier.name, tier.origin, _words(tier.limits) or "none"


def _words(limits: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in limits.items())


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in value.items())
    return str(value)
