//! The ledger as Python sees it: numbers, words and tuples across, nothing decided here.
//!
//! Calls that only think keep the GIL: giving it up and waiting to have it back takes longer than
//! they do. The engine's mutex is never held by a thread that waits for the GIL, so they cannot
//! wait for each other. Calls that wait for a disk give the GIL up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cascaded_core::ledger::{
    Admission, AttemptResult, Choice, CounterKey, CounterSpec, CounterStatus, Crossing, HoldState,
    HoldStatus, Idempotency, Label, LedgerError, LimitView, Measure, Mode, Origin, Outcome, Peek,
    Policy, RateKey, RateSpec, Refusal, ScopeEvidence, ScopeKind, Unit, Warning,
};
use cascaded_core::limiter::Method;
use cascaded_core::window::{Reading, WindowKind};
use cascaded_engine::{self as engine, Clock, Config, EngineError, Gate, Resolved, SystemClock};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyTuple;

use crate::rows::rows;

create_exception!(
    cascaded._core,
    LedgerOpenError,
    PyException,
    "A state folder that cannot be opened: `(kind, message)`."
);
create_exception!(
    cascaded._core,
    LedgerFault,
    PyException,
    "The journal takes no more: `(message,)`."
);
create_exception!(
    cascaded._core,
    HoldError,
    PyException,
    "A hold that cannot be resolved so: `(code, message)`."
);

/// `(scope, id, window, zone, limit, enforcement, warn_bp, degrade_bp, block_bp, origin)`
type Budget = (
    String,
    String,
    String,
    String,
    Option<i64>,
    String,
    u16,
    u16,
    u16,
    String,
);
/// `(scope, id, unit, method, window_ns, limit, block)`
type Rate = (String, String, String, String, i64, u32, bool);
/// `(nano_usd, tokens, cheap)`
type MenuEntry = (i64, u32, bool);
/// `(scope, id, nano_usd)`
type Evidence = (PyBackedStr, String, i64);
/// `(billing, nano_usd)`
type Attempt = (PyBackedStr, i64);
/// `(reason, scope, id, window, unit, window_ns, limit, used, asked, reset_at_ns, retry_after_ns)`
type Denial = (
    &'static str,
    &'static str,
    String,
    Option<&'static str>,
    Option<&'static str>,
    Option<i64>,
    i64,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
);

/// `(scope, id, window, limit, spent, over)`
type Warned = (&'static str, String, &'static str, i64, i64, bool);
/// `(scope, id, window, threshold_bp, limit, spent)`
type Crossed = (&'static str, String, &'static str, u16, i64, i64);
/// `(hold, seq, state, posted, unknown, returned, overrun, crossings)`
type Receipt = (u64, u64, &'static str, i64, i64, i64, i64, Vec<Crossed>);
/// `(scope, id, window, unit, window_ns, limit, used, remaining, degraded, fits, enforced,
/// reset_at_ns)`
type View = (
    &'static str,
    String,
    Option<&'static str>,
    Option<&'static str>,
    Option<i64>,
    Option<i64>,
    i64,
    Option<i64>,
    bool,
    bool,
    bool,
    Option<i64>,
);
/// `((scope, id, window, zone), (limit, enforcement, origin), (posted, held, unknown, overrun),
/// degraded, starts_at_ns, resets_at_ns)`
type Counter = (
    (&'static str, String, &'static str, String),
    (Option<i64>, &'static str, &'static str),
    (i64, i64, i64, i64),
    bool,
    i64,
    Option<i64>,
);
/// `(incarnation, records, charged, lost, torn_bytes, gap)`; the gap is `(upto_seq, reason)`
type Found = (u64, u64, usize, i64, u64, Option<(u64, String)>);
/// `(request, user, owner)`
type Labelled = (PyBackedStr, PyBackedStr, PyBackedStr);
/// `(scope, id, window, zone, nano_usd)`
type Charged = (&'static str, String, &'static str, String, i64);
/// `(hold, state, held, unknown, at_ns, label, lost)`; of a crash what is charged where
type Unresolved = (
    u64,
    &'static str,
    i64,
    i64,
    i64,
    Option<(String, String, String)>,
    Option<Vec<Charged>>,
);

/// The member of a list that has this name.
fn by_name<T: Copy>(
    what: &str,
    word: &str,
    all: impl IntoIterator<Item = T>,
    name: fn(T) -> &'static str,
) -> PyResult<T> {
    let found = all.into_iter().find(|one| name(*one) == word);
    found.ok_or_else(|| PyValueError::new_err(format!("unknown {what} {word:?}")))
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Warn => "warn",
        Mode::Block => "block",
        Mode::Degrade => "degrade",
        Mode::Shadow => "shadow",
    }
}

fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Profile => "profile",
        Origin::File => "file",
        Origin::Api => "api",
        Origin::Retired => "retired",
    }
}

fn state_name(state: HoldState) -> &'static str {
    match state {
        HoldState::Open => "open",
        HoldState::Dispatched => "dispatched",
        HoldState::Unknown => "unknown",
        HoldState::Settled => "settled",
        HoldState::Released => "released",
        HoldState::Adjusted => "adjusted",
    }
}

fn scope_of(word: &str) -> PyResult<ScopeKind> {
    by_name("scope", word, ScopeKind::ALL, ScopeKind::name)
}

fn counter_spec(budget: Budget) -> PyResult<CounterSpec> {
    let (scope, id, window, zone, limit, mode, warn_bp, degrade_bp, block_bp, origin) = budget;
    let modes = [Mode::Warn, Mode::Block, Mode::Degrade, Mode::Shadow];
    let origins = [Origin::Profile, Origin::File, Origin::Api];
    Ok(CounterSpec {
        key: CounterKey {
            scope: scope_of(&scope)?,
            id: id.into(),
            window: by_name("window", &window, WindowKind::ALL, WindowKind::name)?,
            zone: zone.into(),
        },
        policy: Policy {
            limit,
            mode: by_name("enforcement", &mode, modes, mode_name)?,
            warn_bp,
            degrade_bp,
            block_bp,
            origin: by_name("origin", &origin, origins, origin_name)?,
        },
    })
}

fn rate_spec(rate: Rate) -> PyResult<RateSpec> {
    let (scope, id, unit, method, window_ns, limit, block) = rate;
    Ok(RateSpec {
        key: RateKey {
            scope: scope_of(&scope)?,
            id: id.into(),
            unit: by_name("unit", &unit, [Unit::Requests, Unit::Tokens], Unit::name)?,
            method: by_name("method", &method, Method::ALL, Method::name)?,
            window_ns,
        },
        limit,
        block,
    })
}

fn specs(budgets: Vec<Budget>, rates: Vec<Rate>) -> PyResult<(Vec<CounterSpec>, Vec<RateSpec>)> {
    let counters = budgets
        .into_iter()
        .map(counter_spec)
        .collect::<PyResult<_>>()?;
    let rates = rates.into_iter().map(rate_spec).collect::<PyResult<_>>()?;
    Ok((counters, rates))
}

fn menu_of(menu: &[MenuEntry]) -> Vec<Choice<'_>> {
    let choices = menu.iter().map(|&(amount, tokens, cheap)| Choice {
        ladder: 0,
        amount,
        rungs: &[],
        cheap,
        tokens,
    });
    choices.collect()
}

fn outcome(&(ref billing, amount): &Attempt) -> PyResult<AttemptResult> {
    let outcome = match &**billing {
        "billed" => Outcome::Billed(amount),
        "not_billed" => Outcome::NotBilled,
        "unknown" => Outcome::Unknown(amount),
        other => return Err(PyValueError::new_err(format!("unknown billing {other:?}"))),
    };
    Ok(AttemptResult {
        attempt: None,
        outcome,
    })
}

fn evidence((scope, id, posted): &Evidence) -> PyResult<ScopeEvidence<'_>> {
    Ok(ScopeEvidence {
        scope: scope_of(scope)?,
        id,
        posted: *posted,
    })
}

fn measure(measure: Measure) -> (Option<&'static str>, Option<&'static str>, Option<i64>) {
    match measure {
        Measure::Money(window) => (Some(window.name()), None, None),
        Measure::Rate(unit, window_ns) => (None, Some(unit.name()), Some(window_ns)),
    }
}

fn denial(refusal: &Refusal) -> Denial {
    use cascaded_core::ledger::Reason;
    let reason = match refusal.reason {
        Reason::Budget => "budget",
        Reason::Degraded => "degraded",
        Reason::Rate => "rate",
    };
    let (window, unit, window_ns) = measure(refusal.measure);
    (
        reason,
        refusal.scope.name(),
        refusal.id.to_string(),
        window,
        unit,
        window_ns,
        refusal.limit,
        refusal.used,
        refusal.asked,
        refusal.reset_at_ns,
        refusal.retry_after_ns,
    )
}

fn warned(warning: &Warning) -> Warned {
    (
        warning.scope.name(),
        warning.id.to_string(),
        warning.window.name(),
        warning.limit,
        warning.spent,
        warning.over,
    )
}

fn crossed(crossing: &Crossing) -> Crossed {
    (
        crossing.scope.name(),
        crossing.id.to_string(),
        crossing.window.name(),
        crossing.threshold_bp,
        crossing.limit,
        crossing.spent,
    )
}

fn told(peek: &Peek) -> (Option<usize>, Option<Denial>) {
    match &peek.outcome {
        Ok(choice) => (Some(*choice), None),
        Err(refusal) => (None, Some(denial(refusal))),
    }
}

fn view(limit: &LimitView) -> View {
    let (window, unit, window_ns) = measure(limit.measure);
    (
        limit.scope.name(),
        limit.id.to_string(),
        window,
        unit,
        window_ns,
        limit.limit,
        limit.used,
        limit.remaining,
        limit.degraded,
        limit.fits,
        limit.enforced,
        limit.reset_at_ns,
    )
}

fn counter(status: &CounterStatus) -> Counter {
    let CounterStatus {
        key,
        policy,
        bounds,
        balance,
        ..
    } = status;
    let (scope, id) = (key.scope.name(), key.id.to_string());
    let ends = (bounds.end_ns < i64::MAX).then_some(bounds.end_ns);
    (
        (scope, id, key.window.name(), key.zone.to_string()),
        (
            policy.limit,
            mode_name(policy.mode),
            origin_name(policy.origin),
        ),
        (
            balance.posted,
            balance.held,
            balance.unknown,
            balance.overrun,
        ),
        status.degraded,
        bounds.start_ns,
        ends,
    )
}

fn charged((key, nano_usd): &(CounterKey, i64)) -> Charged {
    let (scope, id) = (key.scope.name(), key.id.to_string());
    let (window, zone) = (key.window.name(), key.zone.to_string());
    (scope, id, window, zone, *nano_usd)
}

fn unresolved(hold: &HoldStatus) -> Unresolved {
    (
        hold.hold,
        state_name(hold.state),
        hold.held,
        hold.unknown,
        hold.at.calendar_ns,
        hold.label.as_ref().map(|label| {
            let parts = [label.request(), label.user(), label.owner()];
            parts.map(str::to_owned).into()
        }),
        hold.lost
            .then(|| hold.charges.iter().map(charged).collect()),
    )
}

fn label_of(label: Option<Labelled>) -> PyResult<Option<Label>> {
    let label = label.map(|(request, user, owner)| Label::new(&request, &user, &owner));
    label.transpose().map_err(|error| raised(error.into()))
}

fn receipt(Resolved { receipt, seq }: Resolved) -> Receipt {
    (
        receipt.hold,
        seq,
        state_name(receipt.state),
        receipt.posted,
        receipt.unknown,
        receipt.returned,
        receipt.overrun,
        receipt.crossings.iter().map(crossed).collect(),
    )
}

/// What an engine's error is in Python: what the journal refuses is a fault, a hold that is not as
/// the caller thinks has a code of its own, everything else was asked wrongly.
fn raised(error: EngineError) -> PyErr {
    let message = error.to_string();
    let code = match error {
        EngineError::Unavailable(_) | EngineError::Ledger(LedgerError::NotJournalled) => {
            return LedgerFault::new_err((message,))
        }
        EngineError::Ledger(LedgerError::NoSuchHold(_)) => "no_such_hold",
        EngineError::Ledger(
            LedgerError::AlreadyResolved(_)
            | LedgerError::ChargedAsUnknown(_)
            | LedgerError::NothingUnknown(_)
            | LedgerError::MayBeBilled(_),
        ) => "hold_resolved",
        EngineError::Ledger(_) => return PyValueError::new_err(message),
    };
    HoldError::new_err((code, message))
}

/// The code of a refusal for what is no fault of the caller's, or the error.
fn refused(error: EngineError) -> Result<(&'static str, &'static str, String), PyErr> {
    let code = match &error {
        EngineError::Unavailable(engine::Unavailable::Full(_))
        | EngineError::Ledger(LedgerError::Full { .. } | LedgerError::Overflow) => "ledger_full",
        EngineError::Unavailable(engine::Unavailable::Faulted(_)) => "ledger_unavailable",
        EngineError::Ledger(LedgerError::Conflict(_)) => "idempotency_conflict",
        EngineError::Ledger(_) => return Err(raised(error)),
    };
    Ok(("refused", code, error.to_string()))
}

fn open_error(error: engine::OpenError) -> PyErr {
    LedgerOpenError::new_err((error.kind(), error.to_string()))
}

/// A clock that tests own: it stands still until it is told otherwise.
#[pyclass(frozen, module = "cascaded._core")]
pub struct ManualClock(Arc<engine::ManualClock>);

#[pymethods]
impl ManualClock {
    #[new]
    fn new(wall_ns: i64) -> Self {
        Self(Arc::new(engine::ManualClock::new(wall_ns)))
    }

    /// Lets time pass.
    fn advance(&self, ns: i64) {
        self.0.advance(ns);
    }

    /// Sets the wall clock alone.
    fn set_wall(&self, wall_ns: i64) {
        self.0.set_wall(wall_ns);
    }
}

fn clock_of(clock: Option<&ManualClock>) -> Box<dyn Clock> {
    match clock {
        Some(clock) => Box::new(Arc::clone(&clock.0)),
        None => Box::new(SystemClock),
    }
}

/// The limits of one kind of call, looked up once.
#[pyclass(frozen, module = "cascaded._core")]
pub struct LimitSet(engine::LimitSet);

/// A ledger at work.
#[pyclass(frozen, module = "cascaded._core")]
pub struct Ledger(engine::Engine);

#[pymethods]
impl Ledger {
    /// A ledger that forgets.
    #[staticmethod]
    #[pyo3(signature = (*, clock=None, holds_max=None, users_max=None))]
    fn in_memory(
        clock: Option<&ManualClock>,
        holds_max: Option<usize>,
        users_max: Option<usize>,
    ) -> Self {
        let config = config(holds_max, users_max, None, None);
        Self(engine::Engine::in_memory(&config, clock_of(clock)))
    }

    /// A ledger in a state folder. Returns `(ledger, found)`.
    #[staticmethod]
    #[pyo3(signature = (path, *, clock=None, holds_max=None, users_max=None, checkpoint_ms=None, segment_bytes=None, linger_ms=None, ceiling=false, accept_gap=false))]
    #[allow(clippy::too_many_arguments)]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        clock: Option<&ManualClock>,
        holds_max: Option<usize>,
        users_max: Option<usize>,
        checkpoint_ms: Option<u64>,
        segment_bytes: Option<u64>,
        linger_ms: Option<u64>,
        ceiling: bool,
        accept_gap: bool,
    ) -> PyResult<(Self, Found)> {
        let mut config = config(holds_max, users_max, checkpoint_ms, segment_bytes);
        config.journal.accept_gap = accept_gap;
        if let Some(ms) = linger_ms {
            config.journal.linger = Duration::from_millis(ms);
        }
        if ceiling {
            config.gate = Gate::Ceiling;
        }
        let clock = clock_of(clock);
        let opened = py.detach(|| engine::Engine::open(&path, &config, clock));
        let (engine, found) = opened.map_err(open_error)?;
        let engine::Recovered {
            incarnation,
            records,
            charged,
            lost,
            torn_bytes,
            gap,
        } = found;
        let gap = gap.map(|gap| (gap.upto_seq, gap.reason));
        Ok((
            Self(engine),
            (incarnation, records, charged, lost, torn_bytes, gap),
        ))
    }

    /// Accepts the loss of records that cannot be read: `(last_seq, durable_seq, set_aside)`.
    #[staticmethod]
    fn cut(py: Python<'_>, path: PathBuf) -> PyResult<Option<(u64, u64, Vec<String>)>> {
        let cut = py.detach(|| engine::Engine::cut(&path, &Config::default()));
        let cut = cut.map_err(open_error)?;
        Ok(cut.map(|cut| (cut.last_seq, cut.damage.durable_seq, cut.set_aside)))
    }

    /// Charges spend that this state has forgotten; returns the hold's number.
    fn charge_gap(
        &self,
        upto_seq: u64,
        budgets: Vec<Budget>,
        nano_usd: i64,
        label: Labelled,
    ) -> PyResult<Option<u64>> {
        let (counters, _) = specs(budgets, Vec::new())?;
        let (request, user, owner) = label;
        let label = Label::new(&request, &user, &owner).map_err(|error| raised(error.into()))?;
        let charged = self.0.charge_gap(upto_seq, &counters, nano_usd, &label);
        charged.map_err(raised)
    }

    /// Waits until all charges are on the disk, and lets the state open by itself again.
    fn gap_charged(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.gap_charged()).map_err(raised)
    }

    /// Reads a whole state folder that nobody has open.
    #[staticmethod]
    fn verify(py: Python<'_>, path: PathBuf) -> PyResult<HashMap<&'static str, u64>> {
        let verified = py.detach(|| engine::Engine::verify(&path, &Config::default()));
        let found = verified.map_err(open_error)?;
        Ok(HashMap::from([
            ("checkpoint_seq", found.checkpoint_seq),
            ("last_seq", found.last_seq),
            ("records", found.records),
            ("segments", found.segments as u64),
            ("torn_bytes", found.torn_bytes),
            ("entries", found.entries.iter().sum()),
            ("gap", u64::from(found.gap.is_some())),
        ]))
    }

    /// Limits of one kind of call.
    fn compile(&self, budgets: Vec<Budget>, rates: Vec<Rate>) -> PyResult<LimitSet> {
        let (counters, rates) = specs(budgets, rates)?;
        self.0
            .compile(counters, rates)
            .map(LimitSet)
            .map_err(raised)
    }

    /// Reserves the first choice that every limit allows.
    #[pyo3(signature = (limits, menu, idempotency=None, price_hash=0, label=None))]
    fn admit<'py>(
        &self,
        py: Python<'py>,
        limits: &LimitSet,
        menu: Vec<MenuEntry>,
        idempotency: Option<([u8; 16], [u8; 16])>,
        price_hash: u64,
        label: Option<Labelled>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let idempotency = idempotency.map(|(key, body)| Idempotency { key, body });
        let label = label_of(label)?;
        let entry = self.0.admit(
            &limits.0,
            &menu_of(&menu),
            idempotency,
            price_hash,
            label.as_ref(),
        );
        let engine::Entry {
            admission,
            seq,
            clear,
        } = match entry {
            Ok(entry) => entry,
            Err(error) => return refused(error)?.into_pyobject(py),
        };
        match admission {
            Admission::Admitted(taken) => (
                "admitted",
                taken.hold,
                seq,
                taken.choice,
                taken.amount,
                clear,
                taken.degraded,
                taken.warnings.iter().map(warned).collect::<Vec<_>>(),
                taken.shadow.iter().map(denial).collect::<Vec<_>>(),
            )
                .into_pyobject(py),
            Admission::Existing(hold) => (
                "existing",
                hold.hold,
                seq,
                hold.choice,
                hold.amount,
                state_name(hold.state),
            )
                .into_pyobject(py),
            Admission::Refused(refusal) => ("denied", denial(&refusal)).into_pyobject(py),
        }
    }

    /// What an admission would come to: `(choice, denial, limits)`.
    fn peek(
        &self,
        limits: &LimitSet,
        menu: Vec<MenuEntry>,
    ) -> PyResult<(Option<usize>, Option<Denial>, Vec<View>)> {
        let peek = self.0.peek(&limits.0, &menu_of(&menu)).map_err(raised)?;
        let (choice, denial) = told(&peek);
        Ok((choice, denial, peek.limits.iter().map(view).collect()))
    }

    /// What would refuse an admission.
    fn denied(&self, limits: &LimitSet, menu: Vec<MenuEntry>) -> PyResult<Option<Denial>> {
        let peek = self.0.peek(&limits.0, &menu_of(&menu)).map_err(raised)?;
        Ok(told(&peek).1)
    }

    /// As `peek`, with the limits as JSON rows.
    fn preview(
        &self,
        limits: &LimitSet,
        menu: Vec<MenuEntry>,
    ) -> PyResult<(Option<usize>, Option<Denial>, String)> {
        let peek = self.0.peek(&limits.0, &menu_of(&menu)).map_err(raised)?;
        let (choice, denial) = told(&peek);
        Ok((choice, denial, rows(&peek.limits)))
    }

    /// Posts what a hold's attempts cost.
    #[pyo3(signature = (hold, attempts, tokens=None))]
    fn settle(&self, hold: u64, attempts: Vec<Attempt>, tokens: Option<u32>) -> PyResult<Receipt> {
        let attempts: Vec<_> = attempts.iter().map(outcome).collect::<PyResult<_>>()?;
        let settled = self.0.settle(hold, &attempts, tokens);
        settled.map(receipt).map_err(raised)
    }

    /// Gives a hold back.
    fn release(&self, hold: u64) -> PyResult<Receipt> {
        self.0.release(hold).map(receipt).map_err(raised)
    }

    /// Resolves an unknown by evidence; of what a crash lost, `scopes` says whose it was.
    #[pyo3(signature = (hold, nano_usd, scopes=Vec::new()))]
    fn adjust(&self, hold: u64, nano_usd: i64, scopes: Vec<Evidence>) -> PyResult<Receipt> {
        let scopes: Vec<_> = scopes.iter().map(evidence).collect::<PyResult<_>>()?;
        let adjusted = self.0.adjust(hold, nano_usd, &scopes);
        adjusted.map(receipt).map_err(raised)
    }

    /// Sets limits, all at once: `(changed, seq)`.
    #[pyo3(signature = (budgets, rates, *, reload))]
    fn set_limits(
        &self,
        budgets: Vec<Budget>,
        rates: Vec<Rate>,
        reload: bool,
    ) -> PyResult<(usize, u64)> {
        let (counters, rates) = specs(budgets, rates)?;
        self.0.set_limits(&counters, &rates, reload).map_err(raised)
    }

    /// The counters of a scope, of a kind of scope, or all.
    #[pyo3(signature = (scope=None, id=None))]
    fn counters(&self, scope: Option<&str>, id: Option<&str>) -> PyResult<Vec<Counter>> {
        let scope = scope.map(scope_of).transpose()?;
        let found = self.0.counters(scope, id).map_err(raised)?;
        Ok(found.iter().map(counter).collect())
    }

    /// Holds that are not resolved, oldest first.
    fn unresolved(&self) -> PyResult<Vec<Unresolved>> {
        let holds = self.0.unresolved().map_err(raised)?;
        Ok(holds.iter().map(unresolved).collect())
    }

    /// One hold, if it is not resolved.
    fn hold(&self, hold: u64) -> PyResult<Option<Unresolved>> {
        let found = self.0.hold(hold).map_err(raised)?;
        Ok(found.as_ref().map(unresolved))
    }

    /// `(posted, held, unknown)` since the start.
    fn spend(&self) -> PyResult<(i64, i64, i64)> {
        let spend = self.0.spend().map_err(raised)?;
        Ok((spend.posted, spend.held, spend.unknown))
    }

    /// Figures of this instant.
    fn stats(&self) -> PyResult<HashMap<&'static str, i64>> {
        Ok(figures(&self.0.stats().map_err(raised)?))
    }

    /// Believes the wall clock as it stands.
    fn confirm_clock(&self) -> PyResult<()> {
        self.0.confirm_clock().map(drop).map_err(raised)
    }

    /// The last sequence that survives a crash.
    fn durable_seq(&self) -> u64 {
        self.0.durable_seq()
    }

    /// A descriptor that is readable when `durable_seq` rose or the journal failed, or `None`.
    fn event_fd(&self) -> Option<i32> {
        self.0.event_fd()
    }

    /// Has what is queued written now, for somebody who waits.
    fn hurry(&self) {
        self.0.hurry();
    }

    /// Makes the descriptor unreadable until the next event.
    fn clear_event(&self) {
        self.0.clear_event();
    }

    /// Why the ledger works no more, if it does not.
    fn fault(&self) -> Option<String> {
        self.0.fault()
    }

    /// Writes a checkpoint now.
    fn checkpoint(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.checkpoint())
            .map_err(|why| LedgerFault::new_err((why,)))
    }

    /// Copies the state into a folder that must not exist: `(checkpoint_seq, upto_seq)`.
    fn backup(&self, py: Python<'_>, path: PathBuf) -> PyResult<(u64, u64)> {
        match py.detach(|| self.0.backup(&path)) {
            None => Err(PyValueError::new_err("a ledger in memory has no backup")),
            Some(Err(error)) => Err(LedgerFault::new_err((error.to_string(),))),
            Some(Ok(copy)) => Ok((copy.checkpoint_seq, copy.upto_seq)),
        }
    }

    /// Writes what is queued and gives the folder back.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.close())
            .map_err(|why| LedgerFault::new_err((why,)))
    }
}

fn config(
    holds_max: Option<usize>,
    users_max: Option<usize>,
    checkpoint_ms: Option<u64>,
    segment_bytes: Option<u64>,
) -> Config {
    let mut config = Config::default();
    let capacity = &mut config.capacity;
    capacity.holds_max = holds_max.unwrap_or(capacity.holds_max);
    capacity.users_max = users_max.unwrap_or(capacity.users_max);
    config.journal.segment_bytes = segment_bytes.unwrap_or(config.journal.segment_bytes);
    if let Some(pause) = checkpoint_ms {
        config.checkpoint_every = Duration::from_millis(pause);
    }
    config
}

fn figures(stats: &engine::Stats) -> HashMap<&'static str, i64> {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let census = stats.census;
    let (held_still, leap) = match stats.reading {
        Reading::Steady(_) => (0, 0),
        Reading::HeldStill(_, ns) => (ns, 0),
        Reading::LeapRefused(_, ns) => (0, ns),
    };
    let mut found = HashMap::from([
        ("counters", count(census.counters)),
        ("rates", count(census.rates)),
        ("users", count(census.users)),
        ("runs", count(census.runs)),
        ("holds_open", count(census.holds_open)),
        ("next_hold", number(census.next_hold)),
        ("holds_unknown", count(census.holds_unknown)),
        ("unknown_nano_usd", census.unknown),
        ("idempotency_keys", count(census.keys)),
        ("clock_behind_ns", held_still),
        ("clock_leap_ns", leap),
        ("last_seq", number(stats.last_seq)),
        ("backlog", count(stats.backlog)),
        ("admitted", number(stats.admitted)),
        ("gated", number(stats.gated)),
        ("checkpoints", number(stats.keeper.checkpoints)),
        ("checkpoint_entries", count(stats.keeper.entries)),
        ("checkpoint_pause_ns", number(stats.keeper.pause_ns)),
        ("checkpoint_ns", number(stats.keeper.took_ns)),
        (
            "checkpoint_put_off",
            i64::from(stats.keeper.error.is_some()),
        ),
    ]);
    if let Some(journal) = &stats.journal {
        let flush_ns = |per_mille| journal.flush.quantile_ns(per_mille).map_or(0, number);
        found.extend([
            (
                "flush_at_start_ns",
                stats.flush_at_start.map_or(0, |flush| {
                    i64::try_from(flush.as_nanos()).unwrap_or(i64::MAX)
                }),
            ),
            ("durable_seq", number(journal.durable_seq)),
            ("queued_bytes", count(journal.queued_bytes)),
            ("flushes", number(journal.flush.count)),
            ("flush_sum_ns", number(journal.flush.sum_ns)),
            ("flush_p50_ns", flush_ns(500)),
            ("flush_p99_ns", flush_ns(990)),
            ("segments", count(journal.segments)),
            ("disk_full", i64::from(journal.disk_full)),
            ("refused_full", number(journal.refused_full)),
            ("refused_busy", number(journal.refused_busy)),
        ]);
    }
    found
}
