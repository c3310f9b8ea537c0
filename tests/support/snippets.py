"""The fenced blocks of a Markdown document, and what the document says of how they are run."""

import re
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(
    r"(?:^<!-- (?P<said>[^\n]*?) -->\n)?^```(?P<kind>[a-z]+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Snippet(NamedTuple):
    """One block. `said` is the comment right above it, such as `not run: why`."""

    line: int
    kind: str
    text: str
    said: str

    def about(self, word: str) -> str | None:
        """What stands after `word: ` in the comment."""
        head, _, rest = self.said.partition(": ")
        return rest if head == word else None


def snippets(document: Path) -> list[Snippet]:
    """All blocks of a document, in order."""
    text = document.read_text()
    return [
        Snippet(
            line=text.count("\n", 0, found.start("text")),
            kind=found["kind"],
            text=found["text"],
            said=found["said"] or "",
        )
        for found in _FENCE.finditer(text)
    ]
