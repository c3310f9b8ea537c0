"""Cyclomatic complexity of the code in a prompt, by tree-sitter's parsers. See `ports.CodeReader`.

The parsers are an extra (`cascaded[code]`), each loaded by the first code in its language.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from cascaded.ports import Offload

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

MAX_CODE_BYTES = 32 * 1024
"""Of one prompt; what follows is not read."""
MAX_BLOCKS = 8
MAX_NODES = 50_000
"""Most parts of one piece of code that are looked at."""


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """How a language's code is told and read."""

    package: str
    grammar: str = "language"
    """The function of the package that gives it."""
    tags: tuple[str, ...]
    """What stands behind the fence of a block."""
    sign: str
    """A pattern of lines that no other language has."""


_C_LIKE = frozenset(
    {
        "if_statement",
        "for_statement",
        "while_statement",
        "do_statement",
        "for_in_statement",
        "enhanced_for_statement",
        "for_range_loop",
        "case_statement",
        "switch_case",
        "switch_block_statement_group",
        "switch_rule",
        "catch_clause",
        "conditional_expression",
        "ternary_expression",
    }
)
BRANCHES = _C_LIKE | {
    # Python
    "elif_clause",
    "except_clause",
    "case_clause",
    "for_in_clause",
    "if_clause",
    "boolean_operator",
    # Go
    "expression_case",
    "type_case",
    "communication_case",
    # Rust
    "if_expression",
    "while_expression",
    "for_expression",
    "match_arm",
}
"""Nodes that part the ways, by the names of the grammars."""
JUNCTIONS = frozenset({"&&", "||", "??"})
FUNCTIONS = frozenset(
    {
        "function_definition",
        "function_declaration",
        "function_item",
        "method_definition",
        "method_declaration",
        "constructor_declaration",
        "arrow_function",
        "function_expression",
        "func_literal",
        "lambda_expression",
        "closure_expression",
    }
)
LANGUAGES = (
    Language(
        package="tree_sitter_python",
        tags=("python", "py"),
        sign=r"^\s*(def \w+\(.*:|from \w+ import )",
    ),
    Language(package="tree_sitter_rust", tags=("rust", "rs"), sign=r"^\s*(pub )?fn \w+.*\{"),
    Language(
        package="tree_sitter_go", tags=("go", "golang"), sign=r"^\s*func (\(\w+ \*?\w+\) )?\w+\("
    ),
    Language(
        package="tree_sitter_java",
        tags=("java",),
        sign=r"^\s*(public|private|protected) (static |final )*[\w<>\[\]]+ \w+\(|^public class ",
    ),
    Language(
        package="tree_sitter_typescript",
        grammar="language_typescript",
        tags=("typescript", "ts"),
        sign=r"^\s*(export )?(interface \w+ \{|(async )?function \w+\(.*: \w+)",
    ),
    Language(
        package="tree_sitter_javascript",
        tags=("javascript", "js", "jsx", "node"),
        sign=r"^\s*((async )?function \w*\(|(const|let) \w+ = .*=>)",
    ),
    Language(
        package="tree_sitter_cpp",
        tags=("cpp", "c++", "cc", "c", "h"),
        sign=r"^\s*(#include [<\"]|(int|void|bool|char|double|float) \w+\(.*\) ?\{)",
    ),
)
_FENCE = re.compile(r"```[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:```|\Z)", re.S)
_SIGNS = tuple((re.compile(language.sign, re.M), language) for language in LANGUAGES)
_BY_TAG = {tag: language for language in LANGUAGES for tag in language.tags}


class TreeSitterReader:
    """See `ports.CodeReader`. Prompts without code cost a few searches."""

    def __init__(self, offload: Offload) -> None:
        self._offload = offload
        self._parsers: dict[str, Parser | None] = {}

    async def cyclomatic(self, text: str) -> int | None:
        """See `ports.CodeReader.cyclomatic`. Code is parsed off the event loop."""
        pieces = list(code_in(text[:MAX_CODE_BYTES]))
        if not pieces:
            return None
        return await self._offload(lambda: self._most(pieces))

    def _most(self, pieces: list[tuple[Language, str]]) -> int | None:
        found = []
        for language, code in pieces:
            parser = self._parser(language)
            if parser is not None:
                tree = parser.parse(code.encode("utf-8", "replace"))
                found.append(most_ways(tree.root_node))
        return max(found, default=None)

    def _parser(self, language: Language) -> "Parser | None":
        """`None` where the package is not installed."""
        if language.package not in self._parsers:
            self._parsers[language.package] = _load(language)
        return self._parsers[language.package]


def code_in(text: str) -> Iterator[tuple[Language, str]]:
    """Blocks of code between fences; without a fence, the whole text if it looks like code."""
    blocks = [(match[1].lower(), match[2]) for match in _FENCE.finditer(text)][:MAX_BLOCKS]
    for tag, code in blocks or [("", text)]:
        language = _BY_TAG.get(tag) or _look(code)
        if language is not None:
            yield language, code


def most_ways(root: "Node") -> int:
    """One and the branches, of the function that has most; of what is outside of functions, too."""
    most = 0
    counts = [0]
    waiting: list[tuple[Node, int]] = [(root, 0)]
    for _ in range(MAX_NODES):
        if not waiting:
            break
        node, owner = waiting.pop()
        if node.type in FUNCTIONS:
            counts.append(0)
            owner = len(counts) - 1
        elif node.type in BRANCHES or node.type in JUNCTIONS:
            counts[owner] += 1
            most = max(most, counts[owner])
        waiting += ((child, owner) for child in node.children)
    return most + 1


def _look(code: str) -> Language | None:
    return next((language for sign, language in _SIGNS if sign.search(code)), None)


def _load(language: Language) -> "Parser | None":
    try:
        import tree_sitter

        package: Any = import_module(language.package)
    except ImportError:
        return None
    grammar = getattr(package, language.grammar)()
    return tree_sitter.Parser(tree_sitter.Language(grammar))
