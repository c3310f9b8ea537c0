"""Does the answer keep to a form that the question asks for in words?

Words are easily misread, so nothing here rejects an answer alone except JSON that was asked
for and is nowhere.
"""

import re
from collections.abc import Callable
from typing import Final

from cascaded.policy.quality.json_text import NOT_JSON, parse_inside
from cascaded.policy.quality.reading import Reading
from cascaded.policy.quality.scale import MILD, SERIOUS, SLIGHT, fine, found
from cascaded.types.result import Check

NAME: Final = "instructions"

WORD_ANSWER_MAX: Final = 6
"""Words in an answer that was to be one word: room for "The answer is: …"."""
WORD_LIMIT_SLACK: Final = 1.5
WORD_LIMIT_ROOM: Final = 10
LISTED_MIN: Final = 2
"""Fewer items than this are no list but a sentence, whose members are not counted."""

_CODE_TASK: Final = re.compile(
    r"\b(?:function|code|script|program|pars\w+|api|endpoint|class|python|javascript|typescript|rust"
    r"|java|golang|sql)\b"
)
_JSON: Final = re.compile(
    r"\b(?:as|in|valid) json\b|\bjson (?:format|object|array)\b"
    r"|\b(?:respond|reply|answer|output|return)\b[^.\n]{0,40}\bjson\b"
)
_YES_NO: Final = re.compile(
    r"\b(?:answer|respond|reply|say)\b[^.\n]{0,40}\b(yes or no|yes/no|true or false)\b"
)
_YES_NO_ANSWER: Final = re.compile(r"\b(?:yes|no|true|false)\b")
_ONE_WORD: Final = re.compile(
    r"\b(?:in|with|using) (?:just |only |exactly )?(?:one|a single) word\b|\bone-word answer\b"
)
_WORD_LIMIT: Final = re.compile(
    r"\b(?:in|under|at most|less than|fewer than|within|no more than|maximum(?: of)?|up to)"
    r" (?:about |around )?(\d{1,4}) words?\b"
)
_NUMBERS: Final = {
    name: number
    for number, name in enumerate(
        ("three", "four", "five", "six", "seven", "eight", "nine", "ten"), start=3
    )
}
_LIST_OF: Final = re.compile(
    rf"\b(?:list|name|give(?: me)?|suggest|provide|write)(?: of)?(?: the)?(?: top)?"
    rf" (\d{{1,2}}|{'|'.join(_NUMBERS)}) (?:\w+ )?(?:\w+s|people|children)\b"
)
_BULLETS: Final = re.compile(r"\bbullet(?:ed)?[- ](?:points?|list)")
_LIST_ITEM: Final = re.compile(r"^[ \t]{0,8}(?:[-*•–]|\(?\d{1,3}[.):])[ \t]", re.MULTILINE)
_WRITE_CODE: Final = re.compile(
    r"\bwrite (?:me )?(?:an?|some|the)\b[^.\n]{0,40}\b(?:function|program|script|method|query"
    r"|regex|code)\b|\bimplement\b[^.\n]{0,40}\b(?:function|method|class|algorithm)\b"
)
_CODE_IN: Final = re.compile(
    r"\b(?:in|using) "
    r"(python|javascript|typescript|java|rust|go|golang|c\+\+|ruby|sql|bash)(?![\w+])"
)
_CODE: Final = re.compile(r"```|[{};=]|\bdef |\bselect |\breturn\b|=>|[\\^\[\]]")
_FENCE_TAG: Final = re.compile(r"^[ \t]{0,8}```([a-z+#]{1,12})[ \t]*$", re.MULTILINE)
_TAGS: Final = {
    "python": {"python", "py", "python3"},
    "javascript": {"javascript", "js", "jsx", "html", "typescript", "ts"},
    "typescript": {"typescript", "ts", "tsx"},
    "java": {"java"},
    "rust": {"rust", "rs"},
    "go": {"go", "golang"},
    "golang": {"go", "golang"},
    "c++": {"cpp", "c++", "cc", "c"},
    "ruby": {"ruby", "rb"},
    "sql": {"sql"},
    "bash": {"bash", "sh", "shell", "zsh", "console"},
}

Finding = tuple[float, str] | None


def check(reading: Reading) -> Check:
    """The worst of the forms that were asked for and not given."""
    if not reading.text or reading.answer.tool_calls:
        return fine(NAME)
    findings = [finding for form in _FORMS if (finding := form(reading))]
    if not findings:
        return fine(NAME)
    score, reason = min(findings)
    return found(NAME, score, reason)


def _json(reading: Reading) -> Finding:
    if not _JSON.search(reading.question) or _CODE_TASK.search(reading.question):
        return None
    if "{" not in reading.text and "[" not in reading.text:
        return SERIOUS, "JSON was asked for"
    if parse_inside(reading.text) is NOT_JSON:
        return SLIGHT, "the JSON does not parse"
    return None


def _yes_no(reading: Reading) -> Finding:
    if not _YES_NO.search(reading.question) or _YES_NO_ANSWER.search(reading.low):
        return None
    return MILD, "yes or no was asked for"


def _length(reading: Reading) -> Finding:
    count = len(reading.words)
    if _ONE_WORD.search(reading.question) and count > WORD_ANSWER_MAX:
        return MILD, "one word was asked for"
    limit = _WORD_LIMIT.search(reading.question)
    if limit and count > WORD_LIMIT_SLACK * int(limit.group(1)) + WORD_LIMIT_ROOM:
        return MILD, "longer than was asked for"
    return None


def _list(reading: Reading) -> Finding:
    bullets, wanted = _BULLETS.search(reading.question), _LIST_OF.search(reading.question)
    if not (bullets or wanted) or len(reading.text) > len(reading.sample):
        return None
    listed = len(_LIST_ITEM.findall(reading.text))
    if listed < LISTED_MIN:
        return (MILD, "a bullet list was asked for") if bullets else None
    if wanted is None:
        return None
    number = wanted.group(1)
    if listed < (_NUMBERS.get(number) or int(number)):
        return MILD, "fewer items than were asked for"
    return None


def _code(reading: Reading) -> Finding:
    if not _WRITE_CODE.search(reading.question):
        return None
    if not _CODE.search(reading.low):
        return MILD, "code was asked for"
    language = _CODE_IN.search(reading.question)
    tags = set(_FENCE_TAG.findall(reading.low))
    if language and tags and not tags & _TAGS[language.group(1)]:
        return MILD, "code in another language than was asked for"
    return None


_FORMS: Final[tuple[Callable[[Reading], Finding], ...]] = (_json, _yes_no, _length, _list, _code)
