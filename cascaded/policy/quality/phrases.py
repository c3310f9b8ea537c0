"""Lists of phrases, written so that people can read and extend them.

Checks look for phrases as plain substrings or in sets of words: an alternation of some dozens of
phrases costs a regular expression milliseconds on a long answer, substrings cost microseconds.
"""


def phrases(text: str) -> tuple[str, ...]:
    """The phrases of a text that separates them by semicolons and line ends."""
    parts = (part.strip() for line in text.splitlines() for part in line.split(";"))
    return tuple(part for part in parts if part)
