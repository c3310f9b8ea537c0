"""How well it decides: each part's measures on the development data, as tables and pictures.

    python -m benches.quality [AREA …] [--write]

Reads the development data beside the repository (`../shared/data`); a part says what it does
without. With `--write`, docs/quality.md and docs/img are written anew. Ends with 1 where a part
misses one of its goals.
"""

import argparse
import sys
from importlib import import_module

from benches.quality.report import Measured, table, write

AREAS = ("rules", "accept", "guardrails")
"""A module of this package for each, with `measure() -> (Measured, goals missed)`."""


def main() -> int:
    """Measure; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description="How well it decides, on public data.")
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(AREAS))
    parser.add_argument("--write", action="store_true", help="write docs/quality.md and pictures")
    asked = parser.parse_args()
    unknown = set(asked.areas) - set(AREAS)
    if unknown:
        parser.error(f"no area is called {', '.join(sorted(unknown))}: {', '.join(AREAS)}")
    missed = []
    for area in asked.areas or AREAS:
        print(f"\n== {area}", flush=True)
        measured: Measured
        measured, failed = import_module(f"benches.quality.{area}").measure()
        print("\n".join(table(measured.rows)))
        missed += [f"{area}: {goal}" for goal in failed]
        if asked.write:
            write(area, measured)
    for goal in missed:
        print(f"missed: {goal}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
