"""What can go wrong, as exceptions:

CascadedError
├── DaemonUnreachableError   nobody listens on the socket, or nobody answers in time
├── ProtocolError            what listens there does not speak like the daemon
├── StreamBrokenError        the answer ended in an error after it had begun
└── APIError                 the daemon refused the call; carries its fields
"""

from collections.abc import Mapping


class CascadedError(Exception):
    """The root of this client's exceptions."""


class DaemonUnreachableError(CascadedError):
    """Nobody listens on the socket (start the daemon with `cascaded serve`), or the daemon went
    away, or took too long, before it answered."""


class ProtocolError(CascadedError):
    """The answer is not one of this daemon's."""


class StreamBrokenError(CascadedError):
    """The stream ended early; what came before is not the whole answer."""


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
        self.details = details or {}
        """Every field of the error object, also those that this version has no name for."""
