"""Small plots of text: columns of eighths of a block."""

from collections.abc import Sequence

EIGHTHS = " ▁▂▃▄▅▆▇█"
HEIGHT = 6


def columns(values: Sequence[float], most: float, height: int = HEIGHT) -> list[str]:
    """A line of text for each row, from the top; one character for each value."""
    if most <= 0:
        return [" " * len(values)] * height
    full = [min(round(max(value, 0) / most * height * 8), height * 8) for value in values]
    return [
        "".join(EIGHTHS[min(max(eighths - row * 8, 0), 8)] for eighths in full)
        for row in reversed(range(height))
    ]
