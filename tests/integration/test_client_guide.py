"""Every snippet of the client's guide runs as it stands, against a daemon."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import CASCADE, daemon_with
from tests.support.upstream import Says, Upstream

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "client.md"
LIMITS = """
[limits.users.ids.alice]
daily_usd = 1
[limits.users.ids.bob]
daily_usd = "0.00001"
enforcement = "block"
"""


def snippets() -> Iterator[tuple[int, str]]:
    """Each with the line that it begins on."""
    text = GUIDE.read_text()
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield text[: match.start(1)].count("\n"), match[1]


@pytest.mark.parametrize(("line", "code"), list(snippets()))
def test_a_snippet(
    line: int,
    code: str,
    upstream: Upstream,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for model in ("cheap", "strong"):
        upstream.on(model, Says("The capital of France is Paris."))
    with daemon_with(CASCADE + LIMITS, url=upstream.url) as daemon:
        monkeypatch.setenv("CASCADED_SOCKET", daemon.socket)
        # Lines before it, so that a traceback names the guide's own.
        exec(compile("\n" * line + code, GUIDE, "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert printed.strip()
    if "bob" in code:
        assert "user daily 0.00001" in printed, "the refusal that the guide shows"
