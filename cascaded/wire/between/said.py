"""What a translation gives, whatever it is between."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from cascaded.types.model import Form, Model
from cascaded.wire.openai_chat import Fields

JSON = dict[str, Any]
REFERENCES = (b'"file_id"', b'"file_url"', b'"image_url"', b'"url"')
THOUGHT = "reasoning_content"
EFFORTS: Mapping[Form, str] = {
    "chat": "reasoning_effort",
    "messages": "thinking",
    "responses": "reasoning",
}
"""What tells a model how hard to think."""
OUTPUT = "output_config"
"""Where Messages tell that besides."""


class Said(NamedTuple):
    """A call in chat completions, and what is missing in it."""

    fields: Fields
    unsayable: tuple[str, ...]
    """Members and parts that chat completions cannot say."""
    unseen_tokens: int
    """A bound on the tokens of what was left out, but for what is `elsewhere`."""
    elsewhere: tuple[str, ...] = ()
    """What of it refers to something whose length nobody here knows."""


def refers(part: bytes) -> bool:
    """Whether a part that was left out, as JSON, shows a picture or names something elsewhere."""
    return any(name in part for name in REFERENCES)


def raw_members(members: Mapping[str, object]) -> Fields:
    """The members of a body, each as its JSON."""
    return {
        name: value if isinstance(value, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(value))
        for name, value in members.items()
    }


def suited(
    form: Form, fields: Mapping[str, msgspec.Raw], model: Model
) -> Mapping[str, msgspec.Raw]:
    """A translated body for this model: who does not think is not told how hard to."""
    if EFFORTS[form] not in fields or "reasoning" in model.capabilities:
        return fields
    kept = {name: raw for name, raw in fields.items() if name != EFFORTS[form]}
    if form == "messages" and OUTPUT in kept:
        output: JSON = msgspec.json.decode(kept.pop(OUTPUT))
        output.pop("effort", None)
        return kept | (raw_members({OUTPUT: output}) if output else {})
    return kept


def without_thoughts(fields: Mapping[str, msgspec.Raw]) -> Mapping[str, msgspec.Raw]:
    """A body in chat completions without thoughts that nobody has signed."""
    if THOUGHT.encode() not in bytes(fields["messages"]):
        return fields
    messages: list[JSON] = msgspec.json.decode(fields["messages"])
    kept = [{name: one for name, one in said.items() if name != THOUGHT} for said in messages]
    return {**fields, **raw_members({"messages": kept})}
