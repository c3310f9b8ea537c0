"""Where each value of the effective configuration comes from."""

from collections.abc import Mapping
from typing import Final

from cascaded.config.defaults import PROVIDER_BOUNDS
from cascaded.config.mistakes import KeyPath
from cascaded.config.presets import PROVIDER_PRESETS
from cascaded.config.schema import PRESETS, Config, OpenAICompatible, Upstream
from cascaded.config.toml import Node
from cascaded.types.environment import Variable

_PLACES: Final[Mapping[KeyPath, tuple[Variable, ...]]] = {
    ("server", "socket"): (Variable.RUNTIME_DIRECTORY, Variable.XDG_RUNTIME_DIR),
    ("ledger", "dir"): (Variable.STATE_DIRECTORY, Variable.XDG_STATE_HOME, Variable.HOME),
}
"""Settings that the environment decides where the file does not, and the variables in turn."""
_BOUNDED: Final = frozenset(lesser for lesser, _ in PROVIDER_BOUNDS)
_BUILT_IN: Final = ("providers", "models", "ladders", "aliases")


class Origins:
    """Answers for one configuration and the document that it was read from."""

    def __init__(self, config: Config, document: Node, source: str, env: Mapping[str, str]) -> None:
        self._config = config
        self._document = document
        self._source = source
        self._env = env

    def of(self, path: KeyPath) -> str:
        """In words: `cascaded.toml:12`, `environment HOME`, `preset production`, `default` …"""
        if self._document.has(path):
            source, line = self.place(path)
            return f"{source}:{line}"
        if path[:2] in PRESETS.get(self._config.preset or "", {}):
            return f"preset {self._config.preset}"
        if path in _PLACES:
            # The first that is absolute decides, as in types.places.
            named = (one for one in _PLACES[path] if self._env.get(one, "").startswith("/"))
            variable = next(named, None)
            return f"environment {variable}" if variable else "default"
        if path[0] == "providers" and (preset := self._preset_of(path)):
            return f"preset {preset}"
        return self._derived(path)

    def place(self, path: KeyPath) -> tuple[str, int]:
        """The file, and the line of the setting or of the table that it is missing from."""
        return self._source, self._document.line_of(path)

    def _derived(self, path: KeyPath) -> str:
        if path[0] == "tiers" and path[-1] == "preset":
            return "the tier's name"
        if path[0] in _BUILT_IN and not self._document.has(path[:2]):
            return "built in"
        if path[0] == "providers" and path[-1] in _BOUNDED and self._is_bounded(*path[1:]):
            return "bounded by a longer one"
        if path[0] == "models" and path[-1] == "upstream_name":
            return "the model's name"
        return "default"

    def _preset_of(self, path: KeyPath) -> str | None:
        """The preset of a provider that says this setting of it."""
        mine = self._config.providers[str(path[1])]
        preset = mine.preset if isinstance(mine, OpenAICompatible) else None
        return preset if preset and path[-1] in PROVIDER_PRESETS[preset] else None

    def _is_bounded(self, provider: str | int, setting: str | int) -> bool:
        mine = self._config.providers[str(provider)]
        return bool(getattr(mine, str(setting)) != getattr(Upstream(base_url=""), str(setting)))
