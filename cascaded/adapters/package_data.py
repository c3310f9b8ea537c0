"""Files that travel inside the package."""

from pathlib import Path

# Not importlib.resources: it takes 13 ms to import, and the package is never a zip (it has a
# compiled module).
DATA = Path(__file__).parents[1] / "data"


def read(name: str) -> bytes:
    """The bytes of `cascaded/data/<name>`."""
    return (DATA / name).read_bytes()
