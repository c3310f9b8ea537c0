"""The LLM cost-control sidecar.

Importing this package costs nothing: the client is loaded when it is first named.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cascaded.client import Client as Client

__all__ = ["Client"]


def __getattr__(name: str) -> object:
    if name in __all__:
        import cascaded.client

        return getattr(cascaded.client, name)
    raise AttributeError(f"module 'cascaded' has no attribute {name!r}")
