"""Which models a call is meant for. Pure."""
