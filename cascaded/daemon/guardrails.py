"""The guardrails of a configuration. Their models are loaded by the first call that needs them."""

from functools import cache

from cascaded.adapters.package_data import read
from cascaded.config import Config
from cascaded.daemon.ground import Ground
from cascaded.pipeline.guardian import Guardian
from cascaded.policy.guardrails.models import HARM_FILE, INJECTION_FILE, Harms, Orders


@cache
def orders() -> Orders:
    """Who knows orders."""
    return Orders(read(INJECTION_FILE))


@cache
def harms() -> Harms:
    """Who knows harm."""
    return Harms(read(HARM_FILE))


def make_guardian(config: Config, ground: Ground) -> Guardian:
    """What calls pass. Where nothing is configured, profiles may still ask for something."""
    settings = config.guardrails
    return Guardian(
        settings,
        settings.tiers,
        may_loosen=settings.profiles_may_loosen,
        orders=lambda text, foreign: orders()(text, foreign),
        judge=lambda text: harms().judge(text),
        insults=lambda text: harms().insults(text),
        names=lambda _: (),
        offload=ground.offload,
    )
