"""Recall: whether the answer is already known."""

from cascaded.ports import Answer, Cache, Stage
from cascaded.types.decision import Decision
from cascaded.types.request import Request


def recall(cache: Cache) -> Stage:
    """A stage that ends the list with an earlier answer, if the cache has one."""

    async def stage(request: Request, decision: Decision) -> Decision | Answer:
        return await cache.recall(request, decision) or decision

    return stage
