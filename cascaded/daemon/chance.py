"""Ids that nobody guesses."""

import secrets

ID_BYTES = 12


def new_id(beginning: str = "") -> str:
    """One that nobody has, beginning so."""
    return beginning + secrets.token_hex(ID_BYTES)
