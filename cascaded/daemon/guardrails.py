"""The guardrails of a configuration. Their models are loaded by the first call that needs them."""

from functools import cache

from cascaded.adapters.package_data import read
from cascaded.adapters.plugin_hook import PluginError, load_guardrail
from cascaded.config import Config
from cascaded.daemon.errors import StartError
from cascaded.daemon.ground import Ground
from cascaded.models.catalogue import MINILM
from cascaded.pipeline.customs import Customs
from cascaded.pipeline.guardian import Guardian
from cascaded.policy.guardrails.models import (
    HARM_FILE,
    INJECTION_FILE,
    VECTOR_FILE,
    Harms,
    Orders,
)
from cascaded.policy.heads import Head
from cascaded.ports import Embedder

MS_PER_S = 1_000


@cache
def orders() -> Orders:
    """Who knows orders."""
    return Orders(read(INJECTION_FILE))


@cache
def harms() -> Harms:
    """Who knows harm."""
    return Harms(read(HARM_FILE), Head.read(read(VECTOR_FILE)))


def make_guardian(config: Config, ground: Ground, embedder: Embedder) -> Guardian:
    """What calls pass. Where nothing is configured, profiles may still ask for something."""
    settings = config.guardrails
    asked = [settings, *settings.tiers.values()]
    names = dict.fromkeys(name for one in asked for name in one.custom_guardrails)
    try:
        plugins = {name: load_guardrail(name) for name in names}
    except PluginError as error:
        raise StartError(f"guardrails.custom_guardrails: {error}") from None
    return Guardian(
        settings,
        settings.tiers,
        may_loosen=settings.profiles_may_loosen,
        orders=lambda text, foreign: orders()(text, foreign),
        judge=lambda text, vector=None: harms().judge(text, vector),
        insults=lambda text: harms().insults(text),
        # The head is for one model's vectors.
        embedder=embedder if settings.meanings and embedder.name == MINILM.name else None,
        customs=Customs(
            plugins,
            deadline_s=settings.deadline_ms / MS_PER_S,
            on_failure=settings.on_failure,
            report=ground.log.write,
        ),
        offload=ground.offload,
    )
