"""A source for models that are made here, of a file that is fetched."""

from collections.abc import Callable
from pathlib import Path

from cascaded.models.catalogue import ModelFile
from cascaded.models.minilm import ConversionError, convert
from cascaded.models.sources import Job, SourceError

Fetch = Callable[[ModelFile, Path], Path]
"""Brings a file to a folder. Raises `SourceError`."""


class MadeSource:
    """Fetches what the model is made of, and makes it. The hash is checked of both."""

    name = "made here"

    def __init__(self, origin: ModelFile, fetch: Fetch) -> None:
        self._origin = origin
        self._fetch = fetch

    def needs_bytes(self, job: Job) -> int:
        """The model, beside what it is made of."""
        return self._origin.size_bytes + job.missing_bytes

    def fetch(self, job: Job) -> None:
        """See `Source.fetch`. What it is made of stays until the model is good."""
        origin = self._fetch(self._origin, job.work / "origin")
        try:
            job.partial.write_bytes(convert(origin))
        except ConversionError as fault:
            raise SourceError(str(fault)) from fault
