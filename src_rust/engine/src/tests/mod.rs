//! Random lives of a ledger, cut off at random moments, on the real disk.

mod ceilings;
mod crashes;
mod mishaps;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cascaded_core::ledger::{
    Admission, AttemptResult, Capacity, Choice, CounterKey, CounterSpec, Outcome, Policy, RateKey,
    RateSpec, ScopeKind, SnapshotChange, Unit,
};
use cascaded_core::limiter::Method;
use cascaded_core::window::{WindowKind, MINUTE_NS, SECOND_NS};
use cascaded_journal::Options;

use crate::open::LINGER;
use crate::{Config, Engine, Gate, LimitSet, ManualClock};

const START: i64 = 1_780_401_600 * SECOND_NS;
/// Longer than any test: only what a test asks for is checkpointed.
const NEVER: Duration = Duration::from_secs(3_600);
const WAIT: Duration = Duration::from_secs(10);

fn config() -> Config {
    Config {
        gate: Gate::Ceiling,
        capacity: Capacity::default(),
        journal: Options {
            segment_bytes: 64 << 10,
            record_bytes_max: 16 << 10,
            queue_bytes_max: 48 << 10,
            free_bytes_min: 0,
            map_bytes: 64 << 20,
            linger: LINGER,
            ..Options::default()
        },
        checkpoint_every: NEVER,
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(START))
}

fn open(dir: &Path, clock: &Arc<ManualClock>) -> (Engine, crate::Recovered) {
    Engine::open(dir, &config(), Box::new(Arc::clone(clock))).expect("a sound folder")
}

fn counter(id: &str, window: WindowKind, limit: i64) -> CounterSpec {
    CounterSpec {
        key: CounterKey {
            scope: ScopeKind::User,
            id: id.into(),
            window,
            zone: "UTC".into(),
        },
        policy: Policy::degrade(limit),
    }
}

fn rate(id: &str) -> RateSpec {
    RateSpec {
        key: RateKey {
            scope: ScopeKind::User,
            id: id.into(),
            unit: Unit::Tokens,
            method: Method::SlidingWindow,
            window_ns: MINUTE_NS,
        },
        limit: 1_000,
        block: true,
    }
}

fn limits(engine: &Engine, id: &str) -> LimitSet {
    let counters = vec![
        counter(id, WindowKind::Day, 1_000),
        counter(id, WindowKind::RollingDay, 2_000),
        counter(id, WindowKind::Total, 100_000),
    ];
    engine
        .compile(counters, vec![rate(id)])
        .expect("good limits")
}

fn choice(amount: i64) -> Choice<'static> {
    Choice {
        ladder: 0,
        amount,
        rungs: &[],
        cheap: true,
        tokens: 7,
    }
}

/// Takes a hold; `None` when it is refused.
fn admit(engine: &Engine, limits: &LimitSet, amount: i64) -> Option<u64> {
    let entry = engine.admit(limits, &[choice(amount)], None, 0, None);
    match entry.expect("a good demand").admission {
        Admission::Admitted(admitted) => Some(admitted.hold),
        _ => None,
    }
}

fn billed(amount: i64) -> AttemptResult {
    AttemptResult {
        attempt: None,
        outcome: Outcome::Billed(amount),
    }
}

/// All that the ledger knows, in order.
fn snapshot(engine: &Engine) -> Vec<SnapshotChange> {
    let state = engine.shared.lock().expect("no panic");
    let mut all = state.ledger.snapshot();
    all.sort();
    all
}

/// Waits until everything is on the disk.
fn settle_down(engine: &Engine) {
    let journal = engine.shared.journal().expect("a journal");
    let last_seq = engine.stats().expect("a sound ledger").last_seq;
    journal.wait_durable(last_seq, WAIT).expect("a sound disk");
}

/// The folder as a crash at this moment would leave it.
fn crash(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("room");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            crash(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("room");
        }
    }
}
