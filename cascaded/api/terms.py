"""The routes by which limits and tiers are set at run time: `/limits` and `/tiers`."""

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import cast, get_args

from aiohttp import web
from msgspec.structs import replace

from cascaded.api.changes import put_on_record
from cascaded.api.dialects.base import Incoming
from cascaded.api.errors import error_response
from cascaded.api.replies import json_response
from cascaded.pipeline.rules import Rulebook, Rules
from cascaded.policy.limits import changed_limits, excess, limits_for
from cascaded.ports import Audit, Ledger, Offload
from cascaded.state.overrides import MAX_LIMITS, MAX_TIERS, StoredOverrides
from cascaded.types.decision import Refusal
from cascaded.types.errors import StoreError
from cascaded.types.ids import ID_WORDS, is_id
from cascaded.types.limits import Caller, Limits, Scope
from cascaded.types.overrides import GLOBAL_ID, Overrides
from cascaded.types.quotas import Quotas
from cascaded.types.tables import LimitTable, Tier
from cascaded.types.tiers import TIER_PRESETS, TierConfig
from cascaded.wire.openai_chat import WireError
from cascaded.wire.terms import limits_row, read_limits, read_name, read_tier, tier_row, words

MAX_ROWS = 1_000
MAX_NAMED_USES = 5
"""How many of a tier's users a refusal names."""
NOBODY = "nobody"
"""Any user: for limits that do not depend on which one it is."""

Uses = Callable[[str], Sequence[str]]
"""Who uses a tier, such as `key 'app'`. May read the disk. Raises `StoreError`."""


class Terms:
    """What administrators set: checked, in force for the next call, kept over restarts, on record.

    A change is in force at once and answered when it is on the disk; where the disk refuses it,
    it is taken back.
    """

    def __init__(
        self,
        *,
        stored: StoredOverrides,
        rulebook: Rulebook,
        ledger: Ledger,
        audit: Audit,
        offload: Offload,
        uses: Sequence[Uses],
    ) -> None:
        self._stored = stored
        self._rulebook = rulebook
        self._ledger = ledger
        self._audit = audit
        self._offload = offload
        self._uses = uses

    async def limits(self, incoming: Incoming) -> web.Response:  # noqa: ARG002
        """`GET /limits`: everything that is set at run time."""
        rows = [
            limits_row(scope, id, quotas) for (scope, id), quotas in self._stored.now.limits.items()
        ]
        return json_response({"limits": rows[:MAX_ROWS], "more": max(0, len(rows) - MAX_ROWS)})

    async def limits_of(self, incoming: Incoming) -> web.Response:
        """`GET /limits/{scope}/{id}`: what is set at run time of one scope."""
        scope, id = _place(incoming)
        quotas = self._stored.now.limits.get((scope, id))
        if quotas is None:
            return error_response(_nothing_set(scope, id), incoming.request_id)
        return json_response(limits_row(scope, id, quotas))

    async def set_limits(self, incoming: Incoming) -> web.Response:
        """`PUT /limits/{scope}/{id}`: set these limits, and no others, of one scope."""
        scope, id = _place(incoming)
        quotas = read_limits(incoming.body)
        async with self._stored.turn:
            limits = self._stored.now.limits
            if len(limits) >= MAX_LIMITS and (scope, id) not in limits:
                raise WireError(f"limits of {MAX_LIMITS} scopes are set: delete some")
            refused = await self._change_limits(incoming, scope, id, quotas)
        if refused is not None:
            return error_response(refused, incoming.request_id)
        return json_response(limits_row(scope, id, quotas))

    async def unset_limits(self, incoming: Incoming) -> web.Response:
        """`DELETE /limits/{scope}/{id}`: what the layers below say holds again. Spend stays."""
        scope, id = _place(incoming)
        async with self._stored.turn:
            if (scope, id) in self._stored.now.limits:
                refused = await self._change_limits(incoming, scope, id, None)
            else:
                refused = _nothing_set(scope, id)
        if refused is not None:
            return error_response(refused, incoming.request_id)
        return json_response(limits_row(scope, id, Quotas()))

    async def tiers(self, incoming: Incoming) -> web.Response:
        """`GET /tiers`: the tiers in use, the least first, and the presets that are not."""
        tiers = self._rulebook.now.book.tiers
        rest = [preset for name, preset in TIER_PRESETS.items() if name not in tiers]
        return json_response(
            {"tiers": [self._row(incoming, tier) for tier in (*tiers.values(), *rest)]}
        )

    async def tier(self, incoming: Incoming) -> web.Response:
        """`GET /tiers/{name}`."""
        name = incoming.http.match_info["name"]
        tier = self._rulebook.now.book.tiers.get(name) or TIER_PRESETS.get(name)
        if tier is None:
            return error_response(_no_tier(name), incoming.request_id)
        return json_response(self._row(incoming, tier))

    async def set_tier(self, incoming: Incoming) -> web.Response:
        """`PUT /tiers/{name}`: make a tier, or replace one that was made so."""
        name = read_name(incoming.http.match_info["name"])
        tier = read_tier(incoming.body)
        async with self._stored.turn:
            tiers = self._stored.now.tiers
            refused = self._of_file(name)
            if len(tiers) >= MAX_TIERS and name not in tiers:
                raise WireError(f"{MAX_TIERS} tiers were made at run time: delete some")
            if refused is None:
                refused = await self._change_tier(incoming, name, tier)
        if refused is not None:
            return error_response(refused, incoming.request_id)
        return json_response(self._row(incoming, self._rulebook.now.book.tiers[name]))

    async def delete_tier(self, incoming: Incoming) -> web.Response:
        """`DELETE /tiers/{name}`: only one that was made at run time and that nobody uses."""
        name = incoming.http.match_info["name"]
        async with self._stored.turn:
            refused = await self._undeletable(name)
            if refused is None:
                refused = await self._change_tier(incoming, name, None)
        if refused is not None:
            return error_response(refused, incoming.request_id)
        return json_response({"name": name, "deleted": True})

    async def _change_limits(
        self, incoming: Incoming, scope: Scope, id: str, quotas: Quotas | None
    ) -> Refusal | None:
        """Under the turn. Raises `WireError` for limits that cannot be enforced."""
        now, before = self._stored.now, self._rulebook.now
        limits = {place: known for place, known in now.limits.items() if place != (scope, id)}
        after = replace(now, limits=limits if quotas is None else {**limits, (scope, id): quotas})
        rules = self._rulebook.build(after)
        told = changed_limits(scope, id, before.book, rules.book)
        back = changed_limits(scope, id, rules.book, before.book)
        if quotas is not None:
            _check_known(scope, id, rules)
            await self._check(rules, told)
        write = partial(self._stored.write_limits, scope, id, quotas)
        refused = await self._put_in_force(after, write, told, back)
        if refused is None:
            put_on_record(
                self._audit,
                incoming,
                f"limits:{scope}:{id}",
                before=_said(_table(now.limits.get((scope, id)))),
                after=_said(_table(quotas)),
            )
        return refused

    async def _change_tier(
        self, incoming: Incoming, name: str, tier: Tier | None
    ) -> Refusal | None:
        """Under the turn. Raises `WireError` for limits that cannot be enforced."""
        now = self._stored.now
        tiers = {known: table for known, table in now.tiers.items() if known != name}
        after = replace(now, tiers=tiers if tier is None else {**now.tiers, name: tier})
        rules = self._rulebook.build(after)
        if tier is not None:
            await self._check(rules, limits_for(Caller(user_id=NOBODY, tier=name), rules.book))
        write = partial(self._stored.write_tier, name, tier)
        refused = await self._put_in_force(after, write, Limits(), Limits())
        if refused is None:
            former = now.tiers.get(name)
            put_on_record(
                self._audit, incoming, f"tier:{name}", before=_said(former), after=_said(tier)
            )
        return refused

    async def _check(self, rules: Rules, limits: Limits) -> None:
        """Raises `WireError` for what no call could be charged to."""
        too_many = await self._offload(partial(excess, rules.book))
        if too_many is not None:
            raise WireError(f"with this, {too_many}")
        try:
            self._ledger.check(limits)
        except ValueError as error:
            raise WireError(str(error)) from None

    async def _put_in_force(
        self, after: Overrides, write: Callable[[], None], told: Limits, back: Limits
    ) -> Refusal | None:
        """In force before the next call, then on the disk. Nobody who hangs up meanwhile can split
        it; a disk that refuses undoes it."""
        before = self._stored.now
        try:
            self._ledger.set_limits(told, reload=False)
        except ValueError as error:
            return Refusal(code="ledger_full", message=str(error))
        self._stored.now = after
        try:
            await asyncio.shield(self._offload(write))
        except StoreError as error:
            self._stored.now = before
            self._ledger.set_limits(back, reload=False)
            return _unchanged(error)
        return None

    def _row(self, incoming: Incoming, tier: TierConfig) -> dict[str, object]:
        origin = "preset"
        if tier.name in self._rulebook.now.book.tiers:
            origin = "file" if self._of_file(tier.name) else "api"
        return tier_row(tier, origin, whole=incoming.principal.admin)

    def _of_file(self, name: str) -> Refusal | None:
        """The refusal to touch a tier of the configuration file, where it is one."""
        if name not in self._rulebook.now.book.tiers or name in self._stored.now.tiers:
            return None
        return Refusal(
            code="conflict",
            message=f"Tier '{name}' stands in the configuration file: change it there and reload.",
        )

    async def _undeletable(self, name: str) -> Refusal | None:
        """Why a tier cannot be deleted, if so."""
        if name not in self._stored.now.tiers:
            if refused := self._of_file(name):
                return refused
            if name in TIER_PRESETS:
                message = f"'{name}' is a preset, which is always there."
                return Refusal(code="conflict", message=message)
            return _no_tier(name)
        try:
            users = await self._offload(lambda: [one for uses in self._uses for one in uses(name)])
        except StoreError as error:
            return _unchanged(error)
        if ("tier", name) in self._stored.now.limits:
            users.append(f"the limits of scope tier/{name}")
        if not users:
            return None
        more = f" and {len(users) - MAX_NAMED_USES} more" if len(users) > MAX_NAMED_USES else ""
        return Refusal(
            code="conflict",
            message=f"Tier '{name}' is in use by {', '.join(users[:MAX_NAMED_USES])}{more}: give"
            " them another one first.",
            details={"uses": len(users)},
        )


def _place(incoming: Incoming) -> tuple[Scope, str]:
    """The scope and id that the path names. Raises `WireError`."""
    scope, id = incoming.http.match_info["scope"], incoming.http.match_info["id"]
    if scope not in get_args(Scope):
        raise WireError(f"scope must be one of {', '.join(get_args(Scope))}", "scope")
    if not is_id(id):
        raise WireError(f"the id has {ID_WORDS}", "id")
    if (scope == "global") != (id == GLOBAL_ID):
        raise WireError(f"the id of scope global is {GLOBAL_ID}, and of no other", "id")
    return cast("Scope", scope), id


def _check_known(scope: Scope, id: str, rules: Rules) -> None:
    """Raises `WireError` for a tier or a tag that no call could have."""
    if scope == "tier" and id not in rules.book.tiers:
        known = ", ".join(rules.book.tiers) or "none"
        raise WireError(f"there is no tier '{id}'; there are: {known}", "id")
    tag, equals, value = id.partition("=")
    if scope == "tag" and not (equals and value and tag in rules.book.tags):
        known = ", ".join(rules.book.tags) or "none"
        raise WireError(
            f"the id of a tag is NAME=VALUE, its name one of [limits.tags]; there are: {known}",
            "id",
        )


def _table(quotas: Quotas | None) -> LimitTable | None:
    return None if quotas is None else LimitTable.of(quotas)


def _said(table: LimitTable | None) -> dict[str, object] | None:
    """What a table sets as the audit log keeps it: amounts as texts."""
    if table is None:
        return None
    return {
        name: str(value) if isinstance(value, Decimal) else value
        for name, value in words(table).items()
    }


def _unchanged(error: StoreError) -> Refusal:
    return Refusal(code="state_unavailable", message=f"Nothing was changed: {error}")


def _nothing_set(scope: Scope, id: str) -> Refusal:
    message = f"No limits are set at run time of {scope} '{id}'. `/budgets` shows what holds."
    return Refusal(code="not_found", message=message, param="id")


def _no_tier(name: str) -> Refusal:
    return Refusal(code="not_found", message=f"There is no tier '{name[:64]}'.", param="name")
