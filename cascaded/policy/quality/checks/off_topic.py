"""Is the answer about the question, and in its language?"""

from collections import Counter
from typing import Final

from cascaded.policy.quality.phrases import phrases
from cascaded.policy.quality.reading import Reading
from cascaded.policy.quality.scale import MILD, SERIOUS, fine, found
from cascaded.policy.quality.scripts import letters
from cascaded.types.result import Check

NAME: Final = "off_topic"

QUESTION_LETTERS_MIN: Final = 8
ANSWER_LETTERS_MIN: Final = 20
MAIN_SCRIPT_SHARE: Final = 0.6
QUOTED_LETTERS_MAX: Final = 1
"""More letters of a script than this in the question, and an answer may be written in it."""
LANGUAGE_WORDS_EXAMINED: Final = 400
QUESTION_FUNCTION_WORDS_MIN: Final = 3
ANSWER_FUNCTION_WORDS_MIN: Final = 8
LANGUAGE_LEAD: Final = 2.5
"""How many times the function words of the second language the first must have."""
FUNCTION_WORD_SHARE_MIN: Final = 0.15
STEM_CHARS: Final = 5
STEMS_MIN: Final = 5
STEMS_MANY: Final = 8
ANSWER_WORDS_MIN: Final = 30
"""Shorter answers (a letter, a number, a name) share no words with good reason."""

# No single letters and no words of English: algebra and code are full of them.
_FUNCTION_WORDS: Final = {
    "English": "the of and to is in that it for with are was this be as on you have not what which",
    "German": "der die das und ist nicht ein eine zu den von mit für auf im sich dem wie werden",
    "French": "le la les des et est une du dans que pour qui pas sur avec sont vous ce plus au",
    "Spanish": "el la los las de que es una en por para con del se como más su lo qué",
    "Italian": "il di che è la un una per del della con sono non le si come dei gli nel",
    "Portuguese": "de que é um uma para com não os da em por mais dos na ao pela como são",
    "Dutch": "de het een van en is dat niet te voor met zijn op aan ook wordt bij deze naar",
}
_FUNCTION_WORD_SETS: Final = {
    language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()
}
# A language is named, or translation asked for: then any language may answer.
_NAMES_OF_LANGUAGES: Final = frozenset(
    phrases("""
    english; german; french; spanish; italian; portuguese; dutch; russian; chinese; mandarin
    cantonese; japanese; korean; arabic; hebrew; greek; hindi; bengali; thai; latin; swedish
    finnish; polish; turkish; urdu; vietnamese; indonesian; ukrainian; persian
    language; languages; sprache; englisch; deutsch; französisch; spanisch; italienisch
    anglais; allemand; français; espagnol; inglés; alemán; francés; español; inglese; tedesco
""")
)
_SIGNS_OF_TRANSLATION: Final = phrases("""
    translat; übersetz; tradu; перевод; перевед; 翻译; 翻譯; 翻訳; 번역
    英语; 英文; 英語; 中文; 日语; 日本語; 韩语; 法语; 德语; 中国語; ドイツ語; フランス語
""")
_OPENS_DATA: Final = "{[<|"
"""JSON, markup and tables need not speak the question's words."""
_SIGNS_OF_CODE: Final = ("```", "</", "{\n", "}\n", ";\n", "def ", "import ")
# Words of the instruction rather than of its subject; then those of LaTeX.
_TASK_WORDS: Final = """
    about above according after answer answers based before being below best between both
    brief briefly choice choices code complete compose context correct create describe
    describing detail details does draft each essay example examples explain explanation
    feedback final following form format from function generate give given haiku have help
    here into keep letter likely list make many means might more most multiple must name
    need note only option options other over paragraph please poem possible prompt provide
    question questions read reply respond response sentence sentences short should show
    simple some song statement step steps story such summarize summary tell text than that
    their them then there these they thing think this those under used using very want were
    what when where which while will with within without word words would write your yours
    frac sqrt cdot cdots ldots dots quad mathrm begin left right times
"""
_ABOUT_THE_TASK: Final = frozenset(_TASK_WORDS.split())


def check(reading: Reading) -> Check:
    """Another script or language than the question's, or none of the question's words."""
    if reading.answer.tool_calls and not reading.text:
        return fine(NAME)
    if not _free_language(reading):
        if _other_script(reading):
            return found(NAME, SERIOUS, "in another script than the question")
        if _other_language(reading):
            # Milder: an instruction that this check is not shown may have set the language.
            return found(NAME, MILD, "in another language than the question")
    return _overlap(reading)


def _free_language(reading: Reading) -> bool:
    return (
        not _NAMES_OF_LANGUAGES.isdisjoint(reading.question_words)
        or any(sign in reading.question for sign in _SIGNS_OF_TRANSLATION)
        or any(sign in reading.low for sign in _SIGNS_OF_CODE)
    )


def _other_script(reading: Reading) -> bool:
    asked, said = letters(reading.question), reading.scripts
    if asked.total() < QUESTION_LETTERS_MIN or said.total() < ANSWER_LETTERS_MIN:
        return False
    main, count = said.most_common(1)[0]
    return count >= MAIN_SCRIPT_SHARE * said.total() and asked[main] <= QUOTED_LETTERS_MAX


def _other_language(reading: Reading) -> bool:
    said = _language(reading.words, ANSWER_FUNCTION_WORDS_MIN)
    if said is None:
        return False
    asked = _language(reading.question_words, QUESTION_FUNCTION_WORDS_MIN)
    return asked is not None and asked != said


def _language(words: list[str], hits_min: int) -> str | None:
    """The Latin-script language whose function words clearly lead, or `None`."""
    examined = words[:LANGUAGE_WORDS_EXAMINED]
    counts = Counter(examined)
    hits = {
        language: sum(counts[word] for word in known)
        for language, known in _FUNCTION_WORD_SETS.items()
    }
    first, second = sorted(hits, key=hits.__getitem__, reverse=True)[:2]
    least = max(hits_min, FUNCTION_WORD_SHARE_MIN * len(examined), LANGUAGE_LEAD * hits[second])
    return first if hits[first] >= least else None


def _overlap(reading: Reading) -> Check:
    if len(reading.words) < ANSWER_WORDS_MIN or reading.text[0] in _OPENS_DATA:
        return fine(NAME)
    asked = _stems(reading.question_words)
    if len(asked) < STEMS_MIN or asked & _stems(reading.words):
        return fine(NAME)
    score = SERIOUS if len(asked) >= STEMS_MANY else MILD
    return found(NAME, score, "shares no word with the question")


def _stems(words: list[str]) -> set[str]:
    """Light stems: the first letters of each word that is long enough to mean something."""
    return {
        word[:STEM_CHARS]
        for word in words
        if len(word) >= STEM_CHARS - 1 and word not in _ABOUT_THE_TASK and not word.isdigit()
    }
