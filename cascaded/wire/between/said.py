"""What a translation gives, whatever it is between."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from cascaded.types.model import Form, Model
from cascaded.wire.openai_chat import Fields, WireError, is_absent

JSON = dict[str, Any]
REFERENCES = (b'"file_id"', b'"file_url"', b'"image_url"', b'"url"')
THOUGHT = "reasoning_content"
EFFORTS: Mapping[Form, str] = {
    "chat": "reasoning_effort",
    "messages": "thinking",
    "responses": "reasoning",
}
"""What tells a model how hard to think."""
NEUTRAL_IN_CHAT: Mapping[str, tuple[bytes, ...]] = {
    "n": (b"1",),
    "frequency_penalty": (b"0", b"0.0"),
    "presence_penalty": (b"0", b"0.0"),
    "logit_bias": (b"{}",),
    "modalities": (b'["text"]',),
}
"""Members of chat completions that no other form has, with what says nothing there."""
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


class Saying:
    """A call that is being said in chat completions."""

    def __init__(self, fields: Mapping[str, msgspec.Raw]) -> None:
        self._fields = fields
        self._sent: JSON = {}
        self._unsayable: list[str] = []
        self._elsewhere: list[str] = []
        self._unseen = 0

    def _get(self, name: str) -> Any:
        raw = self._fields.get(name)
        return None if raw is None else msgspec.json.decode(raw)

    def _cannot(self, what: str, part: object) -> None:
        """A part that cannot be said, and is left out."""
        said = msgspec.json.encode(part)
        self._unsayable.append(what)
        self._unseen += len(said)
        if any(name in said for name in REFERENCES):
            self._elsewhere.append(what)

    def _members(self, same: Collection[str], known: Collection[str]) -> None:
        """The members that mean the same, and those that are not `known`."""
        for name, raw in self._fields.items():
            if name in same:
                self._sent[name] = raw
            elif name not in known and not is_absent(raw):
                self._unsayable.append(name)

    def _all(self) -> Said:
        return Said(
            raw_members(self._sent), tuple(self._unsayable), self._unseen, tuple(self._elsewhere)
        )


class Sayable(NamedTuple):
    """Which members of chat completions another form can say."""

    same: Collection[str]
    """As they are."""
    read: Collection[str]
    """In its own way."""
    left_out: Collection[str]
    """Not, but they change nothing about the answer."""
    neutral: Mapping[str, tuple[bytes, ...]]
    """With these values, which ask for nothing that it does not do anyway."""
    api: str
    """Its name."""

    def sort(self, fields: Mapping[str, msgspec.Raw]) -> tuple[JSON, JSON]:
        """The members that are the same, and those that are read, decoded. Raises `WireError`
        naming one that cannot be said."""
        sent: JSON = {}
        for name, raw in fields.items():
            if is_absent(raw) or name in self.read or name in self.left_out:
                continue
            if name in self.same:
                sent[name] = raw
            elif bytes(raw) not in self.neutral.get(name, ()):
                raise self.cannot(name)
        read = (name for name in fields if name in self.read)
        asked = {name: msgspec.json.decode(fields[name]) for name in read}
        return sent, {name: value for name, value in asked.items() if value is not None}

    def cannot(self, name: str) -> WireError:
        """The refusal of something that cannot be said."""
        return WireError(
            f"{name} cannot be said in {self.api}, by which a model of this call is asked: leave it"
            " out, or name a model that takes chat completions",
            name,
        )

    def only(self, message: JSON, at: str, known: Collection[str]) -> None:
        """Raises `WireError` for a message that has further members."""
        for name, value in message.items():
            if name not in known and value is not None:
                raise self.cannot(f"{at}.{name}")


@contextmanager
def legible(form: str) -> Iterator[None]:
    """Around the reading of a body: what is wrong with it is a `WireError`."""
    try:
        yield
    except WireError:
        raise
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"the body cannot be read: {error}") from None
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise WireError(f"the body is not as {form} have it: {error!r}") from None


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
