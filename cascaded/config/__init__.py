"""One TOML file → a checked, frozen `Config`; or every mistake in it."""

from cascaded.config.check import Loaded, examine, load
from cascaded.config.explain import effective, explain, rows
from cascaded.config.mistakes import Mistake
from cascaded.config.schema import Config

__all__ = ["Config", "Loaded", "Mistake", "effective", "examine", "explain", "load", "rows"]
