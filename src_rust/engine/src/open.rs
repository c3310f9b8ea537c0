//! How an engine starts: the checkpoint, the records after it, and what a crash left open.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cascaded_core::ledger::{Capacity, Ledger, Record, RECORD_VERSION, TAGS};
use cascaded_journal::{flush_time, Cut, Gap, Journal, Options, Recovery, Table, Verified};

use crate::clock::Clock;
use crate::engine::{Engine, Shared, State};
use crate::error::{EngineError, OpenError, Unavailable};
use crate::keeper::{self, Config};

/// Tables that hold the ledger itself.
const STATE_TABLES: [Table; 3] = [Table::Meta, Table::Counters, Table::Holds];
/// How long to wait for room for the charges of open holds.
const RECOVERY_WAIT: Duration = Duration::from_secs(60);
/// How long to let the journal write before it is offered more of them.
const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// What a start found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// How often this state was opened, this time included.
    pub incarnation: u64,
    /// Records that were replayed.
    pub records: u64,
    /// Open holds that were charged as unknown.
    pub charged: usize,
    /// What a crash may have lost, in nano-dollars: charged as one more unknown.
    pub lost: i64,
    /// Bytes of a last batch that never became durable.
    pub torn_bytes: u64,
    /// Spend that this state has forgotten; only where `accept_gap` was set.
    pub gap: Option<Gap>,
}

/// How long records that nobody waits for gather: a flush for each would wake the writer, and with
/// two cores disturb the caller, twice a call.
pub(crate) const LINGER: Duration = Duration::from_millis(2);

/// The journal's settings with what the ledger knows.
fn options(options: &Options) -> Options {
    Options {
        record_tags: TAGS.to_vec(),
        schema: u16::from(RECORD_VERSION),
        ..options.clone()
    }
}

impl Engine {
    /// A ledger that forgets: no journal, and every record is durable at once.
    pub fn in_memory(config: &Config, clock: Box<dyn Clock>) -> Self {
        let ledger = Ledger::new(config.capacity);
        let state = State::new(ledger, 0, &*clock);
        Self::start(
            Shared::new(state, None, clock, config.gate),
            config.checkpoint_every,
        )
    }

    /// Opens a state folder, charges what was open when its last owner ended, and starts.
    ///
    /// # Errors
    /// [`OpenError`]. A start that fails half-way may be done again: recovery is idempotent.
    pub fn open(
        dir: &Path,
        config: &Config,
        clock: Box<dyn Clock>,
    ) -> Result<(Self, Recovered), OpenError> {
        let (journal, mut recovery) = Journal::open(dir, options(&config.journal))?;
        let mut ledger = restore(config.capacity, &recovery)?;
        let records = replay(&mut ledger, &mut recovery)?;
        let state = State::new(ledger, recovery.last_seq, &*clock);
        let mut shared = Shared::new(state, Some(journal), clock, config.gate);
        shared.flush_at_start = flush_time(dir).ok();
        shared.set_commit(shared.flush_at_start.unwrap_or_default());
        let (charged, lost) = shared.charge_open().map_err(OpenError::Recover)?;
        shared.keep().map_err(faulted).map_err(OpenError::Recover)?;
        let recovered = Recovered {
            incarnation: recovery.incarnation,
            records,
            charged,
            lost,
            torn_bytes: recovery.torn_bytes,
            gap: recovery.gap,
        };
        Ok((Self::start(shared, config.checkpoint_every), recovered))
    }

    /// Reads a whole state folder, or a backup, that nobody has open.
    ///
    /// # Errors
    /// [`OpenError`] for the first thing that is damaged.
    pub fn verify(dir: &Path, config: &Config) -> Result<Verified, OpenError> {
        Ok(Journal::verify(dir, &options(&config.journal))?)
    }

    /// Accepts the loss of records that cannot be read. See [`Journal::cut`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn cut(dir: &Path, config: &Config) -> Result<Option<Cut>, OpenError> {
        Ok(Journal::cut(dir, &options(&config.journal))?)
    }

    fn start(shared: Shared, every: Duration) -> Self {
        let shared = Arc::new(shared);
        let keeps = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("ledger-keep".to_owned())
            .spawn(move || keeper::run(&keeps, every))
            .expect("a thread can be started when the process starts");
        Self {
            shared,
            thread: Mutex::new(Some(thread)),
        }
    }
}

fn faulted(why: String) -> EngineError {
    EngineError::Unavailable(Unavailable::Faulted(why))
}

/// The ledger as the checkpoint has it, read an entry at a time.
fn restore(capacity: Capacity, recovery: &Recovery) -> Result<Ledger, OpenError> {
    let mut failed = None;
    let entries = STATE_TABLES
        .into_iter()
        .flat_map(|table| recovery.snapshot(table));
    let read = entries.map_while(|entry| entry.map_err(|error| failed = Some(error)).ok());
    let restored = Ledger::restore(capacity, read);
    if let Some(error) = failed {
        return Err(OpenError::Journal(error.into()));
    }
    Ok(restored?)
}

/// Applies the records after the checkpoint. Returns how many there were.
fn replay(ledger: &mut Ledger, recovery: &mut Recovery) -> Result<u64, OpenError> {
    let mut count = 0;
    for found in &mut recovery.records {
        let found = found?;
        let seq = found.seq;
        let wrong = |why: String| OpenError::Record { seq, why };
        let record = Record::decode(&found.payload).map_err(|error| wrong(error.to_string()))?;
        ledger
            .apply(&record)
            .map_err(|misfit| wrong(misfit.to_string()))?;
        count += 1;
    }
    Ok(count)
}

impl Shared {
    /// Has the journal take all that waits, and waits until it is on the disk.
    pub(crate) fn settle_all(&self) -> Result<(), EngineError> {
        let deadline = Instant::now() + RECOVERY_WAIT;
        let Some(journal) = self.journal() else {
            return Ok(());
        };
        let seq = loop {
            let mut state = self.lock()?;
            match state.outbox.flush(&journal) {
                Ok(()) => break state.outbox.last_seq(),
                Err(why) if matches!(why, Unavailable::Faulted(_)) || Instant::now() > deadline => {
                    return Err(why.into());
                }
                Err(_) => {}
            }
            drop(state);
            thread::sleep(RETRY_PAUSE);
        };
        journal
            .wait_durable(seq, RECOVERY_WAIT)
            .map_err(|error| faulted(error.to_string()))
    }

    /// Charges every open hold as unknown, and what ceilings allowed to be lost; sees to it that
    /// the journal has all of it. Returns how many holds, and how much was lost at most.
    fn charge_open(&self) -> Result<(usize, i64), EngineError> {
        let mut state = self.lock()?;
        let at = state.look(&*self.clock);
        let journal = self.journal();
        let charged = state.with(journal.as_deref(), |ledger, sink| {
            Ok((ledger.recover(at, sink)?, ledger.charge_lost(at, sink)?))
        })?;
        state.spend.unknown = state.ledger.census().unknown;
        let Some(journal) = journal else {
            return Ok(charged);
        };
        // There may be more of them than the journal's queue takes at once.
        let deadline = Instant::now() + RECOVERY_WAIT;
        while let Err(why) = state.outbox.flush(&journal) {
            if matches!(why, Unavailable::Faulted(_)) || Instant::now() > deadline {
                return Err(why.into());
            }
            thread::sleep(RETRY_PAUSE);
        }
        Ok(charged)
    }
}
