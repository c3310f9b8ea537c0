//! The ledger as its callers see it: every call takes the mutex once, and none waits for a disk.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use cascaded_core::ledger::{
    Admission, Admitted, AttemptResult, Census, Choice, CounterKey, CounterRef, CounterSpec,
    CounterStatus, Demand, HoldStatus, Idempotency, Label, Ledger, LedgerError, Peek, RateSpec,
    Receipt, ScopeEvidence, ScopeKind,
};
use cascaded_core::window::{Reading, Stamp, TrustedTime, WindowKind, Zones};
use cascaded_journal::{Backup, CheckpointError, Journal, Seq};

use crate::clock::Clock;
use crate::days::{self, DayTotal};
use crate::error::{EngineError, Unavailable};
use crate::keeper::{Bell, Gate, Keeper};
use crate::limit_set::{check_counter, LimitSet};
use crate::open::LINGER;
use crate::outbox::{Outbox, Sink};
use crate::spend::Spend;

/// What an admission came to, and the record to wait for before anything is sent to a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The answer.
    pub admission: Admission,
    /// The last record of the journal: the hold's own, or a later one.
    pub seq: Seq,
    /// Whether there is nothing to wait for before it is sent.
    pub clear: bool,
}

/// How a hold was resolved, and the record that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What became of it.
    pub receipt: Receipt,
    /// The record to wait for.
    pub seq: Seq,
}

/// Figures of this instant.
#[derive(Clone, Debug)]
pub struct Stats {
    /// What the ledger holds.
    pub census: Census,
    /// What the trusted clock made of the machine's clocks when it last looked.
    pub reading: Reading,
    /// The sequence of the last record.
    pub last_seq: Seq,
    /// Settlements that wait for room in the journal.
    pub backlog: usize,
    /// The journal's own figures; `None` in memory.
    pub journal: Option<cascaded_journal::Stats>,
    /// The keeper's.
    pub keeper: crate::keeper::KeeperStats,
    /// Reservations since the start.
    pub admitted: u64,
    /// Those of them that had to wait for the disk.
    pub gated: u64,
    /// The median of a few flushes before the start; `None` where none could be made.
    pub flush_at_start: Option<Duration>,
}

/// What the mutex guards.
pub(crate) struct State {
    pub(crate) ledger: Ledger,
    pub(crate) time: TrustedTime,
    pub(crate) reading: Reading,
    pub(crate) outbox: Outbox,
    pub(crate) spend: Spend,
    pub(crate) admitted: u64,
    pub(crate) gated: u64,
    pub(crate) closed: bool,
}

/// What the engine and its keeper share.
pub(crate) struct Shared {
    pub(crate) number: u64,
    pub(crate) state: Mutex<State>,
    /// `None` in memory, and after the end.
    journal: RwLock<Option<Arc<Journal>>>,
    /// What is durable once there is no journal: in memory, everything.
    ended_seq: AtomicU64,
    pub(crate) clock: Box<dyn Clock>,
    pub(crate) keeper: Mutex<Keeper>,
    pub(crate) bell: Bell,
    gate: Gate,
    /// How long a record takes to the disk, in nanoseconds.
    commit_ns: AtomicI64,
    pub(crate) flush_at_start: Option<Duration>,
    zones: Zones,
}

/// A ledger at work. Every method can be called from any thread.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) thread: Mutex<Option<JoinHandle<()>>>,
}

static ENGINES: AtomicU64 = AtomicU64::new(1);

impl Shared {
    pub(crate) fn new(
        state: State,
        journal: Option<Journal>,
        clock: Box<dyn Clock>,
        gate: Gate,
    ) -> Self {
        Self {
            gate,
            commit_ns: AtomicI64::new(0),
            flush_at_start: None,
            number: ENGINES.fetch_add(1, Relaxed),
            state: Mutex::new(state),
            journal: RwLock::new(journal.map(Arc::new)),
            ended_seq: AtomicU64::new(Seq::MAX),
            clock,
            keeper: Mutex::new(Keeper::default()),
            bell: Bell::default(),
            zones: Zones::default(),
        }
    }

    /// The state, unless a panic left it half changed: then nothing may be built on it.
    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, State>, Unavailable> {
        let broken = |_| Unavailable::Faulted("the ledger panicked: restart to recover".to_owned());
        self.state.lock().map_err(broken)
    }

    pub(crate) fn journal(&self) -> Option<Arc<Journal>> {
        let journal = self.journal.read().unwrap_or_else(PoisonError::into_inner);
        journal.clone()
    }

    /// A record waits until others have gathered, then for the flush before its own, then for that.
    pub(crate) fn set_commit(&self, flush: Duration) {
        let commit = LINGER.saturating_add(2 * flush).as_nanos();
        let commit_ns = i64::try_from(commit).unwrap_or(i64::MAX);
        self.commit_ns.store(commit_ns, Relaxed);
    }

    /// No more calls, and with them no more ceilings: an orderly end leaves nothing to charge.
    fn shut(&self) {
        let Ok(mut state) = self.lock() else { return };
        state.closed = true;
        let at = state.look(&*self.clock);
        // What does not reach the disk is charged at the next start: too much, never too little.
        let _ = state.with(self.journal().as_deref(), |ledger, sink| {
            ledger.lower_ceilings(at, 0, usize::MAX, sink)
        });
    }

    /// Closes the journal and lets go of it, so that the folder can be opened again.
    fn end(&self) -> Result<(), String> {
        let Some(journal) = self.journal() else {
            return Ok(());
        };
        let closed = journal.close();
        self.ended_seq.store(journal.durable_seq(), Relaxed);
        let mut place = self.journal.write().unwrap_or_else(PoisonError::into_inner);
        *place = None;
        closed.map_err(|fault| fault.to_string())
    }

    /// Whether a reservation may be sent at once; and the ceilings that the next ones need.
    fn pass(&self, state: &mut State, at: Stamp, admitted: &Admitted) -> bool {
        let Some(journal) = self.journal() else {
            return true;
        };
        let clear = match self.gate {
            Gate::Strict => !admitted.hard,
            Gate::Ceiling => admitted.clear,
        };
        state.admitted += 1;
        state.gated += u64::from(!clear);
        if self.gate == Gate::Ceiling {
            let mark = state.outbox.last_seq() + 1;
            let commit_ns = self.commit_ns.load(Relaxed);
            let (counters, amount) = (&admitted.counters, admitted.amount);
            // What the journal has no room for makes none here: the next call waits.
            let _ = state.with(Some(&journal), |ledger, sink| {
                ledger.raise_ceilings(at, counters, amount, commit_ns, mark, sink)
            });
        }
        clear
    }

    /// The state, for a change.
    fn change(&self) -> Result<MutexGuard<'_, State>, Unavailable> {
        let state = self.lock()?;
        if state.closed {
            return Err(Unavailable::Faulted("the ledger is closed".to_owned()));
        }
        Ok(state)
    }
}

impl State {
    pub(crate) fn new(ledger: Ledger, last_seq: Seq, clock: &dyn Clock) -> Self {
        let time = TrustedTime::resume(ledger.high_water(), clock.now());
        let census = ledger.census();
        Self {
            reading: Reading::Steady(time.stamp()),
            time,
            outbox: Outbox::after(last_seq),
            spend: Spend {
                unknown: census.unknown,
                ..Spend::default()
            },
            ledger,
            admitted: 0,
            gated: 0,
            closed: false,
        }
    }

    /// The moment to go by.
    pub(crate) fn look(&mut self, clock: &dyn Clock) -> Stamp {
        self.reading = self.time.observe(clock.now());
        self.reading.stamp()
    }

    /// Changes the ledger, with a way to the journal beside it.
    pub(crate) fn with<T>(
        &mut self,
        journal: Option<&Journal>,
        change: impl FnOnce(&mut Ledger, &mut Sink<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, EngineError> {
        let outbox = &mut self.outbox;
        let mut sink = Sink { outbox, journal };
        change(&mut self.ledger, &mut sink).map_err(|error| match error {
            LedgerError::NotJournalled => EngineError::Unavailable(self.outbox.take_refusal()),
            other => EngineError::Ledger(other),
        })
    }

    fn resolved(&self, receipt: Receipt) -> Resolved {
        let seq = self.outbox.last_seq();
        Resolved { receipt, seq }
    }
}

impl Engine {
    /// Limits of one kind of call, for [`admit`](Self::admit) and [`peek`](Self::peek).
    ///
    /// # Errors
    /// [`LedgerError`] that says which limit cannot be enforced.
    pub fn compile(
        &self,
        counters: Vec<CounterSpec>,
        rates: Vec<RateSpec>,
    ) -> Result<LimitSet, EngineError> {
        let Shared { number, zones, .. } = &*self.shared;
        let count_all = self.shared.gate == Gate::Ceiling;
        Ok(LimitSet::new(*number, zones, counters, rates, count_all)?)
    }

    /// Reserves the first choice that every limit allows. See [`Ledger::admit`].
    ///
    /// # Errors
    /// [`EngineError`]; nothing was reserved. A refusal is an answer.
    pub fn admit(
        &self,
        limits: &LimitSet,
        menu: &[Choice<'_>],
        idempotency: Option<Idempotency>,
        price_hash: u64,
        label: Option<&Label>,
    ) -> Result<Entry, EngineError> {
        let mut state = self.shared.change()?;
        let at = self.prepare(&mut state, limits)?;
        let (counters, rates) = (limits.counter_refs(), limits.rate_refs());
        let demand = Demand {
            menu,
            counters: &counters,
            rates: &rates,
            idempotency,
            price_hash,
            label,
        };
        let journal = self.shared.journal();
        if let Some(journal) = &journal {
            state.ledger.note_durable(journal.durable_seq());
        }
        let admission = state.with(journal.as_deref(), |ledger, sink| {
            ledger.admit(at, &demand, sink)
        })?;
        let seq = state.outbox.last_seq();
        let mut clear = true;
        if let Admission::Admitted(admitted) = &admission {
            limits.learn(&admitted.counters, &admitted.rates);
            state.spend.reserved(admitted.amount);
            clear = self.shared.pass(&mut state, at, admitted);
        }
        Ok(Entry {
            admission,
            seq,
            clear,
        })
    }

    /// What [`admit`](Self::admit) would do, and how every limit looks. Takes nothing.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn peek(&self, limits: &LimitSet, menu: &[Choice<'_>]) -> Result<Peek, EngineError> {
        let mut state = self.shared.change()?;
        let at = self.prepare(&mut state, limits)?;
        let (counters, rates) = (limits.named_refs(), limits.rate_refs());
        let demand = Demand {
            menu,
            counters: &counters,
            rates: &rates,
            idempotency: None,
            price_hash: 0,
            label: None,
        };
        Ok(state.ledger.peek(at, &demand)?)
    }

    /// Looks at the clock, looks limits up, and makes the ledger have them as they are now.
    fn prepare(&self, state: &mut State, limits: &LimitSet) -> Result<Stamp, EngineError> {
        if limits.engine != self.shared.number {
            return Err(LedgerError::Invalid("these limits belong to another ledger").into());
        }
        let at = state.look(&*self.shared.clock);
        let changes = limits.resolve(&state.ledger);
        if !changes.is_empty() {
            state.with(self.shared.journal().as_deref(), |ledger, sink| {
                ledger.set_limits(at, &changes, false, sink)
            })?;
        }
        Ok(at)
    }

    /// Posts what a hold's attempts cost and gives back the rest. See [`Ledger::settle`].
    ///
    /// # Errors
    /// [`EngineError`]; the hold is as it was.
    pub fn settle(
        &self,
        hold: u64,
        attempts: &[AttemptResult],
        tokens: Option<u32>,
    ) -> Result<Resolved, EngineError> {
        let mut state = self.shared.change()?;
        let at = state.look(&*self.shared.clock);
        let receipt = state.with(self.shared.journal().as_deref(), |ledger, sink| {
            ledger.settle(at, hold, attempts, tokens, sink)
        })?;
        state.spend.resolved(&receipt);
        Ok(state.resolved(receipt))
    }

    /// Gives a hold back: nothing was sent, or nothing billed. See [`Ledger::release`].
    ///
    /// # Errors
    /// [`EngineError`]; the hold is as it was.
    pub fn release(&self, hold: u64) -> Result<Resolved, EngineError> {
        let mut state = self.shared.change()?;
        let at = state.look(&*self.shared.clock);
        let receipt = state.with(self.shared.journal().as_deref(), |ledger, sink| {
            ledger.release(at, hold, sink)
        })?;
        state.spend.resolved(&receipt);
        Ok(state.resolved(receipt))
    }

    /// Evidence: all that is unknown of a hold really cost `posted`; of what a crash lost, `scopes`
    /// says whose it was. See [`Ledger::adjust`] and [`Ledger::find_lost`].
    ///
    /// # Errors
    /// [`EngineError`]; the hold is as it was.
    pub fn adjust(
        &self,
        hold: u64,
        posted: i64,
        scopes: &[ScopeEvidence<'_>],
    ) -> Result<Resolved, EngineError> {
        let mut state = self.shared.change()?;
        let at = state.look(&*self.shared.clock);
        let before = state.ledger.hold_status(hold).map_or(0, |one| one.unknown);
        let receipt = state.with(self.shared.journal().as_deref(), |ledger, sink| {
            if scopes.is_empty() {
                ledger.adjust(at, hold, None, posted, sink)
            } else {
                ledger.find_lost(at, hold, posted, scopes, sink)
            }
        })?;
        state.spend.adjusted(before, &receipt);
        Ok(state.resolved(receipt))
    }

    /// Charges spend that this state has forgotten. See [`Ledger::charge_gap`].
    ///
    /// # Errors
    /// [`EngineError`]; nothing was charged.
    pub fn charge_gap(
        &self,
        upto_seq: Seq,
        counters: &[CounterSpec],
        amount: i64,
        label: &Label,
    ) -> Result<Option<u64>, EngineError> {
        for spec in counters {
            check_counter(&self.shared.zones, spec)?;
        }
        let counters: Vec<_> = counters.iter().map(CounterRef::Spec).collect();
        let mut state = self.shared.change()?;
        let at = state.look(&*self.shared.clock);
        let hold = state.with(self.shared.journal().as_deref(), |ledger, sink| {
            ledger.charge_gap(at, upto_seq, &counters, amount, label, sink)
        })?;
        state.spend.unknown = state.spend.unknown.saturating_add(amount);
        Ok(hold)
    }

    /// Waits until all charges are on the disk, then lets the state open without being asked
    /// about its gap again.
    ///
    /// # Errors
    /// [`EngineError`]; the folder is still marked.
    pub fn gap_charged(&self) -> Result<(), EngineError> {
        self.shared.settle_all()?;
        let Some(journal) = self.shared.journal() else {
            return Ok(());
        };
        let marked = |error: std::io::Error| Unavailable::Faulted(error.to_string());
        Ok(journal.gap_charged().map_err(marked)?)
    }

    /// Sets limits, all at once. With `reload`, those that a configuration set before and that
    /// are not among them are removed. Returns how many changed, and the record that says so.
    ///
    /// # Errors
    /// [`EngineError`]; every limit is as it was.
    pub fn set_limits(
        &self,
        counters: &[CounterSpec],
        rates: &[RateSpec],
        reload: bool,
    ) -> Result<(usize, Seq), EngineError> {
        use cascaded_core::ledger::LimitChange;
        for spec in counters {
            check_counter(&self.shared.zones, spec)?;
        }
        let counters = counters.iter().cloned().map(LimitChange::Set);
        let changes: Vec<_> = counters
            .chain(rates.iter().cloned().map(LimitChange::SetRate))
            .collect();
        let mut state = self.shared.change()?;
        let at = state.look(&*self.shared.clock);
        let changed = state.with(self.shared.journal().as_deref(), |ledger, sink| {
            ledger.set_limits(at, &changes, reload, sink)
        })?;
        Ok((changed, state.outbox.last_seq()))
    }

    /// The counters of a scope, of a kind of scope, or all.
    ///
    /// # Errors
    /// [`EngineError`] when the ledger is broken.
    pub fn counters(
        &self,
        kind: Option<ScopeKind>,
        id: Option<&str>,
    ) -> Result<Vec<CounterStatus>, EngineError> {
        let mut state = self.shared.lock()?;
        let at = state.look(&*self.shared.clock);
        let ledger = &state.ledger;
        Ok(match (kind, id) {
            (Some(kind), Some(id)) => named(ledger, at, kind, id),
            _ => ledger
                .counters_of(at, None)
                .filter(|one| kind.is_none_or(|kind| one.key.scope == kind))
                .filter(|one| id.is_none_or(|id| *one.key.id == *id))
                .collect(),
        })
    }

    /// All holds that are not resolved, oldest first.
    ///
    /// # Errors
    /// [`EngineError`] when the ledger is broken.
    pub fn unresolved(&self) -> Result<Vec<HoldStatus>, EngineError> {
        Ok(self.shared.lock()?.ledger.unresolved_holds())
    }

    /// One hold, if it is not resolved.
    ///
    /// # Errors
    /// [`EngineError`] when the ledger is broken.
    pub fn hold(&self, hold: u64) -> Result<Option<HoldStatus>, EngineError> {
        Ok(self.shared.lock()?.ledger.hold_status(hold))
    }

    /// What was spent since the start.
    ///
    /// # Errors
    /// [`EngineError`] when the ledger is broken.
    pub fn spend(&self) -> Result<Spend, EngineError> {
        Ok(self.shared.lock()?.spend)
    }

    /// Figures of this instant.
    ///
    /// # Errors
    /// [`EngineError`] when the ledger is broken.
    pub fn stats(&self) -> Result<Stats, EngineError> {
        let journal = self.shared.journal().map(|journal| journal.stats());
        let keeper = self.shared.bell.stats();
        let mut state = self.shared.lock()?;
        state.look(&*self.shared.clock);
        Ok(Stats {
            census: state.ledger.census(),
            reading: state.reading,
            last_seq: state.outbox.last_seq(),
            backlog: state.outbox.backlog(),
            journal,
            keeper,
            admitted: state.admitted,
            gated: state.gated,
            flush_at_start: self.shared.flush_at_start,
        })
    }

    /// Believes the wall clock as it stands. See [`TrustedTime::confirm`].
    ///
    /// # Errors
    /// [`EngineError`] when the ledger is broken.
    pub fn confirm_clock(&self) -> Result<Stamp, EngineError> {
        let mut state = self.shared.change()?;
        Ok(state.time.confirm(self.shared.clock.now()))
    }

    /// The last sequence that survives a crash; in memory, every one.
    pub fn durable_seq(&self) -> Seq {
        self.shared.journal().map_or_else(
            || self.shared.ended_seq.load(Relaxed),
            |journal| journal.durable_seq(),
        )
    }

    /// A descriptor that is readable when `durable_seq` rose or the journal failed; in memory
    /// there is none. Valid until the end.
    pub fn event_fd(&self) -> Option<RawFd> {
        let journal = self.shared.journal()?;
        Some(journal.event_fd().as_raw_fd())
    }

    /// Has what is queued written now, for somebody who waits.
    pub fn hurry(&self) {
        if let Some(journal) = self.shared.journal() {
            journal.hurry();
        }
    }

    /// Makes the descriptor unreadable until the next event; look at `durable_seq` afterwards.
    pub fn clear_event(&self) {
        if let Some(journal) = self.shared.journal() {
            journal.clear_event();
        }
    }

    /// Why the ledger works no more, if it does not.
    pub fn fault(&self) -> Option<String> {
        if let Err(why) = self.shared.change() {
            return Some(why.to_string());
        }
        let fault = self.shared.journal()?.fault()?;
        Some(fault.to_string())
    }

    /// Lets time pass and writes a checkpoint now; the keeper does so by itself. Waits for the disk.
    ///
    /// # Errors
    /// In words; the last checkpoint stands.
    pub fn checkpoint(&self) -> Result<(), String> {
        self.shared.keep()
    }

    /// Copies the state, consistent and flushed, into a folder that must not exist.
    ///
    /// # Errors
    /// [`CheckpointError`]; `None` in memory, where there is nothing to copy.
    pub fn backup(&self, path: &Path) -> Option<Result<Backup, CheckpointError>> {
        Some(self.shared.journal()?.backup(path))
    }

    /// What past windows came to, as of the last checkpoint. Reads the disk.
    ///
    /// # Errors
    /// [`CheckpointError`] of the store.
    pub fn day_totals(&self) -> Result<Vec<DayTotal>, CheckpointError> {
        let Some(journal) = self.shared.journal() else {
            return Ok(Vec::new());
        };
        let entries = journal.entries(cascaded_journal::Table::Days);
        entries
            .filter_map(|entry| match entry {
                Ok((name, value)) => days::decode(&name, &value).map(Ok),
                Err(error) => Some(Err(error)),
            })
            .collect()
    }

    /// Ends the keeper, writes a last checkpoint, and gives the folder back. Later calls do nothing.
    ///
    /// # Errors
    /// In words, when something that was queued is not on the disk.
    pub fn close(&self) -> Result<(), String> {
        self.shared.bell.ring_off();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(thread) = thread else { return Ok(()) };
        // A panic in the keeper has left its mark on what it held.
        let _ = thread.join();
        self.shared.shut();
        let last = self.shared.keep();
        self.shared.end().and(last)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whoever wants to know how it ended calls `close`.
        let _ = self.close();
    }
}

/// The counters of one scope: a few lookups, however many counters there are.
fn named(ledger: &Ledger, at: Stamp, kind: ScopeKind, id: &str) -> Vec<CounterStatus> {
    let mut found = HashSet::new();
    let mut statuses = Vec::new();
    for zone in ledger.zones() {
        for window in WindowKind::ALL {
            let key = CounterKey {
                scope: kind,
                id: id.into(),
                window,
                zone: Arc::clone(zone),
            };
            let counter = ledger.find_counter(&key);
            let counter = counter.filter(|counter| found.insert(*counter));
            statuses.extend(counter.and_then(|counter| ledger.counter_status(at, counter)));
        }
    }
    statuses
}
