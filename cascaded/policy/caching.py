"""Which calls may be given an earlier answer, which answers may be kept, and under which key."""

from collections.abc import Mapping
from hashlib import blake2b

import msgspec

from cascaded.types.decision import Decision
from cascaded.types.limits import Caller
from cascaded.types.model import Form, Ladder
from cascaded.types.recalled import Whole
from cascaded.types.request import Request
from cascaded.types.result import Result
from cascaded.wire.openai_chat import ABSENT

KEY_BYTES = 32
FORM = b"2"
"""Of the key: another one when what is in it changes, so that no older entry is found."""
MAX_KEYED_BYTES = 256 * 1024
"""A longer call is not cached: to make its key would hold up the others."""
MAX_SORTED_BYTES = 16 * 1024
"""A longer member counts as it was sent, byte for byte."""
UNHEEDED: Mapping[Form, frozenset[str]] = {
    "chat": frozenset(
        {"model", "stream", "stream_options", "user", "safety_identifier", "metadata"}
    ),
    "messages": frozenset({"model", "stream", "metadata"}),
    # A response repeats whose it is, and its metadata.
    "responses": frozenset({"model", "stream", "stream_options"}),
}
"""Members that do not change the answer. `model` stands in the key as what it means."""
UNCOUNTED = frozenset(
    {
        *("id", "principal", "claims", "cache", "received_ns", "created_s", "line"),
        *("stream", "stream_mode", "include_usage", "buffer_size"),
        *("include_metadata", "track_cost", "validate_quality_on_complete"),
        # The key has them by itself, or in the body's members.
        *("model", "fields", "original", "messages", "texts", "asks", "max_output_tokens"),
        *("choices", "deterministic", "wants_logprobs", "caller_key"),
    }
)
"""What of a request does not count beside its body. All else does, so that what is added later is
never forgotten."""
_COUNTED = tuple(name for name in Request.__struct_fields__ if name not in UNCOUNTED)
WORLDLY: Mapping[Form, tuple[str, ...]] = {
    "chat": ("tools", "functions", "web_search_options", "audio", "store"),
    "messages": ("tools", "mcp_servers", "container"),
    "responses": ("tools", "prompt", "store"),
}
"""Members by which an answer does something, or depends on more than the prompt: such calls are
answered from the cache only where that is asked for."""
NOTHING = (b"", b"null", b"false")
"""Values of them that ask for nothing."""
COMPLETE = frozenset({"stop", "tool_calls", "function_call"})
"""How an answer ends that is whole; not one that was cut or filtered."""


class Upstream(msgspec.Struct, frozen=True):
    """What of a provider can change its answers."""

    place: str
    """Where it is."""
    forwards_key: bool = False
    """It is asked with the caller's own key."""


def is_wanted(request: Request, decision: Decision) -> bool:
    """Whether the call and the cache have to do with each other.

    By default where asking again would buy the same answer, and giving it again does nothing.
    """
    form, body = _said(request)
    if not _may(request, decision) or sum(map(len, body.values())) > MAX_KEYED_BYTES:
        return False
    return request.cache.asked or (
        request.deterministic
        and all(bytes(body.get(name, ABSENT)) in NOTHING for name in WORLDLY[form])
    )


def _said(request: Request) -> tuple[Form, Mapping[str, msgspec.Raw]]:
    """The body as it came."""
    original = request.original
    return ("chat", request.fields) if original is None else (original.form, original.fields)


def _may(request: Request, decision: Decision) -> bool:
    """Whether nobody forbids it: the caller, the ladder, the tier, the profile."""
    ladder, tier, profile = decision.ladder, decision.tier, decision.profile
    assert ladder is not None
    return (
        not request.cache.off
        and ladder.cache
        and (tier is None or tier.caching)
        and (profile is None or profile.enable_caching)
    )


def tenant_of(caller: Caller) -> str:
    """Who shares answers: the users of an organisation, else nobody but the user."""
    if caller.organization_id is not None:
        return of_organization(caller.organization_id)
    return of_user(caller.user_id)


def of_organization(id: str) -> str:
    """The users of this organisation, as one tenant."""
    return f"organization:{id}"


def of_user(id: str) -> str:
    """This user, of no organisation, as a tenant."""
    return f"user:{id}"


def key_of(
    tenant: str, request: Request, decision: Decision, upstreams: Mapping[str, Upstream]
) -> bytes:
    """The key: a hash over everything that can change the answer, `KEY_BYTES` long."""
    parts = [
        FORM,
        tenant.encode("utf-8", "surrogatepass"),
        _circumstances(request, decision, upstreams),
    ]
    form, body = _said(request)
    for name in sorted(body.keys() - UNHEEDED[form]):
        parts += (name.encode("utf-8", "surrogatepass"), canonical(bytes(body[name])))
    # The length of each tells it from the next.
    told = b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)])
    return blake2b(told, digest_size=KEY_BYTES).digest()


def canonical(raw: bytes) -> bytes:
    """JSON with the members of its objects in order and no blanks.

    What would not read back as it was written (members that repeat, numbers that no float holds),
    and what is long, counts byte for byte: two meanings never get one form.
    """
    if len(raw) > MAX_SORTED_BYTES:
        return raw
    if raw[:1] not in (b"{", b"["):
        return raw
    try:
        value = msgspec.json.decode(raw)
        compact = msgspec.json.format(raw, indent=-1)
        if msgspec.json.encode(value) != compact:
            return compact
        return msgspec.json.encode(value, order="sorted")
    except (ValueError, OverflowError, RecursionError):  # its reader will say what is wrong
        return raw


def is_kept(request: Request, decision: Decision, end: Result, whole: Whole) -> bool:
    """Whether this answer may be given again: whole, good, and of the ladder that was asked for
    rather than of what a budget's end, a hook or a failure left of it."""
    answer = end.answer
    return (
        end.answered_by is not None
        and not decision.narrowed
        and not end.flagged
        and not end.findings  # what a guardrail took out of it is not kept
        and not end.notices  # nobody answered in another's place
        and not answer.refusal
        and answer.finish_reason in COMPLETE
        and _all_complete(whole.raw, several=request.choices > 1)
        and decision.ladder is decision.menu[0].ladder
    )


def _circumstances(
    request: Request, decision: Decision, upstreams: Mapping[str, Upstream]
) -> bytes:
    """What is asked, and how answers are judged, beside the body."""
    ladder, original = decision.ladder, request.original
    assert ladder is not None
    asked = [upstreams.get(rung.model.provider, Upstream("")) for rung in ladder.rungs]
    return msgspec.msgpack.encode(
        (
            _rungs(ladder),
            (original.form, original.headers) if original else None,
            [one.place for one in asked],
            request.caller_key if any(one.forwards_key for one in asked) else None,
            (ladder.checked, ladder.strict, ladder.top_retries, ladder.max_cost_nano_usd),
            decision.preferred,
            decision.output_cap,
            decision.domain,
        )
    ) + msgspec.json.encode([getattr(request, name) for name in _COUNTED])


def _rungs(ladder: Ladder) -> list[tuple[str, str, str, str, float]]:
    asked = ((rung.model, rung.threshold) for rung in ladder.rungs)
    return [
        (model.provider, model.upstream_name, model.form, model.name, threshold)
        for model, threshold in asked
    ]


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Ends(msgspec.Struct):
    choices: list[_Choice] = []
    stop_reason: str | None = None


_read_ends = msgspec.json.Decoder(_Ends).decode
PAUSED = "pause_turn"
"""Of Messages: it goes on with the next call."""


def _all_complete(whole: bytes, *, several: bool) -> bool:
    """Whether each of several choices ended well, and nothing is to go on."""
    if not several and PAUSED.encode() not in whole:
        return True
    ends = _read_ends(whole)
    good = not several or all(choice.finish_reason in COMPLETE for choice in ends.choices)
    return good and ends.stop_reason != PAUSED
