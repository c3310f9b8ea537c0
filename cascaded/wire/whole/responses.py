"""Of OpenAI's Responses."""

from collections.abc import Iterator
from typing import Any

import msgspec

from cascaded.wire.openai_chat import WireError
from cascaded.wire.responses import ENDS

JSON = dict[str, Any]
DONE = "response.output_item.done"
_SUMMARY = "reasoning_summary"
_read = msgspec.json.Decoder(JSON)


class Gathered:
    """Events as they come, or a whole answer, and what they make."""

    def __init__(self) -> None:
        self._items: dict[int, JSON] = {}
        self._whole: bytes | None = None

    def add(self, raw: bytes, *, whole: bool = False) -> None:
        """One more. Raises `WireError` for what is not of Responses."""
        if whole:
            self._whole = raw
            return
        try:
            said = _read.decode(raw)
            if said["type"] == DONE:
                self._items[said["output_index"]] = said["item"]
            elif said["type"] in ENDS:
                response: JSON = said["response"]
                items = [self._items[at] for at in sorted(self._items)]
                response["output"] = response.get("output") or items  # some leave it out
                self._whole = msgspec.json.encode(response)
        except (msgspec.DecodeError, AttributeError, TypeError, KeyError, RecursionError) as error:
            raise WireError(f"not of the Responses API: {error!r}") from None

    def whole(self) -> bytes | None:
        """The response; `None` of one that did not end."""
        return self._whole


def events_of(whole: bytes) -> Iterator[bytes]:
    """The answer as a stream."""
    for number, event in enumerate(_events(_read.decode(whole))):
        yield msgspec.json.encode({**event, "sequence_number": number})


def _events(response: JSON) -> Iterator[JSON]:
    empty: JSON = {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    begun = {**response, **empty}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(response["output"]):
        yield from _item(index, item)
    yield {"type": f"response.{response['status']}", "response": response}


def _item(index: int, item: JSON) -> Iterator[JSON]:
    kind, at = item["type"], {"item_id": item.get("id"), "output_index": index}
    grows = {"message": ["content"], "reasoning": ["summary", "content"]}.get(kind, ())
    started = {**item, **{name: [] for name in grows if item.get(name)}}
    if "status" in item:
        started["status"] = "in_progress"
    called = {"function_call": "arguments", "custom_tool_call": "input"}.get(kind)
    if called is not None:
        started |= {called: ""}
    yield {"type": "response.output_item.added", "output_index": index, "item": started}
    for name in grows:
        for number, part in enumerate(item.get(name) or ()):
            yield from _part(part, {**at, f"{name}_index": number})
    if called is not None:
        stem = f"response.{kind.removesuffix('_call')}_call_{called}"
        yield {"type": f"{stem}.delta", **at, "delta": item[called]}
        yield {"type": f"{stem}.done", **at, called: item[called], "name": item["name"]}
    yield {"type": DONE, "output_index": index, "item": item}


def _part(part: JSON, at: JSON) -> Iterator[JSON]:
    """A part of a message or of a thought, said at once."""
    kind: str = part["type"].replace("summary_text", f"{_SUMMARY}_text")
    part_kind = f"{_SUMMARY}_part" if kind.startswith(_SUMMARY) else "content_part"
    name = "refusal" if kind == "refusal" else "text"
    if name not in part:
        return  # of a kind that is not known: the item's end has it
    tokens = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
    empty = {**part, name: ""} | ({"annotations": []} if "annotations" in part else {})
    yield {"type": f"response.{part_kind}.added", **at, "part": {**empty, **_none(tokens)}}
    yield {"type": f"response.{kind}.delta", **at, "delta": part[name], **tokens}
    for number, annotation in enumerate(part.get("annotations") or ()):
        told = {"annotation_index": number, "annotation": annotation}
        yield {"type": "response.output_text.annotation.added", **at, **told}
    yield {"type": f"response.{kind}.done", **at, name: part[name], **tokens}
    yield {"type": f"response.{part_kind}.done", **at, "part": part}


def _none(tokens: JSON) -> JSON:
    return {name: [] for name in tokens}
