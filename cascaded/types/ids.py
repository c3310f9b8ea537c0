"""What may be the id of a user, an organisation, a workspace, a team, a run, or a tag with its
value: limits are set for it, disks keep it, logs and terminals show it."""

MAX_ID_BYTES = 256
"""In UTF-8."""
ID_WORDS = f"1 to {MAX_ID_BYTES} bytes of printable text"


def is_id(text: str) -> bool:
    """Whether it has `ID_WORDS`."""
    return text.isprintable() and 0 < len(text.encode()) <= MAX_ID_BYTES  # no lone surrogates
