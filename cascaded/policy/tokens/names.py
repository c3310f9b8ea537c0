"""Which model uses which vocabulary, as far as that is public."""

import re

OPENAI_PREFIXES = frozenset({"openai", "azure", "azure_ai", "azure-openai", "github", "models"})
"""What may stand before OpenAI's names. Behind any other, a name may be somebody else's model."""

_FAMILIES = (
    (
        "o200k_base",
        r"gpt-4o|chatgpt-4o|gpt-4\.1|gpt-4\.5|gpt-5(\.\d+)?|o1|o3|o4|codex-mini"
        r"|computer-use-preview|gpt-audio|gpt-realtime",
    ),
    (
        "cl100k_base",
        r"gpt-4|gpt-3\.5|gpt-35|davinci-002|babbage-002"
        r"|text-embedding-ada-002|text-embedding-3-small|text-embedding-3-large",
    ),
)
_PATTERNS = tuple((name, re.compile(rf"({family})(-.*)?")) for name, family in _FAMILIES)
_GPT_OSS = re.compile(r"gpt-oss(-.*)?")


def split_name(model_name: str) -> tuple[str, str]:
    """`(owner, family name)` of a model's name, lower case.

    The owner is the last part of a path (`openrouter/openai/gpt-4o` → `openai`); the family name
    is without `ft:`, an owner's suffix (`:acme:…`), a tag (`:20b`) or a version (`@2024-…`).
    """
    path, _, name = model_name.strip().lower().rpartition("/")
    owner = path.rpartition("/")[2]
    family = name.removeprefix("ft:").partition(":")[0].partition("@")[0]
    return owner, family


def vocabulary_of(model_name: str) -> str:
    """The vocabulary's name, or `""` where it is not public: the bound is by bytes then.

    Only names that OpenAI has published are known; a new family is bounded until it is added here
    or its vocabulary is configured. A wrong guess could count too little, so there is none.
    """
    owner, family = split_name(model_name)
    if _GPT_OSS.fullmatch(family):
        return "o200k_harmony"
    if owner and owner not in OPENAI_PREFIXES:
        return ""
    for vocabulary, pattern in _PATTERNS:
        if pattern.fullmatch(family):
            return vocabulary
    return ""
