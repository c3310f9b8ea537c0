"""The trace that a call belongs to, as W3C's Trace Context has it."""

import msgspec

SPAN_IDS = 2**64


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a call stands in a trace."""

    trace_id: int
    """128 bits, not 0."""
    span_id: int
    """Our own span of the call: 64 bits, not 0."""
    parent_id: int | None = None
    """The caller's span."""
    sampled: bool = True
    """Whether spans are recorded. In any case the context goes on."""
    state: str = ""
    """What others have put into `tracestate`."""

    def attempt_id(self, index: int) -> int:
        """The span of a call to a provider, by its place in the book; not 0 either."""
        return (self.span_id + index) % (SPAN_IDS - 1) + 1

    def headers(self, span_id: int) -> dict[str, str]:
        """What whoever is asked within that span is sent."""
        parent = f"00-{self.trace_id:032x}-{span_id:016x}-{self.sampled:02x}"
        return {"traceparent": parent} | ({"tracestate": self.state} if self.state else {})
