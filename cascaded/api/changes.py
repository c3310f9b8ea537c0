"""What administrators change, as it goes on record."""

from cascaded.api.dialects.base import Incoming
from cascaded.ports import Audit


def put_on_record(
    audit: Audit, incoming: Incoming, subject: str, *, before: object, after: object
) -> None:
    """Who changed what (`tier:pro`), by which method. `None` is for nothing that is there."""
    audit.changed(
        subject,
        actor=incoming.principal.id,
        reason=incoming.http.method,
        before=before,
        after=after,
    )
