"""The official SDKs' clients, over the daemon's socket. The SDKs are the application's own.

Each function makes a new client, with connections of its own, closed as that SDK says. It raises
`ImportError` with what to install.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic
    from openai import AsyncOpenAI, OpenAI

OPENAI_URL = "http://localhost/v1"
ANTHROPIC_URL = "http://localhost"
UNUSED_KEY = "unused"
"""SDKs want one; the daemon knows its caller by the socket."""
CREDENTIALS = {"api_key", "auth_token", "credentials", "config", "profile"}


def openai_client(socket: str, options: dict[str, Any]) -> "OpenAI":
    """For OpenAI's SDK."""
    with _needing("openai"):
        from openai import DefaultHttpxClient as Plain
        from openai import OpenAI
    line = Plain(transport=_library(Plain).HTTPTransport(uds=socket))
    return OpenAI(**_with(options, base_url=OPENAI_URL, http_client=line))


def async_openai_client(socket: str, options: dict[str, Any]) -> "AsyncOpenAI":
    """For OpenAI's SDK in asyncio."""
    with _needing("openai"):
        from openai import AsyncOpenAI
        from openai import DefaultAsyncHttpxClient as Plain
    line = Plain(transport=_library(Plain).AsyncHTTPTransport(uds=socket))
    return AsyncOpenAI(**_with(options, base_url=OPENAI_URL, http_client=line))


def anthropic_client(socket: str, options: dict[str, Any]) -> "Anthropic":
    """For Anthropic's SDK."""
    with _needing("anthropic"):
        from anthropic import Anthropic
        from anthropic import DefaultHttpxClient as Plain
    line = Plain(transport=_library(Plain).HTTPTransport(uds=socket))
    return Anthropic(**_with(options, base_url=ANTHROPIC_URL, http_client=line))


def async_anthropic_client(socket: str, options: dict[str, Any]) -> "AsyncAnthropic":
    """For Anthropic's SDK in asyncio."""
    with _needing("anthropic"):
        from anthropic import AsyncAnthropic
        from anthropic import DefaultAsyncHttpxClient as Plain
    line = Plain(transport=_library(Plain).AsyncHTTPTransport(uds=socket))
    return AsyncAnthropic(**_with(options, base_url=ANTHROPIC_URL, http_client=line))


def _with(options: dict[str, Any], **ours: object) -> dict[str, Any]:
    """What the SDK's client is made with; the application's own options win."""
    key = {} if CREDENTIALS & options.keys() else {"api_key": UNUSED_KEY}
    return {**key, **ours, **options}


@contextmanager
def _needing(package: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(
            f"the package {package!r} is not installed: pip install {package}", name=package
        ) from None


def _library(client: type) -> Any:
    """The HTTP library that an SDK's client is built on: httpx2, or httpx under older SDKs."""
    return import_module(client.__mro__[1].__module__.partition(".")[0])
