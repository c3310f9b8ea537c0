"""One TOML file → a checked, frozen `Config`; or every mistake in it."""

from cascaded.config.check import load
from cascaded.config.explain import explain
from cascaded.config.mistakes import Mistake
from cascaded.config.schema import Config

__all__ = ["Config", "Mistake", "explain", "load"]
