"""What a part measured, as a table and as pictures."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from cascaded.config.schema import KIB

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
DOCUMENT = ROOT / "docs" / "quality.md"
IMAGES = ROOT / "docs" / "img"
MAX_IMAGE_BYTES = 200 * KIB

_WIDTH, _LEFT, _RIGHT = 760, 330, 60
_LINE = 30
_COLOURS = ("#2563eb", "#9ca3af", "#d97706", "#059669", "#dc2626", "#7c3aed")


class Row(NamedTuple):
    """One measure. Shares and areas are from 0 to 1."""

    measure: str
    ours: float
    baseline: float | None = None
    """What a simple known method reaches on the same rows."""
    floor: float | None = None
    """What knowing nothing reaches."""
    ceiling: float | None = None
    """What knowing everything would reach."""
    interval: tuple[float, float] | None = None
    """Of ours, 95%, or as the measure says."""
    rows: int | None = None
    """How many cases it is measured on."""
    goal: str = ""
    unit: str = ""
    """Empty for shares; such as `ms` otherwise."""


class Curve(NamedTuple):
    """A picture of lines."""

    title: str
    across: str
    up: str
    lines: dict[str, Sequence[tuple[float, float]]]


class Measured(NamedTuple):
    """What one part found."""

    rows: Sequence[Row]
    curves: Sequence[Curve] = ()


def number(value: float | None, unit: str = "") -> str:
    """As the table shows it."""
    if value is None:
        return ""
    return f"{value:.2f} {unit}" if unit else f"{value:.3f}"


def table(rows: Iterable[Row]) -> list[str]:
    """The rows in Markdown."""
    lines = [
        "| measure | ours | baseline | floor | ceiling | interval | rows | goal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        between = "–".join(number(end) for end in row.interval) if row.interval else ""
        others = (number(each, row.unit) for each in (row.baseline, row.floor, row.ceiling))
        cells = (row.measure, number(row.ours, row.unit), *others, between)
        lines.append(f"| {' | '.join(cells)} | {row.rows or ''} | {row.goal} |")
    return lines


def bars(title: str, rows: Iterable[Row]) -> str:
    """Shares as bars (SVG): ours with its interval, and a mark for the baseline."""
    shown = [row for row in rows if not row.unit and 0 <= row.ours <= 1]
    height = _LINE * (len(shown) + 2)
    span = _WIDTH - _LEFT - _RIGHT
    parts = [_text(10, 20, title, weight="bold"), _key(height - 8)]
    for at, row in enumerate(shown, 1):
        y = at * _LINE + 6
        parts.append(_text(_LEFT - 8, y + 12, row.measure, anchor="end"))
        parts.append(_box(_LEFT, y, span * row.ours, 16, _COLOURS[0]))
        if row.interval:
            low, high = (_LEFT + span * max(0.0, min(1.0, end)) for end in row.interval)
            parts.append(_stroke([(low, y + 8), (high, y + 8)], "#111827"))
        if row.baseline is not None:
            x = _LEFT + span * row.baseline
            parts.append(_stroke([(x, y - 3), (x, y + 19)], _COLOURS[2], 3))
        parts.append(_text(_WIDTH - _RIGHT + 6, y + 12, number(row.ours)))
    return _svg(height, parts)


def lines(curve: Curve) -> str:
    """A picture of lines (SVG); both axes from the least to the most."""
    points = [point for line in curve.lines.values() for point in line]
    height, left, top, bottom = 360, 60, 36, 50
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = min(y for _, y in points), max(y for _, y in points)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / ((high_x - low_x) or 1)
        up = (y - low_y) / ((high_y - low_y) or 1)
        room = height - top - bottom
        return left + across * (_WIDTH - left - 190), height - bottom - up * room

    corners = [(low_x, high_y), (low_x, low_y), (high_x, low_y)]
    parts = [
        _text(10, 20, curve.title, weight="bold"),
        _stroke([place(*corner) for corner in corners], "#9ca3af"),
        _text(left, height - 30, f"{low_x:.2f}"),
        _text(_WIDTH - 190, height - 30, f"{high_x:.2f}", anchor="end"),
        _text((_WIDTH - 190) / 2, height - 12, curve.across, anchor="middle"),
        _text(left - 6, height - bottom, f"{low_y:.2f}", anchor="end"),
        _text(left - 6, top + 10, f"{high_y:.2f}", anchor="end"),
        _text(left + 6, top + 10, curve.up),
    ]
    for at, (name, line) in enumerate(curve.lines.items()):
        colour = _COLOURS[at % len(_COLOURS)]
        parts.append(_stroke([place(*point) for point in line], colour, 2))
        parts.append(_text(_WIDTH - 180, top + 20 + at * 20, name, colour=colour))
    return _svg(height, parts)


def write(area: str, measured: Measured) -> None:
    """Put the table and pictures of one area into the document."""
    IMAGES.mkdir(exist_ok=True)
    pictures = {f"quality-{area}": bars(area, measured.rows)}
    for at, curve in enumerate(measured.curves, 1):
        pictures[f"quality-{area}-{at}"] = lines(curve)
    body = table(measured.rows)
    for name, picture in pictures.items():
        (IMAGES / f"{name}.svg").write_text(picture)
        body += ["", f"![{area}](img/{name}.svg)"]
    begin, end = f"<!-- measured: {area} -->", f"<!-- end: {area} -->"
    document = DOCUMENT.read_text()
    if begin not in document:
        document = f"{document.rstrip()}\n\n## {area.capitalize()}\n\n{begin}\n{end}\n"
    head, _, rest = document.partition(begin)
    tail = rest.partition(end)[2]
    DOCUMENT.write_text(f"{head}{begin}\n{chr(10).join(body)}\n{end}{tail}")


def _key(y: float) -> str:
    return (
        _box(_LEFT, y - 10, 12, 10, _COLOURS[0])
        + _text(_LEFT + 18, y, "ours, with its 95% interval")
        + _stroke([(_LEFT + 226, y - 10), (_LEFT + 226, y + 2)], _COLOURS[2], 3)
        + _text(_LEFT + 234, y, "baseline")
    )


def _svg(height: float, parts: Iterable[str]) -> str:
    inner = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
        f' font-family="sans-serif" font-size="13">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{inner}\n</svg>\n'
    )


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    weight: str = "normal",
    colour: str = "#111827",
) -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}"/>'


def _stroke(points: Iterable[tuple[float, float]], colour: str, width: int = 1) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
