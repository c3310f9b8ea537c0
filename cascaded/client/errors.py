"""What can go wrong, as exceptions:

CascadedError
├── DaemonUnreachableError   nobody listens on the socket, or nobody answers in time
├── ProtocolError            what listens there does not speak like the daemon
│   └── VersionError         it is a daemon, of a version that this client does not understand
├── StreamBrokenError        the answer ended in an error after it had begun
├── HoldResolvedError        the idempotency key's hold is over: it covers no further call
└── APIError                 the daemon refused the call; carries its fields
    ├── BudgetExceededError  a budget has no room for it
    └── RateLimitedError     it came too soon; `retry_after_s` says when it may come again

What is asked for wrongly raises `TypeError` (an amount that is a float) or `ValueError` (a header
that cannot be sent) before anything is sent.
"""

from collections.abc import Mapping
from decimal import Decimal


class CascadedError(Exception):
    """The root of this client's exceptions."""


class DaemonUnreachableError(CascadedError):
    """Nobody listens on the socket (start the daemon with `cascaded serve`), or the daemon went
    away, or took too long, before it answered."""


class ProtocolError(CascadedError):
    """The answer is not one of this daemon's."""


class VersionError(ProtocolError):
    """Client and daemon have no version of the native API in common; the message says which of
    the two to upgrade."""

    def __init__(self, message: str, *, daemon: int | None, client: int) -> None:
        super().__init__(message)
        self.daemon = daemon
        """The version that the daemon speaks; `None` where it says something else."""
        self.client = client


class StreamBrokenError(CascadedError):
    """The stream ended early; what came before is not the whole answer."""


class HoldResolvedError(CascadedError):
    """The hold of this idempotency key was resolved, or charged, before: the call that it was for
    may have been made. Use a new key for a new call."""

    def __init__(self, hold: int, state: str) -> None:
        super().__init__(
            f"hold {hold} of this idempotency key is {state} already and covers no further call:"
            " look whether that call was made, and use a new key for a new one"
        )
        self.hold = hold
        self.state = state
        """`settled`, `released`, `unknown` or `adjusted`."""


class APIError(CascadedError):
    """The daemon refused the call."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        type: str = "",
        param: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        """A code of the API's error table, such as `model_not_found`."""
        self.type = type
        self.param = param
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        """When the same call may succeed (`Retry-After`), where the daemon knows."""
        self.should_retry = should_retry
        """Whether the daemon advises to try again at all (`x-should-retry`)."""
        self.details = details or {}
        """Every field of the error object, also those that this version has no name for."""


class BudgetExceededError(APIError):
    """A budget has no room for this call. Money is US dollars."""

    @property
    def user_id(self) -> str | None:
        """Whom the call was for."""
        return self._text("user_id")

    @property
    def scope(self) -> str | None:
        """Whose budget it is: `user`, `organization`, `global` …"""
        return self._text("scope")

    @property
    def budget_type(self) -> str | None:
        """`daily`, `weekly`, `monthly` or `total`."""
        return self._text("budget_type")

    @property
    def budget_limit(self) -> Decimal | None:
        """The limit."""
        return self._money("budget_limit")

    @property
    def current_spend(self) -> Decimal | None:
        """What is used of it, calls under way included."""
        return self._money("current_spend")

    @property
    def reset_time(self) -> str | None:
        """When the budget starts anew (ISO 8601, UTC); `None` for never."""
        return self._text("reset_time")

    @property
    def recommendation(self) -> str | None:
        """What can be done about it."""
        return self._text("recommendation")

    @property
    def next_tier(self) -> str | None:
        """The tier that allows more, if there is one."""
        return self._text("next_tier")

    @property
    def next_tier_budget(self) -> Decimal | None:
        """What that tier allows."""
        return self._money("next_tier_budget")

    def _text(self, name: str) -> str | None:
        value = self.details.get(name)
        return None if value is None else str(value)

    def _money(self, name: str) -> Decimal | None:
        value = self.details.get(name)
        return value if isinstance(value, Decimal) else None


class RateLimitedError(APIError):
    """Too many calls or tokens; `retry_after_s` says when the next one may come."""
