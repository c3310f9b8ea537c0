"""An upstream that behaves as its seed says, and keeps a bill where no daemon can touch it."""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping

from aiohttp import web

from tests.support.upstream import (
    JSON,
    Behaviour,
    Fails,
    Garbage,
    Hangs,
    Resets,
    Says,
    SaysError,
    Upstream,
)

GOOD = "The capital of France is Paris."
POOR = "I'm sorry, but I can't help with that."
INPUT_TOKENS = 10

WEIGHTS = {
    "answers": 60,
    "answers late": 8,
    "fails": 8,
    "rate limits": 6,
    "resets": 5,
    "half a stream": 5,
    "error in the stream": 3,
    "garbage": 3,
    "hangs": 1,
    "hangs in the stream": 1,
}


class BillingUpstream(Upstream):
    """Bills a call when it has arrived: what happens to the answer is the caller's trouble.

    A call that fails with a status costs nothing. One that breaks off, hangs or talks nonsense
    costs the most it can, which is the harshest that a provider may do.
    """

    def __init__(self, seed: int, prices: Mapping[str, tuple[int, int]]) -> None:
        """`prices`: nano-dollars for an input and for an output token, by model."""
        super().__init__()
        self._chance = random.Random(seed)
        self._prices = prices
        self._bill: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.strike: Callable[[str], bool] | None = None
        """Called with a request's id at the instant when it was billed and is not yet answered,
        until it has struck."""

    def bill(self) -> dict[tuple[str, str], int]:
        """Nano-dollars by request id and model, as of now."""
        return dict(self._bill)

    async def _behave(
        self, behaviour: Behaviour, request: web.Request, body: JSON
    ) -> web.StreamResponse:
        drawn, tokens = self._draw(int(body["max_tokens"]))
        if tokens is not None:
            input_price, output_price = self._prices[body["model"]]
            cost = INPUT_TOKENS * input_price + tokens * output_price
            self._bill[request.headers["X-Request-ID"], body["model"]] += cost
            if self.strike is not None and self.strike(request.headers["X-Request-ID"]):
                self.strike = None
        return await super()._behave(drawn, request, body)

    def _draw(self, most: int) -> tuple[Behaviour, int | None]:
        """What to do, and the output tokens to bill; `None` bills nothing at all."""
        chance = self._chance
        match chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]:
            case "answers" | "answers late" as how:
                tokens = chance.choice([1, most, chance.randint(1, most)])
                return self._answer(tokens, late=how == "answers late"), tokens
            case "fails":
                return Fails(chance.choice([400, 500, 502, 503])), None
            case "rate limits":
                return Fails(429, headers=chance.choice([{}, {"Retry-After": "0"}])), None
            case "resets":
                return Resets(), most
            case "half a stream":
                return Resets(after_chunks=chance.randint(0, 2)), most
            case "error in the stream":
                return SaysError(), most
            case "garbage":
                return Garbage(), most
            case "hangs":
                return Hangs(), most
            case _:
                return Hangs(after_chunks=1), most

    def _answer(self, tokens: int, *, late: bool) -> Says:
        chance = self._chance
        return Says(
            chance.choice([GOOD, GOOD, POOR]),
            input_tokens=INPUT_TOKENS,
            output_tokens=tokens,
            usage_on=chance.choice(["own", "last"]),
            delay_s=chance.uniform(0.1, 0.25) if late else chance.uniform(0, 0.03),
            chunk_delay_s=chance.uniform(0, 0.005),
        )
