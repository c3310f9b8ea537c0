use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::planted::{self, Bug};
use crate::window::{HOUR_NS, MINUTE_NS};

const START: i64 = 1_780_000_000 * SECOND_NS;

/// Every moment and what was taken at it: the truth that limiters are measured against.
#[derive(Default)]
struct ExactLog(VecDeque<(i64, u32)>);

impl ExactLog {
    fn taken(&mut self, window_ns: i64, now_ns: i64) -> u64 {
        while self
            .0
            .front()
            .is_some_and(|(at, _)| *at <= now_ns - window_ns)
        {
            self.0.pop_front();
        }
        self.0.iter().map(|(_, amount)| u64::from(*amount)).sum()
    }

    fn admits(&mut self, quota: Quota, now_ns: i64, amount: u32) -> bool {
        let fits =
            self.taken(quota.window_ns, now_ns) + u64::from(amount) <= u64::from(quota.limit);
        if fits {
            self.0.push_back((now_ns, amount));
        }
        fits
    }
}

fn admits(limiter: &mut Limiter, quota: Quota, now_ns: i64, amount: u32) -> bool {
    let fits = amount <= limiter.available(quota, now_ns);
    if fits {
        limiter.take(quota, now_ns, amount);
    }
    fits
}

#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Take(u32),
    /// Correct one of the latest takes down to this many of a thousand.
    Correct(usize, u32),
    ChangeLimit(u32),
}

fn steps(window_ns: i64, limit: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..window_ns / 20).prop_map(Step::Wait),
        1 => (0..window_ns).prop_map(Step::Wait),
        // Around the instant at which a window or a slot ends.
        1 => (-2..2i64, prop_oneof![Just(window_ns), Just(window_ns / 100)])
            .prop_map(|(off, base)| Step::Wait((base + off).max(0))),
        8 => (0..=limit.min(limit / 3 + 2)).prop_map(Step::Take),
        2 => (0..8usize, 0..1000u32).prop_map(|(which, parts)| Step::Correct(which, parts)),
        1 => (1..200u32).prop_map(Step::ChangeLimit),
    ];
    prop::collection::vec(step, 1..120)
}

fn cases() -> impl Strategy<Value = (Quota, Vec<Step>)> {
    let windows = prop_oneof![
        Just(SECOND_NS),
        Just(MINUTE_NS),
        Just(HOUR_NS),
        Just(7_777_777_777)
    ];
    (windows, prop_oneof![1..=64u32, 65..=5_000u32]).prop_flat_map(|(window_ns, limit)| {
        (Just(Quota { limit, window_ns }), steps(window_ns, limit))
    })
}

/// I8: whatever happens, no trailing window holds more than the largest limit since it began.
fn never_above_the_limit(quota: Quota, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut quota = quota;
    let mut limiter = Limiter::new(Method::SlidingWindow);
    let mut taken: Vec<(i64, u32)> = Vec::new();
    let mut now = START;
    for step in steps {
        match *step {
            Step::Wait(ns) => now += ns,
            Step::ChangeLimit(limit) => {
                let to = Quota { limit, ..quota };
                limiter.change_limit(quota, to);
                quota = to;
            }
            Step::Correct(which, parts) => {
                let Some(index) = taken.len().checked_sub(which + 1) else {
                    continue;
                };
                let (at, amount) = taken[index];
                let actual = u32::try_from(u64::from(amount) * u64::from(parts) / 1000).unwrap();
                limiter.correct(quota, at, amount, actual);
                taken[index].1 = actual;
            }
            Step::Take(amount) => {
                if amount == 0 || !admits(&mut limiter, quota, now, amount) {
                    continue;
                }
                taken.push((now, amount));
                let since = now - quota.window_ns;
                let sum: u64 = taken
                    .iter()
                    .filter(|(at, _)| *at > since)
                    .map(|(_, n)| u64::from(*n))
                    .sum();
                prop_assert!(sum <= u64::from(quota.limit), "{sum} of {quota:?}");
            }
        }
    }
    Ok(())
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new_with_rng(
        Config {
            cases,
            // A planted bug need not be made small.
            max_shrink_iters: 200,
            failure_persistence: None,
            ..Config::default()
        },
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    )
}

#[test]
fn no_trailing_window_is_above_the_limit() {
    runner(1_500)
        .run(&cases(), |(quota, steps)| {
            never_above_the_limit(quota, &steps)
        })
        .unwrap();
}

#[test]
fn a_slot_that_expires_early_is_caught() {
    let found = planted::with(Some(Bug::SlotExpiresEarly), || {
        runner(1_500).run(&cases(), |(quota, steps)| {
            never_above_the_limit(quota, &steps)
        })
    });
    assert!(found.is_err());
}

#[test]
fn retry_after_is_exact() {
    let retries = |method| {
        move |(quota, steps): (Quota, Vec<Step>)| {
            let mut limiter = Limiter::new(method);
            let mut now = START;
            for step in steps {
                match step {
                    Step::Wait(ns) => now += ns,
                    Step::Take(amount) => {
                        let wait = limiter.retry_after(quota, now, amount);
                        let Some(wait) = wait else {
                            prop_assert!(amount > quota.limit);
                            continue;
                        };
                        prop_assert_eq!(wait == 0, amount <= limiter.available(quota, now));
                        prop_assert!(limiter.available(quota, now + wait) >= amount);
                        let early = now + wait - 1;
                        prop_assert!(wait == 0 || limiter.available(quota, early) < amount);
                        admits(&mut limiter, quota, now, amount);
                    }
                    Step::Correct(..) | Step::ChangeLimit(_) => {}
                }
            }
            Ok(())
        }
    };
    for method in Method::ALL {
        runner(300).run(&cases(), retries(method)).unwrap();
    }
}

#[test]
fn exact_up_to_64() {
    runner(300)
        .run(
            &(1..=64u32, prop::collection::vec(0..2 * SECOND_NS, 1..300)),
            |(limit, waits)| {
                let quota = Quota {
                    limit,
                    window_ns: MINUTE_NS,
                };
                let (mut limiter, mut exact) =
                    (Limiter::new(Method::SlidingWindow), ExactLog::default());
                let mut now = START;
                for wait in waits {
                    now += wait;
                    // A slot is 55 ns here: the same decision unless two moments are that close.
                    let ours = admits(&mut limiter, quota, now, 1);
                    prop_assert_eq!(ours, exact.admits(quota, now, 1));
                }
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn a_forgotten_idle_key_loses_nothing() {
    let idle = |method| {
        move |(quota, steps): (Quota, Vec<Step>)| {
            let mut limiter = Limiter::new(method);
            let mut now = START;
            for step in steps {
                match step {
                    Step::Wait(ns) => now += ns,
                    Step::Take(amount) => {
                        admits(&mut limiter, quota, now, amount);
                    }
                    Step::Correct(..) | Step::ChangeLimit(_) => {}
                }
                if limiter.is_idle(quota, now) {
                    for later in [0, 1, quota.window_ns / 2, quota.window_ns] {
                        prop_assert_eq!(limiter.available(quota, now + later), quota.limit);
                    }
                }
            }
            prop_assert!(limiter.is_idle(quota, now + 3 * quota.window_ns));
            Ok(())
        }
    };
    for method in Method::ALL {
        runner(200).run(&cases(), idle(method)).unwrap();
    }
}

/// The most that one trailing window admits when everyone asks all the time.
fn worst_window(method: Method, quota: Quota) -> u64 {
    let mut limiter = Limiter::new(method);
    let mut exact = ExactLog::default();
    let mut worst = 0;
    let tick = quota.window_ns / 1_000;
    // Quiet until just before a boundary: a fixed window's weak spot.
    let mut now = START.div_euclid(quota.window_ns) * quota.window_ns + quota.window_ns - tick;
    for _ in 0..3_000 {
        let amount = limiter.available(quota, now);
        limiter.take(quota, now, amount);
        exact.0.push_back((now, amount));
        worst = worst.max(exact.taken(quota.window_ns, now));
        now += tick;
    }
    worst
}

#[test]
fn what_the_methods_promise_under_attack() {
    for limit in [10, 1_000] {
        let quota = Quota {
            limit,
            window_ns: MINUTE_NS,
        };
        assert_eq!(worst_window(Method::SlidingWindow, quota), u64::from(limit));
        assert_eq!(
            worst_window(Method::FixedWindow, quota),
            2 * u64::from(limit)
        );
        let bucket = worst_window(Method::TokenBucket, quota);
        assert!(
            (u64::from(limit) * 18 / 10..=2 * u64::from(limit)).contains(&bucket),
            "{bucket}"
        );
    }
}

#[test]
fn corrections_count_when_taken() {
    let quota = Quota {
        limit: 1_000,
        window_ns: MINUTE_NS,
    };
    let mut limiter = Limiter::new(Method::SlidingWindow);
    limiter.take(quota, START, 900);
    limiter.take(quota, START + 30 * SECOND_NS, 100);
    assert_eq!(limiter.available(quota, START + 30 * SECOND_NS), 0);
    limiter.correct(quota, START, 900, 400);
    assert_eq!(limiter.available(quota, START + 30 * SECOND_NS), 500);
    limiter.correct(quota, START, 400, 450);
    assert_eq!(limiter.available(quota, START + 30 * SECOND_NS), 450);
    assert_eq!(
        limiter.available(quota, START + 61 * SECOND_NS),
        900,
        "its slot went whole"
    );
    limiter.correct(quota, START - 10 * MINUTE_NS, 900, 0);
    assert_eq!(
        limiter.available(quota, START + 61 * SECOND_NS),
        900,
        "nothing there to give back"
    );
    for method in [Method::FixedWindow, Method::TokenBucket] {
        let mut limiter = Limiter::new(method);
        limiter.take(quota, START, 900);
        limiter.correct(quota, START, 900, 100);
        assert_eq!(limiter.available(quota, START), 900);
        limiter.correct(quota, START, 100, 300);
        assert_eq!(limiter.available(quota, START), 700);
    }
}

#[test]
fn a_correction_of_nothing_reserved_counts() {
    let quota = Quota {
        limit: 1_000,
        window_ns: MINUTE_NS,
    };
    let mut limiter = Limiter::new(Method::SlidingWindow);
    limiter.take(quota, START, 0);
    limiter.correct(quota, START, 0, 70);
    assert_eq!(limiter.available(quota, START), 930);
    limiter.take(quota, START + 5 * SECOND_NS, 30);
    limiter.correct(quota, START + SECOND_NS, 0, 100);
    assert_eq!(limiter.available(quota, START + 5 * SECOND_NS), 800);
}

#[test]
fn a_long_quiet_log_moves_its_base() {
    let quota = Quota {
        limit: 8,
        window_ns: SECOND_NS,
    };
    let mut limiter = Limiter::new(Method::SlidingWindow);
    for second in 0..20 {
        limiter.take(quota, START + second * SECOND_NS * 3 / 4, 1);
        let Limiter::Sliding(log) = &limiter else {
            panic!()
        };
        assert!(log.slots.len() <= 3, "{log:?}");
    }
    assert_eq!(limiter.available(quota, START + 15 * SECOND_NS), 7);
}

#[test]
fn bursts_are_a_shorter_window_inside_the_limit() {
    let hour = Quota {
        limit: 3_600,
        window_ns: HOUR_NS,
    };
    let burst = hour.burst(15_000, 10 * SECOND_NS, 1);
    assert_eq!(
        burst,
        Some(Quota {
            limit: 15,
            window_ns: 10 * SECOND_NS
        })
    );
    let few = Quota {
        limit: 10,
        window_ns: HOUR_NS,
    };
    assert_eq!(
        few.burst(15_000, 10 * SECOND_NS, 1)
            .map(|quota| quota.limit),
        Some(1)
    );
    assert_eq!(
        few.burst(15_000, 10 * SECOND_NS, 4)
            .map(|quota| quota.limit),
        Some(4)
    );
    assert_eq!(
        few.burst(15_000, 10 * SECOND_NS, 10),
        None,
        "no slower than the limit itself"
    );
    let second = Quota {
        limit: 5,
        window_ns: SECOND_NS,
    };
    assert_eq!(second.burst(15_000, 10 * SECOND_NS, 1), None);
}

#[test]
fn quotas_and_methods_are_checked() {
    assert!(Quota {
        limit: 0,
        window_ns: MINUTE_NS
    }
    .is_valid());
    assert!(!Quota {
        limit: 1,
        window_ns: 0
    }
    .is_valid());
    assert!(!Quota {
        limit: 1,
        window_ns: MAX_RATE_WINDOW_NS + 1
    }
    .is_valid());
    for (code, method) in (0..).zip(Method::ALL) {
        assert_eq!(Method::from_code(code), Some(method));
        assert!(!method.name().is_empty());
        let nothing = Quota {
            limit: 0,
            window_ns: MINUTE_NS,
        };
        assert_eq!(Limiter::new(method).available(nothing, START), 0);
        assert_eq!(Limiter::new(method).retry_after(nothing, START, 1), None);
        assert_eq!(Limiter::new(method).retry_after(nothing, START, 0), Some(0));
    }
    assert_eq!(Method::from_code(9), None);
}

fn traces() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    Some(root.parent()?.join("shared/data/traces")).filter(|folder| folder.is_dir())
}

/// Arrivals of a trace: elapsed nanoseconds and tokens.
fn arrivals(file: &Path) -> Vec<(i64, u32)> {
    let text = std::fs::read_to_string(file).expect("a readable trace");
    let row = |line: &str| {
        let mut cells = line.split(',');
        let seconds: f64 = cells.next()?.parse().ok()?;
        let tokens: u32 = cells
            .map(|cell| cell.parse::<u32>().ok())
            .sum::<Option<u32>>()?;
        Some((START + (seconds * 1e9) as i64, tokens))
    };
    text.lines()
        .skip(1)
        .map(|line| row(line).unwrap_or_else(|| panic!("{line}")))
        .collect()
}

/// Admitted by the slot log and by an exact log: (ours, exact), in units of the quota.
fn compare(quota: Quota, arrivals: &[(i64, u32)]) -> (u64, u64) {
    let (mut ours, mut truth) = (Limiter::new(Method::SlidingWindow), ExactLog::default());
    let mut check = ExactLog::default();
    let (mut by_ours, mut by_truth) = (0, 0);
    for &(at, amount) in arrivals {
        if admits(&mut ours, quota, at, amount) {
            by_ours += u64::from(amount);
            assert!(check.admits(quota, at, amount), "above {quota:?} at {at}");
        }
        if truth.admits(quota, at, amount) {
            by_truth += u64::from(amount);
        }
    }
    (by_ours, by_truth)
}

#[test]
fn on_real_traces_at_least_99_percent_of_an_exact_log() {
    let Some(folder) = traces() else {
        eprintln!("skipped: no ../shared/data/traces beside this checkout");
        return;
    };
    for file in ["azure2023_code.csv", "azure2023_conv.csv"] {
        let tokens = arrivals(&folder.join(file));
        let requests: Vec<(i64, u32)> = tokens.iter().map(|(at, _)| (*at, 1)).collect();
        let length = tokens.last().expect("rows").0 - START;
        for (unit, arrivals) in [("requests", &requests), ("tokens", &tokens)] {
            let total: u64 = arrivals.iter().map(|(_, amount)| u64::from(*amount)).sum();
            for window_ns in [MINUTE_NS, 10 * MINUTE_NS] {
                for percent in [30, 60, 90, 120] {
                    let pace = i128::from(total) * i128::from(window_ns) / i128::from(length);
                    let limit = u32::try_from(pace * percent / 100).unwrap();
                    let quota = Quota { limit, window_ns };
                    let (by_ours, by_exact) = compare(quota, arrivals);
                    println!(
                        "{file} {unit} {limit} in {} s: {by_ours} of {by_exact}, {:.2}%",
                        window_ns / SECOND_NS,
                        100.0 * by_ours as f64 / by_exact as f64
                    );
                    assert!(by_ours * 100 >= by_exact * 99, "{file} {unit} {quota:?}");
                }
            }
        }
    }
}
