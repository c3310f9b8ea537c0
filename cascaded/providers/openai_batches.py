"""OpenAI's own batches: many calls in one file, for less, answered within a day.

Source: https://platform.openai.com/docs/api-reference/batch and /files
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec

from cascaded.ports import Call, ProviderTraits
from cascaded.providers.http import HttpUpstream
from cascaded.types.batch import BulkAnswer
from cascaded.types.event import Event
from cascaded.wire.openai_chat import WireError

T = TypeVar("T")
WINDOW = "24h"
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
BOUNDARY_BYTES = 16
_FORM = (
    "--{form}\r\n"
    'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    "--{form}\r\n"
    'Content-Disposition: form-data; name="file"; filename="{name}.jsonl"\r\n'
    "Content-Type: application/jsonl\r\n\r\n"
)
NAME = "cascaded"
"""The member of a batch's metadata that has our name of it."""
LOOKED_AT = 100
"""Batches, the newest, that are looked through for one of ours."""


class _Id(msgspec.Struct):
    id: str


class _Batch(msgspec.Struct):
    id: str
    status: str = ""
    metadata: dict[str, str] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None


class _Page(msgspec.Struct):
    data: list[_Batch] = []


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None


class OpenAIBulk:
    """See `ports.BulkApi`. Over an upstream that speaks as OpenAI does."""

    def __init__(self, name: str, upstream: HttpUpstream) -> None:
        self.name = name
        self.traits: ProviderTraits = upstream.traits
        self._upstream = upstream

    def url(self, call: Call) -> str:
        """See `BulkApi.url`."""
        return "/v1" + self._upstream.speech.path(call)

    async def submit(self, name: str, calls: Sequence[Call]) -> str:
        """See `BulkApi.submit`."""
        url = self.url(calls[0])
        lines = b"\n".join(
            msgspec.json.encode(
                {"custom_id": call.request_id, "method": "POST", "url": url, "body": call.fields}
            )
            for call in calls
        )
        form = secrets.token_hex(BOUNDARY_BYTES)
        body = _FORM.format(form=form, name=name).encode() + lines + f"\r\n--{form}--\r\n".encode()
        file = await self._ask("POST", "/files", body, _read(_Id), form=form)
        batch = {
            "input_file_id": file.id,
            "endpoint": url,
            "completion_window": WINDOW,
            "metadata": {NAME: name},
        }
        return (await self._ask("POST", "/batches", msgspec.json.encode(batch), _read(_Batch))).id

    async def find(self, name: str) -> str | None:
        """See `BulkApi.find`."""
        page = await self._ask("GET", f"/batches?limit={LOOKED_AT}", b"", _read(_Page))
        mine = (one.id for one in page.data if (one.metadata or {}).get(NAME) == name)
        return next(mine, None)

    async def answers(self, id: str) -> Mapping[str, BulkAnswer] | None:
        """See `BulkApi.answers`."""
        place = f"/batches/{quote(id, safe='')}"
        batch = await self._ask("GET", place, b"", _read(_Batch))
        if batch.status not in ENDED:
            return None
        found: dict[str, BulkAnswer] = {}
        for file in (batch.output_file_id, batch.error_file_id):
            if file is not None:
                place = f"/files/{quote(file, safe='')}/content"
                found |= await self._ask("GET", place, b"", _answers)
        return found

    async def cancel(self, id: str) -> None:
        """See `BulkApi.cancel`."""
        place = f"/batches/{quote(id, safe='')}/cancel"
        await self._ask("POST", place, b"{}", _read(_Batch))

    def event(self, call: Call, body: bytes) -> Event:
        """See `BulkApi.event`."""
        return self._upstream.speech.whole(call, body)

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes,
        read: Callable[[bytes], T],
        *,
        form: str | None = None,
    ) -> T:
        return await self._upstream.ask(method, path, body, read, sign=_sign, form=form)


def _sign(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _answers(data: bytes) -> dict[str, BulkAnswer]:
    """What a file of results says. Raises `WireError`."""
    read = _read(_Line)
    lines = [read(line) for line in data.split(b"\n") if line.strip()]
    return {
        line.custom_id: BulkAnswer(line.response.status_code, bytes(line.response.body))
        for line in lines
        if line.response is not None
    }


def _read(shape: type[T]) -> Callable[[bytes], T]:
    """Reads JSON of one shape; that raises `WireError`."""

    def read(data: bytes) -> T:
        try:
            return msgspec.json.decode(data, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"not what its batches are told in: {error}") from None

    return read
