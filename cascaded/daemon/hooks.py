"""The hooks that a configuration names."""

from collections.abc import Iterator

from cascaded.adapters.http_hook import HttpHook
from cascaded.adapters.plugin_hook import PluginError, load_plugin
from cascaded.config import Config, schema
from cascaded.daemon.errors import StartError
from cascaded.daemon.ground import Ground
from cascaded.pipeline.hooks import Hooks
from cascaded.ports import Clock, Hook
from cascaded.types.hooks import HookTerms

MS_PER_S = 1_000


def make_hooks(config: Config, ground: Ground, former: Hooks | None) -> Hooks | None:
    """Plug-ins in their order, then URLs; `None` where there is none. Raises `StartError`."""
    made = tuple(_made(config.hooks, ground.clock))
    if not made:
        return None
    return Hooks(
        made,
        ground.ledger,
        ground.clock,
        told=former.told if former else {},
        report=ground.log.write,
        count=ground.metrics.hook,
    )


def _made(settings: schema.Hooks, clock: Clock) -> Iterator[Hook]:
    terms = HookTerms(deadline_s=settings.deadline_ms / MS_PER_S, on_failure=settings.on_failure)
    for name in settings.plugins:
        try:
            yield load_plugin(name, terms)
        except PluginError as error:
            raise StartError(f"hooks.plugins: {error}") from None
    if settings.budget_check is not None:
        yield _asked("budget_check", settings.budget_check, clock)
    if settings.model_filter is not None:
        yield _asked("model_filter", settings.model_filter, clock)
    if (told := settings.budget_warning) is not None:
        waits = HookTerms(deadline_s=told.deadline_ms / MS_PER_S)
        yield HttpHook("budget_warning", told.url, waits, told.secret, clock)


def _asked(point: schema.AskedPoint, url: schema.AskedUrl, clock: Clock) -> Hook:
    terms = HookTerms(
        deadline_s=url.deadline_ms / MS_PER_S, on_failure=url.on_failure, cache_s=url.cache_s
    )
    return HttpHook(point, url.url, terms, url.secret, clock)
