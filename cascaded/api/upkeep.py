"""The routes by which administrators look after the daemon."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from aiohttp import web

from cascaded.api.dialects.base import Incoming
from cascaded.api.errors import error_response
from cascaded.api.replies import json_response
from cascaded.ports import Offload
from cascaded.types.decision import Refusal
from cascaded.types.errors import StoreError
from cascaded.wire.money import read
from cascaded.wire.upkeep import BackupRequest, Reloaded, backup_row

BackUp = Callable[[Path], Mapping[str, int]]
"""Copies the state into a folder; the bytes of each part. Raises `ValueError`, `StoreError`."""


Reload = Callable[[], Awaitable[Reloaded | Refusal]]
"""Reads the configuration again; what came of it."""


class Upkeep:
    """Backups of a running daemon, one after another, off the event loop; and reloads."""

    def __init__(self, *, back_up: BackUp, offload: Offload, reload: Reload) -> None:
        self._back_up = back_up
        self._offload = offload
        self._reload = reload

    async def reload(self, incoming: Incoming) -> web.Response:
        """`POST /reload`: read the configuration again. Answered once it is in force; with 422
        and every mistake where the old one was kept."""
        outcome = await self._reload()
        if isinstance(outcome, Refusal):
            return error_response(outcome, incoming.request_id)
        return json_response(outcome)

    async def backup(self, incoming: Incoming) -> web.Response:
        """`POST /state/backup`: copy the state into a new folder of this host. Answered once the
        copy is on the disk."""
        asked = read(incoming.body, BackupRequest)
        try:
            contents = await self._offload(partial(self._back_up, Path(asked.dir)))
        except ValueError as error:
            wrong = Refusal(code="invalid_request", message=str(error), param="dir")
            return error_response(wrong, incoming.request_id)
        except StoreError as error:
            unmade = Refusal(code="backup_failed", message=str(error))
            return error_response(unmade, incoming.request_id)
        return json_response(backup_row(asked.dir, contents))
