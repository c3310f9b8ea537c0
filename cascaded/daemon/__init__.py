"""The composition root: the only package that names adapters and providers."""

from cascaded.daemon.book import faults
from cascaded.daemon.errors import LedgerLostError, StartError
from cascaded.daemon.run import running, serve
from cascaded.daemon.state import verify

__all__ = ["LedgerLostError", "StartError", "faults", "running", "serve", "verify"]
