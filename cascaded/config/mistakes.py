"""What is wrong with a configuration, all of it, in words that say what to do."""

import difflib
import json
import re
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

MAX_MISTAKES = 100
"""Told one by one; the rest are counted."""
MAX_SHOWN_CHARS = 60
MAX_GUESSED_CHARS = 64
MAX_EXPECTED_BESIDE_SUGGESTION = 90
_NEAR = 0.6
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LIKE_A_SECRET = re.compile(
    r"(?i)(sk|pk|rk|gsk|xai|hf|gh[a-z]|glpat|xox[a-z]|akia|aiza|bearer)[-_ ]"
)

KeyPath = tuple[str | int, ...]
"""Where in the document: keys, and indexes into lists."""


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to put right. `str()` is one line: where, what, what was expected, the nearest
    valid word."""

    source: str
    """The file's name."""
    line: int
    """From 1."""
    key: str
    """Dotted, such as `providers.openai.base_url`; empty where the text itself is broken."""
    message: str
    expected: str = ""
    suggestion: str = ""
    """A valid word near to what stands there."""
    severity: Literal["mistake", "warning"] = "mistake"
    """A warning is valid, and most likely not meant."""

    def __str__(self) -> str:
        warning = "warning: " if self.severity == "warning" else ""
        where = f"{self.source}:{self.line}: {warning}" + (f"{self.key}: " if self.key else "")
        text = where + self.message
        if self.expected and not (
            self.suggestion and len(self.expected) > MAX_EXPECTED_BESIDE_SUGGESTION
        ):
            text += f"; expected {self.expected}"
        return text + (f'; did you mean "{self.suggestion}"?' if self.suggestion else "")


class Report:
    """Gathers mistakes, one for each key: what follows from a first one only confuses."""

    def __init__(
        self,
        source: str,
        line_of: Callable[[KeyPath], int],
        severity: Literal["mistake", "warning"] = "mistake",
    ) -> None:
        self._severity = severity
        self._source = source
        self._line_of = line_of
        self._mistakes: list[Mistake] = []
        self._paths: set[KeyPath] = set()

    def add(
        self, path: KeyPath, message: str, expected: str = "", suggestion: str | None = None
    ) -> None:
        """Note a mistake at a key, unless there is one."""
        if path in self._paths:
            return
        self._paths.add(path)
        if len(self._paths) <= MAX_MISTAKES:
            self._mistakes.append(
                Mistake(
                    source=self._source,
                    line=self._line_of(path),
                    key=dotted(path),
                    message=message,
                    expected=expected,
                    suggestion=suggestion or "",
                    severity=self._severity,
                )
            )

    def nearest(self, word: str, valid: Iterable[str]) -> str | None:
        """See `nearest`. Guesses nothing once there are more mistakes than will be told."""
        return nearest(word, valid) if len(self._paths) < MAX_MISTAKES else None

    def mistakes(self) -> list[Mistake]:
        """All of them, in the order of the text."""
        return capped(
            sorted(self._mistakes, key=lambda mistake: mistake.line),
            len(self._paths),
        )


def capped(mistakes: list[Mistake], total: int) -> list[Mistake]:
    """At most `MAX_MISTAKES`, and how many more there are."""
    told = mistakes[:MAX_MISTAKES]
    if total > len(told):
        last = told[-1]
        more = f"and {total - len(told)} more mistakes"
        told.append(Mistake(source=last.source, line=last.line, key="", message=more))
    return told


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid word that `word` was probably meant to be."""
    if len(word) > MAX_GUESSED_CHARS:
        return None
    by_sound = {_sound(candidate): candidate for candidate in valid}
    found = difflib.get_close_matches(_sound(word), by_sound, n=1, cutoff=_NEAR)
    return by_sound[found[0]] if found else None


def _sound(word: str) -> str:
    return word.lower().replace("-", "_")


def dotted(path: KeyPath) -> str:
    """A path as TOML writes it: `models."gpt-4.1".provider`, `ladders.default.rungs[1]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + quoted_key(part)
    return text


def quoted_key(key: str) -> str:
    """One key as TOML writes it, shortened for the eye."""
    return key if _BARE_KEY.fullmatch(key) and len(key) <= MAX_SHOWN_CHARS else shown(key)


def shown(value: object) -> str:
    """A value for a message: quoted, shortened, and never what looks like an API key."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return str(value)
    if looks_secret(value):
        return "(hidden)"
    text = clipped(value)
    # A control character or half of a pair has no business on a terminal.
    return json.dumps(text, ensure_ascii=not text.isprintable())


def looks_secret(text: str) -> bool:
    """Whether it begins as API keys and tokens do."""
    return _LIKE_A_SECRET.match(text) is not None


def clipped(text: str) -> str:
    """As much of a text as a message should hold."""
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def listed(words: Iterable[object], joint: str = "or") -> str:
    """`"a", "b" or "c"`."""
    texts = [shown(word) for word in words]
    return f" {joint} ".join(filter(None, (", ".join(texts[:-1]), texts[-1]))) if texts else ""
