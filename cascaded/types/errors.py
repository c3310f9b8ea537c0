"""Faults. Expected refusals are values (`cascaded.types.decision.Refusal`)."""

from cascaded.types.result import Billing


class ProviderError(Exception):
    """A provider did not give an answer.

    `code` is one of `upstream_connect`, `upstream_timeout`, `upstream_reset`,
    `upstream_rate_limited`, `upstream_overloaded`, `upstream_server_error`, `upstream_refused`
    (a 4xx about the request), `upstream_authentication`, `upstream_garbage`.
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
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.billing = billing
        """Whether the provider may have billed the call."""
        self.status = status
        self.retry_after_s = retry_after_s
        self.body = body
        """The provider's own error body, for callers that may see it."""


class CallerLeftError(Exception):
    """The caller hung up while its answer was being written."""
