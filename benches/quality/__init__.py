"""How well it decides, on public data that others wrote. See `__main__`."""
