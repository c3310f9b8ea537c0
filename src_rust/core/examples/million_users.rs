//! Builds a ledger with a million users, a day and a month counter each, and prints what it takes.
//!
//! `cargo run --release -p cascaded-core --example million_users`

use std::time::Instant;

use cascaded_core::ledger::{
    Admission, AttemptResult, Capacity, Choice, CounterKey, CounterRef, CounterSpec, Demand,
    Ledger, Outcome, Policy, RateKey, RateRef, RateSpec, ScopeKind, Unit,
};
use cascaded_core::limiter::Method;
use cascaded_core::window::{Stamp, WindowKind, HOUR_NS, SECOND_NS};

const USERS: usize = 1_000_000;
/// Every so many users have a rate, too: rates are made when they are first used and forgotten
/// when they are idle.
const RATE_EVERY: usize = 10;
const START: i64 = 1_780_401_600 * SECOND_NS;

/// Megabytes of memory that this process has resident; 0 where the system does not tell.
fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1_024
}

fn main() {
    let before = resident_mb();
    let begin = Instant::now();
    let mut ledger = Ledger::new(Capacity::default());
    let mut sink: Vec<u8> = Vec::new();
    let menu = [Choice {
        ladder: 0,
        amount: 1_000_000,
        rungs: &[],
        cheap: false,
        tokens: 500,
    }];
    for user in 0..USERS {
        sink.clear();
        let id = format!("user-{user:07}");
        let own = [WindowKind::Day, WindowKind::Month].map(|window| CounterSpec {
            key: CounterKey {
                scope: ScopeKind::User,
                id: id.as_str().into(),
                window,
                zone: "UTC".into(),
            },
            policy: Policy::degrade(1_000_000_000),
        });
        let requests = RateSpec {
            key: RateKey {
                scope: ScopeKind::User,
                id: id.as_str().into(),
                unit: Unit::Requests,
                method: Method::SlidingWindow,
                window_ns: HOUR_NS,
            },
            limit: 100,
            block: true,
        };
        let rates: &[RateRef<'_>] = if user % RATE_EVERY == 0 {
            &[RateRef::Spec(&requests)]
        } else {
            &[]
        };
        let demand = Demand {
            menu: &menu,
            counters: &[CounterRef::Spec(&own[0]), CounterRef::Spec(&own[1])],
            rates,
            idempotency: None,
            price_hash: 0,
            label: None,
        };
        let at = Stamp::at(START + user as i64 * 1_000);
        let Ok(Admission::Admitted(admitted)) = ledger.admit(at, &demand, &mut sink) else {
            panic!("an empty budget has room");
        };
        let result = AttemptResult {
            attempt: None,
            outcome: Outcome::Billed(400_000),
        };
        ledger
            .settle(at, admitted.hold, &[result], Some(200), &mut sink)
            .expect("an open hold");
        // A checkpoint now and then, as a daemon does.
        if user % 10_000 == 0 {
            ledger.take_snapshot_changes();
        }
    }
    ledger.take_snapshot_changes();
    let census = ledger.census();
    println!(
        "{} users, {} counters, {} rates: {} MB resident ({} MB before), built in {:.1} s",
        census.users,
        census.counters,
        census.rates,
        resident_mb(),
        before,
        begin.elapsed().as_secs_f64()
    );
}
