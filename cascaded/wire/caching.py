"""What callers say of earlier answers. Pure."""

from typing import Literal

from cascaded.types.request import CacheWish
from cascaded.wire.openai_chat import WireError

CACHE_HEADER = "x-cascaded-cache"
CacheWord = Literal["on", "off", "refresh"]
WORDS: dict[str, CacheWish] = {
    "on": CacheWish(asked=True),
    "off": CacheWish(off=True),
    "refresh": CacheWish(asked=True, max_age_s=0),
}
INDIFFERENT = CacheWish()
MAX_AGE = "max-age="
MAX_AGE_DIGITS = 9


def read_wish(cache_control: str | None, own: str | None) -> CacheWish:
    """The wish of HTTP's `Cache-Control` and of our own header, joined.

    Directives that we do not know are for others. Raises `WireError` for a word of ours that is
    none.
    """
    if cache_control is None and own is None:
        return INDIFFERENT
    if own is not None and own not in WORDS:
        raise WireError(f"{CACHE_HEADER} must be on, off or refresh, not {own!r}", CACHE_HEADER)
    wish = INDIFFERENT if own is None else WORDS[own]
    for directive in (cache_control or "").lower().split(","):
        wish = joined(wish, _directive(directive.strip()))
    return wish


def joined(one: CacheWish, other: CacheWish) -> CacheWish:
    """Both wishes: what either forbids is forbidden."""
    ages = [wish.max_age_s for wish in (one, other) if wish.max_age_s is not None]
    return CacheWish(one.asked or other.asked, one.off or other.off, min(ages, default=None))


def _directive(said: str) -> CacheWish:
    if said == "no-store":
        return CacheWish(off=True)
    if said == "no-cache":
        return CacheWish(max_age_s=0)
    if said.startswith(MAX_AGE):
        text = said.removeprefix(MAX_AGE)
        # What is no number of seconds lets nothing old pass.
        whole = text.isdecimal() and len(text) <= MAX_AGE_DIGITS
        return CacheWish(max_age_s=int(text) if whole else 0)
    return INDIFFERENT
