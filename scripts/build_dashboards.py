"""Write dashboards/*.json, for Grafana to import as they are: `make dashboards`.

A panel is a line below: what is shown, in which unit, by which queries. Grafana's own models
(grafana-foundation-sdk) make it into what Grafana reads. `@` in a query stands for the instances
that are chosen.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

from grafana_foundation_sdk.builders import (
    dashboard,
    gauge,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption, VariableRefresh

FOLDER = Path(__file__).parents[1] / "dashboards"
SOURCES = "datasource"
SOURCE = DataSourceRef(type_val="prometheus", uid=f"${{{SOURCES}}}")
CHOSEN = 'instance=~"$instance"'
LINES_OPACITY, STACKED_OPACITY, STATES_OPACITY = 10, 40, 70
Builder = stat.Panel | gauge.Panel | timeseries.Panel | statetimeline.Panel


class Kind(NamedTuple):
    """How a panel is drawn."""

    make: Callable[[], Builder]
    width: int = 12
    height: int = 8


KINDS = {
    "number": Kind(stat.Panel, 4, 4),
    "gauge": Kind(gauge.Panel, 6),
    "lines": Kind(timeseries.Panel),
    "stacked": Kind(timeseries.Panel),
    "states": Kind(statetimeline.Panel),
}


class Panel(NamedTuple):
    """One panel: queries with their legends."""

    kind: str
    title: str
    unit: str
    queries: Mapping[str, str]
    meaning: str = ""


def quantile(share: str, name: str, by: str = "") -> str:
    """A quantile of one of our histograms."""
    rates = f"rate(cascaded_{name}_bucket{{@}}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by (le{by and f', {by}'}) ({rates}))"


def quantiles(name: str) -> Mapping[str, str]:
    """Three of them."""
    return {
        "median": quantile("0.5", name),
        "95%": quantile("0.95", name),
        "99%": quantile("0.99", name),
    }


def rate(name: str, by: str, labels: str = "") -> str:
    """How many in a second, by a label."""
    chosen = f"@, {labels}" if labels else "@"
    return f"sum by ({by}) (rate(cascaded_{name}_total{{{chosen}}}[$__rate_interval]))"


def grown(name: str, labels: str = "") -> str:
    """By how much it grew in the time that is shown."""
    chosen = f"@, {labels}" if labels else "@"
    return f"sum(increase(cascaded_{name}_total{{{chosen}}}[$__range]))"


ANSWERED = grown("requests", 'status="ok"')
OVERVIEW: Mapping[str, Sequence[Panel]] = {
    "In the time shown": (
        Panel("number", "Spent", "currencyUSD", {"": grown("cost_usd")}, "Billed, and unknown."),
        Panel(
            "number", "Saved", "currencyUSD", {"": "sum(delta(cascaded_saved_usd{@}[$__range]))"}
        ),
        Panel(
            "number",
            "Saved, of what the strongest model alone would have cost",
            "percentunit",
            {
                "": "sum(delta(cascaded_saved_usd{@}[$__range])) / clamp_min("
                f"sum(delta(cascaded_saved_usd{{@}}[$__range])) + {grown('cost_usd')}, 1e-9)"
            },
        ),
        Panel("number", "Calls", "short", {"": grown("requests")}),
        Panel("number", "Answered", "percentunit", {"": f"{ANSWERED} / {grown('requests')}"}),
        Panel(
            "number",
            "Of the answers, without escalation",
            "percentunit",
            {"": f"1 - {grown('escalated')} / {ANSWERED}"},
        ),
    ),
    "Money": (
        Panel(
            "stacked",
            "Spend an hour, by model",
            "currencyUSD",
            {"{{model}}": f"3600 * {rate('cost_usd', 'model')}"},
        ),
        Panel(
            "lines",
            "Saved, since the start",
            "currencyUSD",
            {"{{instance}}": "cascaded_saved_usd{@}"},
        ),
        Panel(
            "gauge",
            "Budgets of everybody",
            "percentunit",
            {
                "{{window}}": 'sum by (window) (cascaded_global_budget_usd{@, amount!="limit"})'
                ' / sum by (window) (cascaded_global_budget_usd{@, amount="limit"})'
            },
            "Spent, unknown and held, of the limit. There is nothing here without limits.global.",
        ),
        Panel(
            "gauge",
            "Cache: hits",
            "percentunit",
            {
                "": f"{grown('cache_hits')} / ({grown('cache_hits')} + {grown('cache_misses')})",
            },
        ),
        Panel(
            "lines",
            "Money that is not settled",
            "currencyUSD",
            {"{{state}}": 'sum by (state) (cascaded_spend_usd{@, state!="posted"})'},
            "Held for calls under way; unknown: charged at its worst, as nobody knows the bill.",
        ),
    ),
    "The cascade": (
        Panel("stacked", "Answers by model", "reqps", {"{{model}}": rate("accepted", "model")}),
        Panel(
            "lines",
            "Escalated and flagged",
            "reqps",
            {"escalated": rate("escalated", "job"), "flagged": rate("flagged", "job")},
        ),
        Panel(
            "stacked",
            "Why answers were not kept",
            "reqps",
            {"{{check}}": rate("rejected", "check")},
        ),
        Panel(
            "stacked",
            "Tokens",
            "short",
            {"{{model}} {{direction}}": rate("tokens", "model, direction")},
        ),
    ),
    "Callers": (
        Panel(
            "stacked",
            "Calls by how they ended",
            "reqps",
            {"{{status}}": rate("requests", "status")},
        ),
        Panel(
            "stacked",
            "Refused by limits",
            "reqps",
            {"{{code}} ({{scope}})": rate("limited", "code, scope")},
        ),
        Panel(
            "stacked",
            "What guardrails found",
            "reqps",
            {
                "{{guardrail}} {{category}} ({{action}})": rate(
                    "guardrails", "guardrail, category, action"
                )
            },
        ),
        Panel("lines", "Time of a call", "s", quantiles("request_seconds")),
        Panel("lines", "Time to the first word of a stream", "s", quantiles("first_token_seconds")),
        Panel(
            "lines",
            "Errors of providers",
            "reqps",
            {"{{provider}} {{code}}": rate("provider_errors", "provider, code")},
        ),
        Panel(
            "lines",
            "Calls under budgets that are nearly used up",
            "reqps",
            {"{{scope}}": rate("budget_warnings", "scope")},
        ),
    ),
}
OPERATIONS: Mapping[str, Sequence[Panel]] = {
    "Now": (
        Panel("number", "Calls under way", "short", {"": "sum(cascaded_in_flight{@})"}),
        Panel("number", "Waiting", "short", {"": "sum(cascaded_waiting{@})"}),
        Panel(
            "number",
            "Places taken",
            "percentunit",
            {"": "sum(cascaded_in_flight{@}) / sum(cascaded_places{@})"},
        ),
        Panel(
            "number", "Bills unknown", "short", {"": 'sum(cascaded_holds_now{@, state="unknown"})'}
        ),
        Panel(
            "number",
            "Records lost",
            "short",
            {
                "": "sum(cascaded_usage_records_lost_total{@})"
                " + sum(cascaded_audit_records_lost_total{@})"
            },
        ),
        Panel("number", "Up since", "s", {"": "time() - min(process_start_time_seconds{@})"}),
    ),
    "Queue": (
        Panel(
            "lines",
            "Calls under way and waiting",
            "short",
            {
                "under way": "sum(cascaded_in_flight{@})",
                "waiting": "sum(cascaded_waiting{@})",
                "places": "sum(cascaded_places{@})",
            },
        ),
        Panel(
            "lines",
            "Wait for a place, 95%",
            "s",
            {"{{ended}}": quantile("0.95", "waited_seconds", "ended")},
        ),
        Panel(
            "stacked",
            "Turned away at the door",
            "reqps",
            {"{{code}}": rate("turned_away", "code")},
        ),
        Panel(
            "stacked",
            "Hooks by how they ended",
            "reqps",
            {"{{point}} {{outcome}}": rate("hooks", "point, outcome")},
        ),
    ),
    "The daemon": (
        Panel("lines", "Time of a call outside its providers", "s", quantiles("overhead_seconds")),
        Panel("lines", "Lag of the event loop", "s", quantiles("loop_lag_seconds")),
        Panel(
            "lines",
            "Flush of the ledger's journal",
            "s",
            {"{{instance}} {{figure}}": "cascaded_flush_seconds{@}"},
        ),
        Panel(
            "stacked",
            "Holds by whether they waited for a flush",
            "reqps",
            {"{{gate}}": rate("holds", "gate")},
        ),
        Panel(
            "lines",
            "CPU",
            "percentunit",
            {"{{instance}}": "rate(process_cpu_seconds_total{@}[$__rate_interval])"},
        ),
        Panel("lines", "Memory", "bytes", {"{{instance}}": "process_resident_memory_bytes{@}"}),
        Panel("lines", "Open files", "short", {"{{instance}}": "process_open_fds{@}"}),
        Panel("lines", "Cache", "bytes", {"{{instance}}": "cascaded_cache_bytes{@}"}),
    ),
    "Providers": (
        Panel(
            "states",
            "Breakers that are not closed",
            "short",
            {"{{provider}}": 'max by (provider) (cascaded_breaker{@, state!="closed"})'},
            "1: the provider is left alone, or tried again.",
        ),
        Panel(
            "lines",
            "Calls that failed",
            "percentunit",
            {
                "{{provider}}": f"{rate('provider_errors', 'provider')} / on (provider) "
                "sum by (provider) (rate(cascaded_attempt_seconds_count{@}[$__rate_interval]))"
            },
        ),
        Panel(
            "lines",
            "Time of a call, 95%",
            "s",
            {"{{provider}}": quantile("0.95", "attempt_seconds", "provider")},
        ),
        Panel(
            "lines",
            "Time to the first word, 95%",
            "s",
            {"{{provider}}": quantile("0.95", "attempt_first_token_seconds", "provider")},
        ),
        Panel(
            "stacked",
            "Calls by model and outcome",
            "reqps",
            {"{{model}} {{outcome}}": rate("attempts", "model, outcome")},
        ),
    ),
}
DASHBOARDS = {
    "cascaded-overview": ("cascaded: overview", OVERVIEW),
    "cascaded-operations": ("cascaded: operations", OPERATIONS),
}


def made(uid: str, title: str, rows: Mapping[str, Sequence[Panel]]) -> str:
    """One dashboard, as Grafana reads it."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .tags(["cascaded"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable(SOURCES).label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Instance")
            .datasource(SOURCE)
            .query("label_values(cascaded_in_flight, instance)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(text="All", value="$__all"))
        )
    )
    number = 0
    for name, panels in rows.items():
        number += 1
        board.with_row(dashboard.Row(name).id(number))
        for panel in panels:
            number += 1
            board.with_panel(drawn(panel).id(number))
    return json.dumps(board.build(), cls=JSONEncoder, sort_keys=True, indent=1) + "\n"


def drawn(panel: Panel) -> Builder:
    """One panel."""
    kind = KINDS[panel.kind]
    made = kind.make().title(panel.title).description(panel.meaning).unit(panel.unit)
    made.datasource(SOURCE).span(kind.width).height(kind.height)
    if isinstance(made, timeseries.Panel | statetimeline.Panel):
        made.legend(VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM))
    else:
        made.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    if isinstance(made, gauge.Panel):
        made.min(0).max(1)
    if isinstance(made, timeseries.Panel):
        stacked = panel.kind == "stacked"
        made.fill_opacity(STACKED_OPACITY if stacked else LINES_OPACITY)
        made.stacking(StackingConfig().mode(StackingMode.NORMAL if stacked else StackingMode.NONE))
    if isinstance(made, statetimeline.Panel):
        made.fill_opacity(STATES_OPACITY).line_width(0)
    for ref, (legend, expr) in zip(ascii_uppercase, panel.queries.items(), strict=False):
        query = prometheus.Dataquery().ref_id(ref).expr(expr.replace("@", CHOSEN)).range()
        made.with_target(query.legend_format(legend or "__auto").datasource(SOURCE))
    return made


def main() -> None:
    """Write them."""
    for uid, (title, rows) in DASHBOARDS.items():
        (FOLDER / f"{uid}.json").write_text(made(uid, title, rows))


if __name__ == "__main__":
    main()
