"""The composition root: the only package that names adapters and providers."""

from cascaded.daemon.book import faults
from cascaded.daemon.errors import LedgerLostError, StartError
from cascaded.daemon.gap import Decision, GapReport, charge_gap
from cascaded.daemon.restore import cut, restore
from cascaded.daemon.run import running, serve
from cascaded.daemon.state import migrate, state_folder, verify

__all__ = [
    "Decision",
    "GapReport",
    "LedgerLostError",
    "StartError",
    "charge_gap",
    "cut",
    "faults",
    "migrate",
    "restore",
    "running",
    "serve",
    "state_folder",
    "verify",
]
