"""Pure decisions: no clocks, no randomness, no I/O. Its rooms do not see one another."""
