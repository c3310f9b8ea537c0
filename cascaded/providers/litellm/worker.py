"""What runs in the worker: LiteLLM behind chat completions on a private Unix socket.

Run by its path; `children.life` tells how it lives and ends. Nothing of LiteLLM's own conveniences
is on: no telemetry, no callbacks, no prices or prompts fetched, no retries, no `.env` file.
"""

import asyncio
import hmac
import importlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from cascaded.providers.children.life import Greeting, die_with_parent, say, watch_parent

RUNTIME = "litellm"
PATH = "/v1/chat/completions"
QUIET: Mapping[str, str] = {
    "LITELLM_MODE": "PRODUCTION",  # else it reads a `.env` file of the working directory
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOG": "ERROR",
    "HF_HUB_OFFLINE": "1",
}
"""What is set before it is imported: it asks nobody for prices, headers, news or tokenizers."""
MAX_BODY_BYTES = 1024 * 1024 * 1024
"""The daemon has measured what it sends here."""
TAKEN = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "n", "seed", "stop", "user"),
        *("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "logit_bias"),
        *("max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "verbosity"),
        *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"),
        *("response_format", "reasoning_effort", "thinking", "modalities", "audio", "prediction"),
        *("service_tier", "safety_identifier", "prompt_cache_key"),
    }
)
"""Members that may come from a caller. LiteLLM takes dozens more, by which a caller could send the
operator's keys to an address of his choice."""
UNHEARD = frozenset({"metadata", "store"})
"""Members that are for OpenAI's own records."""
OUTSIDE = ("http:", "https:", "file:", "gs:", "s3:", "ftp:")
"""Where LiteLLM would fetch an image from: from this machine, at a caller's wish."""
NEVER_SENT = ("ConnectError", "ConnectTimeout", "ClientConnectorError", "ConnectionRefusedError")
"""Exceptions of HTTP clients before anything was sent."""
ANSWERED = frozenset({"HTTPStatusError", "APIStatusError", "ClientResponseError"})
"""Their exceptions for an answer with an error's status."""
_BAD_REQUEST, _UNAUTHORIZED, _TIMEOUT, _FAULT = 400, 401, 408, 500
_GATEWAY_TIMEOUT, _BAD_GATEWAY = 504, 502


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the worker needs to know."""

    parent_pid: int
    socket: str
    api_key: str
    """Of those who may ask it."""
    environment: dict[str, str]
    """Variables for LiteLLM alone: keys of sellers, regions."""
    options: dict[str, str]
    """Further arguments of every call."""
    timeout_s: float


def main() -> int:
    """The exit code; 0 also when the parent went away."""
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=Settings)
    die_with_parent(settings.parent_pid)
    os.umask(0o177)  # the socket is for this user alone
    # LiteLLM prints; the real stdout is kept for the greeting.
    greetings = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    threading.Thread(target=watch_parent, daemon=True).start()
    try:
        litellm = load(settings.environment)
    except Exception as fault:  # whatever stopped it belongs in the greeting
        greetings.write(say(Greeting(ready=False, error=f"{type(fault).__name__}: {fault}")))
        return 1
    asyncio.run(serve(litellm, settings, greetings.write))
    return 0


def load(environment: Mapping[str, str]) -> Any:
    """LiteLLM, kept from doing anything but calls."""
    os.environ.update({**QUIET, **environment})
    litellm: Any = importlib.import_module(RUNTIME)
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    litellm.disable_streaming_logging = True
    litellm.drop_params = litellm.modify_params = False
    for hooks in ("callbacks", "input_callback", "success_callback", "failure_callback"):
        setattr(litellm, hooks, [])
    return litellm


async def serve(litellm: Any, settings: Settings, greet: Any) -> None:
    """Listen until the process ends."""
    desk = Desk(litellm, settings)
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_post(PATH, desk.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.UnixSite(runner, settings.socket, backlog=1024).start()
    greet(say(Greeting(ready=True)))
    await asyncio.Event().wait()


class Desk:
    """Answers calls."""

    def __init__(self, litellm: Any, settings: Settings) -> None:
        self._complete = litellm.acompletion
        self._authorization = f"Bearer {settings.api_key}".encode()
        self._fixed = {
            **settings.options,
            "timeout": settings.timeout_s,
            "num_retries": 0,
            "max_retries": 0,
        }

    async def answer(self, http: web.Request) -> web.StreamResponse:
        """One call, plain or streamed."""
        given = http.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, self._authorization):
            return told(_UNAUTHORIZED, "this is not your socket")
        body = json.loads(await http.read())
        wrong = next(mistakes(body), None)
        if wrong is not None:
            return told(_BAD_REQUEST, wrong)
        asked = {name: value for name, value in body.items() if name not in UNHEARD}
        try:
            answer = await self._complete(**asked, **self._fixed)
            if not asked.get("stream"):
                return web.json_response(plainly(answer))
        except Exception as fault:  # all that it raises has a meaning, or is a doubt
            return explained(fault)
        return await streamed(http, answer)


def mistakes(body: Mapping[str, Any]) -> Iterator[str]:
    """What of a call is not taken here."""
    strange = sorted(body.keys() - TAKEN - UNHEARD)
    if strange:
        yield f"{', '.join(strange)}: not taken by models that are reached through LiteLLM"
    if any(is_outside(part) for part in parts(body["messages"])):
        yield "images and files must be in the call itself (data:…), not at an address"


def parts(value: Any) -> Iterator[str]:
    """Every text by which messages can name something to be fetched."""
    if isinstance(value, list):
        for one in value:
            yield from parts(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            if isinstance(one, str) and name in ("url", "image_url", "file_id", "file_data"):
                yield one
            else:
                yield from parts(one)


def is_outside(text: str) -> bool:
    """Whether it would have to be fetched."""
    return text.strip().lower().startswith(OUTSIDE)


async def streamed(http: web.Request, chunks: Any) -> web.StreamResponse:
    """The chunks as they come, then the end mark; a fault in between is an event."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(http)
    try:
        async for chunk in chunks:
            if broke_off(chunks, chunk):
                raise ConnectionAbortedError("the stream ended in the middle")
            await response.write(_event(json.dumps(told_of(chunks, chunk))))
    except Exception as fault:  # as above; the status is out
        error = {"message": words(fault), "type": "server_error"}
        with suppress(ConnectionError):
            await response.write(_event(json.dumps({"error": error})))
        return response
    await response.write(_event("[DONE]"))
    return response


def broke_off(chunks: Any, chunk: Any) -> bool:
    """Whether this is an end that LiteLLM made up: where a line breaks in the middle it says
    `stop`, as if that were all."""
    ended = any(choice.finish_reason for choice in chunk.choices)
    return ended and getattr(chunks, "received_finish_reason", None) is None


def told_of(chunks: Any, chunk: Any) -> dict[str, Any]:
    """A chunk, its usage only where the seller has told one: else LiteLLM counts by itself, and
    that would be believed."""
    said = plainly(chunk)
    if not any(getattr(one, "usage", None) for one in getattr(chunks, "chunks", ())):
        said.pop("usage", None)
    return said


def plainly(answer: Any) -> dict[str, Any]:
    """An answer or a chunk, with usage as our own reader takes it. Where a seller told none there
    is none, and not zero."""
    said: dict[str, Any] = answer.model_dump(exclude_none=True)
    usage = said.get("usage")
    if usage is None:
        return said
    if not usage.get("prompt_tokens"):
        del said["usage"]
        return said
    details = usage.setdefault("prompt_tokens_details", {})
    written = details.pop("cache_creation_tokens", usage.get("cache_creation_input_tokens"))
    if written:
        details["cache_write_tokens"] = written
    kept = details.pop("cache_creation_token_details", None) or {}
    if kept.get("ephemeral_1h_input_tokens"):
        details["cache_write_1h_tokens"] = kept["ephemeral_1h_input_tokens"]
    return said


def _event(data: str) -> bytes:
    return b"data: " + data.encode() + b"\n\n"


def told(
    status: int, message: str, *, doubt: bool = False, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An error. `doubt`: whether it was billed is not known."""
    error = {"message": message, "type": "litellm", "doubt": doubt}
    return web.json_response({"error": error}, status=status, headers=headers)


def explained(fault: Exception) -> web.Response:
    """LiteLLM's exceptions have the status that OpenAI would have answered with; where there was no
    answer, it is of its own making."""
    status: Any = getattr(fault, "status_code", None)
    kind = type(fault).__name__
    if kind == "Timeout" or status == _TIMEOUT:
        return told(_GATEWAY_TIMEOUT, words(fault), doubt=True)
    known = isinstance(status, int) and status >= _BAD_REQUEST and kind != "APIConnectionError"
    if known and (status < _FAULT or was_answered(fault)):
        return told(status, words(fault), headers=retry_after(fault))
    return told(_BAD_GATEWAY, words(fault), doubt=not never_sent(fault))


def words(fault: Exception) -> str:
    """What it says, without how it says it."""
    text = str(getattr(fault, "message", "") or fault or type(fault).__name__)
    return text.removeprefix("litellm.")


def chain(fault: BaseException | None) -> Iterator[BaseException]:
    """It, what it was made from, and so on."""
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__


def never_sent(fault: BaseException) -> bool:
    """Whether no connection was made."""
    return any(type(one).__name__ in NEVER_SENT for one in chain(fault))


def was_answered(fault: BaseException) -> bool:
    """Whether a status of 5xx is the seller's own. LiteLLM gives it to broken lines and nonsense,
    too."""
    theirs = (type(one) for one in chain(fault) if not type(one).__module__.startswith(RUNTIME))
    return any(kind.__name__ in ANSWERED for one in theirs for kind in one.__mro__)


def retry_after(fault: Exception) -> dict[str, str]:
    """What the seller said of when to come back."""
    headers = getattr(fault, "litellm_response_headers", None) or {}
    said = {str(name).lower(): str(value) for name, value in headers.items()}
    found = {name: said.get(name, "") for name in ("retry-after", "retry-after-ms")}
    return {name: value for name, value in found.items() if value and value.isprintable()}


if __name__ == "__main__":
    sys.exit(main())
