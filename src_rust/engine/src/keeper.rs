//! What happens by itself: time passes, and checkpoints are written.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cascaded_core::ledger::{Capacity, SnapshotChange, SweepPlace, IDLE_NS};
use cascaded_journal::{Changes, CheckpointError, Journal, Seq, Table, WaitError};

use crate::days;
use crate::engine::Shared;
use crate::open::LINGER;

/// Counters and rates that one look of the sweep takes in, so that the mutex is held for
/// microseconds.
const SWEEP_STEP: u32 = 64;
/// Looks of the sweep per beat.
const SWEEP_STEPS: usize = 32;
/// Entries that a checkpoint takes at once, so that the mutex is held for a part of a millisecond.
const CHECKPOINT_STEP: usize = 512;
/// Steps after which the rest is taken at once, should entries change faster than they are taken.
const CHECKPOINT_STEPS_MAX: usize = 100_000;
/// How long a checkpoint waits for its records to be durable before it is put off.
const DURABLE_WAIT: Duration = Duration::from_secs(5);

/// What a call waits for before it is sent to a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Under a hard limit, for its own record. Otherwise for nothing: a crash may forget it.
    #[default]
    Strict,
    /// For its own record, unless the ceilings on the disk cover it; whatever limits it has.
    Ceiling,
}

/// How to run an engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// What a call waits for.
    pub gate: Gate,
    /// How much the ledger may hold.
    pub capacity: Capacity,
    /// The journal's settings; record types and schema are filled in.
    pub journal: cascaded_journal::Options,
    /// How often a checkpoint is written.
    pub checkpoint_every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            gate: Gate::default(),
            capacity: Capacity::default(),
            journal: cascaded_journal::Options {
                linger: LINGER,
                ..cascaded_journal::Options::default()
            },
            checkpoint_every: Duration::from_secs(1),
        }
    }
}

/// The keeper's own figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeeperStats {
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Entries that the last one changed.
    pub entries: usize,
    /// How long the ledger was held at most at once for the last one.
    pub pause_ns: u64,
    /// How long the last one took in all.
    pub took_ns: u64,
    /// Why the last one was put off; it is tried again.
    pub error: Option<String>,
}

/// Wakes the keeper, and tells of it.
#[derive(Default)]
pub(crate) struct Bell {
    off: Mutex<bool>,
    rung: Condvar,
    stats: Mutex<KeeperStats>,
}

impl Bell {
    pub(crate) fn ring_off(&self) {
        *self.off.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.rung.notify_all();
    }

    /// Waits a while. Returns whether it is over.
    fn wait(&self, pause: Duration) -> bool {
        let off = self.off.lock().unwrap_or_else(PoisonError::into_inner);
        *self
            .rung
            .wait_timeout_while(off, pause, |off| !*off)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    pub(crate) fn stats(&self) -> KeeperStats {
        self.stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What is on its way to the checkpoint.
#[derive(Default)]
pub(crate) struct Keeper {
    place: SweepPlace,
    /// Taken from the ledger and not written yet; the latest word on each key.
    pending: BTreeMap<(usize, Vec<u8>), Option<Vec<u8>>>,
}

impl Keeper {
    fn put(&mut self, changes: Vec<SnapshotChange>) {
        for SnapshotChange { key, value } in changes {
            self.pending.insert((table_of(&key) as usize, key), value);
        }
    }
}

/// The table that a key of the snapshot belongs into.
fn table_of(key: &[u8]) -> Table {
    match key.first() {
        Some(b'h' | b'k') => Table::Holds,
        Some(b'm') => Table::Meta,
        _ => Table::Counters,
    }
}

/// Runs until the bell is rung off.
pub(crate) fn run(shared: &Arc<Shared>, every: Duration) {
    while !shared.bell.wait(every) {
        // Told in the figures, and by the journal where it cannot be tried again.
        let _ = shared.keep();
    }
}

impl Shared {
    /// One beat: time passes, then a checkpoint.
    pub(crate) fn keep(&self) -> Result<(), String> {
        let mut keeper = self
            .keeper
            .lock()
            .map_err(|_| "the keeper panicked: restart to recover".to_owned())?;
        self.measure_commits();
        let done = self
            .sweep(&mut keeper)
            .and_then(|()| self.cool())
            .and_then(|()| self.checkpoint(&mut keeper));
        let mut stats = self
            .bell
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        stats.error = done.clone().err();
        done
    }

    /// How long a record takes to the disk, as it was lately.
    fn measure_commits(&self) {
        let Some(journal) = self.journal() else {
            return;
        };
        if let Some(flush_ns) = journal.stats().flush.quantile_ns(500) {
            self.set_commit(Duration::from_nanos(flush_ns));
        }
    }

    fn sweep(&self, keeper: &mut Keeper) -> Result<(), String> {
        let journal = self.journal();
        for _ in 0..SWEEP_STEPS {
            let mut state = self.lock().map_err(|why| why.to_string())?;
            let at = state.look(&*self.clock);
            let swept = state.with(journal.as_deref(), |ledger, sink| {
                ledger.sweep(at, keeper.place, SWEEP_STEP, sink)
            });
            // A sweep that the journal has no room for is done another time.
            keeper.place = swept.unwrap_or(keeper.place);
            if keeper.place == SweepPlace::default() {
                break;
            }
        }
        Ok(())
    }

    /// Takes back the ceilings of counters that are idle.
    fn cool(&self) -> Result<(), String> {
        let journal = self.journal();
        for step in 0..SWEEP_STEPS {
            let mut state = self.lock().map_err(|why| why.to_string())?;
            if state.ledger.warm() <= step * SWEEP_STEP as usize {
                break;
            }
            let at = state.look(&*self.clock);
            state
                .with(journal.as_deref(), |ledger, sink| {
                    ledger.lower_ceilings(at, IDLE_NS, SWEEP_STEP as usize, sink)
                })
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn checkpoint(&self, keeper: &mut Keeper) -> Result<(), String> {
        let began = Instant::now();
        let (upto_seq, pause_ns) = self.take(keeper)?;
        let Some(journal) = self.journal() else {
            keeper.pending.clear();
            return Ok(());
        };
        if journal.checkpoint_seq() == Some(upto_seq) {
            return Ok(());
        }
        write(&journal, keeper, upto_seq)?;
        let mut stats = self
            .bell
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        stats.checkpoints += 1;
        stats.entries = keeper.pending.len();
        stats.pause_ns = pause_ns;
        stats.took_ns = nanoseconds(began);
        keeper.pending.clear();
        Ok(())
    }

    /// Takes what has changed, as it is after the record whose sequence is returned, with how long
    /// the ledger was held for it.
    ///
    /// A few entries at a time, with the ledger let go in between: what changes after it was taken
    /// is taken again. The last step leaves nothing, and then all that was taken is as it is there.
    fn take(&self, keeper: &mut Keeper) -> Result<(Seq, u64), String> {
        let mut pause_ns = 0;
        for _ in 0..CHECKPOINT_STEPS_MAX {
            let (changes, held_ns) = {
                let mut state = self.lock().map_err(|why| why.to_string())?;
                let held = Instant::now();
                if state.ledger.changed() <= CHECKPOINT_STEP {
                    break;
                }
                let changes = state.ledger.take_some_changes(CHECKPOINT_STEP);
                (changes, nanoseconds(held))
            };
            pause_ns = pause_ns.max(held_ns);
            keeper.put(changes);
            thread::yield_now();
        }
        let (changes, totals, upto_seq, held_ns) = {
            let mut state = self.lock().map_err(|why| why.to_string())?;
            let held = Instant::now();
            if let Some(journal) = self.journal() {
                // What has no room yet keeps waiting; the checkpoint waits for it below.
                let _ = state.outbox.flush(&journal);
            }
            let changes = state.ledger.take_snapshot_changes();
            let totals = state.ledger.take_window_totals();
            (changes, totals, state.outbox.last_seq(), nanoseconds(held))
        };
        keeper.put(changes);
        for total in &totals {
            let (key, value) = days::encode(total);
            keeper
                .pending
                .insert((Table::Days as usize, key), Some(value));
        }
        Ok((upto_seq, pause_ns.max(held_ns)))
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Waits for the records that the changes come from, then writes them in one transaction.
fn write(journal: &Journal, keeper: &Keeper, upto_seq: Seq) -> Result<(), String> {
    journal
        .wait_durable(upto_seq, DURABLE_WAIT)
        .map_err(|error: WaitError| error.to_string())?;
    let mut changes = Changes::default();
    for ((table, key), value) in &keeper.pending {
        let table = Table::ALL[*table];
        match value {
            Some(value) => changes.puts.push((table, key, value)),
            None => changes.deletes.push((table, key)),
        }
    }
    journal
        .checkpoint(upto_seq, &changes)
        .map(|_| ())
        .map_err(|error: CheckpointError| error.to_string())
}
