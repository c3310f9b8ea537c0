"""Answers on their way out: looked through, rewritten, or stopped, whatever form they come in."""

from collections.abc import Callable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from cascaded.pipeline.customs import Customs
from cascaded.policy.guardrails.answers import Rules, Screen
from cascaded.ports import Objection, Reply
from cascaded.types.decision import CacheState, Refusal
from cascaded.types.errors import BlockedError
from cascaded.types.event import Event
from cascaded.types.guarding import Finding
from cascaded.types.model import Form
from cascaded.types.result import Completion
from cascaded.wire.anthropic import MessagesEar, parse_message
from cascaded.wire.between.forms import InChat, in_chat
from cascaded.wire.openai_chat import Collector, parse_event
from cascaded.wire.texts import (
    JSON,
    Channel,
    Slot,
    ended,
    mapped,
    rest,
    slots,
    tool_inputs,
    without_chances,
)

CODE = "answer_blocked"
LOOKED_THROUGH = ("chat", "messages")
"""Forms in which answers are looked through as they are; any other is said in the first."""

_read = msgspec.json.Decoder(JSON)


class Screening:
    """See `ports.Screening`."""

    def __init__(self, rules: Rules, created_s: int, customs: Customs) -> None:
        self._rules = rules
        self._customs = customs
        self._noted: list[Finding] = []
        self._created_s = created_s
        config = rules.config
        # What is asked for again must not have been seen.
        self.waits = bool(config.custom_guardrails) or any(
            one.enabled and one.action == "retry"
            for one in (config.pii, config.moderation, config.toxicity)
        )

    def over(self, reply: Reply) -> "ScreenedReply":
        """See `ports.Screening.over`."""
        screen = Screen(self._rules, live=True)
        return ScreenedReply(reply, screen, self._created_s, self._noted)

    async def objection(self, events: Sequence[Event]) -> Objection | None:
        """See `ports.Screening.objection`."""
        screen = Screen(self._rules, live=False)
        rehearsed = ScreenedReply(_Nowhere(), screen, self._created_s, [])
        try:
            for event in events:
                await rehearsed.send(event)
            await rehearsed.end()
        except BlockedError as blocked:
            return Objection(blocked.refusal, retry=screen.objection == "retry")
        return await self._own(rehearsed.answer)

    async def _own(self, answer: Completion) -> Objection | None:
        """What the operator's own have against it."""
        names = self._rules.config.custom_guardrails
        if not names:
            return None
        text = "\n".join([answer.text, *(arguments for _, arguments in answer.tool_calls)])
        found = await self._customs.findings(names, text, "answer")
        if isinstance(found, Refusal):
            return Objection(found, retry=False)
        actions = {finding.action for finding in found}
        if actions & {"block", "retry"}:
            return Objection(refusal(found), retry="block" not in actions)
        self._noted[:] = found
        return None


class _Nowhere:
    committed = False
    cache: CacheState = "off"

    async def send(self, event: Event) -> None:
        """Nobody sees it."""


class ScreenedReply:
    """See `ports.Screened`."""

    def __init__(
        self, reply: Reply, screen: Screen, created_s: int, noted: Sequence[Finding]
    ) -> None:
        """`noted`: what was found before."""
        self._noted = noted
        self._in_chat = InChat(created_s)
        self._created_s = created_s
        self._reply = reply
        self._screen = screen
        self.cache = reply.cache
        self._left = Collector()
        self._last: tuple[JSON, str] = {}, ""

    @property
    def committed(self) -> bool:
        """Whether anything was sent."""
        return self._reply.committed

    @property
    def findings(self) -> tuple[Finding, ...]:
        """See `ports.Screened.findings`."""
        return (*self._screen.findings, *self._noted)

    @property
    def answer(self) -> Completion:
        """See `ports.Screened.answer`."""
        return self._left.completion()

    async def send(self, event: Event) -> None:
        """What may leave of it, and of what waited. Raises `BlockedError`."""
        if event.form not in LOOKED_THROUGH:
            chunk = self._chunk(event)
            if chunk is None:
                return
            event = chunk
        said: JSON = _read.decode(event.raw)
        self._last = said, event.kind
        going = list(self._whole(event, said) if event.whole else self._piece(event, said))
        self._check()
        for one in going:
            await self._pass(one)

    async def end(self) -> None:
        """See `ports.Screened.end`: of a stream that did not say that it ends."""
        going = list(self._rests(*self._last, None))
        self._check()
        for one in going:
            await self._pass(one)

    def _chunk(self, event: Event) -> Event | None:
        """An event of another form, said in chat completions."""
        if not event.whole:
            return self._in_chat.chunk(event)
        return in_chat(event, self._created_s)

    async def _pass(self, event: Event) -> None:
        self._left.add(event)
        await self._reply.send(event)

    def _check(self) -> None:
        if self._screen.objection is not None:
            raise BlockedError(refusal(self.findings))

    def _whole(self, event: Event, said: JSON) -> Iterator[Event]:
        without_chances(said)
        for slot in slots(said, event.kind):
            slot.put(self._fed(slot) + self._screen.finish(slot.channel))
        for number, block in enumerate(tool_inputs(said, event.kind)):
            block["input"] = mapped(block.get("input"), self._leaf(number))
        yield _made(event, said, spoken=True)

    def _leaf(self, number: int) -> Callable[[str], str]:
        """One text of a tool's input that is whole already."""
        channel = Channel(number, "text", 0, "input")

        def say(text: str) -> str:
            fed = self._screen.feed(channel, text, thought=False, arguments=False)
            return fed + self._screen.finish(channel)

        return say

    def _piece(self, event: Event, said: JSON) -> Iterator[Event]:
        without_chances(said)
        over = list(ended(said, event.kind))
        spoken = list(slots(said, event.kind))
        for slot in spoken:
            text = self._fed(slot)
            in_one = slot.channel.member == "thinking" and not event.kind
            if in_one or slot.channel.at in over or None in over:
                text += self._screen.finish(slot.channel)
            slot.put(text)
        for which in over:
            yield from self._rests(said, event.kind, which)
        yield _made(event, said, spoken=bool(spoken))

    def _fed(self, slot: Slot) -> str:
        part = slot.channel.part
        return self._screen.feed(
            slot.channel, slot.text, thought=part == "thought", arguments=part == "arguments"
        )

    def _rests(self, said: JSON, kind: str, which: int | None) -> Iterator[Event]:
        """What still waits of a choice or a block that is over; `None`: of all."""
        for channel in self._screen.open_channels:
            assert isinstance(channel, Channel)
            if which is not None and channel.at != which:
                continue
            text = self._screen.finish(channel)
            if text:
                more, its_kind = rest(said, kind, channel, text)
                form: Form = "messages" if its_kind else "chat"
                yield _made(Event(raw=b"", form=form, kind=its_kind), more, spoken=True)


def _made(event: Event, said: JSON, *, spoken: bool) -> Event:
    """The event as it is now."""
    if not spoken and event.kind:
        return event
    raw = msgspec.json.encode(said)
    if not event.kind:
        now: Event | None = parse_event(raw, whole=event.whole)
    elif event.whole:
        now = parse_message(raw)
    else:
        now = MessagesEar().hear(raw)
    assert now is not None
    return replace(
        event,
        raw=raw,
        text=now.text,
        refusal=now.refusal,
        reasoning=now.reasoning,
        tool_deltas=now.tool_deltas,
    )


def refusal(findings: Sequence[Finding]) -> Refusal:
    """The no to an answer, in words that quote nothing of it."""
    fired = [one for one in findings if one.action in ("block", "retry")]
    what = ", ".join(dict.fromkeys(f"{one.guardrail} ({one.category})" for one in fired))
    return Refusal(
        code=CODE,
        message=f"A guardrail stopped the model's answer: {what}. What was asked is charged."
        " Ask otherwise.",
        findings=tuple(findings),
    )
