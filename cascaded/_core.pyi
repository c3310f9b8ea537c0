"""The Rust core as Python sees it."""

import os
from collections.abc import Sequence
from typing import Final, Literal, final

__all__ = [
    "LONG_INPUT_BYTES",
    "DomainRoutes",
    "HoldError",
    "Ledger",
    "LedgerFault",
    "LedgerOpenError",
    "LimitSet",
    "Linear",
    "ManualClock",
    "TextEncoder",
    "TextModel",
    "Vocabulary",
    "data_kinds",
    "domain_features",
    "dot",
    "fit_logistic",
    "injection_sign_names",
    "injection_signs",
    "personal_data",
    "plain",
    "sentences",
    "tail_start",
    "text_features",
    "toml_tree",
]

_TomlKind = Literal["string", "integer", "float", "boolean", "datetime", "array", "table"]
_TomlNode = tuple[int, _TomlKind, object]

def toml_tree(text: str) -> tuple[dict[str, _TomlNode], list[tuple[int, int, str]]]:
    """Read a TOML document: `({key: (line, kind, value)}, [(line, column, message)])`.

    A value is a `str` (strings, dates, and floats as they were written), an `int` of 64 bits, a
    `bool`, a `list` of nodes or a `dict` of nodes. With faults the table is what could be made out.
    """

def data_kinds(names: list[str]) -> int:
    """Kinds of personal data as a number: `secret`, `email`, `iban`, `card`, `ssn`, `ip`,
    `passport`, `phone`. Other names are none."""

def personal_data(text: str, kinds: int) -> list[tuple[int, int, str]]:
    """`[(start, end, kind)]` of personal data and secrets: in characters, in order, apart from one
    another. `kinds` as `data_kinds` told them."""

def tail_start(text: str) -> int:
    """From which character on a stream's text must wait, because what follows may make something of
    it that `personal_data` finds. No text that follows changes what is found before."""

def plain(text: str) -> str:
    """A text as it is read: in lower case and compatibility form, without characters that are not
    seen, look-alikes as the letters that they look like, what it has in base64 added."""

def sentences(text: str) -> list[str]:
    """A text's sentences and lines, as `TextModel.most` looks at them."""

def injection_sign_names() -> list[str]:
    """Names of all signs of prompt injection, in the order of a model's weights."""

def injection_signs(plain: str) -> list[str]:
    """Names of the signs of prompt injection in a plain text."""

def text_features(plain: str) -> list[tuple[int, float]]:
    """`[(bucket, weight)]` of a plain text, as `TextModel` sees it."""

@final
class TextModel:
    """Linear models over hashed pieces of words, as `scripts/fit_guardrails.py` writes them."""

    def __new__(cls, weights: bytes) -> TextModel:
        """Raises `ValueError` for what is none."""

    def scores(self, text: str) -> list[float]:
        """What each head says of a text, as log-odds."""

    def most(self, text: str) -> list[float] | None:
        """The most that each head says of any of a text's sentences; `None` where it has none."""

def fit_logistic(
    rows: Sequence[tuple[Sequence[int], Sequence[float]]],
    good: Sequence[bool],
    prior: Sequence[float],
    cost: float,
) -> list[float]:
    """The weights of a logistic regression on sparse rows (places, values), pulled to `prior`,
    which has as many; `cost` is how much a row counts against that. Works without the GIL.

    Raises `ValueError` for rows that do not fit.
    """

LONG_INPUT_BYTES: Final[int]
"""Inputs up to here are counted with the GIL held: they take less than a hop to a thread."""

@final
class Vocabulary:
    """What turns text into tokens. Long inputs are counted without the GIL."""

    @staticmethod
    def public(name: str) -> Vocabulary | None:
        """A public vocabulary by name, or `None`. Loaded by its first use."""

    @staticmethod
    def unknown() -> Vocabulary:
        """The vocabulary of models whose own is not public: bounded by bytes."""

    @staticmethod
    def from_tokenizer_json(json: bytes) -> Vocabulary:
        """A vocabulary from the content of a Hugging Face `tokenizer.json`. Raises `ValueError`."""

    def load(self) -> None:
        """Load what the first count would load."""

    def is_long(self, input_bytes: int) -> bool:
        """Whether an input of this size takes too long for an event loop."""

    def count_text(self, text: str) -> tuple[int, bool]:
        """`(tokens, exact)`. Raises `ValueError` for a `str` with lone surrogates."""

    def count_chat(
        self, messages: bytes, tools: bytes | None = None
    ) -> tuple[int, bool, int, int, int, int, int, int]:
        """Count a chat prompt from the JSON of its messages and tools.

        `(tokens, exact, images_low, images_other, audio_clips, audio_bytes, files, file_bytes)`.
        Raises `ValueError` that says what is wrong with the JSON.
        """

@final
class TextEncoder:
    """What turns texts into the input of a small model. Works without the GIL."""

    @staticmethod
    def from_tokenizer_json(json: bytes, max_tokens: int) -> TextEncoder:
        """From the content of a `tokenizer.json`; texts are cut so that there are at most
        `max_tokens`. Raises `ValueError`."""

    def encode(self, text: str, second: str | None = None) -> tuple[list[int], list[int]]:
        """`(ids, type_ids)` of a text, or of two that belong together. Raises `ValueError` for a
        `str` with lone surrogates."""

@final
class Linear:
    """Linear functions of one vector. Vectors are little-endian 32-bit floats."""

    def __new__(cls, weights: bytes, bias: Sequence[float]) -> Linear:
        """`weights` has the functions' one after another. Raises `ValueError`."""

    @property
    def dimensions(self) -> int:
        """Numbers that a vector must have."""

    def values(self, vector: bytes) -> list[float]:
        """The value of each function. Raises `ValueError` for a vector of another length."""

def domain_features(text: str) -> bytes:
    """A text in numbers, as little-endian 32-bit floats: its form, what the words of each domain
    say, and which words it has, hashed."""

@final
class DomainRoutes:
    """Keywords and patterns of the operator's own domains."""

    def __new__(cls, routes: Sequence[tuple[Sequence[str], Sequence[str]]]) -> DomainRoutes:
        """From `(keywords, patterns)` of each. Raises `ValueError(problem, domain)`."""

    def find(self, text: str) -> list[tuple[int, int, int]]:
        """`(domain, keywords, patterns)` of those of which any is found."""

def dot(left: bytes, right: bytes) -> float:
    """The dot product of two vectors. Raises `ValueError` where their lengths differ."""

_Scope = Literal["global", "organization", "workspace", "team", "user", "tier", "tag", "run"]
_Window = Literal["day", "week", "month", "total", "rolling_day", "rolling_week", "rolling_month"]
_Enforcement = Literal["warn", "block", "degrade", "shadow"]
_Unit = Literal["requests", "tokens"]
_State = Literal["open", "dispatched", "settled", "released", "unknown", "adjusted"]

_Budget = tuple[str, str, str, str, int | None, str, int, int, int, str]
"""`(scope, id, window, zone, limit, enforcement, warn_bp, degrade_bp, block_bp, origin)`"""
_Rate = tuple[str, str, str, str, int, int, bool]
"""`(scope, id, unit, method, window_ns, limit, block)`"""
_Choice = tuple[int, int, bool]
"""`(nano_usd, tokens, cheap)`"""
_Denial = tuple[
    Literal["budget", "degraded", "rate"],
    _Scope,
    str,
    _Window | None,
    _Unit | None,
    int | None,
    int,
    int,
    int,
    int | None,
    int | None,
]
"""`(reason, scope, id, window, unit, window_ns, limit, used, asked, reset_at_ns,
retry_after_ns)`"""
_Warning = tuple[_Scope, str, _Window, int, int, bool]
"""`(scope, id, window, limit, spent, over)`"""
_Crossing = tuple[_Scope, str, _Window, int, int, int]
"""`(scope, id, window, threshold_bp, limit, spent)`"""
_Receipt = tuple[int, int, _State, int, int, int, int, list[_Crossing]]
"""`(hold, seq, state, posted, unknown, returned, overrun, crossings)`"""
_View = tuple[
    _Scope,
    str,
    _Window | None,
    _Unit | None,
    int | None,
    int | None,
    int,
    int | None,
    bool,
    bool,
    bool,
    int | None,
]
"""`(scope, id, window, unit, window_ns, limit, used, remaining, degraded, fits, enforced,
reset_at_ns)`"""
_Counter = tuple[
    tuple[_Scope, str, _Window, str],
    tuple[int | None, _Enforcement, str],
    tuple[int, int, int, int],
    bool,
    int,
    int | None,
]
"""`((scope, id, window, zone), (limit, enforcement, origin), (posted, held, unknown, overrun),
degraded, starts_at_ns, resets_at_ns)`"""
_Admission = (
    tuple[Literal["admitted"], int, int, int, int, bool, bool, list[_Warning], list[_Denial]]
    | tuple[Literal["existing"], int, int, int, int, _State]
    | tuple[Literal["denied"], _Denial]
    | tuple[Literal["refused"], Literal["ledger_full", "ledger_unavailable"], str]
    | tuple[Literal["refused"], Literal["idempotency_conflict"], str]
)
"""`("admitted", hold, seq, choice, nano_usd, clear, degraded, warnings, shadow)`,
`("existing", hold, seq, choice, nano_usd, state)`, `("denied", denial)` or
`("refused", code, message)`."""

_Label = tuple[str, str, str]
"""The request's id, the user it is for, the principal who may resolve it; each may be empty."""
_Charge = tuple[_Scope, str, _Window, str, int]
"""`(scope, id, window, zone, nano_usd)`"""
_Unresolved = tuple[int, _State, int, int, int, _Label | None, list[_Charge] | None]
"""`(hold, state, held, unknown, at_ns, label, lost)`; `lost` is of a crash alone: the largest of
what is charged for it, each counter's own."""

class LedgerOpenError(Exception):
    """A state folder that cannot be opened: `(kind, message)`.

    `kind` is `locked`, `read_only`, `no_space`, `damaged`, `newer`, `gap`, `option`, `io` or
    `unavailable`.
    """

class LedgerFault(Exception):
    """The journal takes no more: `(message,)`."""

class HoldError(Exception):
    """A hold that cannot be resolved so: `(code, message)`.

    `code` is `no_such_hold` or `hold_resolved`.
    """

@final
class ManualClock:
    """A clock that tests own: it stands still until it is told otherwise."""

    def __new__(cls, wall_ns: int) -> ManualClock:
        """A clock at this moment, in nanoseconds since the Unix epoch."""

    def advance(self, ns: int) -> None:
        """Let time pass."""

    def set_wall(self, wall_ns: int) -> None:
        """Set the wall clock alone, as anyone may."""

@final
class LimitSet:
    """The limits of one kind of call, looked up once. It belongs to the ledger that made it."""

@final
class Ledger:
    """A ledger at work: thread-safe; no call waits for a disk but those that say so."""

    @staticmethod
    def in_memory(
        *,
        clock: ManualClock | None = None,
        holds_max: int | None = None,
        users_max: int | None = None,
    ) -> Ledger:
        """A ledger that forgets: every record is durable at once."""

    @staticmethod
    def open(
        path: str | os.PathLike[str],
        *,
        clock: ManualClock | None = None,
        holds_max: int | None = None,
        users_max: int | None = None,
        checkpoint_ms: int | None = None,
        segment_bytes: int | None = None,
        linger_ms: int | None = None,
        ceiling: bool = False,
        accept_gap: bool = False,
    ) -> tuple[Ledger, tuple[int, int, int, int, int, tuple[int, str] | None]]:
        """Open a state folder: `(ledger, (incarnation, records, charged, lost, torn_bytes, gap))`.

        Replays `records`, charges the `charged` holds that were open as unknown. Reads the disk.
        Raises `LedgerOpenError`.
        """

    @staticmethod
    def verify(path: str | os.PathLike[str]) -> dict[str, int]:
        """Read a whole state folder, or a backup, that nobody has open.

        Raises `LedgerOpenError` for the first thing that is damaged.
        """

    @staticmethod
    def cut(path: str | os.PathLike[str]) -> tuple[int, int, list[str]] | None:
        """Accept the loss of what cannot be read: `(last_seq, durable_seq, set_aside)`.

        `None` where nothing is damaged. Raises `LedgerOpenError`.
        """

    def charge_gap(
        self, upto_seq: int, budgets: Sequence[_Budget], nano_usd: int, label: _Label
    ) -> int | None:
        """Charge spend that this state has forgotten; the hold's number.

        Raises `ValueError`, `LedgerFault`.
        """

    def gap_charged(self) -> None:
        """Wait until all charges are on the disk, and let the state open by itself again."""

    def compile(self, budgets: Sequence[_Budget], rates: Sequence[_Rate]) -> LimitSet:
        """Limits for `admit`. Raises `ValueError` for what cannot be enforced."""

    def admit(
        self,
        limits: LimitSet,
        menu: Sequence[_Choice],
        idempotency: tuple[bytes, bytes] | None = None,
        price_hash: int = 0,
        label: _Label | None = None,
    ) -> _Admission:
        """Reserve the first choice that every limit allows. Raises `ValueError`."""

    def peek(
        self, limits: LimitSet, menu: Sequence[_Choice]
    ) -> tuple[int | None, _Denial | None, list[_View]]:
        """What an admission would come to. Raises `ValueError`, `LedgerFault`."""

    def denied(self, limits: LimitSet, menu: Sequence[_Choice]) -> _Denial | None:
        """What would refuse an admission. Raises `ValueError`, `LedgerFault`."""

    def preview(
        self, limits: LimitSet, menu: Sequence[_Choice]
    ) -> tuple[int | None, _Denial | None, str]:
        """As `peek`, with the limits as a JSON list. Raises `ValueError`, `LedgerFault`."""

    def settle(
        self, hold: int, attempts: Sequence[tuple[str, int]], tokens: int | None = None
    ) -> _Receipt:
        """Post what a hold's attempts cost, each `(billing, nano_usd)`.

        `tokens` corrects rates that count them. Raises `HoldError`, `LedgerFault`, `ValueError`.
        """

    def release(self, hold: int) -> _Receipt:
        """Give a hold back. Raises `HoldError`, `LedgerFault`."""

    def adjust(
        self, hold: int, nano_usd: int, scopes: Sequence[tuple[str, str, int]] = ...
    ) -> _Receipt:
        """Resolve an unknown by evidence. Raises `HoldError`, `LedgerFault`, `ValueError`."""

    def set_limits(
        self, budgets: Sequence[_Budget], rates: Sequence[_Rate], *, reload: bool
    ) -> tuple[int, int]:
        """Set limits, all at once: `(changed, seq)`. Raises `LedgerFault`, `ValueError`."""

    def counters(self, scope: str | None = None, id: str | None = None) -> list[_Counter]:
        """The counters of a scope, of a kind of scope, or all."""

    def unresolved(self) -> list[_Unresolved]:
        """Holds that are not resolved, oldest first."""

    def hold(self, hold: int) -> _Unresolved | None:
        """One hold, if it is not resolved."""

    def spend(self) -> tuple[int, int, int]:
        """`(posted since the start, held now, unknown now)` in nano-dollars."""

    def stats(self) -> dict[str, int]:
        """Figures of this instant, by name."""

    def confirm_clock(self) -> None:
        """Believe the wall clock as it stands, after a leap that was not believed."""

    def durable_seq(self) -> int:
        """The last sequence that survives a crash."""

    def event_fd(self) -> int | None:
        """A descriptor that is readable when `durable_seq` rose or the journal failed.

        `None` in memory.
        """

    def hurry(self) -> None:
        """Have what is queued written now, for somebody who waits."""

    def clear_event(self) -> None:
        """Make the descriptor unreadable until the next event."""

    def fault(self) -> str | None:
        """Why the ledger works no more, if it does not."""

    def checkpoint(self) -> None:
        """Write a checkpoint now. Waits for the disk. Raises `LedgerFault`."""

    def backup(self, path: str | os.PathLike[str]) -> tuple[int, int]:
        """Copy the state into a folder that must not exist: `(checkpoint_seq, upto_seq)`.

        Waits for the disk. Raises `LedgerFault`; `ValueError` in memory.
        """

    def close(self) -> None:
        """Write what is queued and give the folder back. Waits. Raises `LedgerFault`."""
