"""The price snapshot that ships with the package."""

from pathlib import Path

SNAPSHOT = Path(__file__).parent.parent / "data" / "prices.json.gz"


def read_price_snapshot() -> bytes:
    """The bytes that `Catalogue.load` reads. Raises `OSError` where the package is incomplete."""
    return SNAPSHOT.read_bytes()
