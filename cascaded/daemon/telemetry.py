"""OpenTelemetry, where the configuration names a collector. Elsewhere its libraries are not even
imported."""

import os
import random
import socket
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING

from cascaded.adapters.json_log import JsonLog
from cascaded.adapters.prometheus import PrometheusMetrics
from cascaded.config import Config
from cascaded.daemon.errors import StartError
from cascaded.ports import Clock

if TYPE_CHECKING:
    from cascaded.adapters.otel import Exporter


def open_telemetry(
    config: Config, clock: Clock, log: JsonLog, metrics: PrometheusMetrics, stack: AsyncExitStack
) -> "Exporter | None":
    """Who tells the collector; the stack ends it, after what waits is told. Raises `StartError`."""
    settings = config.otel
    if settings.endpoint is None:
        return None
    try:
        from cascaded.adapters.otel import Content, Exporter, Terms
    except ModuleNotFoundError as error:
        raise StartError(f"otel: pip install 'cascaded[otel]' ({error.name} is missing)") from None
    exporter = Exporter(
        Terms(
            endpoint=settings.endpoint.rstrip("/"),
            headers=settings.headers,
            service=settings.service_name,
            version=version("cascaded"),
            instance=f"{socket.gethostname()}:{os.getuid()}",
            traces=settings.traces,
            metrics=settings.metrics,
            content=Content(users=settings.users, prompts=settings.prompts),
            sample_ratio=settings.sample_ratio,
            queue=settings.max_queue,
            spans_every_s=settings.spans_every_s,
            metrics_every_s=settings.metrics_every_s,
            timeout_s=settings.timeout_s,
        ),
        clock,
        random.SystemRandom().getrandbits,
        metrics.collect,
        lambda message: log.write("error", "telemetry", message=message),
    )
    stack.push_async_callback(exporter.close)
    metrics.counter(
        "cascaded_telemetry_lost",
        "Calls of which the OpenTelemetry collector could not be told.",
        lambda: exporter.lost,
    )
    return exporter
