"""Files that travel inside the package."""

from importlib.resources import files


def read(name: str) -> bytes:
    """The bytes of `cascaded/data/<name>`."""
    return files("cascaded").joinpath("data", name).read_bytes()
