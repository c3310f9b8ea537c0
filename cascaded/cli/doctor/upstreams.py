"""The providers: whether each answers, and takes the key. Asks for its list of models, which is
free everywhere; the answer is not looked at, and nothing that could hold a key is repeated."""

import asyncio
import os
import ssl
import time
from collections.abc import Mapping

import aiohttp

from cascaded.cli.doctor.finding import Finding, ok, problem, warning
from cascaded.config import schema

AREA = "provider"
WITHIN_S = 5.0
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY = 401, 403, 404, 429
_BAD_REQUEST, _SERVER_ERROR = 400, 500


def look(providers: Mapping[str, schema.Provider], within_s: float = WITHIN_S) -> list[Finding]:
    """Ask all of them at once."""
    upstreams = {name: one for name, one in providers.items() if isinstance(one, schema.Upstream)}

    async def ask_all() -> list[Finding]:
        asked = (_ask(name, upstream, within_s) for name, upstream in upstreams.items())
        return list(await asyncio.gather(*asked))

    return asyncio.run(ask_all()) if upstreams else []


async def _ask(name: str, upstream: schema.Upstream, within_s: float) -> Finding:
    began = time.perf_counter()
    url = upstream.base_url.rstrip("/") + "/models"
    if isinstance(upstream, schema.OpenAICompatible) and upstream.api_version:
        url = f"{upstream.base_url.rstrip('/')}/openai/models?api-version={upstream.api_version}"
    try:
        async with asyncio.timeout(within_s):
            status = await _status(upstream, url)
    except TimeoutError:
        advice = "look at the network, the proxy, base_url"
        return problem(AREA, f"{name}: no answer within {within_s:g} s", advice)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return problem(AREA, f"{name}: {_why(error)}", "look at base_url, the network, the proxy")
    return _judged(name, upstream, status, (time.perf_counter() - began) * 1000)


def _key_header(upstream: schema.Upstream, key: str) -> dict[str, str]:
    if isinstance(upstream, schema.Anthropic):
        return {"x-api-key": key}
    if isinstance(upstream, schema.OpenAICompatible) and upstream.api_version:
        return {"api-key": key}
    return {"Authorization": f"Bearer {key}"}


async def _status(upstream: schema.Upstream, url: str) -> int:
    headers = {key: value.reveal() for key, value in upstream.headers.items()}
    if isinstance(upstream, schema.Anthropic):
        headers["anthropic-version"] = upstream.version
    if upstream.keys:
        headers |= _key_header(upstream, upstream.keys[0].reveal())
    context = ssl.create_default_context(cafile=upstream.ca_file)
    connector = (
        aiohttp.UnixConnector(path=upstream.uds)
        if upstream.uds
        else aiohttp.TCPConnector(ssl=context)
    )
    proxy = upstream.proxy.reveal() if upstream.proxy else None
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url, headers=headers, proxy=proxy, allow_redirects=False) as answer,
    ):
        return answer.status


def _judged(name: str, upstream: schema.Upstream, status: int, took_ms: float) -> Finding:
    said = f"{name}: answers {status} in {took_ms:.0f} ms"
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        if upstream.forward_caller_key and not upstream.keys:
            return ok(AREA, f"{said}; it waits for the callers' own keys")
        source = upstream.keys[0].source if upstream.keys else "no key is set"
        return problem(AREA, f"{said}: the key is refused ({source})", "set api_key right")
    if status == _NOT_FOUND:
        advice = "look whether base_url ends as it should, often in /v1"
        return warning(AREA, f"{said}: it has no list of models", advice)
    if status >= _SERVER_ERROR:
        return warning(AREA, f"{said}: it is unwell", "wait, or look at its status page")
    if status >= _BAD_REQUEST and status != _TOO_MANY:
        return warning(AREA, said, "look at base_url and headers")
    return ok(AREA, said)


def _why(error: Exception) -> str:
    """In our own words: theirs may hold the proxy's password."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not trusted; ca_file names others to trust"
        case aiohttp.ClientConnectorDNSError():
            return "its name is not known"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answers {error.status}"
        case aiohttp.ClientConnectorError():
            return f"cannot be reached ({os.strerror(error.errno) if error.errno else 'refused'})"
        case _:
            return f"does not speak HTTP as it should ({type(error).__name__})"
