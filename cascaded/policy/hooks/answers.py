"""What a hook's answer means, if it means anything."""

from collections.abc import Mapping
from typing import cast, get_args

from cascaded.types.hooks import Action, Advice

MAX_MESSAGE_CHARS = 300
MAX_MODELS = 10_000
_PAIR = 2
_ACTIONS = frozenset(get_args(Action))


class NonsenseError(ValueError):
    """The answer is none; says what was expected. Never quotes it."""


def read_advice(said: object) -> Advice:
    """Of `on_budget_check`: an action, a pair of action and message, or a mapping of both.

    The message is made fit for a header: one line, cut where it is long. Raises `NonsenseError`.
    """
    action, message = _parts(said)
    if not isinstance(action, str) or action not in _ACTIONS:
        raise NonsenseError(f"the action must be one of {', '.join(get_args(Action))}")
    if not isinstance(message, str):
        raise NonsenseError("the message must be text")
    return Advice(cast("Action", str(action)), _one_line(message))


def read_models(said: object) -> frozenset[str]:
    """Of `on_model_filter`: names of models, bare or as the mapping's `models`.

    Raises `NonsenseError`."""
    names = said.get("models") if isinstance(said, Mapping) else said
    if not isinstance(names, list | tuple | set | frozenset) or len(names) > MAX_MODELS:
        raise NonsenseError(f"the models must be a list of at most {MAX_MODELS} names")
    if not all(isinstance(name, str) for name in names):
        raise NonsenseError("the names of models must be text")
    return frozenset(names)


def _parts(said: object) -> tuple[object, object]:
    if isinstance(said, Mapping):
        message = said.get("message")
        return said.get("action"), "" if message is None else message
    if isinstance(said, list | tuple) and len(said) == _PAIR:
        return said[0], said[1]
    return said, ""


def _one_line(text: str) -> str:
    cut = text[: MAX_MESSAGE_CHARS + 1]
    told = " ".join("".join(c if c.isprintable() else " " for c in cut).split())
    return told if len(told) <= MAX_MESSAGE_CHARS else told[: MAX_MESSAGE_CHARS - 1] + "…"
