"""Faults. Expected refusals are values (`cascaded.types.decision.Refusal`)."""

from cascaded.types.decision import Refusal
from cascaded.types.result import Billing


class ProviderError(Exception):
    """A provider did not give an answer.

    `code` is one of `upstream_connect`, `upstream_timeout`, `upstream_reset`,
    `upstream_rate_limited`, `upstream_overloaded`, `upstream_server_error`, `upstream_refused`
    (a 4xx about the request), `upstream_authentication`, `upstream_garbage`; or
    `upstream_unavailable` for one that is not asked at all.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        billing: Billing,
        status: int | None = None,
        retry_after_s: float | None = None,
        body: bytes = b"",
        another_key: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.another_key = another_key
        """Whether only one of several keys was refused: the next try has another."""
        self.billing = billing
        """Whether the provider may have billed the call."""
        self.status = status
        self.retry_after_s = retry_after_s
        self.body = body
        """The provider's own error body, for callers that may see it."""


class CallerLeftError(Exception):
    """The caller hung up while its answer was being written."""


class BlockedError(Exception):
    """A guardrail lets no more of an answer through."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class StoreError(Exception):
    """What is remembered on disk could not be read or written; the message says what to do."""


class StoreFullError(StoreError):
    """The store has reached its bound."""


class AnalystError(Exception):
    """A long question was not answered, or not to its end; the message says why."""


class BusyError(Exception):
    """Too many long questions are being answered already."""


class PlansUnreadError(Exception):
    """The table of users could not be read; the message says why, and tells no secret."""


class LedgerFaultError(Exception):
    """The ledger's disk has failed, or takes no more: nothing may be sent to a provider."""


class LedgerOpenError(Exception):
    """A state folder cannot be opened; the message says what to do.

    `kind` is `locked`, `read_only`, `no_space`, `damaged`, `newer`, `gap`, `option`, `io` or
    `unavailable`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class HookError(Exception):
    """A hook gave no answer that counts; the message says why and quotes nothing of it."""


class HoldError(Exception):
    """A hold is not as its caller thinks; nothing has changed.

    `code` is `no_such_hold` or `hold_resolved`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TooManyLimitsError(Exception):
    """More limits apply to a call than one call may be charged to."""


class ConflictError(Exception):
    """What is stored is not what its writer thinks; nothing has changed.

    `code` is `version_conflict`, `version_required`, `already_exists` or `not_found`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RowsError(Exception):
    """Some rows of many cannot be stored, so none was: why, by the row's number from 0."""

    def __init__(self, rows: dict[int, str]) -> None:
        super().__init__(f"{len(rows)} rows cannot be stored; none was")
        self.rows = rows
