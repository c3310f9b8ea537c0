"""Frozen values that every floor shares. No I/O, no clocks, nothing mutable."""
