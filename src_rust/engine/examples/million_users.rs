//! A state folder with a million users, a day and a month counter each: how long it takes to
//! start on, what is resident then, and how long a checkpoint holds the ledger when a hundred
//! thousand counters have changed.
//!
//! `cargo run --release -p cascaded-engine --example million_users`

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cascaded_core::ledger::{
    Admission, AttemptResult, Choice, CounterKey, CounterSpec, Outcome, Policy, ScopeKind,
};
use cascaded_core::window::WindowKind;
use cascaded_engine::{Config, Engine, SystemClock};

const USERS: usize = 1_000_000;
const CHANGED: usize = 50_000;
/// A checkpoint now and then while the folder is made, or the journal grows without end.
const CHECKPOINT_EVERY: usize = 100_000;

fn config() -> Config {
    Config {
        checkpoint_every: Duration::from_secs(3_600),
        ..Config::default()
    }
}

fn open(dir: &Path) -> Engine {
    let opened = Engine::open(dir, &config(), Box::new(SystemClock));
    opened.expect("a sound folder").0
}

/// Megabytes of memory that this process has resident; 0 where the system does not tell.
fn resident_mb(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(what));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1_024
}

/// How long this thread has been on a processor: on a busy machine, the better part of a start.
fn on_cpu() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = told
        .split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.unwrap_or(0))
}

/// One call of one user, from its hold to its settlement.
fn call(engine: &Engine, user: usize) {
    let counter = |window| CounterSpec {
        key: CounterKey {
            scope: ScopeKind::User,
            id: format!("user-{user:07}").into(),
            window,
            zone: "UTC".into(),
        },
        policy: Policy::degrade(1_000_000_000),
    };
    let counters = vec![counter(WindowKind::Day), counter(WindowKind::Month)];
    let limits = engine.compile(counters, vec![]).expect("good limits");
    let choice = Choice {
        ladder: 0,
        amount: 1_000,
        rungs: &[],
        cheap: true,
        tokens: 0,
    };
    loop {
        let Ok(entry) = engine.admit(&limits, &[choice], None, 0, None) else {
            // The journal's queue is full: its writer has to catch up.
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let Admission::Admitted(admitted) = entry.admission else {
            panic!("there is room")
        };
        let result = AttemptResult {
            attempt: None,
            outcome: Outcome::Billed(500),
        };
        engine
            .settle(admitted.hold, &[result], None)
            .expect("an open hold");
        return;
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    if let Some(dir) = args.next() {
        return measure(Path::new(&dir));
    }
    let root = tempfile::tempdir().expect("room");
    let begin = Instant::now();
    let engine = open(root.path());
    for user in 0..USERS {
        call(&engine, user);
        if user % CHECKPOINT_EVERY == 0 {
            engine.checkpoint().expect("a sound disk");
        }
    }
    engine.close().expect("a sound disk");
    println!("{USERS} users made in {:.1?}", begin.elapsed());
    // In a process of its own: memory that was used here does not count there.
    let own = std::env::current_exe().expect("a name");
    let status = Command::new(own).arg(root.path()).status();
    assert!(status.expect("it starts").success());
}

fn measure(dir: &Path) {
    let begin = Instant::now();
    let engine = open(dir);
    println!(
        "start: {:.2?}, of it {:.2?} on a processor; {} MB resident, of it {} MB of files; {} MB at \
         most",
        begin.elapsed(),
        on_cpu(),
        resident_mb("VmRSS:"),
        resident_mb("RssFile:"),
        resident_mb("VmHWM:"),
    );
    for user in 0..CHANGED {
        call(&engine, user);
    }
    let begin = Instant::now();
    engine.checkpoint().expect("a sound disk");
    let stats = engine.stats().expect("a sound ledger").keeper;
    println!(
        "checkpoint: {} entries in {:.1?}, the ledger held for at most {} us",
        stats.entries,
        begin.elapsed(),
        stats.pause_ns / 1_000,
    );
}
