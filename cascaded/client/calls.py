"""What can be asked of the daemon: each call described once, for both clients. No I/O.

A `Call[T]` says what is sent and how the answer becomes a `T`; `Client` and `AsyncClient` carry it
there. To add a call:

1. Put what it answers into `results.py`, as a frozen `msgspec.Struct`. Members that were added
   later have defaults, and what is one of several words is a `str`: an older or newer daemon may
   leave out or say something else.
2. Add a function here. Its arguments are the caller's, its docstring is theirs too, and it returns
   a `Call` made by `_get`, `_post`, `_put`, `_delete` or `_change`. Amounts of money go
   through `_exact`, `None` is left out.
3. Add the line `name = Method(calls.name)` to `Client`, and the same line to `AsyncClient`.
   Arguments and result are known to type checkers from the function.

`tests/unit/test_client_calls.py` holds the two clients and this file together.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar, Unpack

import msgspec

from cascaded.client.errors import HoldResolvedError
from cascaded.client.results import (
    AuditPage,
    Backup,
    BatchInfo,
    BatchPage,
    Budget,
    CacheChecked,
    CacheInfo,
    CascadeResult,
    CascadeStreamChunk,
    Check,
    Cleared,
    Health,
    Held,
    KeyInfo,
    KeyPage,
    ModelInfo,
    NewKey,
    Readiness,
    Receipt,
    Reloaded,
    Routing,
    SetLimits,
    StreamConfig,
    Summary,
    TierInfo,
    UnresolvedHold,
)

if TYPE_CHECKING:
    from cascaded.client.insight import Anomaly, Forecast, Group, ImportedInfo, Recommendation
    from cascaded.client.stored import (
        CreatedUsers,
        OrganizationsPage,
        StoredOrganization,
        StoredUser,
        StoredWorkspace,
        UsersPage,
        WorkspacesPage,
    )
    from cascaded.types.batch import BatchConfig
    from cascaded.types.profile import OrganizationConfig, Stored, UserProfile, WorkspaceConfig

_NOT_READY = 503

T = TypeVar("T")
Amount = Decimal | str | int
Query = str | Sequence[Mapping[str, object]]
BatchQuery = Query | Mapping[str, object]
"""A query of a batch; as a mapping, a whole body of `/infer`."""


class Call(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One call: what to send, and how to read what comes back."""

    method: str
    path: str
    read: Callable[[bytes], T]
    """The body as a value; of a stream, the data of one event. Raises `msgspec.DecodeError` and
    `UnicodeDecodeError`."""
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    repeatable: bool = False
    """Sending it twice does no more than sending it once."""
    answers: tuple[int, ...] = ()
    """Statuses from 400 on that are answers to this call and not errors."""


class Asked(TypedDict, total=False):
    """What may be asked for beside the query."""

    model: str
    """A ladder, an alias or a model; `auto` by default."""
    user_id: str
    user_tier: str
    context: Mapping[str, str]
    """`user_id`, `tier`, `organization` in one."""
    metadata: Mapping[str, str]
    """Tags of this call."""
    quality_mode: str
    domain: str
    max_tokens: int
    max_cost: Decimal | str | int
    """The most that this call may cost over all attempts, in US dollars. Never a float."""
    cache: Literal["on", "off", "refresh"]
    """Earlier answers: `on`, also where answers may differ; `refresh`: ask anew; `off`."""
    options: Mapping[str, object]
    """Further chat-completions members: `temperature`, `tools`, `response_format` …"""


ExportForm = Literal["jsonl", "json", "csv", "focus"]


Period = Literal["day", "week", "month"]
Sensitivity = Literal["low", "medium", "high"]
Grain = Literal["day", "hour"]
GroupBy = Literal["day", "user", "organization", "workspace", "model", "feature", "domain", "tier"]


class Whose(TypedDict, total=False):
    """Whose spend, and which of it."""

    user_id: str | None
    organization_id: str | None
    workspace_id: str | None
    model: str | None
    feature: str | None
    """A tag, as `name=value`."""


class Records(TypedDict, total=False):
    """Which records are meant."""

    since: str
    """A day or a time in ISO 8601; in UTC unless it says otherwise."""
    until: str
    """Not included."""
    user_id: str
    organization_id: str
    workspace_id: str
    team_id: str
    tier: str
    model: str
    """Asked for, or tried."""
    provider: str
    feature: str
    """A tag, as `name=value`."""
    domain: str
    status: str
    imported: bool


# --- the calls -----------------------------------------------------------------------------------


def run(query: Query, **asked: Unpack[Asked]) -> Call[CascadeResult]:
    """Ask, and wait for the whole answer.

    `query` is a text or a list of messages.
    """
    return _post("/infer", _json(CascadeResult), _asking(query, asked))


AS_USUAL = StreamConfig()


def stream(
    query: Query, config: StreamConfig = AS_USUAL, **asked: Unpack[Asked]
) -> Call[CascadeStreamChunk]:
    """Ask for an answer in pieces."""
    wanted = msgspec.structs.asdict(config)
    mode = wanted.pop("mode")
    # Only what is not as usual: an older daemon does not know the rest.
    more = {name: value for name, value in wanted.items() if value != getattr(AS_USUAL, name)}
    body = {**_asking(query, asked), "stream": True, "stream_mode": mode, **more}
    return _post("/infer", _json(CascadeStreamChunk), body)


def start_batch(
    queries: Sequence[BatchQuery],
    config: "BatchConfig | None" = None,
    *,
    idempotency_key: str | None = None,
    **asked: Unpack[Asked],
) -> Call[BatchInfo]:
    """Begin a batch, and do not wait for it. The same key gives the same batch.

    A query is a text, a list of messages, or a whole body of `/infer`; `asked` holds for those
    that say nothing else.
    """
    cap = asked.get("max_cost")
    exact = asked if cap is None else {**asked, "max_cost": _exact(cap)}
    body = {"queries": list(queries), "config": config, "defaults": exact, "background": True}
    return _post("/infer/batch", _json(BatchInfo), body, key=idempotency_key)


def watch_batch(id: str) -> Call[BatchInfo]:
    """How a batch stands, whenever that changes, up to its end."""
    return _get(_at("infer", "batch", id, "events"), _json(BatchInfo))


def batch_info(id: str) -> Call[BatchInfo]:
    """How a batch stands; once it has ended, with its `result`."""
    return _get(_at("infer", "batch", id), _json(BatchInfo))


def batches(*, limit: int | None = None, after: str | None = None) -> Call[BatchPage]:
    """Your batches, the newest first, without their results.

    At most `limit` of them; `after` is the page's before, to read on.
    """
    return _get("/infer/batch", _json(BatchPage), limit=limit, after=after)


def cancel_batch(id: str) -> Call[BatchInfo]:
    """Have a batch end early: no further query is asked, those under way are finished."""
    return _post(_at("infer", "batch", id, "cancel"), _json(BatchInfo), {}, repeatable=True)


def delete_batch(id: str) -> Call[None]:
    """Forget a batch that has ended, and its results."""
    return _delete(_at("infer", "batch", id), _nothing)


def route(query: Query, **asked: Unpack[Asked]) -> Call[Routing]:
    """How this call would be routed, and why. Asks no model and takes nothing."""
    return _post("/route", _json(Routing), _asking(query, asked), repeatable=True)


def check(
    query: Query | None = None, *, cost: Amount | None = None, **asked: Unpack[Asked]
) -> Call[Check]:
    """What would happen to this call, and why, for every limit. Takes nothing.

    Give a query as for `run`, or just the `cost` that you have in mind.
    """
    if query is not None and cost is None:
        body = _asking(query, asked)
    elif cost is not None and query is None:
        body = {**asked, "cost": _exact(cost)}
    else:
        raise TypeError("give either a query or a cost")
    return _post("/check", _json(Check), body, repeatable=True)


def reserve(
    cost: Amount,
    *,
    tokens: int = 0,
    expires_in_s: float | None = None,
    idempotency_key: str | None = None,
    **asked: Unpack[Asked],
) -> Call[Held]:
    """Hold an amount. The same key gives the same hold.

    Raises `HoldResolvedError` for a key whose hold is over: it covers no further call.
    """
    body = {**asked, "cost": _exact(cost), "tokens": tokens, "expires_in_s": expires_in_s}
    return _post("/reserve", _open_hold, body, key=idempotency_key)


def settle(hold: int, cost: Amount | None) -> Call[Receipt]:
    """What the call of a hold really cost; `None`: nobody knows, so it is charged in full."""
    body = {"hold": hold, "cost": None if cost is None else _exact(cost)}
    return _post("/settle", _json(Receipt), body)


def release(hold: int) -> Call[Receipt]:
    """The call of a hold was not made: all of it is given back."""
    return _post("/release", _json(Receipt), {"hold": hold})


def budgets(scope: str | None = None, id: str | None = None) -> Call[list[Budget]]:
    """How budgets stand: your own, or as an administrator anybody's."""
    return _get("/budgets", lambda body: _json(_Budgets)(body).budgets, scope=scope, id=id)


def summary(
    user_id: str | None = None,
    *,
    organization_id: str | None = None,
    workspace_id: str | None = None,
) -> Call[Summary]:
    """What a user spent today, this week and this month, beside their budgets: you, or as an
    administrator anybody, an organisation, a workspace, and everybody together when none is named.
    A call is in it a moment after its end."""
    return _get(
        "/summary",
        _json(Summary),
        user_id=user_id,
        organization_id=organization_id,
        workspace_id=workspace_id,
    )


def forecast(
    period: Period = "month",
    *,
    limit: Amount | None = None,
    zone: str | None = None,
    **whose: Unpack[Whose],
) -> "Call[Forecast]":
    """What will have been spent at the end of the present period: by you, or as an administrator by
    anybody, and by everybody when none is named. `limit`: a budget in place of the one there is."""
    said = None if limit is None else _exact(limit)
    return _get(
        "/forecast", _insight("Forecast"), answers=(), period=period, limit=said, zone=zone, **whose
    )


def anomalies(
    sensitivity: Sensitivity = "medium",
    *,
    grain: Grain | None = None,
    days: int | None = None,
    zone: str | None = None,
    **whose: Unpack[Whose],
) -> "Call[tuple[Anomaly, ...]]":
    """Days, or hours, on which far more was spent than before, the newest first; whose is as for
    `forecast`."""
    return _get(
        "/anomalies",
        lambda body: _insight("Anomalies")(body).anomalies,
        answers=(),
        sensitivity=sensitivity,
        grain=grain,
        days=days,
        zone=zone,
        **whose,
    )


def recommendations(
    *, days: int | None = None, **whose: Unpack[Whose]
) -> "Call[tuple[Recommendation, ...]]":
    """What would cost less, with the money of a month that it is about; whose is as for
    `forecast`."""
    return _get(
        "/recommendations",
        lambda body: _insight("Recommendations")(body).recommendations,
        answers=(),
        days=days,
        **whose,
    )


def breakdown(
    by: GroupBy = "model",
    *,
    top: int | None = None,
    zone: str | None = None,
    **records: Unpack[Records],
) -> "Call[tuple[Group, ...]]":
    """What was spent by model, user, organisation, workspace, feature, domain, tier or day: of
    your own calls, for administrators of all."""
    words = {name: _word(value) for name, value in records.items() if value is not None}
    return _get(
        "/breakdown",
        lambda body: _insight("Breakdown")(body).groups,
        answers=(),
        by=by,
        top=top,
        zone=zone,
        **words,
    )


def audit(*, limit: int | None = None, after: str | None = None) -> Call[AuditPage]:
    """Decisions about money and access, the newest first. Administrators.

    At most `limit` of them; `after` is the page's before, to read on.
    """
    return _get("/audit", _json(AuditPage), limit=limit, after=after)


def export(form: ExportForm = "jsonl", **records: Unpack[Records]) -> Call[bytes]:
    """Usage records in pieces of a file, the oldest first. Administrators."""
    words = {name: _word(value) for name, value in records.items() if value is not None}
    return _get("/export", bytes, answers=(), format=form, **words)


def import_records(rows: Sequence[Mapping[str, object]]) -> "Call[ImportedInfo]":
    """Bring in rows of an export, at most 1,000 of them; those that are there already are left
    alone. No budget is touched. Administrators. Returns once they are on the disk."""
    return _post("/import", _insight("ImportedInfo"), {"records": rows}, repeatable=True)


def backup(folder: str) -> Call[Backup]:
    """Copy the daemon's state into a folder of its host that is not there yet; an absolute path.
    Administrators. Returns once the copy is on the disk."""
    return _post("/state/backup", _json(Backup), {"dir": folder})


def reload() -> Call[Reloaded]:
    """Have the daemon read its configuration again. Administrators. Returns once it is in force;
    where the old one was kept, `APIError` has every mistake in `details["mistakes"]`."""
    return _post("/reload", _json(Reloaded), {}, repeatable=True)


def limits() -> Call[list[SetLimits]]:
    """Everything that is set at run time. Administrators."""
    return _get("/limits", lambda body: _exactly(_Limits)(body).limits)


def limits_of(scope: str, id: str) -> Call[SetLimits]:
    """What is set at run time of one scope (`user`, `organization` …). Administrators."""
    return _get(_at("limits", scope, id), _exactly(SetLimits))


def set_limits(scope: str, id: str, **limits: object) -> Call[SetLimits]:
    """Set these limits of one scope and no others, in the words of the configuration file:
    `daily_usd="2.50", requests_per_minute=30`. In force for the next call. Administrators."""
    return _put(_at("limits", scope, id), _exactly(SetLimits), limits)


def unset_limits(scope: str, id: str) -> Call[SetLimits]:
    """Take away what is set of one scope; what the configuration says holds again.
    Administrators."""
    return _delete(_at("limits", scope, id), _exactly(SetLimits))


def tiers() -> Call[list[TierInfo]]:
    """The tiers in use, the least first, and the presets that are not."""
    return _get("/tiers", lambda body: _exactly(_Tiers)(body).tiers)


def tier(name: str) -> Call[TierInfo]:
    """One tier."""
    return _get(_at("tiers", name), _exactly(TierInfo))


def put_tier(name: str, **fields: object) -> Call[TierInfo]:
    """Make a tier, or replace one that was made so, in the words of the configuration file:
    `daily_usd="5", max_tokens=2000`. Administrators."""
    return _put(_at("tiers", name), _exactly(TierInfo), fields)


def delete_tier(name: str) -> Call[None]:
    """Forget a tier that was made at run time and that nobody uses. Administrators."""
    return _delete(_at("tiers", name), _nothing)


def issue_key(
    name: str,
    *,
    user_id: str | None = None,
    tier: str | None = None,
    organization_id: str | None = None,
    workspace_id: str | None = None,
    admin: bool = False,
    expires_in_s: int | None = None,
) -> Call[NewKey]:
    """Issue an API key for a user, a tier, an organisation, or for administration; keep its `key`,
    which nobody can show again. Administrators."""
    body = {
        "name": name,
        "user_id": user_id,
        "tier": tier,
        "organization_id": organization_id,
        "workspace_id": workspace_id,
        "admin": admin,
        "expires_in_s": expires_in_s,
    }
    return _post("/keys", _json(NewKey), body)


def keys(user_id: str | None = None, *, after: str | None = None) -> Call[KeyPage]:
    """Issued keys, without their secrets; `after` is the page's before, to read on.
    Administrators."""
    return _get("/keys", _json(KeyPage), user_id=user_id, after=after)


def revoke_key(id: str) -> Call[KeyInfo]:
    """From now on this key opens nothing. Administrators."""
    return _delete(_at("keys", id), _json(KeyInfo))


def cache() -> Call[CacheInfo]:
    """What the cache holds, and what it did since the start. Administrators."""
    return _get("/cache", _json(CacheInfo))


def clear_cache(
    *, organization: str | None = None, user_id: str | None = None, model: str | None = None
) -> Call[Cleared]:
    """Forget kept answers: of an organisation, of a user who belongs to none, of a model; or all.
    Administrators."""
    wanted = _get("", _json(Cleared), organization=organization, user_id=user_id, model=model)
    return _delete("/cache" + wanted.path, wanted.read)


def verify_cache() -> Call[CacheChecked]:
    """Read every kept answer, and forget what is damaged. Administrators."""
    return _post("/cache/verify", _json(CacheChecked), {}, repeatable=True)


def unknowns() -> Call[list[UnresolvedHold]]:
    """Holds that are open, and those charged although nobody knows the bill. Administrators."""
    return _get("/unknowns", lambda body: _json(_Unknowns)(body).holds)


def resolve(
    hold: int, cost: Amount, scopes: Mapping[tuple[str, str], Amount] | None = None
) -> Call[Receipt]:
    """What the provider's bill says of an unknown. Administrators.

    Of what a crash lost, `scopes` may say whose it was: amounts by scope and id, as
    `{("user", "alice"): "0.01"}`. Elsewhere no more stays charged than `cost`.
    """
    shares = [
        {"scope": scope, "id": id, "cost": _exact(amount)}
        for (scope, id), amount in (scopes or {}).items()
    ]
    body = {"cost": _exact(cost), "scopes": shares or None}
    return _post(f"/unknowns/{hold}", _json(Receipt), body)


def users(*, limit: int | None = None, after: str | None = None) -> "Call[UsersPage]":
    """Users who are stored, by id. Administrators.

    At most `limit` of them; `after` is the page's before, to read on.
    """
    return _get("/users", _stored("UsersPage"), limit=limit, after=after)


def user(user_id: str) -> "Call[StoredUser]":
    """One user's profile, and the limits it makes with its tier: your own, or as an administrator
    anybody's."""
    return _get(_place("users", user_id), _stored("StoredUser"))


def create_users(profiles: "Sequence[UserProfile]") -> "Call[CreatedUsers]":
    """Store new users, all or none: `APIError` has in `details["rows"]` which cannot be stored.
    Administrators."""
    return _post("/users", _stored("CreatedUsers"), {"users": [_said(one) for one in profiles]})


def put_user(profile: "UserProfile", *, version: int | None = None) -> "Call[StoredUser]":
    """Store all of a user. Administrators.

    With the `version` that it replaces it fails where somebody else was faster; without one it
    replaces whatever is there.
    """
    return _change(
        "PUT", _place("users", profile.id), _stored("StoredUser"), _said(profile), version
    )


def change_user(
    user_id: str, changes: Mapping[str, object], *, version: int | None = None
) -> "Call[StoredUser]":
    """Change some members of a user, object by object; `None` puts one back to its default.
    Administrators."""
    return _change("PATCH", _place("users", user_id), _stored("StoredUser"), changes, version)


def set_tier(user_id: str, tier: str | None, *, version: int | None = None) -> "Call[StoredUser]":
    """Move a user to another tier, from the next call on. Administrators."""
    place = _place("users", user_id) + "/tier"
    return _change("PUT", place, _stored("StoredUser"), {"tier": tier}, version)


def delete_user(user_id: str, *, version: int | None = None) -> "Call[StoredUser]":
    """Forget a user; what it was. Administrators."""
    return _change("DELETE", _place("users", user_id), _stored("StoredUser"), None, version)


def organizations(
    *, limit: int | None = None, after: str | None = None
) -> "Call[OrganizationsPage]":
    """Organisations that are stored, by id. Administrators."""
    return _get("/organizations", _stored("OrganizationsPage"), limit=limit, after=after)


def put_organization(
    organization: "OrganizationConfig", *, version: int | None = None
) -> "Call[StoredOrganization]":
    """Store all of an organisation; `version` as for `put_user`. Administrators."""
    place = _place("organizations", organization.id)
    return _change("PUT", place, _stored("StoredOrganization"), _said(organization), version)


def delete_organization(id: str, *, version: int | None = None) -> "Call[StoredOrganization]":
    """Forget an organisation's settings; what they were. Administrators."""
    place = _place("organizations", id)
    return _change("DELETE", place, _stored("StoredOrganization"), None, version)


def workspaces(*, limit: int | None = None, after: str | None = None) -> "Call[WorkspacesPage]":
    """Workspaces that are stored, by id. Administrators."""
    return _get("/workspaces", _stored("WorkspacesPage"), limit=limit, after=after)


def put_workspace(
    workspace: "WorkspaceConfig", *, version: int | None = None
) -> "Call[StoredWorkspace]":
    """Store all of a workspace; `version` as for `put_user`. Administrators."""
    place = _place("workspaces", workspace.id)
    return _change("PUT", place, _stored("StoredWorkspace"), _said(workspace), version)


def delete_workspace(id: str, *, version: int | None = None) -> "Call[StoredWorkspace]":
    """Forget a workspace's settings; what they were. Administrators."""
    return _change("DELETE", _place("workspaces", id), _stored("StoredWorkspace"), None, version)


def health() -> Call[Health]:
    """Whether the daemon answers, and its version."""
    return _get("/health", _json(Health))


def ready() -> Call[Readiness]:
    """Whether calls are taken now: not before the daemon has started, nor while it shuts down."""
    return _get("/ready", _json(Readiness), answers=(_NOT_READY,))


def metrics() -> Call[str]:
    """The scrape for Prometheus, in its text format."""
    return _get("/metrics", bytes.decode)


def models() -> Call[list[ModelInfo]]:
    """Every name that may be asked for."""
    return _get("/v1/models", lambda body: _json(_Models)(body).data)


# --- how they are put together -------------------------------------------------------------------


class _Budgets(msgspec.Struct):
    budgets: list[Budget]


class _Limits(msgspec.Struct):
    limits: list[SetLimits]


class _Tiers(msgspec.Struct):
    tiers: list[TierInfo]


class _Unknowns(msgspec.Struct):
    holds: list[UnresolvedHold]


class _Models(msgspec.Struct):
    data: list[ModelInfo]


def _get(
    route: str,
    read: Callable[[bytes], T],
    *,
    answers: tuple[int, ...] = (),
    **wanted: str | int | None,
) -> Call[T]:
    """A look at something; `wanted` is the query."""
    said = {name: value for name, value in wanted.items() if value is not None}
    if said:
        from urllib.parse import urlencode  # takes 2 ms to import, which few calls need

        route = f"{route}?{urlencode(said)}"
    return Call(method="GET", path=route, read=read, repeatable=True, answers=answers)


def _word(value: object) -> str:
    """As an address says it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _put(route: str, read: Callable[[bytes], T], body: Mapping[str, object]) -> Call[T]:
    """Everything that is to stand there."""
    said = {name: _plain(name, value) for name, value in body.items() if value is not None}
    return Call(
        method="PUT", path=route, read=read, body=msgspec.json.encode(said), repeatable=True
    )


def _delete(route: str, read: Callable[[bytes], T]) -> Call[T]:
    return Call(method="DELETE", path=route, read=read, repeatable=True)


def _at(*parts: str) -> str:
    from urllib.parse import quote  # as above

    return "/" + "/".join(quote(part, safe="") for part in parts)


def _plain(name: str, value: object) -> object:
    return _exact(value) if name.endswith("_usd") else value


def _nothing(body: bytes) -> None:  # noqa: ARG001
    return None


def _post(
    route: str,
    read: Callable[[bytes], T],
    body: Mapping[str, object],
    *,
    key: str | None = None,
    repeatable: bool = False,
) -> Call[T]:
    """A call with a body; one with an idempotency `key` may be repeated."""
    said = {name: value for name, value in body.items() if value is not None}
    return Call(
        method="POST",
        path=route,
        read=read,
        body=msgspec.json.encode(said),
        headers={} if key is None else {"Idempotency-Key": key},
        repeatable=repeatable or key is not None,
    )


def _change(
    method: str,
    place: str,
    read: Callable[[bytes], T],
    body: Mapping[str, object] | None,
    version: int | None,
) -> Call[T]:
    """A change of what is stored. Its members are sent as they are, `None` as null."""
    return Call(
        method=method,
        path=place,
        read=read,
        body=None if body is None else msgspec.json.encode(body),
        headers={"If-Match": "*" if version is None else f'"{version}"'},
    )


def _place(kind: str, id: str) -> str:
    from urllib.parse import quote  # as above

    return f"/{kind}/{quote(id, safe='')}"


def _said(stored: "Stored") -> dict[str, object]:
    """What it says beside its id: defaults are left out."""
    defaults = stored.bare
    said = {name: getattr(stored, name) for name in stored.__struct_fields__}
    name = stored.__struct_fields__[0]
    told = {key: value for key, value in said.items() if value != getattr(defaults, key)}
    return {name: stored.id, **told}


def _stored(shape: str) -> Callable[[bytes], Any]:
    """Reads a body of this shape of `cascaded.client.stored`."""

    def read(body: bytes) -> Any:
        from cascaded.client import stored

        return msgspec.json.decode(body, type=getattr(stored, shape))

    return read


def _insight(shape: str) -> Callable[[bytes], Any]:
    """Reads a body of this shape of `cascaded.client.insight`."""

    def read(body: bytes) -> Any:
        from cascaded.client import insight

        return msgspec.json.decode(body, type=getattr(insight, shape))

    return read


def _json(shape: type[T]) -> Callable[[bytes], T]:
    """Reads a body of this shape."""
    return partial(msgspec.json.decode, type=shape)


def _exactly(shape: type[T]) -> Callable[[bytes], T]:
    """Reads a body of this shape, its numbers without rounding."""
    return msgspec.json.Decoder(shape, float_hook=Decimal).decode


def _asking(query: Query, asked: Asked) -> dict[str, object]:
    """The body of `/infer`."""
    words = {"query": query} if isinstance(query, str) else {"messages": query}
    cap = asked.get("max_cost")
    return {**words, **asked, "max_cost": None if cap is None else _exact(cap)}


def _exact(cost: object) -> str:
    """An amount as text. Raises `TypeError` for floats: they are not exact."""
    if isinstance(cost, float):
        raise TypeError("money must be exact: give a Decimal, a string or an int of US dollars")
    return str(cost)


def _open_hold(body: bytes) -> Held:
    held = _json(Held)(body)
    if held.state != "open":
        raise HoldResolvedError(held.hold, held.state)
    return held
