"""Write the reference documents from the code: `make reference`. A test holds them current."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import msgspec
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from cascaded.api.errors import ERRORS, Kind
from cascaded.api.openapi import JSON, document
from cascaded.api.routes import CLAIMS
from cascaded.api.table import ROUTES
from cascaded.cli import cascaded
from cascaded.cli.exits import Exit
from cascaded.config.reference import Setting, Table, tables
from cascaded.types.environment import Variable
from cascaded.wire.protocol import HEADER as PROTOCOL
from tests.support.daemon import CASCADE, daemon_with, upstream_server
from tests.support.upstream import Fails, Says, Upstream

ROOT = Path(__file__).parents[1]
MADE = "<!-- Made by scripts/build_reference.py from the code; edit the code instead. -->"
ASKED = {"query": "What is the capital of France?"}
ONE_PLACE = CASCADE.replace("[server]", "[server]\nmax_concurrency = 1")
ONE_PLACE += """
[hooks.budget_check]
url = "http://127.0.0.1:9/"  # where nobody answers

[otel]
endpoint = "http://127.0.0.1:9"

[limits.global]
daily_usd = 1
warn_threshold = 0.000001

[limits.users.default]
requests_per_minute = 4
"""


def configuration() -> str:
    """docs/reference/configuration.md"""
    return "\n".join(_configuration())


def _configuration() -> Iterator[str]:
    yield f"""# Configuration

{MADE}

One TOML file: `--config FILE`, `$CASCADED_CONFIG`, or `cascaded.toml` in the usual place
([environment](environment.md)). Without one the defaults hold. `NAME` in a header is yours to
choose. `cascaded config init` writes a file to begin with, `cascaded config check` explains every
mistake with its line, `cascaded config show --origin` prints what is in force and why.

Money is a decimal in US dollars, exact, as a text or a number. A secret never stands in the file:
`"env:NAME"` reads an environment variable, `"file:/path"` a file, `"credential:NAME"` a systemd
credential. A name with a dot needs quotes: `[models."gpt-4.1"]`.
"""
    for table in tables():
        yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    kind = f", `{table.kind}`" if table.kind else ""
    yield f"## `[{table.header}]`{kind}\n" if table.header else "## Above all tables\n"
    if table.header:
        yield f"{table.meaning}\n"
    if table.same_as:
        yield f"The settings of [`[{table.same_as}]`](#{_anchor(table.same_as)}).\n"
        return
    yield "| setting | what may stand there | default | meaning |\n|---|---|---|---|"
    yield from map(_row, table.settings)
    yield ""


def _row(setting: Setting) -> str:
    default = "required" if setting.required else ""
    if setting.default is not None:
        default = f"`{setting.default}`"
    cells = (f"`{setting.name}`", setting.expected, default, setting.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _anchor(header: str) -> str:
    return "".join(one for one in header.lower() if one.isalnum() or one in "-_")


def environment() -> str:
    """docs/reference/environment.md"""
    rows = "\n".join(f"| `{one}` | {one.meaning} |" for one in Variable)
    return f"""# Environment

{MADE}

Every variable that the daemon and the command line read. Secrets come out of variables that the
configuration names (`"env:NAME"`).

| variable | meaning |
|---|---|
{rows}
"""


def manual() -> str:
    """man/cascaded.1"""
    root = click.Context(cascaded, info_name="cascaded", **cascaded.context_settings)
    commands = "\n".join(line for command in _commands(root) for line in _in_manual(*command))
    exits = "\n".join(f".TP\n.B {int(one)}\n{_roff(one.meaning)}" for one in Exit)
    variables = "\n".join(f".TP\n.B {one}\n{_roff(one.meaning)}" for one in Variable)
    return f"""\
.\\" Made by scripts/build_reference.py from the code; edit the code instead.
.TH CASCADED 1
.SH NAME
cascaded \\- the LLM cost-control sidecar
.SH SYNOPSIS
.B cascaded
.RI [ OPTIONS ]
.I COMMAND
.RI [ ARGUMENTS ]
.SH DESCRIPTION
One daemon per host beside your application, on a Unix socket. It asks a cheap model first, keeps
the answer if it is good enough, and climbs to a stronger one if it is not; budgets and rates are
held before anything is sent. Every command but
.B serve
and
.B completion
takes
.B \\-\\-json
for programs.
.SH COMMANDS
{commands}
.SH EXIT STATUS
{exits}
.SH ENVIRONMENT
{variables}
.SH FILES
.TP
.I ~/.config/cascaded/cascaded.toml
The configuration, where neither
.B \\-\\-config
nor
.B CASCADED_CONFIG
names one.
"""


def _commands(ctx: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command that does something, with its whole name."""
    assert isinstance(ctx.command, click.Group)
    for name in ctx.command.list_commands(ctx):
        command = ctx.command.get_command(ctx, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=ctx)
        if isinstance(command, click.Group):
            yield from _commands(below)
        else:
            yield below.command_path.removeprefix("cascaded "), command, below


def _in_manual(name: str, command: click.Command, ctx: click.Context) -> Iterator[str]:
    arguments = " ".join(
        one.make_metavar(ctx) for one in command.params if isinstance(one, click.Argument)
    )
    yield f".SS {_roff(f'{name} {arguments}'.strip())}"
    text = inspect.cleandoc(command.help or "")
    yield "\n.PP\n".join(_roff(" ".join(part.split())) for part in text.split("\n\n"))
    for option in command.params:
        record = option.get_help_record(ctx)
        if isinstance(option, click.Option) and record is not None:
            yield f".TP\n.B {_roff(record[0])}\n{_roff(record[1])}"


def _roff(text: str) -> str:
    """A text without what roff would take for its own."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def errors() -> str:
    """docs/reference/errors.md"""
    rows = "\n".join(map(_error, sorted(ERRORS.items(), key=lambda one: (one[1].status, one[0]))))
    return f"""# Errors

{MADE}

Every refusal is an OpenAI error object, on every route:
`{{"error": {{"message", "type", "param", "code", …}}}}`, with what is known of the limit, tier or
price beside it, and the request's id as `x-request-id`. `x-should-retry` tells the SDKs whether to
try again by themselves; `retry-after` says when. In a stream that has begun an error is its last
event.

| status | `code` | `type` | again? | meaning | what to do |
|---|---|---|---|---|---|
{rows}

Where two codes are given, the first is told to callers, as clients know it; log, metrics and audit
log have the second.
"""


def _error(row: tuple[str, Kind]) -> str:
    code, kind = row
    name = f"`{kind.code}` (`{code}`)" if kind.code else f"`{code}`"
    again = "yes" if kind.retry else "no"
    return f"| {kind.status} | {name} | `{kind.type}` | {again} | {kind.meaning} | {kind.remedy} |"


def api() -> str:
    """docs/reference/api.md"""
    told = msgspec.json.decode(msgspec.json.encode(document(ROUTES)))
    routes = "\n".join(
        _route(f"{method.upper()} {path}", operation, told["components"]["schemas"])
        for path, operations in told["paths"].items()
        for method, operation in operations.items()
    )
    claims = "\n".join(f"- `{one.name}`: {one.meaning.partition('. ')[0]}" for one in CLAIMS)
    return f"""# HTTP API

{MADE}

Every route is there under `/v1` too. Members in **bold** are required. Money is an exact decimal
in US dollars. The whole description, with types, is [openapi.json](openapi.json), which a running
daemon serves at `/openapi.json`; viewers and generators for OpenAPI 3.1 read it. What refusals
mean: [errors](errors.md).

## Whom a call is for

Believed from callers that `access.trusted` lists.

{claims}

{routes}"""


def _route(title: str, operation: JSON, schemas: JSON) -> str:
    does, _, who = operation["description"].partition("\n\n**Who:** ")
    lines = [f"## {title}\n", f"{does}\n", f"- **who**: {who}"]
    claims = {one.name for one in CLAIMS}
    lines += (
        f"- {one['in']} `{one['name']}`: {one['description']}"
        for one in operation["parameters"]
        if one["name"] not in {PROTOCOL, *claims}
    )
    if any(one["name"] in claims for one in operation["parameters"]):
        lines.append("- headers: [whom it is for](#whom-a-call-is-for)")
    body = operation.get("requestBody", {}).get("content", {})
    answer = operation["responses"]["200"].get("content", {})
    for what, content in (("body", body), ("answer", answer)):
        members = _members(content.get("application/json", {}).get("schema", {}), schemas)
        if members:
            lines.append(f"- {what}: {members}")
    return "\n".join(lines) + "\n"


def _members(schema: JSON, schemas: JSON) -> str:
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    required = schema.get("required", ())
    names = sorted(schema.get("properties", ()), key=lambda name: name not in required)
    return ", ".join(f"**`{name}`**" if name in required else f"`{name}`" for name in names)


def metrics() -> str:
    """docs/reference/metrics.md"""
    with (
        upstream_server(Upstream()) as upstream,
        daemon_with(ONE_PLACE, url=upstream.url) as daemon,
        daemon.http() as http,
        ThreadPoolExecutor() as threads,
    ):
        upstream.on("cheap", Says("I cannot help with that.", delay_s=0.2), Fails(400))
        # Labels show once there is something to count: a call, one that waits, one turned away,
        # answers that are not kept, a provider that fails, and a limit that refuses.
        rounds: list[list[dict[str, str]]] = [[ASKED, ASKED, {}], [ASKED], [ASKED], [ASKED]]
        for bodies in rounds:
            list(threads.map(lambda body: http.post("/infer", json=body), bodies))
        told = http.get("/metrics", headers={"Accept": "application/openmetrics-text"})
        families = [*text_string_to_metric_families(told.text)]  # type: ignore[no-untyped-call]
    ours = "\n".join(_metric(one) for one in families if one.name.startswith("cascaded_"))
    rest = ", ".join(f"`{one.name}`" for one in families if one.name.startswith("process_"))
    return f"""# Metrics

{MADE}

`GET /metrics` on the socket, or on TCP with a key (without one where `server.metrics_without_key`
says so), as Prometheus' text or OpenMetrics. Counters are told as `NAME_total`, histograms as
`NAME_bucket`, `_sum` and `_count`. Labels are bounded: what callers send is never one.

| metric | type | labels | meaning |
|---|---|---|---|
{ours}

Beside them the process' own: {rest}.

How Prometheus comes to them, rules and dashboards: [observability](../guides/observability.md).
"""


def _metric(one: Metric) -> str:
    own = {"histogram": {"le"}}.get(one.type, set())
    labels = sorted({name for sample in one.samples for name in sample.labels} - own)
    told = ", ".join(f"`{name}`" for name in labels)
    name = f"{one.name}_total" if one.type == "counter" else one.name
    return f"| `{name}` | {one.type} | {told} | {one.documentation} |"


def openapi() -> str:
    """docs/reference/openapi.json"""
    return json.dumps(json.loads(msgspec.json.encode(document(ROUTES))), indent=1) + "\n"


DOCUMENTS: Mapping[str, Callable[[], str]] = {
    "docs/reference/configuration.md": configuration,
    "docs/reference/environment.md": environment,
    "docs/reference/openapi.json": openapi,
    "docs/reference/api.md": api,
    "docs/reference/errors.md": errors,
    "docs/reference/metrics.md": metrics,
    "man/cascaded.1": manual,
}
"""Files, and what makes them."""


def main() -> None:
    """Write them all."""
    for name, make in DOCUMENTS.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make())
        print(name)


if __name__ == "__main__":
    main()
